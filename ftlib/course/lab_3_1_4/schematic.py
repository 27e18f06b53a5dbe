"""Supervised fine-tuning in one picture: from a conversation to an adapter, with the shapes."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

READ: dict[str, Any] = {"facecolor": "0.88", "edgecolor": "black"}
TRAINED: dict[str, Any] = {"facecolor": "white", "edgecolor": "black", "hatch": "////"}
WIDTH = 0.62  # of a token's box


def _tokens(ax: Axes, y: float, words: list[str], trained: list[bool]) -> None:
    """A row of boxes, those on which a loss is taken hatched."""
    for i, (word, is_trained) in enumerate(zip(words, trained, strict=True)):
        look = TRAINED if is_trained else READ
        ax.add_patch(Rectangle((i * (WIDTH + 0.06), y), WIDTH, 0.5, linewidth=1.0, **look))
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8} if is_trained else None
        ax.text(
            i * (WIDTH + 0.06) + WIDTH / 2, y + 0.25, word, ha="center", va="center", fontsize=8,
            bbox=box,
        )  # fmt: skip


def _box(ax: Axes, x: float, y: float, words: str, width: float = 2.3) -> None:
    ax.add_patch(Rectangle((x, y), width, 0.9, facecolor="white", edgecolor="black"))
    ax.text(x + width / 2, y + 0.45, words, ha="center", va="center", fontsize=9)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], words: str = "") -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "linewidth": 1.2})
    if words:
        middle = ((start[0] + end[0]) / 2 + 0.1, (start[1] + end[1]) / 2)
        ax.text(*middle, words, fontsize=8, va="center")


def draw_pipeline(vocabulary: int, layers: int, rank: int) -> Figure:
    """Conversation, labels, model with adapter, loss, step; the sizes are the model's own."""
    figure, ax = plt.subplots(figsize=(8.2, 4.4))
    words = ["bos", "user", "What", "is", "…?", "end", "asst", "blue", "end"]
    _tokens(ax, 4.6, words, [False] * 9)
    ax.text(6.4, 4.85, "input_ids (B, T)", fontsize=9, va="center")
    labels = ["−100"] * 7 + ["blue", "end"]
    _tokens(ax, 3.9, labels, [False] * 7 + [True] * 2)
    ax.text(6.4, 4.15, "labels (B, T): hatched is trained on", fontsize=9, va="center")
    _box(ax, 0.0, 2.2, f"frozen base\n{layers} layers", 2.4)
    ax.add_patch(Rectangle((0.0, 1.85), 2.4, 0.3, linewidth=1.0, **TRAINED))
    ax.text(2.5, 2.0, f"A, B: rank {rank}, trained", fontsize=8, va="center")
    _arrow(ax, (1.2, 3.85), (1.2, 3.15))
    _box(ax, 4.6, 2.2, f"logits (B, T, {vocabulary:,})\nposition t scores t + 1", 3.0)
    _arrow(ax, (2.5, 2.65), (4.5, 2.65))
    _box(ax, 8.4, 2.2, "mean over the\nanswer tokens", 2.2)
    _arrow(ax, (7.7, 2.65), (8.3, 2.65))
    _arrow(ax, (9.5, 3.85), (9.5, 3.15), "labels")
    _box(ax, 4.6, 0.3, "gradient of A, B: add up,\nclip, step by AdamW", 3.0)
    _arrow(ax, (9.0, 2.1), (7.7, 0.9), "backward")
    _arrow(ax, (4.5, 0.75), (1.2, 1.75))
    ax.text(0.2, 0.7, "rate: warm-up, then cosine", fontsize=8, va="center")
    ax.set(xlim=(-0.1, 10.8), ylim=(0.1, 5.3))
    ax.set_title("One step of supervised fine-tuning with LoRA")
    ax.axis("off")
    plt.close(figure)
    return figure
