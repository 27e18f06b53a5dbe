"""The figures that the labs share: one message each, seeds as bands, readable without colour."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ftlib.core.notebook import in_notebook
from ftlib.core.stats import Interval, mean_interval
from ftlib.course.alt_text import use_texts

# Okabe and Ito's colours, told apart by colour-blind readers; each also gets its own line, marker
# and hatch.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
LINES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
HATCHES = ["", "//", "..", "xx", "\\\\", "++", "oo"]
GB = 1e9
MOST_MARKS = 16  # about so many have their name on the axis of a course of memory
MB = 1e6


def use_style() -> None:
    """Small, sharp figures, so that committed notebooks stay small; in a notebook each is kept with
    its message as text (`ftlib.course.alt_text`).
    """
    if in_notebook():
        from IPython import get_ipython

        use_texts(get_ipython().display_formatter.formatters["text/plain"])
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
    """Colour, line and marker of the i-th series; markers are hollow in the second seven."""
    again, place = divmod(i, len(COLOURS))
    look = {
        "color": COLOURS[place],
        "linestyle": LINES[place],
        "marker": MARKERS[place],
        "markersize": 5,
    }
    if again % 2:
        look["markerfacecolor"] = "none"
    return look


def _fill(i: int) -> dict:
    """Colour and hatch of the i-th kind of bar."""
    i %= len(COLOURS)
    return {"color": COLOURS[i], "hatch": HATCHES[i], "edgecolor": "white"}


def _above(ax, text: str, x: float, y: float) -> None:
    """Write `text` above the point (x, y)."""
    ax.annotate(text, (x, y), xytext=(0, 3), textcoords="offset points", ha="center")


def _axes(title: str, x: str, y: str, ax=None):
    if ax is None:
        _, ax = plt.subplots()
    ax.set(title=title, xlabel=x, ylabel=y)
    return ax


def _interval(value) -> Interval:
    """Student's interval of one value a seed; a number has no width."""
    if isinstance(value, Interval):
        return value
    if np.size(value) == 1:
        return _point(float(np.asarray(value).item()))
    return mean_interval(value)


def _point(value) -> Interval:
    """A number as an interval without width."""
    return value if isinstance(value, Interval) else Interval(value, value, value)


