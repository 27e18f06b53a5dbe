"""What the experiments of lab 3.1.9 say, read off by code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ftlib.course.lab_3_1_9.experiments import METHODS, NOISE, noise_arm
from ftlib.course.records.live import Result

NOT_MEASURED = "not measured here"


def rates_line(result: Result, series: Mapping[str, Mapping[float, str]]) -> str:
    """The best rate of every series by win rate; says where it lies at the edge of the grid."""
    if not result.arms:
        return result.why
    texts = []
    for name, arms in series.items():
        rates = sorted(arms)
        wins = [result.means(arms[rate], "wins").mean() for rate in rates]
        best = int(np.argmax(wins))
        is_inside = 0 < best < len(rates) - 1
        edge = "" if is_inside else ", **at the grid's edge: the best may lie beyond**"
        texts.append(f"{name}: {wins[best]:.0%} at rate {rates[best]:.2g}{edge}")
    few = f"{len(result.seeds)} seeds" if len(result.seeds) > 1 else "one seed"
    return (
        f"Best rates. {'; '.join(texts)}. With {few} a point and few questions two neighbouring "
        "rates are hardly told apart: read the hill, not the dot."
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


def loses_least(result: Result) -> str:
    """The method whose mean win rate falls least; an order of means, not a test."""
    lost = losses_to_noise(result)
    return min(lost, key=lost.__getitem__)


def listed(result: Result, metric: str, arms: Sequence[str], form: str) -> str:
    """The metric's mean of each arm in a line."""
    return ", ".join(f"{arm}: {result.means(arm, metric).mean():{form}}" for arm in arms)


def answers_table(result: Result, arms: Sequence[str]) -> list[dict[str, str]]:
    """Of each of the arms what its answers are like and how far it has gone from the reference."""
    table = []
    for arm in arms:
        table.append(
            {
                "run": arm,
                "win rate": f"{result.means(arm, 'wins').mean():.0%}",
                "polite": f"{result.means(arm, 'polite').mean():.0%}",
                "polite, sampled": f"{result.means(arm, 'polite_sampled').mean():.0%}",
                "facts right": f"{result.means(arm, 'right').mean():.0%}",
                "words": f"{result.means(arm, 'words').mean():.1f}",
                "KL (nats)": f"{result.means(arm, 'kl').mean():.1f}",
            }
        )
    return table


def drift_line(result: Result) -> str:
    """Where the drifted policy begins: its wins, and z0 from batch to batch."""
    arm = "far: right"
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
