"""What the experiments of lab 3.1.9 say, read off by code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ftlib.course.lab_3_1_9.experiments import METHODS, NOISE, START, TIE, noise_arm, point_arm
from ftlib.course.lab_3_1_9.reference_points import AS_GOOD_AS_ZERO, RIGHT
from ftlib.course.lab_3_1_9.trials import HALF_PULL
from ftlib.course.records.live import Result

NOT_MEASURED = "not measured here"
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
    texts = [f"{name}: {_rate_text(result, arms)}" for name, arms in series.items()]
    few = f"{len(result.seeds)} seeds" if len(result.seeds) > 1 else "one seed"
    return (
        f"Best rates. {'; '.join(texts)}. With {few} a point and few questions two neighbouring "
        f"rates are hardly told apart, so the lowest rate is taken whose gain over one half is "
        f"within {TIE:.0%} of the best, by this one rule for all."
    )


def _rate_text(result: Result, arms: Mapping[float, str]) -> str:
    rates = sorted(arms)
    wins = np.array([result.means(arms[rate], "wins").mean() for rate in rates])
    best = int(wins.argmax())
    gains = wins - START
    chosen = int(np.argmax(gains >= gains[best] - TIE * abs(gains[best])))
    is_inside = 0 < best < len(rates) - 1
    edge = "" if is_inside else ", **at the grid's edge: the best may lie beyond**"
    return (
        f"{wins[best]:.0%} at rate {rates[best]:.2g}{edge}; taken {rates[chosen]:.2g}, "
        f"{wins[chosen]:.0%}"
    )


def ahead(result: Result, claim: str, above: str, below: str, none: str = "n") -> str:
    """The letter of a claim's outcome, as a guess takes it; "open" below five seeds."""
    outcome = result.decisions()[claim].outcome
    return {"above": above, "below": below, "none": none, "open": "open"}[outcome]


def losses_to_noise(result: Result) -> dict[str, float]:
    """What each method's win rate loses on average from the least noise to the most."""
    lost = {}
    for method in METHODS:
        clean, *_, worst = [
            result.means(noise_arm(method, noise), "wins").mean() for noise in NOISE
        ]
        lost[method] = float(clean - worst)
    return lost


def losses_line(result: Result) -> str:
    """The same in words."""
    if not result.arms:
        return NOT_MEASURED
    lost = losses_to_noise(result)
    by_method = ", ".join(f"{method} {100 * loss:.0f}" for method, loss in lost.items())
    return (
        f"Points of win rate lost on average from {NOISE[0]:.0%} to {NOISE[-1]:.0%} wrong: "
        f"{by_method}."
    )


def listed(result: Result, metric: str, arms: Sequence[str], form: str) -> str:
    """The metric's mean of each arm in a line."""
    if not all(result.has(arm) for arm in arms):
        return NOT_MEASURED
    return ", ".join(f"{arm}: {result.means(arm, metric).mean():{form}}" for arm in arms)


def distance_line(result: Result, arms: Sequence[str]) -> str:
    """How far each arm has moved: a comparison of runs that moved unequally far is one of methods
    with their rates.
    """
    return f"KL from the reference, nats an answer: {listed(result, 'kl', arms, '.1f')}."


def at_zero_line(result: Result, arms: Sequence[str]) -> str:
    """In how many steps the right z0 is no other than z0 = 0."""
    return (
        f"Share of the steps in which z0 is at most {AS_GOOD_AS_ZERO:g} nats: "
        f"{listed(result, 'z0_at_0', arms, '.0%')}."
    )


def wrong_side_line(result: Result, arms: Sequence[str]) -> str:
    """How many rows KTO pulls at half as hard as at z0, or less, because they look hopeless."""
    return (
        f"Share of the rows in the last third of the steps that are more than {HALF_PULL:.0f} nats "
        f"on the wrong side of z0: {listed(result, 'wrong_side', arms, '.1%')}."
    )


def answers_table(
    result: Result, arms: Sequence[str], start: Mapping[str, float] | None = None
) -> list[dict[str, str]]:
    """Of each of the arms what its answers are like and, where it is measured, how far it has gone
    from the reference. `start`: the same of the start, for a first row.
    """
    measured = {metric.name for metric in result.experiment.metrics}
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
    return {heading: f"{means[name]:{form}}" for heading, name, form in columns}


def drift_line(result: Result) -> str:
    """Where the drifted policy begins: its wins, and z0 from batch to batch."""
    arm = point_arm(RIGHT)
    if not result.has(arm):
        return NOT_MEASURED
    points = np.maximum(0.0, result.values(arm, "mismatched"))  # (seeds, steps)
    beta = result.settings(arm)["beta"]
    wins = [result.record.entries[arm, seed].metrics["wins_before"] for seed in result.seeds]
    low, middle, high = np.quantile(points, [0.1, 0.5, 0.9])
    return (
        f"Far: z0 is {points.mean():.1f} nats on average, and from batch to batch between "
        f"{low:.1f} and {high:.1f} (middle 80%, median {middle:.1f}); β·z0 is "
        f"{beta * points.mean():.1f} on average. Before KTO the drifted policy wins "
        f"{np.mean(wins):.0%} against the start."
    )


def lengths_table(result: Result) -> list[dict[str, str]]:
    """The batches before the first step, in two halves by the length of their rows: z0, and how
    much of the steepest pull there is with the right z0 and with 0.
    """
    arm = point_arm(RIGHT)
    if not result.has(arm):
        return [{"batches": NOT_MEASURED}]
    settings = result.settings(arm)
    steepest = settings["beta"] / 4 * result.profile.preference.batch  # a batch's, summed
    count = result.values(arm, "lengths").shape[1]
    halves = {"shorter": slice(0, count // 2), "longer": slice(count // 2, count)}
    table = []
    for name, half in halves.items():
        means = {}
        for metric in ("lengths", "z0_before", "pull_right", "pull_zero"):
            means[metric] = result.values(arm, metric)[:, half].mean()
        table.append(
            {
                "batches": f"{name} half",
                "tokens a row": f"{means['lengths']:.0f}",
                "z0 (nats)": f"{means['z0_before']:.1f}",
                "pull, z0 right": f"{means['pull_right'] / steepest:.0%}",
                "pull, z0 always 0": f"{means['pull_zero'] / steepest:.0%}",
            }
        )
    return table
