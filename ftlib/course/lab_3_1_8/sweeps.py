"""What the sweeps of lab 3.1.8 say, read off by code, and what their choices were worth."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ftlib.course.lab_3_1_8.experiments import (
    METHODS,
    arms_of,
    best_rate,
    best_trial,
    rates_of,
    setting_arms,
)
from ftlib.course.lab_3_1_8.lines import not_run
from ftlib.course.lab_3_1_8.readings import DPO_AT_SIMPO
from ftlib.course.plots import style
from ftlib.course.records.live import Result, open_experiments
from ftlib.course.records.shown import whose, with_arms

SETTING = {"DPO": "beta", "ORPO": "lam"}  # what a loss has besides its rate
NAMES = {"beta": "β", "lam": "λ"}
NEAR = 1.25  # times the best rate's faults: a rate within this is as good as the best


def faults_of(result: Result, arm: str) -> float:
    """Mean faults of an arm."""
    return float(result.means(arm, "faults").mean())


def rates_line(result: Result) -> str:
    """Best rate of every loss, whether it lies inside the grid, and how wide the valley is."""
    if not result.arms:
        return result.why
    texts = []
    for name in METHODS:
        arms = rates_of(result.profile, name)
        places = sorted(rate for rate in arms if result.has(arms[rate]))
        if not places:
            continue
        faults = [faults_of(result, arms[rate]) for rate in places]
        lowest = int(np.argmin(faults))
        wide = sum(value <= NEAR * faults[lowest] for value in faults)
        inside = 0 < lowest < len(places) - 1
        edge = "" if inside else ", **at the grid's edge: the true best may lie beyond**"
        texts.append(
            f"{name}: {faults[lowest]:.2f} faults at {places[lowest]:.2g}, {wide} of "
            f"{len(places)} rates within a quarter of it{edge}"
        )
    return f"{whose(result)}{'; '.join(texts)}. Seeds per rate: {len(result.seeds)}."


def in_profile_of(result: Result, other: Result) -> Result:
    """The sweep `result` in the profile of `other`, whose runs may be tiny's where a profile has
    made the one sweep and not the other.
    """
    if result.profile == other.profile:
        return result
    return open_experiments(result.record.lab, other.profile).show(result.experiment.name)


def setting_places(rates: Result, more: Result, name: str) -> dict[float, float]:
    """{value of β or λ: faults} of DPO or ORPO, with the default from the sweep over rates."""
    setting = SETTING[name]
    arms = setting_arms(more.profile)
    found = {}
    for arm in arms_of(arms, name):
        if more.has(arm):
            found[arms[arm][setting]] = faults_of(more, arm)
    best = best_rate(more.profile, name)
    default = rates_of(rates.profile, name)[best["lr"]]
    if rates.has(default):
        found[best[setting]] = faults_of(rates, default)
    return dict(sorted(found.items()))


def simpo_places(rates: Result, more: Result) -> dict[str, float]:
    """{"β, γ/β": faults} of SimPO, the default among them."""
    arms = setting_arms(more.profile)
    best = best_rate(more.profile, "SimPO")
    found = {}
    default = rates_of(rates.profile, "SimPO")[best["lr"]]
    if rates.has(default):
        found[f"{best['beta']:g}, {best['ratio']:g}"] = faults_of(rates, default)
    for arm in arms_of(arms, "SimPO"):
        if more.has(arm):
            found[f"{arms[arm]['beta']:g}, {arms[arm]['ratio']:g}"] = faults_of(more, arm)
    return found


def draw_settings(rates: Result, more: Result) -> Figure:
    """Faults over β, λ, and SimPO's pairs of β and γ/β, each at the best rate."""
    rates = in_profile_of(rates, more)
    figure, axes = plt.subplots(1, 3, figsize=(9.4, 3.2), sharey=True)
    for i, name in enumerate(SETTING):
        places = setting_places(rates, more, name)
        axes[i].plot(list(places), list(places.values()), **style(i))
        axes[i].set(title=name, xlabel=NAMES[SETTING[name]], xscale="log")
    pairs = simpo_places(rates, more)
    look = {**style(2), "linestyle": "none"}
    axes[2].plot(range(len(pairs)), list(pairs.values()), **look)
    axes[2].set_xticks(range(len(pairs)), list(pairs), rotation=30)
    axes[2].set(title="SimPO", xlabel="β, γ/β")
    axes[0].set_ylabel("faults per answer, validation prompts")
    if more.shown_in:
        figure.suptitle("runs of tiny", fontsize=8, x=0.99, ha="right")
    return figure


