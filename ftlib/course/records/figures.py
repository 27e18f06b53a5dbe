"""Figures of an experiment: every recorded seed is a small dot, the mean has its 95% t interval,
and the live run is a star laid over them. Readable without colour: each series has its own marker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ftlib.core.stats import mean_interval
from ftlib.course.plots import style
from ftlib.course.records.experiment import Metric
from ftlib.course.records.live import Result

LIVE: dict[str, Any] = {
    "marker": "*",
    "color": "black",
    "markersize": 11,
    "linestyle": "none",
    "zorder": 5,
}
LETTER_INCHES = 0.075  # of a tick label, with its share of the gap to the next
LIVE_LABEL = "this run"
FEWEST_FOR_BAND = 3  # seeds: an interval of two is wider than the figure
TICKS_OWN = 20  # a logarithmic axis that spans less has a tick at each setting,
MOST_TICKS = 6  # if there are no more of them
SPREAD = 0.12  # half the width over which the seeds of one arm are drawn side by side


def _scale(percent: bool) -> int:
    return 100 if percent else 1


def _label(metric: Metric, percent: bool) -> str:
    """What an axis shows; of a share that is drawn in percent the unit says so."""
    if not percent:
        return metric.label
    unit = metric.unit.replace("share", "%") if "share" in metric.unit else "%"
    return f"{metric.text} ({unit})"


def _side_by_side(count: int) -> np.ndarray:
    """Small offsets, (count,), so that dots of equal height do not hide each other."""
    return np.linspace(-SPREAD, SPREAD, count) if count > 1 else np.zeros(1)


def _new_axes(ax: Axes | None, title: str, x: str, y: str) -> Axes:
    if ax is None:
        _, ax = plt.subplots()
    ax.set(title=title, xlabel=x, ylabel=y)
    return ax


def _figure_of(ax: Axes) -> Figure:
    return cast(Figure, ax.figure)


def _say_empty(ax: Axes, result: Result) -> Figure:
    """A figure of an experiment without runs says so."""
    text = f"no record for the profile {result.profile.name}"
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    return _figure_of(ax)


def _finished(ax: Axes, result: Result) -> Figure:
    """The figure, which names the profile of its runs where the session has another."""
    if result.shown_in:
        ax.annotate(
            "runs of tiny", (1, 0), (-4, 4), "axes fraction", "offset points", ha="right", size=7
        )
    return _figure_of(ax)


def _bounds(values: np.ndarray, percent: bool) -> tuple[float, float]:
    """The t interval; of shares in percent it ends at 0 and 100, as printed ones do."""
    interval = mean_interval(values)
    if not percent or values.min() < 0 or values.max() > 100:
        return interval.low, interval.high
    return max(0.0, interval.low), min(100.0, interval.high)


def _error(values: np.ndarray, percent: bool = False) -> tuple[float, list[list[float]]]:
    """The mean and its t interval as matplotlib's error bars want it."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, [[0.0], [0.0]]
    low, high = _bounds(values, percent)
    # Equal runs: rounding may put the mean outside its bounds, and matplotlib refuses that.
    return mean, [[max(0.0, mean - low)], [max(0.0, high - mean)]]


