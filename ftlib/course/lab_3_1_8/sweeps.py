"""What the sweeps and the comparisons of lab 3.1.8 say, read off by code."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ftlib.course.lab_3_1_8.experiments import (
    METHODS,
    arms_of,
    best_rate,
    rates_of,
    setting_arms,
)
from ftlib.course.lab_3_1_8.readings import DPO_AT_SIMPO
from ftlib.course.plots import style
from ftlib.course.records.live import Result

SETTING = {"DPO": "beta", "ORPO": "lam"}  # what a loss has besides its rate
NAMES = {"beta": "β", "lam": "λ"}
NEAR = 1.25  # times the best rate's faults: a rate within this is as good as the best
SMALL = 0.1  # faults an answer: a smaller difference is not interpreted
SORTS = {"wrong": "wrong facts", "missing": "facts left out", "unwanted": "sentences too many"}


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
        places = sorted(arms)
        faults = [faults_of(result, arms[rate]) for rate in places]
        lowest = int(np.argmin(faults))
        wide = sum(value <= NEAR * faults[lowest] for value in faults)
        inside = 0 < lowest < len(places) - 1
        edge = "" if inside else ", **at the grid's edge: the true best may lie beyond**"
        texts.append(
            f"{name}: {faults[lowest]:.2f} faults at {places[lowest]:.2g}, {wide} of "
            f"{len(places)} rates within a quarter of it{edge}"
        )
    return f"{'; '.join(texts)}."


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
    axes[0].set_ylabel("faults an answer, validation prompts")
    return figure


def settings_line(rates: Result, more: Result) -> str:
    """Which setting is best, and by how much it matters."""
    if not more.arms or not rates.arms:
        return more.why or rates.why
    texts = []
    for name in SETTING:
        places = setting_places(rates, more, name)
        best = min(places, key=places.__getitem__)
        spread = max(places.values()) - min(places.values())
        edge = " (the grid's edge)" if best in (min(places), max(places)) else ""
        texts.append(
            f"{name}: best at {NAMES[SETTING[name]]} = {best:g}{edge}, and {spread:.2f} faults "
            "between best and worst"
        )
    pairs = simpo_places(rates, more)
    best_pair = min(pairs, key=pairs.__getitem__)
    spread = max(pairs.values()) - min(pairs.values())
    texts.append(
        f"SimPO: best at β, γ/β = {best_pair}, and {spread:.2f} faults between best and worst"
    )
    return f"{'; '.join(texts)}."


def by_length_line(result: Result) -> str:
    """How many pairs each score ranks right after training, by which answer is the longer one."""
    if not result.arms:
        return result.why
    texts = []
    for arm in result.arms:
        longer = result.interval(arm, "accuracy_longer").percent()
        shorter = result.interval(arm, "accuracy_shorter").percent()
        idle = result.interval(arm, "idle").percent()
        texts.append(
            f"with {arm} {longer} of the pairs whose chosen answer is longer are ranked right, "
            f"{shorter} of those whose chosen answer is shorter; at the start {idle} of the pairs "
            "had a weight below 1%"
        )
    return f"After training, by each arm's own score: {'. And '.join(texts)}."


def sorts_line(result: Result) -> str:
    """By which sort of fault SimPO and the baseline differ most."""
    gaps = {}
    for sort in SORTS:
        simpo = result.means("SimPO", sort).mean()
        gaps[sort] = simpo - result.means("SFT on chosen", sort).mean()
    largest = max(gaps, key=_size_in(gaps))
    words = "fewer" if gaps[largest] < 0 else "more"
    listed = ", ".join(f"{SORTS[sort]} {gap:+.2f}" for sort, gap in gaps.items())
    line = f"SimPO less SFT on chosen, faults an answer: {listed}."
    if abs(gaps[largest]) < SMALL:
        return f"{line} None of the sorts differs by much."
    if largest == "wrong":
        return (
            f"{line} The difference is one of *facts*: {words} of them are wrong. Form, what is "
            "left out or said twice, is what imitation teaches as well."
        )
    return (
        f"{line} The largest difference is in form, {words} {SORTS[largest]}: what the comparison "
        "of rumour and truth says nothing about. Read the answers below before you trust the total."
    )


def _size_in(gaps: dict[str, float]):
    def size(sort: str) -> float:
        return abs(gaps[sort])

    return size


def rate_line(result: Result) -> str:
    """Whether the rate that validation chose for DPO is the better of two on the test prompts."""
    if not result.has(DPO_AT_SIMPO):
        return result.why
    chosen = result.interval("DPO", "faults")
    other = result.interval(DPO_AT_SIMPO, "faults")
    said = f"DPO makes {chosen} faults at the rate chosen for it, and {other} at SimPO's."
    if other.mean < chosen.mean:
        said += (
            " Two seeds and 24 prompts had placed its rate badly: “each at its best” would have "
            "called SimPO the better loss, and it would have been the rate."
        )
    return said
