"""Figures that lab 3.1.1 alone draws."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from ftlib.course.lab_3_1_1.experiments import capacity_arm
from ftlib.course.plots import style
from ftlib.course.records.live import Result

LEAST = 1e-3  # what is smaller is drawn here, on a logarithmic axis


def _figure_of(ax: Axes) -> Figure:
    """The figure that the axes are in, whatever lies between them."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def _finished(ax: Axes, result: Result) -> Figure:
    """The figure, which names the profile of its runs where the session has another."""
    if result.shown_in:
        ax.annotate(
            "runs of tiny", (1, 0), (-4, 4), "axes fraction", "offset points", ha="right", size=7
        )
    return _figure_of(ax)


def over_rates(
    result: Result,
    series: Mapping[str, Mapping[float, str]],
    metric: str,
    title: str,
    ax: Axes | None = None,
) -> Figure:
    """A metric over the learning rate, both axes logarithmic: a line through the means, a dot a
    seed. Sweeps have too few seeds for an interval. `series`: {method: {rate: arm}}.
    """
    if ax is None:
        _, ax = plt.subplots()
    for i, (name, arms) in enumerate(series.items()):
        rates = sorted(arms)
        means = [result.means(arms[rate], metric).mean() for rate in rates]
        look = style(i)
        ax.plot(rates, means, label=name, **look)
        for rate in rates:
            runs = result.means(arms[rate], metric)
            ax.plot([rate] * len(runs), runs, ".", color=look["color"], alpha=0.4)
    label = result.experiment.metric(metric).label
    ax.set(xscale="log", yscale="log", xlabel="learning rate", ylabel=label, title=title)
    ax.xaxis.set_minor_formatter(NullFormatter())  # they would overlap
    ax.legend(fontsize="small")
    return _finished(ax, result)


def along_rates(
    result: Result,
    series: Mapping[str, Mapping[float, str]],
    x: str,
    y: str,
    title: str,
    ax: Axes | None = None,
) -> Figure:
    """One metric over another, each method's rates joined in their order; both axes logarithmic.
    `series`: {method: {rate: arm}}. The lowest rate is drawn larger.
    """
    if ax is None:
        _, ax = plt.subplots()
    for i, (name, arms) in enumerate(series.items()):
        rates = sorted(arms)
        across = [max(LEAST, result.means(arms[rate], x).mean()) for rate in rates]
        up = [max(LEAST, result.means(arms[rate], y).mean()) for rate in rates]
        look = style(i)
        ax.plot(across, up, label=name, **look)
        ax.plot(across[0], up[0], color=look["color"], marker=look["marker"], markersize=10)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel=result.experiment.metric(x).label,
        ylabel=result.experiment.metric(y).label,
        title=title,
    )
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # it may span a single decade
    ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(fontsize="small", title="large: the lowest rate")
    return _finished(ax, result)


def singular_values(spectra: Mapping[str, np.ndarray], title: str) -> Figure:
    """Singular values over their place, largest first. `spectra`: {name: (seeds, n)}."""
    _, ax = plt.subplots()
    for i, (name, values) in enumerate(spectra.items()):
        rows = np.atleast_2d(values)
        places = np.arange(1, rows.shape[1] + 1)
        look = style(i)
        ax.plot(places, rows.mean(0), label=name, markevery=max(1, len(places) // 8), **look)
        low = rows.min(0)
        high = rows.max(0)
        ax.fill_between(places, low, high, color=look["color"], alpha=0.15, linewidth=0)
    ax.set(xscale="log", xlabel="place", ylabel="singular value", title=title, ylim=(0, None))
    ax.legend(fontsize="small")
    return _figure_of(ax)


def rows_by_rank(result: Result, ranks, rows, metric: str, title: str, ax: Axes) -> Figure:
    """The metric over the number of rows, a line a rank."""
    for i, r in enumerate(ranks):
        means = [result.means(capacity_arm(r, count), metric).mean() for count in rows]
        ax.plot(rows, means, label=f"rank {r}", **style(i))
    ax.set(
        xscale="log",
        xlabel="rows trained on",
        ylabel=result.experiment.metric(metric).label,
        title=title,
        ylim=(0, None),
    )
    ax.set_xticks(list(rows), [str(count) for count in rows])
    ax.minorticks_off()
    ax.legend(fontsize="small")
    return _finished(ax, result)
