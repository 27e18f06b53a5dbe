"""Two figures on what an interval over seeds means: how often it misses, and why pairing helps."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ftlib.core.stats import Interval, mean_interval, paired_difference
from ftlib.course.plots import COLOURS, MARKERS

HIT = {"color": COLOURS[0], "marker": MARKERS[0], "linestyle": "-"}
MISS = {"color": COLOURS[1], "marker": MARKERS[6], "linestyle": "--"}


def repeated_intervals(experiments: dict, truth: float, x: str, level: float = 0.95) -> Figure:
    """The same experiment, repeated: a line each for Student's interval of its mean, a panel for
    each number of seeds, all on one scale.

    `experiments`: panel's name -> values (experiments, seeds). Intervals that hold `truth` are
    solid with a circle, those that miss it dashed with a cross, and the panel's title counts them.
    """
    size = (2.6 * len(experiments) + 0.6, 3.6)
    figure, axes = plt.subplots(
        1, len(experiments), figsize=size, sharex=True, sharey=True, squeeze=False
    )
    for ax, (name, values) in zip(axes[0], experiments.items(), strict=True):
        missed = 0
        for i, runs in enumerate(values):
            interval = mean_interval(runs, level)
            miss = interval.excludes(truth)
            _line(ax, interval, i, MISS if miss else HIT)
            missed += miss
        ax.axvline(truth, color="black", linestyle=":", linewidth=1)
        ax.set(title=f"{name}: {missed} of {len(values)} miss", xlabel=x)
    axes[0, 0].set(ylabel="repetition", yticks=[])
    return figure


def pairing(a, b, names: tuple[str, str], unit: str, level: float = 0.95) -> Figure:
    """Two methods on the same seeds. Left: their runs, each seed's two joined by a line. Right: the
    interval of the mean difference a - b, once as if the runs had nothing in common (Welch 1947),
    once of the differences seed by seed (`ftlib.paired_difference`).

    `a`, `b`: one number per seed, (seeds,), in `unit`; `names` of the two. ValueError as in
    `ftlib.paired_difference`, and for two dimensions.
    """
    paired = paired_difference(a, b, level)
    first = np.asarray(a, dtype=float)
    second = np.asarray(b, dtype=float)
    if first.ndim != 1:
        raise ValueError(f"a and b have shape {first.shape}: pass one number per seed, (seeds,)")
    apart = _welch(first, second, level)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.2))
    for one, two in zip(first, second, strict=True):
        left.plot([0, 1], [one, two], color="#777", linewidth=1)
    for i, values in enumerate((first, second)):
        look = {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": ""}
        left.plot(np.full(len(values), i), values, zorder=3, **look)
    left.set(title="Each line is a seed", ylabel=unit, xlim=(-0.4, 1.4))
    left.set_xticks([0, 1], list(names))
    labels = []
    for i, (kind, interval) in enumerate({"unpaired": apart, "paired": paired}.items()):
        away = interval.excludes(0)
        _line(right, interval, i, MISS if away else HIT)
        labels.append(f"{kind}\n{'leaves 0 out' if away else 'holds 0'}")
    right.axvline(0, color="black", linestyle=":", linewidth=1)
    narrower = paired.high - paired.low < apart.high - apart.low
    title = "Pairing narrows the interval" if narrower else "Here pairing narrows nothing"
    right.set(title=title, xlabel=f"mean difference ({unit})", ylim=(1.6, -0.6))
    right.set_yticks([0, 1], labels)
    right.locator_params(axis="x", nbins=4)  # more of these long numbers would touch
    return figure


def _welch(a: np.ndarray, b: np.ndarray, level: float) -> Interval:
    """The interval of mean(a) - mean(b) of independent runs with variances of their own."""
    from scipy import stats

    difference = float(a.mean() - b.mean())
    if np.ptp(a) == np.ptp(b) == 0:
        return Interval(difference, difference, difference, level)
    found = stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    return Interval(difference, float(found.low), float(found.high), level)


def _line(ax, interval: Interval, y: float, look: dict) -> None:
    """The interval as a horizontal line at y, its mean as a marker."""
    ax.plot([interval.low, interval.high], [y, y], color=look["color"], linestyle=look["linestyle"])
    ax.plot([interval.mean], [y], color=look["color"], marker=look["marker"], linestyle="")
