"""What forgetting is, in one picture: in the space of weights, and in the plane that this lab draws
again and again.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

OLD = np.array([0.0, 0.0])  # θ*, where the old data are fitted
NEW = np.array([3.2, 2.3])  # the middle of the new task's valley
LEADER = {"arrowstyle": "-", "linewidth": 0.7, "color": "grey"}
SIZES = (1.0, 1.9, 2.8)  # of the lines of equal loss


def draw_forgetting() -> Figure:
    """Left: two valleys in two weights, and ways between them. Right: learnt against forgotten."""
    figure, (weights, plane) = plt.subplots(1, 2, figsize=(9.6, 3.6))
    _draw_weights(weights)
    _draw_plane(plane)
    plt.close(figure)
    return figure


def _valley(ax: Axes, middle: np.ndarray, width: float, height: float, turn: float, line: str):
    """Lines of equal loss around a minimum."""
    for size in SIZES:
        ring = Ellipse(
            tuple(middle), size * width, size * height, angle=turn, fill=False, linestyle=line
        )
        ax.add_patch(ring)


def _draw_weights(ax: Axes) -> None:
    _valley(ax, OLD, 1.9, 0.75, 15, "-")
    _valley(ax, NEW, 0.9, 1.9, 20, "--")
    s = np.linspace(0, 1, 30)[:, None]
    straight = OLD + s * (NEW - OLD)
    bent = OLD + s * (np.array([2.75, 1.0]) - OLD) + np.hstack([0 * s, -0.45 * s * (1 - s)])
    ax.plot(*straight.T, color="black", linewidth=1.6)
    ax.plot(*bent.T, color="black", linewidth=1.6, linestyle=":")
    for point, words, shift in (
        (OLD, "$\\theta^*$", (-16, -14)),
        (NEW, "full\nfine-tuning", (52, 14)),
        (straight[13], "interpolation,\nearly stop", (-112, 30)),
        (bent[-1], "EWC, replay:\nalong the old valley", (16, -72)),
    ):
        ax.plot(*point, "o", color="black", markersize=5)
        ax.annotate(words, point, shift, textcoords="offset points", fontsize=9, arrowprops=LEADER)
    ax.set(xlim=(-2.9, 6.4), ylim=(-2.3, 4.5), aspect="equal", xlabel="one weight")
    ax.set_ylabel("another weight")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    ax.set_title("Old valley (solid), new valley (dashed)")


def _draw_plane(ax: Axes) -> None:
    loss = np.linspace(0.3, 2.2, 60)
    rates = 0.25 / loss**2.2
    better = 0.25 * rates
    ax.plot(loss, rates, color="black", linewidth=1.6)
    ax.plot(loss, better, color="black", linewidth=1.6, linestyle=":")
    ax.annotate("smaller and smaller rates:\nfree of cost", (0.62, 1.25), fontsize=9)
    ax.annotate(
        "a method that is worth its trouble",
        (loss[4], better[4]),
        (0.8, 0.62),
        fontsize=9,
        arrowprops=LEADER,
    )
    ax.annotate("", (0.36, 0.55), (0.36, 2.0), arrowprops={"arrowstyle": "->", "linewidth": 1.4})
    ax.set(xlim=(0.2, 2.3), ylim=(0, 3), xlabel="loss on the new task (learnt: to the left)")
    ax.set_ylabel("forgotten of the old")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    ax.set_title("A curve for each method")
