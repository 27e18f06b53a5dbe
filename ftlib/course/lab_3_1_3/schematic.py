"""NEFTune in one picture: where the noise enters, when, and how large it is."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

BOX = {"facecolor": "0.92", "edgecolor": "black"}
NOISE = {"facecolor": "white", "edgecolor": "black", "hatch": "////"}


def _box(ax: Axes, x: float, y: float, words: str, look: dict, width: float = 1.7) -> None:
    ax.add_patch(Rectangle((x, y - 0.42), width, 0.84, linewidth=1.2, **look))
    frame = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.9}
    ax.text(x + width / 2, y, words, ha="center", va="center", fontsize=9, bbox=frame)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "linewidth": 1.2})


def _draw_road(ax: Axes, d: int) -> None:
    """From token ids to the first block, with the noise from above."""
    _box(ax, 0.0, 1.0, "token ids\n$B × L$", BOX)
    _box(ax, 2.3, 1.0, f"embedding\n$V × {d}$", BOX)
    _box(ax, 6.0, 1.0, "RMSNorm,\nblocks, loss", BOX)
    _box(ax, 3.9, 2.6, "$\\alpha/\\sqrt{Ld}$ · U(−1, 1)\n$B × L × d$", NOISE, 2.6)
    ax.text(5.0, 1.0, "+", fontsize=18, ha="center", va="center")
    _arrow(ax, (1.7, 1.0), (2.3, 1.0))
    _arrow(ax, (4.0, 1.0), (4.8, 1.0))
    _arrow(ax, (5.2, 1.0), (6.0, 1.0))
    _arrow(ax, (5.0, 2.15), (5.0, 1.25))
    ax.text(6.6, 2.6, "in training only", fontsize=9, va="center")
    ax.set(xlim=(-0.1, 8.4), ylim=(0.3, 3.2))
    ax.set_title("Where it enters", fontsize=10)
    ax.axis("off")


def _draw_ball(ax: Axes, norm: float, radius: float) -> None:
    """One token's embedding as an arrow, the noise around its end, to scale."""
    _arrow(ax, (0, 0), (norm, 0))
    ax.add_patch(Circle((norm, 0), radius, linewidth=1.2, alpha=0.9, **NOISE))
    ax.plot(norm, 0, "o", color="black", markersize=4)
    ax.text(0, 0.06 * norm, f"embedding, norm {norm:.2f}", ha="left", fontsize=8)
    ax.text(
        norm,
        -radius,
        f"noise $\\alpha/\\sqrt{{3L}}$ = {radius:.2f}",
        fontsize=8,
        ha="center",
        va="top",
    )
    reach = max(radius, 0.3 * norm)
    ax.set(xlim=(-0.1 * norm, norm + 1.2 * reach), ylim=(-1.5 * reach, 1.2 * reach))
    ax.set(aspect="equal")
    ax.set_title("How large it is", fontsize=10)
    ax.axis("off")


def draw_neftune(d: int, norm: float, radius: float) -> Figure:
    """The road from ids to the loss, and the noise ball of one token.

    `d`: hidden size; `norm`: an embedding's; `radius`: norm of the noise on one token.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.2, 2.9), gridspec_kw={"width_ratios": [2, 1]}
    )
    _draw_road(left, d)
    _draw_ball(right, norm, radius)
    plt.close(figure)
    return figure
