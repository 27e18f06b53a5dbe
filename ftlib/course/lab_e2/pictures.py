"""The plane of what was learnt and what was forgotten, a curve for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ftlib.core.pareto import pareto_front
from ftlib.core.stats import mean_interval
from ftlib.course.lab_e2.curves import BETTER, LEAST, points_of
from ftlib.course.plots import style
from ftlib.course.records.figures import LIVE, LIVE_LABEL
from ftlib.course.records.live import Result

TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)  # nats
LEARNT = "loss on the new task (nats per token), learnt: to the left"
RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 11,
    "fillstyle": "none",
    "color": "black",
    "linestyle": "none",
}
RISE = "forgotten (nats per token)"


def those_run(result: Result, arms: Sequence[str]) -> list[str]:
    """The arms that the result has runs of."""
    return [arm for arm in arms if result.has(arm)]


def draw_curves(
    result: Result, curves: Mapping[str, Sequence[str]], title: str, ax: Axes | None = None
) -> Figure:
    """A line a method through the means of its settings, with crosses of both 95% intervals, what
    is forgotten on a logarithmic axis; the points of the front of means have a ring.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7.2, 4.2))
    for i, (method, arms) in enumerate(curves.items()):
        there = those_run(result, arms)
        if there:
            _draw_curve(ax, result, method, there, i)
    _ring(ax, result, those_run(result, list(dict.fromkeys(_flat(curves)))))
    _draw_live(ax, result, "forgotten")
    ax.set(title=title, xlabel=LEARNT, ylabel=RISE, yscale="log")
    _log_losses(ax)
    ax.legend(fontsize=8)
    return cast(Figure, ax.figure)


def _log_losses(ax: Axes) -> None:
    """A logarithmic axis of losses, with numbers at some: they span less than a power of ten."""
    low, high = ax.get_xlim()
    ax.set_xscale("log")
    there = [loss for loss in TICKS if low <= loss <= high]
    ax.set_xticks(there, [f"{loss:g}" for loss in there])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(max(low, LEAST), high)


def _flat(curves: Mapping[str, Sequence[str]]) -> list[str]:
    return [arm for arms in curves.values() for arm in arms]


def _draw_curve(ax: Axes, result: Result, method: str, arms: list[str], i: int) -> None:
    look = style(i)
    points = np.maximum(points_of(result, arms), [0, LEAST])  # (seeds, arms, 2)
    means = points.mean(0)
    order = means[:, 1].argsort()  # from what forgets least on
    ax.plot(*means[order].T, label=method, **{**look, "linewidth": 1.2})
    if len(points) < 3:
        return
    for j in range(len(arms)):
        across, up = (mean_interval(points[:, j, goal]) for goal in (0, 1))
        low = max(LEAST / 2, up.low)
        ax.hlines(means[j, 1], across.low, across.high, color=look["color"], linewidth=0.8)
        ax.vlines(means[j, 0], low, up.high, color=look["color"], linewidth=0.8)


def _ring(ax: Axes, result: Result, arms: list[str]) -> None:
    """Rings around the points of the front of means."""
    if not arms:
        return
    means = points_of(result, arms).mean(0)
    front = means[pareto_front(means, BETTER)]
    heights = np.maximum(LEAST, front[:, 1])
    ax.plot(front[:, 0], heights, label="front of the means", **RING)


def _draw_live(ax: Axes, result: Result, metric: str) -> None:
    for arm in result.live:
        height = result.live_mean(arm, metric)
        ax.plot(result.live_mean(arm, "loss"), max(LEAST, height), **LIVE)
    if result.live:
        ax.plot([], [], label=LIVE_LABEL, **LIVE)


def draw_known(
    result: Result, curves: Mapping[str, Sequence[str]], title: str, ax: Axes | None = None
) -> Figure:
    """As `draw_curves`, with the share of questions that are still answered upwards."""
    if ax is None:
        _, ax = plt.subplots(figsize=(7.2, 4.2))
    for i, (method, arms) in enumerate(curves.items()):
        there = those_run(result, arms)
        there.sort(key=lambda arm: result.means(arm, "known").mean())
        losses = [result.means(arm, "loss").mean() for arm in there]
        shares = [100 * result.means(arm, "known").mean() for arm in there]
        if there:
            ax.plot(losses, shares, label=method, **{**style(i), "linewidth": 1.2})
    for arm in result.live:
        ax.plot(result.live_mean(arm, "loss"), 100 * result.live_mean(arm, "known"), **LIVE)
    ax.set(title=title, xlabel=LEARNT, ylabel="questions still answered (%)")
    _log_losses(ax)
    ax.legend(fontsize=8)
    return cast(Figure, ax.figure)


def draw_course(
    steps: Sequence[int], rises: Sequence[float], thresholds: Sequence[float], title: str
) -> Figure:
    """What a watch has measured on the way, and where thresholds lie."""
    figure, ax = plt.subplots(figsize=(6.4, 3.2))
    ax.plot(steps, rises, **style(0))
    for threshold in thresholds:
        ax.axhline(threshold, color="grey", linestyle=":", linewidth=1)
        ax.annotate(f"{threshold:g}", (steps[-1], threshold), (4, -3), textcoords="offset points")
    ax.set(title=title, xlabel="step", ylabel="rise on watched texts (nats per token)")
    ax.set_yscale("symlog", linthresh=0.01)
    ax.set_ylim(bottom=min(-0.002, *rises))
    return figure


def draw_way(
    ways: Sequence[float], losses: Sequence[float], rises: Sequence[float], title: str
) -> Figure:
    """Loss and forgetting on the straight line between two states of a model."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.0))
    left.plot(ways, losses, **style(0))
    right.plot(ways, rises, **style(1))
    left.set(title=title, xlabel="t (0: before, 1: after)", ylabel="loss on the new task (nats)")
    right.set(title="Forgotten", xlabel="t (0: before, 1: after)", ylabel=RISE)
    for ax in (left, right):
        ax.set_yscale("symlog", linthresh=0.01)
    return figure
