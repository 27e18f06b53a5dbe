"""The figures that the labs share: one message each, seeds as bands, readable without colour."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ftlib.core.stats import Interval, bootstrap_interval

# Okabe and Ito's colours, told apart by colour-blind readers; each also gets its own line, marker
# and hatch.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
LINES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
HATCHES = ["", "//", "..", "xx", "\\\\", "++", "oo"]


def use_style() -> None:
    """Small, sharp figures, so that committed notebooks stay small."""
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.4),
            "figure.dpi": 80,
            "savefig.dpi": 80,
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
        }
    )


def style(i: int) -> dict:
    """Colour, line and marker of the i-th series."""
    return {
        "color": COLOURS[i % 7],
        "linestyle": LINES[i % 7],
        "marker": MARKERS[i % 7],
        "markersize": 5,
    }


def _axes(title: str, x: str, y: str, ax=None):
    if ax is None:
        _, ax = plt.subplots()
    ax.set(title=title, xlabel=x, ylabel=y)
    return ax


def _interval(value) -> Interval:
    return value if isinstance(value, Interval) else bootstrap_interval(np.atleast_1d(value))


def curves(
    series: dict, title: str, x: str, y: str, log_x: bool = False, log_y: bool = False, ax=None
) -> Figure:
    """Lines with bands. `series`: name -> (xs, values), values one a point or (seeds, points)."""
    ax = _axes(title, x, y, ax)
    for i, (name, (xs, values)) in enumerate(series.items()):
        values, look = np.atleast_2d(np.asarray(values, dtype=float)), style(i)
        ax.plot(xs, values.mean(0), label=name, markevery=max(1, len(xs) // 8), **look)
        if len(values) > 1:
            ax.fill_between(
                xs, values.min(0), values.max(0), color=look["color"], alpha=0.15, linewidth=0
            )
    if log_x:
        ax.set_xscale("log", base=2 if all(float(v).is_integer() for v in xs) else 10)
        if len(xs) <= 8:
            ax.set_xticks(list(xs), [f"{v:g}" for v in xs], minor=False)
    if log_y:
        ax.set_yscale("log")
    if len(series) > 1:
        ax.legend()
    return ax.figure


def bars(values: dict, title: str, y: str, x: str = "", percent: bool = False, ax=None) -> Figure:
    """Bars with intervals. `values`: name -> Interval, number, or one value a seed; the figure is
    written on each bar.
    """
    ax, scale = _axes(title, x, y, ax), 100 if percent else 1
    for i, (name, value) in enumerate(values.items()):
        v = _interval(value)
        error = [[scale * max(0, v.mean - v.low)], [scale * max(0, v.high - v.mean)]]
        ax.bar(
            i,
            scale * v.mean,
            yerr=error,
            color=COLOURS[i % 7],
            hatch=HATCHES[i % 7],
            edgecolor="white",
            capsize=4,
            width=0.7,
        )
        ax.annotate(
            f"{scale * v.mean:.0f}%" if percent else f"{v.mean:.3g}",
            (i, scale * v.high),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
        )
    ax.set_xticks(range(len(values)), list(values))
    ax.margins(y=0.15)
    return ax.figure


def grouped_bars(
    groups: dict[str, dict], title: str, y: str, percent: bool = False, ax=None
) -> Figure:
    """Bars side by side. `groups`: series -> {category: number}, such as accuracy by family before
    and after.
    """
    ax, scale = _axes(title, "", y, ax), 100 if percent else 1
    categories = list(dict.fromkeys(c for g in groups.values() for c in g))
    width = 0.8 / len(groups)
    for i, (name, group) in enumerate(groups.items()):
        xs = np.arange(len(categories)) + (i - (len(groups) - 1) / 2) * width
        ax.bar(
            xs,
            [scale * group.get(c, np.nan) for c in categories],
            width,
            label=name,
            color=COLOURS[i % 7],
            hatch=HATCHES[i % 7],
            edgecolor="white",
        )
    room = (
        7 * ax.figure.get_figwidth() / len(ax.figure.axes)
    )  # characters that stand beside each other
    turned = {} if sum(map(len, categories)) <= room else {"rotation": 35, "ha": "right"}
    ax.set_xticks(range(len(categories)), categories, **turned)
    ax.margins(y=0.15)
    ax.legend()
    return ax.figure


def frontier(points: dict, title: str = "What a win costs", ax=None) -> Figure:
    """Win rate against KL to the reference. `points`: name -> [(KL in nats, win rate), …], numbers
    or Intervals, say one a β; up and to the left is better.
    """
    ax = _axes(title, "KL to the reference, nats an answer", "win rate, %", ax)
    for i, (name, pairs) in enumerate(points.items()):
        kl, rate = (
            [v if isinstance(v, Interval) else Interval(v, v, v) for v in column]
            for column in zip(*sorted(pairs, key=lambda p: _interval(p[0]).mean))
        )
        spans = [
            [
                [scale * (v.mean - v.low) for v in values],
                [scale * (v.high - v.mean) for v in values],
            ]
            for values, scale in ((kl, 1), (rate, 100))
        ]
        ax.errorbar(
            [v.mean for v in kl],
            [100 * v.mean for v in rate],
            xerr=spans[0],
            yerr=spans[1],
            label=name,
            capsize=3,
            **style(i),
        )
    ax.axhline(50, color="black", linestyle=":", linewidth=1)
    if len(points) > 1:
        ax.legend()
    return ax.figure


def spectrum(values: dict, title: str, y: str = "share of ‖ΔW‖² explained", ax=None) -> Figure:
    """Cumulative energy of singular values by rank. `values`: name -> singular values of one
    matrix.
    """
    series = {}
    for name, s in values.items():
        energy = np.cumsum(np.asarray(s, dtype=float) ** 2)
        series[name] = (np.arange(1, len(energy) + 1), energy / energy[-1])
    figure = curves(series, title, "rank kept", y, log_x=True, ax=ax)
    figure.axes[0].set_ylim(0, 1.03)
    return figure


def memory_bars(
    plans: dict,
    capacities: tuple[float, ...] = (24, 48, 80, 128),
    title: str = "Memory of training, planned",
    ax=None,
) -> Figure:
    """Planned peaks in GB, parts stacked, against machines' capacities. `plans`: name ->
    `ftlib.training.memory_plan.MemoryPlan`.
    """
    ax = _axes(title, "", "GB", ax)
    widest = sorted(plans.values(), key=lambda plan: -len(plan.parts))  # its order is that of all
    kinds = [
        k
        for k in dict.fromkeys(k for plan in widest for k in plan.parts)
        if any(p.parts.get(k, 0) > 0 for p in plans.values())
    ]
    for i, (name, plan) in enumerate(plans.items()):
        parts = {k: max(0, plan.parts.get(k, 0)) for k in kinds}
        bottom, scale = (
            0.0,
            plan.total / sum(parts.values()) / 1e9,
        )  # parts that do not peak together share the peak
        for j, (kind, size) in enumerate(parts.items()):
            ax.bar(
                i,
                size * scale,
                bottom=bottom,
                color=COLOURS[j % 7],
                hatch=HATCHES[j % 7],
                edgecolor="white",
                alpha=0.55 if j >= 7 else 1,
                width=0.7,
                label=kind if not i else None,
            )
            bottom += size * scale
        ax.annotate(
            f"{plan.total / 1e9:.0f}",
            (i, plan.total / 1e9),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
        )
    for size in capacities:
        ax.axhline(size, color="black", linestyle=":", linewidth=1)
        ax.annotate(
            f"{size:g} GB",
            (1, size),
            xycoords=("axes fraction", "data"),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    ax.set_xticks(range(len(plans)), list(plans))
    ax.margins(y=0.12)
    ax.legend(fontsize=8)
    return ax.figure


def memory_course(courses: dict, title: str = "Memory through a step", ax=None) -> Figure:
    """Live bytes at each mark of a step. `courses`: name -> what
    `ftlib.training.memory_meter.memory_timeline` returns.
    """
    series = {
        name: (range(len(course)), [size / 1e6 for _, size in course])
        for name, course in courses.items()
    }
    figure = curves(
        series,
        title,
        "forward: embedding, blocks, head; then backward",
        "MB beyond the start",
        ax=ax,
    )
    axes, moments = ax or figure.axes[0], [moment for moment, _ in next(iter(courses.values()))]
    turn = next((i for i, moment in enumerate(moments) if moment.startswith("backward")), None)
    if turn is not None:
        axes.axvline(turn - 0.5, color="#777", linewidth=1)
    short = {"embed_tokens": "emb", "lm_head": "head"}
    marks = [m.rpartition(".")[2].split()[-1] for m in moments]
    axes.set_xticks(range(len(marks)), [short.get(m, m) for m in marks], fontsize=8)
    return figure


def waterfall(prepared, title: str = "Where the rows went", ax=None) -> Figure:
    """Rows in, rows that each rule dropped, rows kept, from top to bottom. `prepared`: what
    `ftlib.data.prepare.prepare` returns.

    Numbers stand beside the bars; dropped rows are hatched. Rules that dropped nothing keep their
    line.
    """
    steps = [
        (rule, gone, left) for rule, gone, left, changes in prepared.steps() if gone or not changes
    ]
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 1.2 + 0.28 * len(steps)))
    ax = _axes(title, "rows", "", ax)
    lines = [
        ("rows in", prepared.count, 0, False),
        *[(rule, gone, left, True) for rule, gone, left in steps],
        ("kept", prepared.kept, 0, False),
    ]
    for i, (_, width, start, dropped) in enumerate(lines):
        ax.barh(
            i,
            width,
            left=start,
            color=COLOURS[dropped],
            hatch=HATCHES[dropped],
            edgecolor="white",
            height=0.7,
        )
        ax.annotate(
            f"\N{MINUS SIGN}{width:,}" if dropped and width else f"{width:,}",
            (start + width, i),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
        )
    ax.set_yticks(range(len(lines)), [name for name, *_ in lines])
    ax.invert_yaxis()
    ax.margins(x=0.12)
    return ax.figure


def table(rows: list[dict], caption: str = ""):
    """A small HTML table of dicts; the first row's keys are the header."""
    from IPython.display import HTML

    head = "".join(f"<th style='text-align:left'>{k}</th>" for k in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{v}</td>" for v in row.values()) + "</tr>"
        for row in rows
    )
    return HTML(
        f"<table><caption style='text-align:left'>{caption}</caption><tr>{head}</tr>{body}</table>"
    )
