"""What the experiments of lab 3.1.9 say, read off by code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ftlib.core.paths import stand_in
from ftlib.core.profiles import Profile
from ftlib.core.stats import mean_interval
from ftlib.course.lab_3_1_9.experiments import (
    METHODS,
    NOISE,
    SFT_ON_UPS,
    START,
    TIE,
    UNEVEN,
    at_rate_of,
    noise_arm,
)
from ftlib.course.lab_3_1_9.measures import asked_rows, first_answers, start_measures
from ftlib.course.lab_3_1_9.reference_points import AS_GOOD_AS_ZERO
from ftlib.course.lab_3_1_9.trials import HALF_PULL
from ftlib.course.records.live import Result
from ftlib.course.records.shown import whose
from ftlib.course.world import describe_answers

NOT_MEASURED = "not measured here"
LOWER_EDGE = ", **the grid's lower edge**"
OF_MANNERS = {"polite", "polite_sampled", "right"}
COLUMNS = (  # heading, metric, form
    ("win rate", "wins", ".0%"),
    ("polite", "polite", ".0%"),
    ("polite, sampled", "polite_sampled", ".0%"),
    ("facts right", "right", ".0%"),
    ("words", "words", ".1f"),
    ("KL (nats)", "kl", ".1f"),
)


def rates_line(result: Result, series: Mapping[str, Mapping[float, str]]) -> str:
    """The best rate of every series by win rate, and the one that is chosen; says where the best
    lies at the edge of the grid.
    """
    if not result.arms:
        return result.why
    texts = []
    for name, arms in series.items():
        if _places(result, arms):
            texts.append(f"{name}: {_rate_text(result, arms)}")
    line = (
        f"{whose(result)}Best rates. {'; '.join(texts)}. With {seeds_text(result)} per point and "
        f"few questions two neighbouring rates hardly differ here, so the lowest rate is "
        f"taken whose gain over one half is within {TIE:.0%} of the best, by one rule for all. "
        f"That two tie here does not say that they tie on other questions."
    )
    if any(LOWER_EDGE in text for text in texts):
        line += " Where the grid's lowest rate is taken, the rule might have taken a lower one."
    return line


def seeds_text(result: Result) -> str:
    """How many seeds every arm has."""
    return f"{len(result.seeds)} seeds" if len(result.seeds) > 1 else "one seed"


def _places(result: Result, arms: Mapping[float, str]) -> list[float]:
    """The rates that were run, from the lowest to the highest."""
    return sorted(rate for rate in arms if result.has(arms[rate]))


def _best_and_taken(result: Result, arms: Mapping[float, str]) -> tuple[np.ndarray, int, int]:
    """Mean win rates from the lowest rate to the highest, and the places among them of the best and
    of the one that the rule takes.
    """
    rates = _places(result, arms)
    wins = np.array([result.means(arms[rate], "wins").mean() for rate in rates])
    best = int(wins.argmax())
    gains = wins - START
    taken = int(np.argmax(gains >= gains[best] - TIE * abs(gains[best])))
    return wins, best, taken


def _is_edge(place: int, count: int) -> bool:
    return place in (0, count - 1)


def _rate_text(result: Result, arms: Mapping[float, str]) -> str:
    rates = _places(result, arms)
    wins, best, taken = _best_and_taken(result, arms)
    edge = ""
    if _is_edge(best, len(rates)):
        edge = ", **at the grid's edge: the best may lie beyond**"
    text = f"{wins[best]:.0%} at rate {rates[best]:.2g}{edge}; taken {rates[taken]:.2g}, "
    text += f"{wins[taken]:.0%}"
    if taken == 0:
        text += LOWER_EDGE
    return text


def ring_taken(ax: Axes, result: Result, series: Mapping[str, Mapping[float, str]]) -> None:
    """A ring around every rate that was taken, a square where it lies at the grid's edge."""
    if not result.arms:
        return
    look: dict[str, Any] = {
        "markerfacecolor": "none",
        "color": "black",
        "linestyle": "none",
        "markersize": 13,
    }
    for arms in series.values():
        rates = _places(result, arms)
        if not rates:
            continue
        wins, _, taken = _best_and_taken(result, arms)
        marker = "s" if _is_edge(taken, len(rates)) else "o"
        ax.plot(rates[taken], 100 * wins[taken], marker=marker, **look)
    look["markersize"] = 8
    ax.plot([], [], marker="o", label="taken", **look)
    ax.plot([], [], marker="s", label="taken, at the grid's edge", **look)
    ax.legend(fontsize="small")


