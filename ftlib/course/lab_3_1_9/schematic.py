"""KTO in one picture: what of a batch goes where, with shapes."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

TRAINED = {"facecolor": "white", "hatch": "////"}
FROZEN = {"facecolor": "0.88", "hatch": ""}
PLAIN = {"facecolor": "white", "hatch": ""}


def _box(ax: Axes, x: float, y: float, words: str, look: dict, width: float = 2.3) -> None:
    """A box with its middle at (x, y)."""
    corner = (x - width / 2, y - 0.42)
    ax.add_patch(
        FancyBboxPatch(corner, width, 0.84, boxstyle="round,pad=0.02", edgecolor="black", **look)
    )
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    ax.text(x, y, words, ha="center", va="center", fontsize=8.5, bbox=behind)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], broken=False) -> None:
    line = "--" if broken else "-"
    ax.annotate(
        "", end, start, arrowprops={"arrowstyle": "->", "linewidth": 1.2, "linestyle": line}
    )


def draw_kto(batch: int) -> Figure:
    """From `batch` rows to their losses: the rows' own answers above, below them the same answers
    under other prompts. Hatched is trained, grey is not; no gradient flows along broken arrows.
    """
    figure, ax = plt.subplots(figsize=(9.6, 3.8))
    _box(ax, 1.3, 3.0, f"prompt $x_i$, answer $y_i$\n({batch} rows, thumb each)", PLAIN, 2.5)
    _box(ax, 1.3, 0.6, f"prompt $x_i$, answer $y_j$\nto another prompt ({batch})", PLAIN, 2.5)
    _box(ax, 4.2, 3.55, r"policy $\log\pi$", TRAINED, 1.7)
    _box(ax, 4.2, 2.45, r"reference $\log\pi_{ref}$", FROZEN, 1.9)
    _box(ax, 4.2, 0.6, "both, without gradient", FROZEN, 2.1)
    _box(ax, 6.9, 3.0, rf"$r_i$: ({batch},) nats", PLAIN, 1.9)
    _box(ax, 6.9, 0.6, r"$z_0 = \max(0,$ mean$)$: ()", PLAIN, 2.1)
    _box(
        ax,
        9.8,
        3.0,
        f"value $v_i$: ({batch},)\nup $\\sigma(\\beta(r_i - z_0))$\n"
        r"down $\sigma(\beta(z_0 - r_i))$",
        PLAIN,
        2.4,
    )
    _box(ax, 9.8, 0.6, r"loss: mean of $w_i(1 - v_i)$", PLAIN, 2.4)
    _arrow(ax, (2.6, 3.1), (3.3, 3.5))
    _arrow(ax, (2.6, 2.9), (3.2, 2.5))
    _arrow(ax, (2.6, 0.6), (3.1, 0.6))
    _arrow(ax, (5.1, 3.5), (5.9, 3.1))
    _arrow(ax, (5.2, 2.5), (5.9, 2.9), broken=True)
    _arrow(ax, (5.3, 0.6), (5.8, 0.6), broken=True)
    _arrow(ax, (7.9, 3.0), (8.55, 3.0))
    _arrow(ax, (7.5, 1.1), (8.7, 2.5), broken=True)
    _arrow(ax, (9.8, 2.5), (9.8, 1.1))
    ax.set(xlim=(0, 11.1), ylim=(0, 4.1))
    ax.set_title("KTO: each answer against a reference point that answers to other prompts set")
    ax.axis("off")
    plt.close(figure)
    return figure
