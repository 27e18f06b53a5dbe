"""Lab 3.1.7's own figures: the path of a policy on the plane of KL and wins, what can be reached
there, and where the losses have their optimum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.course.lab_3_1_7.frontier import Levels, best_of_course, bound, optimum_course
from ftlib.course.lab_3_1_7.trials import DRAWS
from ftlib.course.plots import style
from ftlib.course.records.figures import LIVE, LIVE_LABEL
from ftlib.course.records.live import Result

COUNTS = (1, 2, 4, 8, 16, 32, 64)  # n of best-of-n
FRONTIER_BETAS = tuple(float(beta) for beta in np.geomspace(0.01, 20, 40))
KL_TICKS = (0, 0.1, 0.5, 1, 2, 5, 10, 20, 50)


def levels_of(draws: Result) -> list[Levels]:
    """The start's levels at each prompt, from the answers of all recorded seeds."""
    faults = draws.values("the start", "faults")  # (seeds, prompts·DRAWS)
    by_prompt = faults.reshape(len(faults), -1, DRAWS).swapaxes(0, 1)  # (prompts, seeds, DRAWS)
    return [Levels.of(of_prompt.ravel()) for of_prompt in by_prompt]


def mean_course(result: Result, arm: str) -> np.ndarray:
    """(KL, win rate) at each look, the mean over seeds, from the start on, (looks + 1, 2)."""
    kls = result.values(arm, "kl by step").mean(0)
    wins = result.values(arm, "win by step").mean(0)
    return np.vstack([[0.0, 0.5], np.column_stack([kls, wins])])


def _kl_axis(ax: Axes) -> None:
    """KL linear near 0 and logarithmic beyond 1, so that a short and a long way both show."""
    ax.set_xscale("symlog", linthresh=1.0)
    ax.set_xlabel("KL to the start (nats per answer)")
    ax.set_ylabel("win rate over the start, %")
    ax.set_xticks(KL_TICKS, [f"{tick:g}" for tick in KL_TICKS])
    ax.axhline(50, color="grey", linewidth=0.8)


def draw_ways(
    results: Sequence[tuple[Result, Sequence[str]]], title: str, draws: Result | None = None
) -> Figure:
    """The path of each arm while it trains, a marker at each look, mean over seeds; the live run as
    a thin black line. With `draws` also what best-of-n and the optimum reach without training.
    """
    figure, ax = plt.subplots(figsize=(7.4, 4.2))
    place = 0
    for result, arms in results:
        for arm in arms:
            if not result.has(arm):
                continue
            way = mean_course(result, arm)
            ax.plot(way[:, 0].clip(0), 100 * way[:, 1], label=arm, **style(place))
            place += 1
            if arm in result.live:
                live = result.live[arm]
                kls = np.clip([0.0, *live["kl by step"]], 0, None)
                wins = 100 * np.array([0.5, *live["win by step"]])
                ax.plot(kls, wins, color="black", linewidth=0.8)
    if any(result.live for result, _ in results):
        ax.plot([], [], color="black", linewidth=0.8, label=LIVE_LABEL)
    if draws is not None and draws.arms:
        _draw_reachable(ax, levels_of(draws))
    _kl_axis(ax)
    ax.set_title(title)
    ax.legend(fontsize="small")
    for result, _ in results:
        _name_runs(ax, result)
    plt.close(figure)
    return figure


def draw_halves(result: Result, arms: Sequence[str], title: str) -> Figure:
    """Wins at the start, at each look and at the end: every seed a thin line, the mean a thick one;
    one panel an arm, since a mean hides which way the seeds go.
    """
    figure, axes = plt.subplots(
        1, len(arms), figsize=(4.2 * len(arms), 3.3), sharey=True, squeeze=False
    )
    for i, (ax, arm) in enumerate(zip(axes[0], arms, strict=True)):
        ax.axhline(50, color="grey", linestyle=":")
        ax.set(title=arm, xlabel="optimizer steps")
        if not result.has(arm):
            continue
        steps = [0, *result.record.entries[arm, result.seeds[0]].metrics["steps"]]
        wins = 100 * np.insert(result.values(arm, "win by step"), 0, 0.5, axis=1)
        ax.plot(steps, wins.T, color="grey", linewidth=0.8, alpha=0.7)
        ax.plot(steps, wins.mean(0), label=f"mean of {len(wins)} seeds", **style(i))
        ax.set_xticks(steps)
        ax.legend(fontsize="small")
        _name_runs(ax, result)
    axes[0][0].set_ylabel("win rate over the start, %")
    figure.suptitle(title)
    figure.tight_layout()
    plt.close(figure)
    return figure


