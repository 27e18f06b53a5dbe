"""One run in two languages: the stations of SFT, with what each library calls them."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

DIFFERS = {"facecolor": "white", "hatch": "////"}
EQUAL = {"facecolor": "0.88", "hatch": ""}

# Station, ftlib's words, TRL's and PEFT's words, whether their defaults differ.
STATIONS = (
    ("rows", "conversations", "messages, or prompt\nand completion", True),
    ("order", "like lengths\ntogether", "random", True),
    ("adapter", "add_lora\nα = 16, all layers", "LoraConfig\nα = 8, q and v", True),
    ("loss", "answer tokens,\nmean of the step", "labelled tokens,\nmean of the step", True),
    ("gradient", "clipped at 1", "clipped at 1", False),
    ("optimizer", "AdamW\nβ 0.9, 0.999", "AdamW\nβ 0.9, 0.999", False),
    ("schedule", "cosine,\nwarmup 5%", "linear,\nno warmup", True),
)


def _box(ax: Axes, x: float, y: float, words: str, look: dict) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x - 0.66, y - 0.4), 1.32, 0.8, boxstyle="round,pad=0.02", edgecolor="black", **look
        )
    )
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
    ax.text(x, y, words, ha="center", va="center", fontsize=7.0, bbox=behind)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "linewidth": 1.0})


def draw_stations() -> Figure:
    """ftlib's lane above, the libraries' below. Hatched: left alone, the two do different things
    there; grey: the same.
    """
    figure, ax = plt.subplots(figsize=(11.4, 2.9))
    for i, (station, ours, theirs, differs) in enumerate(STATIONS):
        x = 1.5 * i + 1.9
        look = DIFFERS if differs else EQUAL
        ax.text(x, 3.05, station, ha="center", fontsize=9, weight="bold")
        _box(ax, x, 2.3, ours, look)
        _box(ax, x, 0.8, theirs, look)
        ax.plot([x, x], [1.25, 1.85], color="black", linestyle=":", linewidth=1.0)
        ax.text(x + 0.08, 1.55, "≠" if differs else "=", va="center", fontsize=9)
        if i:
            _arrow(ax, (x - 0.84, 2.3), (x - 0.68, 2.3))
            _arrow(ax, (x - 0.84, 0.8), (x - 0.68, 0.8))
    ax.text(0.55, 2.3, "ftlib", ha="center", va="center", fontsize=10)
    ax.text(0.55, 0.8, "TRL\nPEFT", ha="center", va="center", fontsize=10)
    ax.set(xlim=(0, 1.5 * len(STATIONS) + 1.2), ylim=(0.2, 3.4))
    ax.set_title("One run in two libraries: equal only with equal settings")
    ax.axis("off")
    plt.close(figure)
    return figure
