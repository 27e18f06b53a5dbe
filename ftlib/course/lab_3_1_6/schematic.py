"""The way of a file in one picture: what happens to a line from the raw file to a batch, and which
defect each station is for.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

STATIONS = (  # (what is done, what for, the planted defects that it is for, drops rows)
    ("read", "3 formats\n→ messages", ("invalid json", "missing key", "not utf-8"), True),
    ("change", "clean, HTML,\nmask", ("html", "pii"), False),
    ("filter", "quality, length,\nlanguage", ("empty answer", "language"), True),
    ("exam", "contamination", ("contamination",), True),
    ("copies", "exact, near", ("duplicate", "near duplicate"), True),
    ("check", "someone who\nknows", ("wrong answer",), True),
)
AFTER = (
    ("split", "groups, not rows:\nno copy across"),
    ("template + mask", "tokens (n,)\nlabels (n,), −100 where\nnothing is learnt"),
    ("pack", "(rows, length)\nfew pads"),
    ("train", "batches (b, length)"),
)
WIDTH = 2.3
GAP = 0.55


def draw_pipeline(defects: Mapping[str, int]) -> Figure:
    """The stations from the raw file to training; `defects` counts what was planted. Closed, so
    that a cell shows it once.
    """
    figure, ax = plt.subplots(figsize=(9.6, 4.6))
    x = 0.0
    lines = sum(defects.values())
    _box(ax, x, 3.2, "raw file", f"{lines:,} lines", False)
    for name, how, kinds, drops in STATIONS:
        _arrow(ax, x + WIDTH, 3.7, x + WIDTH + GAP, 3.7)
        x += WIDTH + GAP
        is_open = name == "check"
        _box(ax, x, 3.2, name, how, is_open)
        counts = [f"{kind} {defects[kind]}" for kind in kinds if kind in defects]
        word = "drops:" if drops else "changes:"
        ax.text(x + WIDTH / 2, 2.05, "\n".join([word, *counts]), ha="center", va="top", fontsize=8)
        _arrow(ax, x + WIDTH / 2, 3.15, x + WIDTH / 2, 2.15)
    _second_line(ax, x)
    ax.text(
        0,
        5.0,
        "Changes come first: filters and the search for copies see what will be trained on.\n"
        "Dashed: no rule of form does this; it takes someone who knows the answer.",
        fontsize=9,
        va="center",
    )
    ax.set(xlim=(-0.2, x + WIDTH + 0.2), ylim=(-1.0, 5.5))
    ax.axis("off")
    plt.close(figure)
    return figure


def _second_line(ax: Axes, end: float) -> None:
    """From the rows that are kept to training, below the first line."""
    x = 2 * (WIDTH + GAP)
    wide = WIDTH + 0.5
    step = (end + WIDTH - wide - x) / (len(AFTER) - 1)
    for i, (name, how) in enumerate(AFTER):
        place = x + i * step
        _box(ax, place, -0.7, name, how, False, width=wide)
        if i:
            _arrow(ax, place - step + wide, 0.0, place, 0.0)
    ax.text(0, 0.0, "rows that are kept", va="center", fontsize=9)
    _arrow(ax, 3.3, 0.0, x, 0.0)


def _box(
    ax: Axes, x: float, y: float, name: str, how: str, is_open: bool, width: float = WIDTH
) -> None:
    height = 1.4
    line = "--" if is_open else "-"
    box = Rectangle((x, y), width, height, facecolor="white", edgecolor="black", linestyle=line)
    ax.add_patch(box)
    ax.text(x + width / 2, y + height - 0.1, name, ha="center", va="top", fontweight="bold")
    ax.text(x + width / 2, y + 0.85, how, ha="center", va="top", fontsize=7.5)


def _arrow(ax: Axes, x: float, y: float, to_x: float, to_y: float) -> None:
    arrow = FancyArrowPatch(
        (x, y), (to_x, to_y), arrowstyle="-|>", mutation_scale=10, color="black"
    )
    ax.add_patch(arrow)
