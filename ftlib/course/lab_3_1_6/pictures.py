"""Figures of lab 3.1.6 over its records: several measures beside each other for every arm, and what
is kept by how often it was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.core.stats import mean_interval
from ftlib.course.lab_3_1_6.memory_trials import CANDIDATES, TIMES
from ftlib.course.plots import style
from ftlib.course.records.figures import FEWEST_FOR_BAND, LIVE, LIVE_LABEL
from ftlib.course.records.live import Result

APART = 0.22  # between the measures of one arm


def measures(
    result: Result,
    metrics: Mapping[str, str],
    title: str,
    arms: Sequence[str] | None = None,
    label: str = "right, %",
    scale: float = 100,
    ax: Axes | None = None,
) -> Figure:
    """Some metrics of every arm beside each other: dots are seeds, marks with bars the mean with
    its interval, stars the live run. `metrics`: {metric: its name in the legend}.
    """
    if ax is None:
        _, ax = plt.subplots()
    ax.set(title=title, ylabel=label)
    chosen = [arm for arm in arms or result.arms if result.has(arm)]
    if not chosen:
        return _say_empty(ax, result)
    middle = (len(metrics) - 1) / 2
    for k, (metric, name) in enumerate(metrics.items()):
        places = np.arange(len(chosen)) + APART * (k - middle)
        for i, arm in enumerate(chosen):
            _one_measure(ax, result, arm, metric, places[i], k, scale)
        ax.plot([], [], label=name, **{**style(k), "linestyle": "none"})
    if any(arm in result.live for arm in chosen):
        ax.plot([], [], label=LIVE_LABEL, **LIVE)
    broken = [arm.replace(", ", ",\n") for arm in chosen]
    ax.set_xticks(range(len(chosen)), broken, fontsize=9)
    ax.legend(fontsize="small")
    return _finished(ax, result)


def _finished(ax: Axes, result: Result) -> Figure:
    """The figure, which says whose runs it shows where the session has another profile."""
    if result.shown_in:
        ax.annotate(
            "runs of tiny", (1, 0), (-4, 4), "axes fraction", "offset points", ha="right", size=7
        )
    return cast(Figure, ax.figure)


def _say_empty(ax: Axes, result: Result) -> Figure:
    text = f"no record for the profile {result.profile.name}"
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    return cast(Figure, ax.figure)


def _one_measure(
    ax: Axes, result: Result, arm: str, metric: str, x: float, k: int, scale: float
) -> None:
    values: np.ndarray = scale * result.means(arm, metric)
    look = {**style(k), "linestyle": "none"}
    ax.plot([x - 0.04] * len(values), values, alpha=0.25, **{**look, "markersize": 3})
    if len(values) < FEWEST_FOR_BAND:
        ax.plot(x + 0.04, values.mean(), **look)
    else:
        interval = mean_interval(values)
        error = [[interval.mean - interval.low], [interval.high - interval.mean]]
        ax.errorbar(x + 0.04, interval.mean, yerr=error, capsize=3, **look)
    if arm in result.live:
        ax.plot(x, scale * result.live_mean(arm, metric), **{**LIVE, "markersize": 9})


def exposure_by_count(result: Result, epochs: Mapping[int, str], ax: Axes | None = None) -> Figure:
    """Exposure of canaries over how often each was read; the arms are {epochs: arm}."""
    if ax is None:
        _, ax = plt.subplots()
    if not result.arms:
        return _say_empty(ax, result)
    for i, (count, arm) in enumerate(epochs.items()):
        runs = result.values(arm, "exposure")  # (seeds, counts)
        read = [times * count for times in TIMES]
        places = [max(times, 0.5) for times in read]  # never read: at the left edge
        ax.plot(places, runs.mean(0), label=arm, **style(i))
        if len(runs) >= FEWEST_FOR_BAND:
            intervals = [mean_interval(column) for column in runs.T]
            low = [interval.low for interval in intervals]
            high = [interval.high for interval in intervals]
            ax.fill_between(places, low, high, color=style(i)["color"], alpha=0.12, linewidth=0)
    ax.axhline(never_read(), color="grey", linestyle=":", label="never read, by chance")
    ax.set_xscale("log", base=2)
    ticks = [0.5, 1, 2, 4, 8, 16, 32, 64]
    ax.set_xticks(ticks, ["never", *[f"{tick:.0f}" for tick in ticks[1:]]])
    ax.set(
        title="Exposure of canaries",
        xlabel="how often a canary was read",
        ylabel=f"exposure, bits (at most {np.log2(CANDIDATES):.0f})",
    )
    ax.legend(fontsize="small")
    return _finished(ax, result)


def never_read() -> float:
    """Mean exposure of a canary whose rank is any of the candidates', bits."""
    return float(np.log2(CANDIDATES) - np.log2(np.arange(1, CANDIDATES + 1)).mean())
