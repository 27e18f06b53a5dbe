"""DoRA in one picture: a weight's rows as lengths and directions, and what trains."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

FROZEN = {"facecolor": "0.88", "edgecolor": "black"}
TRAINED = {"facecolor": "white", "edgecolor": "black", "hatch": "////"}
PLAIN = {"facecolor": "white", "edgecolor": "black"}
TALL = 2.4  # a weight's height in the drawing, whatever its shape


def _box(ax: Axes, x: float, y: float, width: float, height: float, look: dict) -> None:
    ax.add_patch(Rectangle((x, y), width, height, linewidth=1.2, **look))


def _text(ax: Axes, x: float, y: float, words: str, size: float = 11) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    ax.text(x, y, words, ha="center", va="center", fontsize=size, bbox=box)


def _row(ax: Axes, x: float, y: float, width: float) -> None:
    """One row of a matrix, marked."""
    _box(ax, x, y, width, 0.22, {"facecolor": "0.45", "edgecolor": "black"})


def draw_dora(n_in: int, n_out: int, r: int) -> Figure:
    """W' = m ⊙ V/‖V‖ with V = W₀ + s·BA for a layer of these shapes, one row marked in each."""
    figure, ax = plt.subplots(figsize=(9.4, 3.5))
    middle = 0.6 + TALL / 2
    row = middle + 0.4
    _box(ax, 0.0, 0.6, 0.3, TALL, TRAINED)
    _box(ax, 0.0, row, 0.3, 0.22, {"facecolor": "0.45", "edgecolor": "black"})
    _text(ax, 0.15, 0.25, f"$m$   {n_out}")
    _text(ax, 0.15, 3.3, "one length\na row", 9)
    _text(ax, 0.8, middle, "$\\odot$", 16)
    _text(ax, 1.15, middle, "(", 34)
    _box(ax, 1.5, 0.6, 2.2, TALL, FROZEN)
    _row(ax, 1.5, row, 2.2)
    _text(ax, 2.6, 0.25, f"$W_0$   {n_out} × {n_in}, frozen")
    _text(ax, 4.15, middle, "$+\\ s\\,\\cdot$", 13)
    _box(ax, 4.65, 0.6, 0.35, TALL, TRAINED)
    _row(ax, 4.65, row, 0.35)
    _text(ax, 4.82, 0.25, f"$B$   {n_out} × {r}")
    _box(ax, 5.3, middle - 0.18, 2.2, 0.36, TRAINED)
    _text(ax, 6.4, middle - 0.55, f"$A$   {r} × {n_in}")
    _text(ax, 7.75, middle, ")", 34)
    _text(
        ax,
        8.85,
        middle,
        "each row of $V$ divided\nby its own length $\\|V_i\\|$,\na constant of the step",
        9,
    )
    _text(ax, 4.6, 3.3, "$V$: only the direction of its rows is used", 9)
    ax.set(xlim=(-0.7, 10.0), ylim=(0, 3.6))
    ax.set_title(
        r"$W' = m \odot (W_0 + s\,BA)\,/\,\|W_0 + s\,BA\|$ by row: hatched is trained, grey is not"
    )
    ax.axis("off")
    plt.close(figure)
    return figure