def ahead(result: Result, claim: str, above: str, below: str, none: str = "n") -> str:
    """The letter of a claim's outcome, as a guess takes it; "open" below five seeds."""
    outcome = result.outcome(claim)
    return {"above": above, "below": below, "none": none, "open": "open"}[outcome]


def first_measured(result: Result, *claims: str) -> str:
    """The first of the claims whose arms all have runs; the last one where none has."""
    for claim in claims:
        if set(result.experiment.claim(claim).contrast.arms) <= set(result.arms):
            return claim
    return claims[-1]


def losses_to_noise(result: Result) -> dict[str, np.ndarray]:
    """What the win rate loses from the least noise to the most, one number a seed: of each method,
    and of DPO at KTO's rate.
    """
    lost = {}
    for method in METHODS:
        clean = result.means(noise_arm(method, NOISE[0]), "wins")
        worst = result.means(noise_arm(method, NOISE[-1]), "wins")
        lost[method] = clean - worst
    clean = result.means(at_rate_of("DPO", NOISE[0], "KTO"), "wins")
    lost["DPO at KTO's rate"] = clean - result.means(at_rate_of("DPO", NOISE[-1], "KTO"), "wins")
    return lost


def losses_line(result: Result) -> str:
    """The same in words, with intervals."""
    if not result.has(noise_arm("KTO", NOISE[-1])):
        return NOT_MEASURED
    lost = losses_to_noise(result)
    by_method = "; ".join(f"{name} {interval_text(100 * loss)}" for name, loss in lost.items())
    return (
        f"{whose(result)}Points of win rate lost from {NOISE[0]:.0%} to {NOISE[-1]:.0%} wrong, "
        f"mean with 95% interval: {by_method}."
    )


def interval_text(values: np.ndarray, form: str = ".0f") -> str:
    """The mean of one value a seed, with its interval where there are two seeds at least."""
    if len(values) < 2:
        return f"{values.mean():{form}}"
    found = mean_interval(values)
    return f"{found.mean:{form}} [{found.low:{form}}, {found.high:{form}}]"


def paired_line(result: Result, first: str, second: str) -> str:
    """first − second, paired by seed, in manners, facts and words: what a win rate may hide."""
    if not result.has(first) or not result.has(second):
        return NOT_MEASURED
    texts = []
    compared = [("words per answer", "words", 1)]
    if has_manners(result.profile):
        polite = ("polite answers", "polite", 100)
        compared = [polite, ("right facts", "right", 100), *compared]
    for name, metric, scale in compared:
        apart = scale * (result.means(first, metric) - result.means(second, metric))
        unit = " points" if scale == 100 else ""
        texts.append(f"{name} {interval_text(apart, '+.1f')}{unit}")
    return (
        f"{whose(result)}{first} − {second}, paired by seed, each with its own 95% interval: "
        f"{', '.join(texts)}."
    )


def uneven_rates_line(result: Result) -> str:
    """At which rates the sets of thumbs and SFT run."""
    if not result.arms:
        return NOT_MEASURED
    rates = {name: result.settings(name)["lr"] for name in UNEVEN}
    listed_rates = "; ".join(f"{name}: {rate:.2g}" for name, rate in rates.items())
    own = rates.pop(SFT_ON_UPS)
    times = sorted({round(own / rate, 3) for rate in rates.values()})
    line = f"{whose(result)}Rates taken: {listed_rates}."
    if times == [1.0]:
        return f"{line} So all run at one rate."
    factors = " and ".join(f"{factor:g}" for factor in times)
    return f"{line} SFT's is {factors} times KTO's."


