"""One multiple-choice question as the harness scores it: what the model is given, what is scored,
and the three ways to choose.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

GIVEN = {"facecolor": "0.88", "hatch": ""}
SCORED = {"facecolor": "white", "hatch": "////"}
TOP = 4.4
STEP = 0.86


def _box(ax: Axes, left: float, y: float, width: float, words: str, look: dict) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (left, y - 0.28), width, 0.56, boxstyle="round,pad=0.02", edgecolor="black", **look
        )
    )
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
    ax.text(left + width / 2, y, words, ha="center", va="center", fontsize=8.5, bbox=behind)


def draw_scoring(question: dict, sums: Sequence[float]) -> Figure:
    """The question's context and choices, the log-likelihood of each (nats), and what it is per
    character; the highest of a column is marked.
    """
    choices = question["choices"]
    per_character = [total / len(text) for total, text in zip(sums, choices, strict=True)]
    figure, ax = plt.subplots(figsize=(9.4, 3.4))
    for i, (text, total) in enumerate(zip(choices, sums, strict=True)):
        y = TOP - 1 - STEP * i
        _box(ax, 0.1, y, 3.6, question["context"], GIVEN)
        _box(ax, 3.8, y, 1.9, text, SCORED)
        ax.annotate("", (6.5, y), (5.85, y), arrowprops={"arrowstyle": "->"})
        _number(ax, 7.1, y, f"{total:.2f}", total == max(sums))
        _number(ax, 9.0, y, f"{per_character[i]:.2f}", per_character[i] == max(per_character))
        if i == question["answer"]:
            ax.text(10.0, y, "the key", fontsize=8.5, va="center", style="italic")
    for x, words in (
        (1.9, "given: the context"),
        (4.75, "scored: the choice"),
        (7.1, "Σ log p, nats\nacc: the largest"),
        (9.0, "a character\nacc_norm: the largest"),
    ):
        ax.text(x, TOP - 0.25, words, ha="center", va="center", fontsize=8.5)
    ax.set(xlim=(0, 11), ylim=(TOP - 1 - STEP * (len(choices) - 0.4), TOP + 0.2))
    ax.set_title("The model writes nothing: the choice that it finds likeliest is its answer")
    ax.axis("off")
    plt.close(figure)
    return figure


def _number(ax: Axes, x: float, y: float, words: str, is_best: bool) -> None:
    weight = "bold" if is_best else "normal"
    mark = " ←" if is_best else ""
    ax.text(x, y, words + mark, ha="center", va="center", fontsize=9, weight=weight)
