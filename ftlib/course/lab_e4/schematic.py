"""Distillation in one picture: whose text, and what is compared along it."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

GREY = "#d9d9d9"
BLUE = "#bcd9ec"
WHITE = "#ffffff"


def draw_distillation() -> Figure:
    """Three panels: learning from what the teacher wrote, from its probabilities along given text,
    and from its probabilities along the student's own.
    """
    figure, axes = plt.subplots(1, 3, figsize=(9.8, 3.0))
    titles = ("Sequence level", "Logits, given text", "Logits, own text (on-policy)")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(xlim=(0, 10), ylim=(0, 10))
        ax.set_title(title, fontsize=10)
        ax.axis("off")
    _draw_sequence(axes[0])
    _draw_logits(axes[1], "text of a row", "")
    _draw_logits(axes[2], "student's draft", "writes")
    plt.close(figure)
    return figure


def _box(ax: Axes, x: float, y: float, size: tuple[float, float], text: str, look: str) -> None:
    width, height = size
    colour = {"teacher": GREY, "student": BLUE}.get(look, WHITE)
    hatch = "//" if look == "student" else ""
    ax.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="black", hatch=hatch))
    behind = {"facecolor": colour, "edgecolor": "none", "pad": 1.0}
    where = (x + width / 2, y + height / 2)
    ax.text(*where, text, ha="center", va="center", fontsize=8, bbox=behind)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->"})
    if text:
        ax.text((start[0] + end[0]) / 2 + 0.2, (start[1] + end[1]) / 2, text, fontsize=7)


def _draw_sequence(ax: Axes) -> None:
    _box(ax, 0.3, 6.6, (4.2, 2.8), "teacher", "teacher")
    _box(ax, 5.8, 7.2, (3.8, 1.6), "its answer", "text")
    _box(ax, 6.4, 2.6, (2.6, 1.6), "student", "student")
    _arrow(ax, (4.5, 8), (5.8, 8))
    _arrow(ax, (7.7, 7.2), (7.7, 4.2), "−log q(token)")
    ax.text(0.3, 0.6, "any teacher, any vocabulary;\none number per token", fontsize=8)


def _draw_logits(ax: Axes, text: str, writes: str) -> None:
    _box(ax, 2.9, 7.8, (4.2, 1.5), text, "text")
    _box(ax, 0.2, 4.2, (4.2, 2.2), "teacher: p", "teacher")
    _box(ax, 6.4, 4.5, (3.0, 1.6), "student: q", "student")
    _arrow(ax, (4.0, 7.8), (2.6, 6.4))
    _arrow(ax, (6.2, 7.8), (7.6, 6.1))
    ax.annotate("", (6.4, 5.3), (4.4, 5.3), arrowprops={"arrowstyle": "<->"})
    ax.text(5.4, 3.0, "KL(p‖q), KL(q‖p), JSD", ha="center", fontsize=8)
    if writes:
        style = {"arrowstyle": "->", "connectionstyle": "arc3,rad=0.5", "linestyle": "--"}
        ax.annotate("", (7.1, 8.6), (9.0, 6.1), arrowprops=style)
        ax.text(8.4, 8.7, writes, fontsize=7)
        words = "one vocabulary; the student's\nown mistakes are corrected"
    else:
        words = "one vocabulary;\nV numbers per token"
    ax.text(0.3, 0.6, words, fontsize=8)
