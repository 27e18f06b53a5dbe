"""LoReFT in one picture: where it edits, and what an edit does."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

LAYERS = 4  # that are drawn
PROMPT = 9  # tokens
ANSWER = 4
ENDS = 2  # positions at each end of the prompt that are edited
DIRECTION = np.array([0.9, 0.436])  # the one row of R, of length one to three digits
STATE = np.array([1.5, 2.6])  # h
WANTED = 3.4  # W h + b


def draw_reft() -> Figure:
    """Left: tokens across, layers up; edited states are hatched. Right: two dimensions of one state
    and R of one row.
    """
    figure, (grid, plane) = plt.subplots(1, 2, figsize=(9.6, 3.5), width_ratios=(1.5, 1))
    _draw_grid(grid)
    _draw_edit(plane)
    plt.close(figure)
    return figure


def _is_edited(token: int) -> bool:
    return token < ENDS or PROMPT - ENDS <= token < PROMPT


def _box(ax: Axes, token: int, layer: int) -> None:
    """The state of a token after a layer: grey in the prompt, hatched where it is edited."""
    is_plain = token < PROMPT and not _is_edited(token)
    box = Rectangle(
        (token + 0.1, layer + 0.15),
        0.8,
        0.7,
        edgecolor="black",
        facecolor="0.88" if is_plain else "white",
        hatch="////" if _is_edited(token) else "",
    )
    ax.add_patch(box)


def _draw_grid(ax: Axes) -> None:
    for token in range(PROMPT + ANSWER):
        for layer in range(LAYERS):
            _box(ax, token, layer)
    ax.plot([PROMPT, PROMPT], [-0.5, LAYERS], color="black", linestyle=":")
    ax.text(PROMPT / 2, -0.35, "prompt", ha="center")
    ax.text(PROMPT + ANSWER / 2, -0.35, "generated", ha="center")
    ax.text(0.1, LAYERS + 0.15, "hatched: edited after the layer; white: reads them, is not edited")
    ax.set(xlim=(-0.2, PROMPT + ANSWER + 0.2), ylim=(-0.7, LAYERS + 0.6), ylabel="layer")
    ax.set_yticks(np.arange(LAYERS) + 0.5, [str(layer + 1) for layer in range(LAYERS)])
    ax.set_xticks([])
    ax.set_title("Where: both ends of the prompt")
    ax.grid(False)
    for side in ("top", "right", "bottom"):
        ax.spines[side].set_visible(False)


def _draw_edit(ax: Axes) -> None:
    has = STATE @ DIRECTION
    after = STATE + (WANTED - has) * DIRECTION
    line = np.array([-0.4, 4.4])[:, None] * DIRECTION
    ax.plot(*line.T, color="grey", linewidth=1)
    ax.annotate("R's row", line[1], (0, -16), textcoords="offset points", ha="center", color="grey")
    for point, words, shift in (
        (STATE, "$h$", (-14, 2)),
        (after, "$h' = h + R^T(Wh + b - Rh)$", (-70, 10)),
        (has * DIRECTION, "$Rh$", (2, -16)),
        (WANTED * DIRECTION, "$Wh + b$", (2, -16)),
    ):
        ax.plot(*point, "o", color="black", markersize=5)
        ax.annotate(words, point, shift, textcoords="offset points")
    for start, end in ((STATE, has * DIRECTION), (after, WANTED * DIRECTION)):
        ax.plot(*np.stack([start, end]).T, color="black", linestyle=":", linewidth=1)
    ax.annotate("", after, STATE, arrowprops={"arrowstyle": "->", "linewidth": 1.6})
    ax.set(xlim=(-0.4, 4.6), ylim=(-0.4, 4.4), aspect="equal")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    ax.set_title("What: along R replaced, orthogonal to R kept")
