"""RLHF in one picture: what is trained first and then frozen, and the loop around the policy."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

HEIGHT = 0.8
FROZEN = {"facecolor": "0.88", "edgecolor": "black"}
TRAINED = {"facecolor": "white", "edgecolor": "black", "linewidth": 2}
DATA = {"facecolor": "white", "edgecolor": "0.5", "linestyle": ":"}


def draw_rlhf() -> Figure:
    """Grey boxes are frozen in the loop, bold ones are trained in it, dotted ones are data."""
    figure, ax = plt.subplots(figsize=(9.6, 3.9))
    _box(ax, 0.1, 3.2, 1.9, "judgements\nA better than B", DATA)
    _box(ax, 3.2, 3.2, 2.2, "reward model\nscore of an answer", FROZEN)
    _box(ax, 0.1, 1.6, 1.9, "prompts", DATA)
    _box(ax, 2.9, 1.6, 2.2, "policy π\n(adapter on)", TRAINED)
    _box(ax, 6.0, 1.6, 1.9, "answers", DATA)
    _box(ax, 6.0, 0.0, 2.2, "reference π_ref\n(adapter off)", FROZEN)
    _box(ax, 2.9, 0.0, 2.2, "value head V", TRAINED)
    _box(ax, 9.2, 1.6, 2.5, "reward of a token\nscore − β·(log π − log π_ref)", DATA)
    _arrow(ax, (2.0, 3.6), (3.2, 3.6), "1  trained")
    _arrow(ax, (2.0, 2.0), (2.9, 2.0))
    _arrow(ax, (5.1, 2.0), (6.0, 2.0), "2  drawn")
    _arrow(ax, (6.8, 2.4), (5.4, 3.35), "read")
    _arrow(ax, (5.4, 3.75), (10.2, 2.4), "3  score, at the last token")
    _arrow(ax, (7.0, 1.6), (7.0, 0.8))
    _arrow(ax, (8.2, 0.4), (10.2, 1.6), "log π_ref")
    _arrow(ax, (4.0, 1.6), (4.0, 0.8))
    _arrow(ax, (9.2, 1.75), (5.1, 0.5), "4  better than V expected?")
    ax.annotate(
        "5  clipped steps",
        (2.9, 1.75),
        (2.1, 0.85),
        arrowprops={"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.4"},
        fontsize=8,
        ha="center",
    )
    ax.set(xlim=(-0.1, 11.9), ylim=(-0.3, 4.4))
    ax.axis("off")
    ax.set_title("Grey is frozen in the loop; only bold parts learn")
    plt.close(figure)
    return figure


def _box(ax: Axes, x: float, y: float, width: float, words: str, look: dict) -> None:
    """A box with its lower left corner at (x, y)."""
    ax.add_patch(FancyBboxPatch((x, y), width, HEIGHT, boxstyle="round,pad=0.04", **look))
    ax.text(x + width / 2, y + HEIGHT / 2, words, ha="center", va="center", fontsize=8.5)


def _arrow(ax: Axes, start: tuple, end: tuple, words: str = "") -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->"})
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.08)
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    if words:
        ax.text(*middle, words, ha="center", va="bottom", fontsize=8, bbox=behind)
