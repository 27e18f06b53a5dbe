"""The figures of lab E6: two curves that are one, where they part, and what a default costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.core.stats import mean_interval
from ftlib.course.lab_e6.arms import ALIKE
from ftlib.course.lab_e6.ours import Trained
from ftlib.course.lab_e6.settings import TOLERANCE
from ftlib.course.plots import style
from ftlib.course.records.live import Result

FLOOR = 1e-8  # nats: where a gap of 0 is drawn on a logarithmic axis


def _gaps(ours: Sequence[float], theirs: Sequence[float]) -> np.ndarray:
    return np.maximum(np.abs(np.subtract(ours, theirs)), FLOOR)


def draw_parity(ours: Trained, others: Mapping[str, Trained], title: str) -> Figure:
    """Left the losses of every step, drawn over each other; right how far the others are from
    ftlib's, on a logarithmic axis with the tolerance.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.1))
    steps = np.arange(1, len(ours.losses) + 1)
    left.plot(steps, ours.losses, label="ftlib", color="black", linewidth=2.5, alpha=0.35)
    for i, (name, run) in enumerate(others.items()):
        dots = {**style(i), "linestyle": "none"}
        left.plot(steps, run.losses, label=name, **dots)
        right.plot(steps, _gaps(ours.losses, run.losses), label=name, **style(i))
    right.axhline(TOLERANCE, color="black", linestyle=":", label=f"tolerance {TOLERANCE:g}")
    left.set(title=title, xlabel="optimizer step", ylabel="loss (nats)")
    right.set(
        title="The difference is rounding",
        xlabel="optimizer step",
        ylabel="|difference from ftlib| (nats)",
        yscale="log",
        ylim=(FLOOR / 2, 1e-2),
    )
    for ax in (left, right):
        ax.legend(fontsize="small")
    return figure


def draw_partings(result: Result, arms: Sequence[str], title: str) -> Figure:
    """The mean gap of every step, of some of the runs: where each leaves the common curve."""
    figure, ax = plt.subplots(figsize=(8.4, 3.6))
    for i, arm in enumerate(arm for arm in arms if result.has(arm)):
        gaps = np.maximum(result.values(arm, "gaps").mean(0), FLOOR)
        ax.plot(np.arange(1, len(gaps) + 1), gaps, label=arm, **style(i))
    ax.axhline(TOLERANCE, color="black", linestyle=":")
    ax.set(
        title=title, xlabel="optimizer step", ylabel="|difference from ftlib| (nats)", yscale="log"
    )
    ax.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def differences(result: Result, arm: str, metric: str) -> np.ndarray:
    """The metric of every seed less that of the run in which all is set alike, (seeds,)."""
    return result.means(arm, metric) - result.means(ALIKE, metric)


def draw_costs(
    result: Result, metric: str, title: str, label: str, linear: float, ax: Axes | None = None
) -> Figure:
    """A line for each run, the cheapest at the bottom: how much its held-out loss is above that of
    the run in which all is set alike. The axis is linear up to `linear` and logarithmic beyond.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8.4, 4.6))
    arms = [arm for arm in result.arms if arm != ALIKE]
    arms.sort(key=lambda arm: differences(result, arm, metric).mean())
    for place, arm in enumerate(arms):
        values = differences(result, arm, metric)
        interval = mean_interval(values)
        heights = place + np.linspace(-0.25, 0.25, len(values))
        ax.plot(values, heights, ".", color="grey", alpha=0.6, markersize=4)
        error = [[interval.mean - interval.low], [interval.high - interval.mean]]
        ax.errorbar(
            interval.mean, place, xerr=error, fmt="s", color="black", markersize=4, capsize=3
        )
    ax.axvline(0, color="black", linestyle=":")
    ax.set_xscale("symlog", linthresh=linear)
    ax.set_yticks(range(len(arms)), arms)
    ax.set(title=title, xlabel=label, ylim=(-0.6, len(arms) - 0.4))
    ax.grid(axis="x", alpha=0.3)
    return cast(Figure, ax.figure)
