"""DPO in one picture: two answers to a prompt, one model with its adapter on and off, one loss."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

FROZEN = {"facecolor": "0.88", "edgecolor": "black"}
TRAINED = {"facecolor": "white", "edgecolor": "black", "hatch": "////"}
PLAIN = {"facecolor": "white", "edgecolor": "black"}


def _box(ax: Axes, x: float, y: float, width: float, height: float, look: dict, words: str) -> None:
    ax.add_patch(Rectangle((x, y), width, height, linewidth=1.2, **look))
    label = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    if look is FROZEN:
        label["facecolor"] = "0.88"
    ax.text(
        x + width / 2, y + height / 2, words, ha="center", va="center", fontsize=9.5, bbox=label
    )


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "linewidth": 1.1})


def draw_dpo(weights: int, adapter: int) -> Figure:
    """The way from a pair to the loss. `weights` and `adapter`: numbers that are frozen and that
    train.
    """
    figure, ax = plt.subplots(figsize=(8.4, 3.5))
    _box(ax, 0.1, 2.55, 1.9, 0.7, PLAIN, "prompt $x$ +\nchosen $y_c$")
    _box(ax, 0.1, 0.75, 1.9, 0.7, PLAIN, "prompt $x$ +\nrejected $y_r$")
    _box(ax, 2.8, 2.3, 2.5, 1.2, TRAINED, f"policy $\\pi$:\nadapter on\n{adapter:,} train")
    _box(
        ax,
        2.8,
        0.55,
        2.5,
        1.1,
        FROZEN,
        f"reference $\\pi_{{ref}}$:\nadapter off\n{weights:,} frozen",
    )
    for y in (2.9, 1.1):
        _arrow(ax, (2.0, y), (2.8, 2.9))
        _arrow(ax, (2.0, y), (2.8, 1.1))
    _box(ax, 6.1, 2.4, 2.4, 1.0, PLAIN, "$r_c=\\log\\dfrac{\\pi(y_c|x)}{\\pi_{ref}(y_c|x)}$")
    _box(ax, 6.1, 0.6, 2.4, 1.0, PLAIN, "$r_r=\\log\\dfrac{\\pi(y_r|x)}{\\pi_{ref}(y_r|x)}$")
    for y in (2.9, 1.1):
        _arrow(ax, (5.3, y), (6.1, 2.9))
        _arrow(ax, (5.3, y), (6.1, 1.1))
    _box(
        ax,
        9.3,
        1.45,
        2.5,
        1.1,
        PLAIN,
        "$-\\log\\sigma\\,(\\beta\\,(r_c-r_r))$\none number per pair",
    )
    _arrow(ax, (8.5, 2.9), (9.3, 2.2))
    _arrow(ax, (8.5, 1.1), (9.3, 1.8))
    ax.set(xlim=(0, 11.9), ylim=(0.3, 3.7))
    ax.set_title("A pair, one model twice, one loss: hatched is trained, grey is not")
    ax.axis("off")
    plt.close(figure)
    return figure
