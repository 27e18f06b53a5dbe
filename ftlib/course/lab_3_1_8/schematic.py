"""SimPO, ORPO and DPO in one picture: what each loss reads of a pair."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

TOKEN = 0.34  # width of a token in the drawing
CHOSEN = {"facecolor": "white", "edgecolor": "black", "hatch": ""}
REJECTED = {"facecolor": "0.85", "edgecolor": "black", "hatch": "///"}
LOSSES = (
    ("DPO", r"$\Sigma_c,\ \Sigma_r$ and the reference's two sums", r"$\beta(r_c-r_r)$"),
    ("SimPO", r"$\bar p_c,\ \bar p_r$", r"$\beta(\bar p_c-\bar p_r)-\gamma$"),
    ("ORPO", r"$\bar p_c,\ \bar p_r$", r"$\log\,$odds$_c-\log\,$odds$_r$;   $-\bar p_c$ beside it"),
)


def _tokens(ax: Axes, y: float, count: int, look: dict, words: str) -> None:
    """An answer as a row of boxes, with what is read off it."""
    for i in range(count):
        ax.add_patch(Rectangle((2.0 + TOKEN * i, y), TOKEN, 0.5, linewidth=1, **look))
    ax.text(1.85, y + 0.25, words, ha="right", va="center")
    end = 2.15 + TOKEN * count
    text = rf"$\Sigma$: {count} log-probabilities;  $\bar p=\Sigma/{count}$"
    ax.text(end, y + 0.25, text, va="center")


def draw_losses(chosen: int = 9, rejected: int = 5) -> Figure:
    """A pair of answers of `chosen` and `rejected` tokens, and the number z of each loss, whose
    −log σ(z) is taken.
    """
    figure, ax = plt.subplots(figsize=(8.2, 3.3))
    _tokens(ax, 3.3, chosen, CHOSEN, "chosen answer")
    _tokens(ax, 2.5, rejected, REJECTED, "rejected answer")
    for i, (name, reads, z) in enumerate(LOSSES):
        y = 1.6 - 0.7 * i
        ax.text(0.1, y, name, weight="bold", va="center")
        ax.text(1.2, y, f"reads {reads}", va="center")
        ax.annotate("", (6.0, y), (5.5, y), arrowprops={"arrowstyle": "->"})
        ax.text(6.1, y, rf"$z=$ {z}", va="center")
    ax.set(xlim=(0, 10), ylim=(-0.3, 4.1))
    ax.set_title(r"What each loss reads of a pair. The loss is $-\log\sigma(z)$")
    ax.axis("off")
    plt.close(figure)
    return figure