def settings_line(rates: Result, more: Result) -> str:
    """Which setting is best, which others tie with it, and by how much it matters."""
    if not more.arms or not rates.arms:
        return more.why or rates.why
    rates = in_profile_of(rates, more)
    texts = []
    for name in SETTING:
        places = setting_places(rates, more, name)
        best = min(places, key=places.__getitem__)
        edge = " (the grid's edge)" if best in (min(places), max(places)) else ""
        named = {f"{value:g}": faults for value, faults in places.items()}
        texts.append(f"{name}: best at {NAMES[SETTING[name]]} = {best:g}{edge}{_rest(named)}")
    pairs = {f"({pair})": faults for pair, faults in simpo_places(rates, more).items()}
    best_pair = min(pairs, key=pairs.__getitem__)
    texts.append(f"SimPO: best at (β, γ/β) = {best_pair}{_rest(pairs)}")
    return f"{whose(more)}{'; '.join(texts)}."


def _rest(places: dict[str, float]) -> str:
    """What ties with the best setting, and how far it is from the best to the worst."""
    best = min(places, key=places.__getitem__)
    lowest = places[best]
    tied = [name for name, faults in places.items() if faults == lowest and name != best]
    also = ""
    if tied:
        also = f", exactly tied with {', '.join(tied)} ({lowest:.5g} faults each)"
    return f"{also}, and {max(places.values()) - lowest:.2f} faults between best and worst"


# --- validation against test ----------------------------------------------------------------------
def validation_rows(rates: Result, more: Result, methods: Result) -> list[dict[str, str]]:
    """A table's rows: the faults of each method's chosen trial on the validation prompts, by which
    it was chosen, and on the test prompts.
    """
    rows = []
    sweeps = {"rates": in_profile_of(rates, methods), "settings": in_profile_of(more, methods)}
    for name in METHODS:
        if not methods.has(name):
            continue
        experiment, arm = best_trial(methods.profile, name)
        if not experiment:  # a profile without the second sweep takes the best rate of the first
            experiment = "rates"
            arm = rates_of(methods.profile, name)[methods.settings(name)["lr"]]
        seen = "not recorded"
        if sweeps[experiment].profile == methods.profile and sweeps[experiment].has(arm):
            seen = f"{faults_of(sweeps[experiment], arm):.2f}"
        row = {"method": name, "chosen": arm.removeprefix(f"{name}, ")}
        row["faults on validation prompts"] = seen
        row["faults on test prompts"] = str(methods.interval(name, "faults"))
        rows.append(row)
    return rows


def rate_line(result: Result) -> str:
    """Whether the rate that validation chose for DPO is the better of two on the test prompts."""
    result = with_arms(result, "DPO", DPO_AT_SIMPO)
    if not result.has(DPO_AT_SIMPO):
        return not_run(result, DPO_AT_SIMPO)
    chosen = result.interval("DPO", "faults")
    other = result.interval(DPO_AT_SIMPO, "faults")
    said = (
        f"{whose(result)}DPO makes {chosen} faults at the rate chosen for it, and {other} at "
        "SimPO's."
    )
    if other.mean < chosen.mean:
        said += (
            " On the test prompts its chosen rate is, by the means, the worse of the two: few "
            "seeds and prompts had chosen it. “Each at its best” then compares the rates as well."
        )
    return said