def dots(
    result: Result,
    metric: str,
    title: str,
    arms: Sequence[str] | None = None,
    percent: bool = False,
    baseline: tuple[str, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """One column an arm: its seeds, their mean with the interval, and the live run.

    `baseline`: (name, value) of a line to compare with, such as the model before training.
    """
    chosen = [arm for arm in arms or result.arms if result.has(arm)]
    ax = _new_axes(ax, title, "", _label(result.experiment.metric(metric), percent))
    if not chosen:
        return _say_empty(ax, result)
    scale = _scale(percent)
    for i, arm in enumerate(chosen):
        values: np.ndarray = scale * result.means(arm, metric)
        look = {**style(i), "linestyle": "none"}
        ax.plot(i + _side_by_side(len(values)), values, alpha=0.4, **look)
        mean, error = _error(values, percent)
        ax.errorbar(i + 0.25, mean, yerr=error, capsize=4, **look)
        if arm in result.live:
            ax.plot(i - 0.25, scale * result.live_mean(arm, metric), **LIVE)
    if baseline is not None:
        name, value = baseline
        ax.axhline(scale * value, color="grey", linestyle=":", label=name)
    _legend(ax, result)
    _name_columns(ax, chosen)
    ax.set_xlim(-0.6, len(chosen) - 0.4)
    return _finished(ax, result)


def _name_columns(ax: Axes, names: Sequence[str]) -> None:
    """The names below their columns; slanted where two neighbours would touch."""
    column = ax.bbox.width / ax.figure.dpi / len(names)  # inches
    lengths = [len(name) for name in names]
    widest = max((sum(pair) / 2 for pair in pairwise(lengths)), default=lengths[0])
    if widest * LETTER_INCHES < column:
        ax.set_xticks(range(len(names)), names)
    else:
        ax.set_xticks(range(len(names)), names, rotation=25, ha="right", fontsize="small")


def _legend(ax: Axes, result: Result) -> None:
    """What dots, bars and stars are."""
    seeds = len(result.seeds)
    ax.plot([], [], "o", color="grey", alpha=0.5, markersize=5, label=f"{seeds} seeds")
    ax.errorbar([], [], yerr=[], color="grey", capsize=4, label="mean, 95% interval")
    if result.live:
        ax.plot([], [], label=LIVE_LABEL, **LIVE)
    ax.legend(fontsize="small")


def sweep(
    result: Result,
    metric: str,
    series: Mapping[str, Mapping[float, str]],
    title: str,
    x: str,
    percent: bool = False,
    log_x: bool = True,
    log_y: bool = False,
    ax: Axes | None = None,
) -> Figure:
    """The metric over a setting. `series`: {name: {x: arm}}; a line through the means, a band for
    the interval, a dot a seed, and the live runs. A series that the profile has no runs of is left
    out.
    """
    ax = _new_axes(ax, title, x, _label(result.experiment.metric(metric), percent))
    if not result.arms:
        return _say_empty(ax, result)
    scale = _scale(percent)
    for i, (name, arms) in enumerate(series.items()):
        look = style(i)
        places = sorted(place for place in arms if result.has(arms[place]))
        if not places:
            continue
        runs: list[np.ndarray] = [scale * result.means(arms[place], metric) for place in places]
        _band(ax, places, runs, name, look, percent)
        for place in places:
            if arms[place] in result.live:
                ax.plot(place, scale * result.live_mean(arms[place], metric), **LIVE)
    if result.live:
        ax.plot([], [], label=LIVE_LABEL, **LIVE)
    if log_x:
        _log_axis(ax, sorted({place for arms in series.values() for place in arms}))
    if log_y:
        ax.set_yscale("log")
    ax.legend(fontsize="small")
    return _finished(ax, result)


def _tick(place: float) -> str:
    """Two digits, but whole numbers such as 128 rows in full."""
    return f"{place:.0f}" if place >= 100 else f"{place:.2g}"


def _log_axis(ax: Axes, places: list[float]) -> None:
    """A logarithmic x; within one power of ten it has ticks at the settings that were run, since
    matplotlib's own would overlap or be too few.
    """
    ax.set_xscale("log")
    if places[0] > 0 and places[-1] / places[0] < TICKS_OWN and len(places) <= MOST_TICKS:
        ax.set_xticks(places, [_tick(place) for place in places])
    ax.xaxis.set_minor_formatter(NullFormatter())


def _band(
    ax: Axes,
    places: list[float],
    runs: list[np.ndarray],
    name: str,
    look: dict,
    percent: bool = False,
) -> None:
    """Means over the runs at each place as a line, their intervals as a band, runs as dots."""
    ax.plot(places, [values.mean() for values in runs], label=name, **look)
    for place, values in zip(places, runs, strict=True):
        ax.plot([place] * len(values), values, ".", color=look["color"], alpha=0.35, markersize=4)
    if min(map(len, runs)) < FEWEST_FOR_BAND:
        return
    low, high = np.transpose([_bounds(values, percent) for values in runs])
    ax.fill_between(places, low, high, color=look["color"], alpha=0.15, linewidth=0)


def plane(
    result: Result,
    x: str,
    y: str,
    title: str,
    arms: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Two metrics of every run as a point in the plane, one marker an arm: a trade-off or a
    frontier. A cross of both intervals marks the mean.
    """
    experiment = result.experiment
    ax = _new_axes(ax, title, experiment.metric(x).label, experiment.metric(y).label)
    if not result.arms:
        return _say_empty(ax, result)
    for i, arm in enumerate(arms or result.arms):
        look = {**style(i), "linestyle": "none"}
        across = result.means(arm, x)
        up = result.means(arm, y)
        ax.plot(across, up, alpha=0.35, **look)
        x_mean, x_error = _error(across)
        y_mean, y_error = _error(up)
        ax.errorbar(x_mean, y_mean, xerr=x_error, yerr=y_error, capsize=3, label=arm, **look)
        if arm in result.live:
            ax.plot(result.live_mean(arm, x), result.live_mean(arm, y), **LIVE)
    if result.live:
        ax.plot([], [], label=LIVE_LABEL, **LIVE)
    ax.legend(fontsize="small")
    return _finished(ax, result)


def courses(
    result: Result,
    metric: str,
    title: str,
    x: str,
    places: Sequence[float] | None = None,
    arms: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """A metric with one number a step as curves: the mean over seeds, a band for its interval at
    each step, and the live run as a thin black line.
    """
    ax = _new_axes(ax, title, x, result.experiment.metric(metric).label)
    if not result.arms:
        return _say_empty(ax, result)
    for i, arm in enumerate(arms or result.arms):
        runs = result.values(arm, metric)  # (seeds, steps)
        steps = np.arange(1, runs.shape[1] + 1) if places is None else np.asarray(places)
        look = style(i)
        ax.plot(steps, runs.mean(0), label=arm, markevery=max(1, len(steps) // 8), **look)
        if len(runs) > 1:
            intervals = [mean_interval(column) for column in runs.T]
            low = [interval.low for interval in intervals]
            high = [interval.high for interval in intervals]
            ax.fill_between(steps, low, high, color=look["color"], alpha=0.15, linewidth=0)
        if arm in result.live:
            ax.plot(steps, result.live[arm][metric], color="black", linewidth=0.8)
    if result.live:
        ax.plot([], [], color="black", linewidth=0.8, label=LIVE_LABEL)
    ax.legend(fontsize="small")
    return _finished(ax, result)