def _name_runs(ax: Axes, result: Result) -> None:
    """Where runs are tiny's in a session of another profile, the figure says so."""
    if result.shown_in:
        ax.annotate(
            "runs of tiny", (1, 0), (-4, 4), "axes fraction", "offset points", ha="right", size=7
        )


def _draw_reachable(ax: Axes, levels: list[Levels]) -> None:
    """Best-of-n by its true KL and by the bound, and the optimum."""
    best = best_of_course(levels, COUNTS)
    bounds = [bound(n) for n in COUNTS]
    optimum = optimum_course(levels, FRONTIER_BETAS)
    look: dict[str, Any] = {"color": "black", "markersize": 4}
    ax.plot(
        optimum[:, 0], 100 * optimum[:, 1], "-", linewidth=2.2, alpha=0.35, label="optimum", **look
    )
    ax.plot(best[:, 0], 100 * best[:, 1], "x", label="best of n, its KL", **look)
    ax.plot(bounds, 100 * best[:, 1], "+:", label="best of n, ln n − (n−1)/n", **look)


def draw_losses(smoothings: Sequence[float], widest: float = 6.0) -> Figure:
    """−(1−ε)·ln σ(z) − ε·ln σ(−z) over z, with its minimum at ln((1−ε)/ε) marked."""
    figure, ax = plt.subplots(figsize=(6.4, 3.4))
    z = np.linspace(-2, widest, 200)
    for i, smoothing in enumerate(smoothings):
        losses = (1 - smoothing) * np.logaddexp(0, -z) + smoothing * np.logaddexp(0, z)
        look = style(i)
        ax.plot(
            z, losses, label=f"ε = {smoothing:g}", color=look["color"], linestyle=look["linestyle"]
        )
        if smoothing:
            best = np.log((1 - smoothing) / smoothing)
            lowest = (1 - smoothing) * np.logaddexp(0, -best) + smoothing * np.logaddexp(0, best)
            ax.plot(best, lowest, marker=look["marker"], color=look["color"])
    ax.set(
        xlabel="z = β·(margin in nats)",
        ylabel="loss",
        title="Where label smoothing has its optimum",
    )
    ax.legend(fontsize="small")
    plt.close(figure)
    return figure


SIDES: Mapping[str, str] = {
    "chosen": "right answer",
    "rejected": "one fact wrong",
    "paraphrase": "right, in other words",
}


def draw_distance(result: Result, hard: str = "hard") -> Figure:
    """How fixed answers moved, by the distance of the pairs trained on: every seed, and the mean; a
    line joins the distances, and arms whose name holds `hard` stand apart.
    """
    figure, ax = plt.subplots(figsize=(7.0, 3.6))
    levels = [place for place, arm in enumerate(result.arms) if hard not in arm]
    for i, (side, name) in enumerate(SIDES.items()):
        if not result.arms or side not in next(iter(result.record.entries.values())).metrics:
            continue
        look = style(i)
        means = [result.means(arm, side).mean() for arm in result.arms]
        ax.plot(levels, [means[place] for place in levels], label=name, **look)
        ax.plot(range(len(means)), means, color=look["color"], marker=look["marker"], linestyle="")
        for place, arm in enumerate(result.arms):
            values = result.means(arm, side)
            ax.plot([place] * len(values), values, ".", color=look["color"], alpha=0.3)
            if arm in result.live:
                ax.plot(place, result.live_mean(arm, side), **LIVE)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(range(len(result.arms)), result.arms)
    ax.set(
        xlabel="trained on pairs that differ more and more",
        ylabel="log π − log π_ref (nats)",
        title="The same answers, by the distance of the pairs trained on",
    )
    ax.legend(fontsize="small")
    _name_runs(ax, result)
    plt.close(figure)
    return figure
