"""One row of a weight in the plane, with handles (`ftlib.course.explorable`): what the same update
does to its length and its angle in LoRA and in DoRA, and where recorded runs lie.
"""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from ftlib.course.explorable import Explorable, slider
from ftlib.course.plots import style
from ftlib.course.records.figures import LIVE
from ftlib.course.records.live import Result

SIZES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)  # of ‖s·BA‖ by row, over ‖w‖
ANGLES = tuple(range(0, 181, 15))  # degrees between the update and the row
LENGTHS = (0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0)  # m over ‖w‖
LEAST = 0.1  # %: a smaller change of length is drawn here, on a logarithmic axis
START = {"size": 0.5, "angle": 90, "m": 1.0}


def moved_row(size: float, angle: float, m: float | None = None) -> tuple[float, float]:
    """(length, turn in degrees) of the row w = (1, 0) with an update of this size at this angle:
    of w + u, LoRA's; with `m` of m·(w + u)/‖w + u‖, DoRA's.
    """
    x = 1 + size * math.cos(math.radians(angle))
    y = size * math.sin(math.radians(angle))
    length = math.hypot(x, y)
    turn = math.degrees(math.atan2(y, x)) if length > 1e-9 else 0.0
    return (length if m is None else m), turn


def run_points(result: Result, arm: str) -> np.ndarray:
    """(turn in degrees, mean change of length in %) of each recorded run of an arm: (seeds, 2)."""
    turns = result.means(arm, "turn")
    lengths: np.ndarray = 100 * result.means(arm, "longer")
    return np.stack([turns, lengths], axis=1)


class DoRAPlane(Explorable):
    """Handles for the update's size and angle, and for m; on the left the row, on the right the
    change of length against the turn, with the runs of `result`.
    """

    def __init__(self, result: Result, **start):
        unknown = sorted(start.keys() - START.keys())
        if unknown:
            raise ValueError(f"no handle {', '.join(unknown)}: use {', '.join(START)}")
        chosen = START | start
        self.result = result
        shown = [arm for arm in result.arms if arm != "m only"]  # its rows turn by their sign
        self.runs = {arm: run_points(result, arm) for arm in shown}
        super().__init__(
            self.draw,
            self.describe,
            size=slider("size of the update", SIZES, chosen["size"]),
            angle=slider("its angle to the row", ANGLES, chosen["angle"]),
            m=slider("m, DoRA's length", LENGTHS, chosen["m"]),
        )

    def describe(self, size: float, angle: float, m: float) -> str:
        """Both rows in a line."""
        lora = moved_row(size, angle)
        dora = moved_row(size, angle, m)
        return (
            f"LoRA: {lora[0]:.2f} times as long, turned by {lora[1]:.0f}°. "
            f"DoRA: {dora[0]:.2f} times as long, turned by {dora[1]:.0f}°."
        )

    def draw(self, size: float, angle: float, m: float) -> Figure:
        """Closed, so that a cell shows it once."""
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.9))
        _draw_row(left, size, angle, m)
        self._draw_runs(right, size, angle, m)
        plt.close(figure)
        return figure

    def _draw_runs(self, ax: Axes, size: float, angle: float, m: float) -> None:
        """Every recorded run as a point, and the two rows drawn on the left."""
        for i, (arm, points) in enumerate(self.runs.items()):
            look = {**style(i), "linestyle": "none"}
            ax.plot(points[:, 0], np.maximum(points[:, 1], LEAST), label=arm, alpha=0.6, **look)
        for marker, name, row in (
            ("*", "LoRA's row", moved_row(size, angle)),
            ("P", "DoRA's row", moved_row(size, angle, m)),
        ):
            look = LIVE | {"marker": marker}
            change = max(LEAST, 100 * abs(row[0] - 1))
            ax.plot(row[1], change, label=f"{name} on the left", **look)
        turns = np.linspace(0, 80, 200)
        across = 100 * (1 / np.cos(np.radians(turns)) - 1)
        ax.plot(turns, across, color="grey", linestyle=":", label="LoRA, update at 90°")
        ax.set_xlim(-2, 90)
        ax.set_ylim(0.7 * LEAST, 30_000)  # room for the legend
        ax.set_yscale("log")
        ax.set(xlabel="turn (degrees)", ylabel="change of length (%)")
        own = f" ({self.result.profile.name})" if self.result.shown_in else ""
        ax.set_title(f"Recorded runs, mean over all rows{own}")
        ax.legend(fontsize=7, loc="upper left", ncol=2)


def _arrow(ax: Axes, start, end, color: str, line: str = "-") -> None:
    look = {"arrowstyle": "-|>", "color": color, "linestyle": line, "linewidth": 1.8}
    ax.annotate("", end, start, arrowprops=look)


def _draw_row(ax: Axes, size: float, angle: float, m: float) -> None:
    """w, the update, LoRA's row and DoRA's on its circle."""
    lora = np.array(
        [1 + size * math.cos(math.radians(angle)), size * math.sin(math.radians(angle))]
    )
    length = float(np.linalg.norm(lora))
    dora = m * lora / length if length > 1e-9 else np.array([0.0, 0.0])
    ax.add_patch(Circle((0, 0), m, fill=False, linestyle=":", color=style(1)["color"]))
    _arrow(ax, (0, 0), (1, 0), "black")
    _arrow(ax, (1, 0), lora, "grey", "--")
    _arrow(ax, (0, 0), lora, style(0)["color"])
    _arrow(ax, (0, 0), dora, style(1)["color"])
    ax.annotate("w", (1, 0), xytext=(4, -12), textcoords="offset points")
    ax.annotate("LoRA: w + u", lora, xytext=(4, 5), textcoords="offset points")
    ax.annotate("DoRA", dora, xytext=(-36, -4), textcoords="offset points")
    reach: float = max(1.4, 1.25 * length, 1.15 * m)
    ax.set_xlim(-min(reach, 0.6 + 0.6 * size) - m * 0.6, reach)
    ax.set_ylim(-0.4, max(1.2, lora[1] * 1.2, m * 1.05))
    ax.set_aspect("equal")
    ax.set(xlabel="along w", ylabel="across w")
    ax.set_title("One row: dashed u, dotted the length m")
