"""LoRA in one picture: W, A and B with their shapes, drawn to scale."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

FROZEN = {"facecolor": "0.88", "edgecolor": "black", "hatch": ""}
TRAINED = {"facecolor": "white", "edgecolor": "black", "hatch": "////"}


def _box(ax: Axes, x: float, y: float, width: float, height: float, look: dict) -> None:
    ax.add_patch(Rectangle((x, y), width, height, linewidth=1.2, **look))


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "linewidth": 1.2})


def _text(ax: Axes, x: float, y: float, words: str, size: float = 11, **look) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    ax.text(x, y, words, ha="center", va="center", fontsize=size, bbox=box, **look)


def draw_lora(n_in: int, n_out: int, r: int) -> Figure:
    """The two roads from x to y for one layer; heights and widths of the matrices are to scale
    between themselves.
    """
    figure, ax = plt.subplots(figsize=(7.6, 3.9))
    longest = max(n_in, n_out)
    wide = 3.4 * n_in / longest
    high = 3.4 * n_out / longest
    thin = max(0.12, 3.4 * r / longest)  # visible at any scale
    left = 1.6
    _box(ax, left, 2.2, wide, high, FROZEN)
    _text(ax, left + wide / 2, 2.2 + high / 2, f"$W_0$   {n_out} × {n_in}\nfrozen")
    _box(ax, left, 0.8, wide, thin, TRAINED)
    _text(ax, left + wide / 2, 0.35, f"$A$   {r} × {n_in},  random at first")
    b_left = left + wide + 1.5
    _box(ax, b_left, 0.2, thin, high, TRAINED)
    _text(ax, b_left + thin + 1.2, 0.2 + high / 5, f"$B$   {n_out} × {r}\nzero at first")
    _text(ax, 0.4, 2.0, f"$x$\n{n_in}")
    _arrow(ax, (0.75, 2.2), (left - 0.1, 2.2 + high / 2))
    _arrow(ax, (0.75, 1.8), (left - 0.1, 0.8 + thin / 2))
    _arrow(ax, (left + wide + 0.1, 0.8 + thin / 2), (b_left - 0.1, 0.8 + thin / 2))
    _text(ax, left + wide + 0.75, 1.2, f"$Ax$: {r}")
    sum_x = b_left + thin + 2.6
    sum_y = 2.2 + high / 2
    _text(ax, sum_x, sum_y, "+", 18)
    _arrow(ax, (left + wide + 0.1, sum_y), (sum_x - 0.25, sum_y))
    _arrow(ax, (b_left + thin + 0.1, 0.2 + 0.55 * high), (sum_x - 0.1, sum_y - 0.3))
    _text(ax, b_left + thin + 1.3, 0.2 + 0.78 * high, r"$\times\,\alpha/r$")
    _arrow(ax, (sum_x + 0.25, sum_y), (sum_x + 0.9, sum_y))
    _text(ax, sum_x + 1.3, sum_y, f"$y$\n{n_out}")
    ax.set(xlim=(0, sum_x + 1.8), ylim=(0, 2.5 + high))
    ax.set_title(r"$y = W_0x + \frac{\alpha}{r}\,B(Ax)$: hatched is trained, grey is not")
    ax.axis("off")
    plt.close(figure)
    return figure