def share_up_line(result: Result) -> str:
    """The share of the pull that is on thumbs up, and what it is a share of."""
    names = [name for name in UNEVEN if name != SFT_ON_UPS]
    return (
        f"{whose(result)}Pull on the thumbs up (weight times slope) as a share of the pull on all "
        f"rows of the step, mean over steps: {listed(result, 'share_up', names, '.0%')}. A step "
        f"that has no thumb up counts as 0: there is one per step on average, not in each."
    )


def listed(result: Result, metric: str, arms: Sequence[str], form: str) -> str:
    """The metric's mean of each arm that has runs, in a line."""
    there = [arm for arm in arms if result.has(arm)]
    if not there:
        return NOT_MEASURED
    return "; ".join(f"{arm}: {result.means(arm, metric).mean():{form}}" for arm in there)


def distance_line(result: Result, arms: Sequence[str]) -> str:
    """How far each arm has moved: a comparison of runs that moved unequally far is one of methods
    with their rates.
    """
    distances = listed(result, "kl", arms, ".1f")
    return f"{whose(result)}KL from the reference, nats per answer: {distances}."


def at_zero_line(result: Result, arms: Sequence[str]) -> str:
    """In how many steps the right z0 is no other than z0 = 0."""
    return (
        f"{whose(result)}Share of the steps in which z0 is at most {AS_GOOD_AS_ZERO:g} nats: "
        f"{listed(result, 'z0_at_0', arms, '.0%')}."
    )


def wrong_side_line(result: Result, arms: Sequence[str]) -> str:
    """How many rows KTO pulls at half as hard as at z0, or less, because they look hopeless."""
    shares = listed(result, "wrong_side", arms, ".1%")
    return (
        f"{whose(result)}Share of the rows in the last third of the steps that are more than "
        f"{HALF_PULL:.0f} nats on the wrong side of z0: {shares}."
    )


def has_manners(profile: Profile) -> bool:
    """Whether the profile's answers are polite or rude, with facts to be right about."""
    return all("facts" in row for row in asked_rows(profile, "test"))


def start_row(result: Result) -> dict[str, Any] | None:
    """What the start of these runs is like, by names of metrics; None where its model is not here
    (FTLIB_MODEL).
    """
    profile = result.profile
    if stand_in(profile.model, given=False) != profile.model:
        return None if result.shown_in else dict(start_measures(profile, "test"))
    if has_manners(profile):
        return dict(start_measures(profile, "test"))
    said = list(first_answers(profile, "test"))
    words = describe_answers(list(asked_rows(profile, "test")), said)["words"]
    return {"wins": START, "words": words, "kl": 0.0}  # against itself


def answers_table(
    result: Result, arms: Sequence[str], start: Mapping[str, float] | None = None
) -> list[dict[str, str]]:
    """Of each of the arms what its answers are like and, where it is measured, how far it has gone
    from the reference; no manners where the rows have none. `start`: the same of the start, for a
    first row.
    """
    measured = {metric.name for metric in result.experiment.metrics}
    if not has_manners(result.profile):
        measured -= OF_MANNERS
    columns = [column for column in COLUMNS if column[1] in measured]
    table = []
    if start is not None:
        table.append({"run": "the start", **_texts(start, columns)})
    for arm in arms:
        if result.has(arm):
            means = {name: result.means(arm, name).mean() for _, name, _ in columns}
            table.append({"run": arm, **_texts(means, columns)})
    return table


def _texts(means: Mapping[str, float], columns: Sequence[tuple[str, str, str]]) -> dict[str, str]:
    return {heading: f"{means[name]:{form}}" for heading, name, form in columns if name in means}
