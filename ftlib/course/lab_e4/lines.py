"""What the experiments of lab E4 say, read off by code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ftlib.core.stats import mean_interval
from ftlib.course.plots import style
from ftlib.course.records.claims import LEVEL
from ftlib.course.records.live import Result

SMALLEST = (
    "The smallest mean difference that these seeds could show, at the spread they had, by one "
    "comparison alone and by Holm's method at most; in nats per token, manners as a share"
)
LETTERS = {"below": "a", "none": "b", "above": "c", "open": "?"}


def letters(result: Result, claims: Sequence[str]) -> str:
    """A letter a claim: a below, b no difference shown, c above."""
    return "".join(LETTERS[result.outcome(claim)] for claim in claims)


def conclusions(result: Result, claims: Sequence[str]) -> str:
    """A line of a list for every claim."""
    return "\n".join(f"- {result.conclude(claim)}" for claim in claims)


def smallest_table(result: Result, claims: Sequence[str]) -> list[dict[str, str]]:
    """A row a claim: the mean difference, and how large one had to be. Alone it is the half-width
    of Student's interval at 95%, t·s/√n; by Holm's method for m comparisons it is at most that of
    the interval at 1 - 0.05/m, Bonferroni's.
    """
    decisions = result.decisions()
    rows = []
    for name in claims:
        if name not in decisions:
            continue
        decision = decisions[name]
        alone = decision.interval
        strict = mean_interval(decision.values, 1 - (1 - LEVEL) / decision.compared)
        rows.append(
            {
                "comparison": decision.claim.text,
                "difference": f"{alone.mean:+.3g}",
                "smallest, alone": f"±{(alone.high - alone.low) / 2:.2g}",
                "smallest, by Holm at most": f"±{(strict.high - strict.low) / 2:.2g}",
                "difference shown": "no" if decision.outcome == "none" else decision.outcome,
            }
        )
    return rows or [{"comparison": result.why}]


def students_table(result: Result) -> list[dict[str, str]]:
    """A row a kind of student: its rate, and what was measured."""
    rows = []
    for arm in result.arms:
        row = {"student": arm, "rate": f"{result.settings(arm)['lr']:.2g}"}
        for metric, name in (
            ("loss", "test loss"),
            ("forward", "KL(t‖s)"),
            ("reverse", "KL(s‖t)"),
            ("entropy", "entropy"),
            ("surprise", "surprise"),
        ):
            row[name] = f"{result.means(arm, metric).mean():.3f}"
        row["in a manner"] = f"{result.means(arm, 'clear').mean():.0%}"
        rows.append(row)
    return rows


def draw_plane(result: Result, names: Sequence[str] | None = None) -> Figure:
    """The signature plot: what a student misses of its teacher (up) against what surprises the
    teacher in it (right), a point a seed.
    """
    figure, ax = plt.subplots(figsize=(6.4, 3.6))
    for i, arm in enumerate(names or result.arms):
        if not result.has(arm):
            continue
        look = {**style(i), "linestyle": "none"}
        across = result.means(arm, "surprise")
        up = result.means(arm, "forward")
        ax.plot(across, up, alpha=0.3, **look)
        ax.plot(across.mean(), up.mean(), label=arm, **{**look, "markersize": 11})
        if arm in result.live:
            here = (result.live_mean(arm, "surprise"), result.live_mean(arm, "forward"))
            ax.plot(*here, "*", color="black", markersize=11)
    ax.set(
        title="Covering is down, seeking is left" + (" (runs of tiny)" if result.shown_in else ""),
        xlabel="teacher's surprise at the student's answers (nats per token)",
        ylabel="KL(teacher‖student) (nats per token)",
    )
    ax.legend(fontsize="small")
    return figure


def ratio_text(times: Mapping[str, np.ndarray], way: str, base: str) -> str:
    """The median and the middle half of a way's times over the base's of the same turn."""
    ratios = times[way] / times[base]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