def curves(
    series: dict, title: str, x: str, y: str, log_x: bool = False, log_y: bool = False, ax=None
) -> Figure:
    """Lines with bands from the lowest to the highest seed, which are no intervals of the mean.
    `series`: name -> (xs, values), values one a point or (seeds, points).
    """
    ax = _axes(title, x, y, ax)
    for i, (name, (xs, values)) in enumerate(series.items()):
        runs = np.atleast_2d(np.asarray(values, dtype=float))
        look = style(i)
        ax.plot(xs, runs.mean(0), label=name, markevery=max(1, len(xs) // 8), **look)
        if len(runs) > 1:
            low = runs.min(0)
            high = runs.max(0)
            ax.fill_between(xs, low, high, color=look["color"], alpha=0.15, linewidth=0)
    if log_x:
        whole = all(float(x).is_integer() for x in xs)
        ax.set_xscale("log", base=2 if whole else 10)
        if len(xs) <= 8:
            ax.set_xticks(list(xs), [f"{x:g}" for x in xs], minor=False)
    if log_y:
        ax.set_yscale("log")
    if len(series) > 1:
        ax.legend()
    return ax.figure


def bars(values: dict, title: str, y: str, x: str = "", percent: bool = False, ax=None) -> Figure:
    """Bars with intervals. `values`: name -> Interval, number, or one value a seed, which gets
    Student's 95% interval (`ftlib.mean_interval`); the figure is written on each bar.
    """
    ax = _axes(title, x, y, ax)
    scale = 100 if percent else 1
    for i, value in enumerate(values.values()):
        interval = _interval(value)
        mean = scale * interval.mean
        below = scale * max(0, interval.mean - interval.low)
        above = scale * max(0, interval.high - interval.mean)
        ax.bar(i, mean, yerr=[[below], [above]], capsize=4, width=0.7, **_fill(i))
        label = f"{mean:.0f}%" if percent else f"{mean:.3g}"
        _above(ax, label, i, scale * interval.high)
    ax.set_xticks(range(len(values)), list(values))
    ax.margins(y=0.15)
    return ax.figure


def grouped_bars(
    groups: dict[str, dict], title: str, y: str, percent: bool = False, ax=None
) -> Figure:
    """Bars side by side. `groups`: series -> {category: number}, such as accuracy by family before
    and after.
    """
    ax = _axes(title, "", y, ax)
    scale = 100 if percent else 1
    categories = []
    for group in groups.values():
        categories += [name for name in group if name not in categories]
    width = 0.8 / len(groups)
    middle = (len(groups) - 1) / 2
    for i, (name, group) in enumerate(groups.items()):
        xs = np.arange(len(categories)) + (i - middle) * width
        heights = [scale * group.get(category, np.nan) for category in categories]
        ax.bar(xs, heights, width, label=name, **_fill(i))
    # Characters that have room beside each other.
    room = 7 * ax.figure.get_figwidth() / len(ax.figure.axes)
    too_long = sum(len(category) for category in categories) > room
    turned = {"rotation": 35, "ha": "right"} if too_long else {}
    ax.set_xticks(range(len(categories)), categories, **turned)
    ax.margins(y=0.15)
    ax.legend()
    return ax.figure


def frontier(points: dict, title: str = "What a win costs", ax=None) -> Figure:
    """Win rate against KL to the reference. `points`: name -> [(KL in nats, win rate), …], numbers
    or Intervals, say one a β; up and to the left is better.
    """
    ax = _axes(title, "KL to the reference, nats per answer", "win rate, %", ax)
    for i, (name, pairs) in enumerate(points.items()):
        kl = []
        rate = []
        for pair in sorted(pairs, key=_mean_kl):
            kl.append(_point(pair[0]))
            rate.append(_point(pair[1]))
        x, x_error = _means_and_errors(kl, scale=1)
        y, y_error = _means_and_errors(rate, scale=100)
        ax.errorbar(x, y, xerr=x_error, yerr=y_error, label=name, capsize=3, **style(i))
    ax.axhline(50, color="black", linestyle=":", linewidth=1)
    if len(points) > 1:
        ax.legend()
    return ax.figure


def _mean_kl(pair) -> float:
    """The KL of a (KL, win rate) pair, by which a line's points are ordered."""
    return _point(pair[0]).mean


def _means_and_errors(
    values: list[Interval], scale: float
) -> tuple[list[float], list[list[float]]]:
    """(means, [lengths below, lengths above]), as matplotlib's error bars want them."""
    means = [scale * value.mean for value in values]
    below = [scale * (value.mean - value.low) for value in values]
    above = [scale * (value.high - value.mean) for value in values]
    return means, [below, above]


def spectrum(values: dict, title: str, y: str = "share of ‖ΔW‖² explained", ax=None) -> Figure:
    """Cumulative energy of singular values by rank. `values`: name -> singular values of one
    matrix.
    """
    series = {}
    for name, singular in values.items():
        energy = np.cumsum(np.asarray(singular, dtype=float) ** 2)
        ranks = np.arange(1, len(energy) + 1)
        series[name] = (ranks, energy / energy[-1])
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
    kinds = _kinds_of_parts(plans)
    for i, plan in enumerate(plans.values()):
        _stack(ax, i, plan, kinds)
        _above(ax, f"{plan.total / GB:.0f}", i, plan.total / GB)
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


def _kinds_of_parts(plans: dict) -> list[str]:
    """The parts that at least one plan needs, in the order of the plan that lists most."""
    kinds = []
    for plan in sorted(plans.values(), key=_count_of_parts, reverse=True):
        kinds += [kind for kind in plan.parts if kind not in kinds]
    return [k for k in kinds if any(plan.parts.get(k, 0) > 0 for plan in plans.values())]


def _count_of_parts(plan) -> int:
    return len(plan.parts)


def _stack(ax, i: int, plan, kinds: list[str]) -> None:
    """One plan's bar. Parts that do not peak together share the peak."""
    sizes = [max(0, plan.parts.get(kind, 0)) for kind in kinds]
    scale = plan.total / sum(sizes) / GB
    bottom = 0.0
    for j, (kind, size) in enumerate(zip(kinds, sizes, strict=True)):
        height = size * scale
        label = kind if i == 0 else None
        faded = 0.55 if j >= len(COLOURS) else 1
        ax.bar(i, height, bottom=bottom, alpha=faded, width=0.7, label=label, **_fill(j))
        bottom += height


def memory_course(courses: dict, title: str = "Memory through a step", ax=None) -> Figure:
    """Live bytes at each mark of a step. `courses`: name -> what
    `ftlib.training.memory_meter.memory_timeline` returns.
    """
    series = {}
    for name, course in courses.items():
        megabytes = [size / MB for _, size in course]
        series[name] = (range(len(course)), megabytes)
    x = "forward: embedding, blocks, head; then backward"
    figure = curves(series, title, x, "MB beyond the start", ax=ax)
    axes = ax or figure.axes[0]
    short = {"embed_tokens": "emb", "lm_head": "head"}
    marks = []
    turned = False
    first_course = next(iter(courses.values()))
    for i, (moment, _) in enumerate(first_course):
        if moment.startswith("backward") and not turned:
            axes.axvline(i - 0.5, color="#777", linewidth=1)
            turned = True
        mark = moment.rpartition(".")[2].split()[-1]
        marks.append(short.get(mark, mark))
    every = max(1, len(marks) // MOST_MARKS)  # with many blocks their names would overlap
    axes.set_xticks(range(0, len(marks), every), marks[::every], fontsize=8)
    return figure


def waterfall(prepared, title: str = "Where the rows went", ax=None) -> Figure:
    """Rows in, rows that each rule dropped, rows kept, from top to bottom. `prepared`: what
    `ftlib.data.prepare.prepare` returns.

    Numbers are beside the bars; dropped rows are hatched. Rules that dropped nothing keep their
    line.
    """
    lines = [("rows in", prepared.count, 0, False)]
    for rule, gone, left, changes in prepared.steps():
        if gone or not changes:
            lines.append((rule, gone, left, True))
    lines.append(("kept", prepared.kept, 0, False))
    if ax is None:
        rules = len(lines) - 2
        _, ax = plt.subplots(figsize=(6.4, 1.2 + 0.28 * rules))
    ax = _axes(title, "rows", "", ax)
    for i, (_, width, start, dropped) in enumerate(lines):
        ax.barh(i, width, left=start, height=0.7, **_fill(1 if dropped else 0))
        sign = "\N{MINUS SIGN}" if dropped and width else ""
        ax.annotate(
            f"{sign}{width:,}",
            (start + width, i),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
        )
    ax.set_yticks(range(len(lines)), [line[0] for line in lines])
    ax.invert_yaxis()
    ax.margins(x=0.12)
    return ax.figure


def table(rows: list[dict], caption: str = ""):
    """An HTML table of dicts; the first row's keys are its header. Without rows it says so."""
    from IPython.display import HTML

    rows = rows or [{"": "nothing to show"}]
    left = "style='text-align:left'"
    head = "".join(f"<th {left}>{key}</th>" for key in rows[0])
    body = ""
    for row in rows:
        cells = "".join(f"<td {left}>{value}</td>" for value in row.values())
        body += f"<tr>{cells}</tr>"
    return HTML(f"<table><caption {left}>{caption}</caption><tr>{head}</tr>{body}</table>")
