"""Learnt against forgotten with a price on forgetting: which point is the best at which price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.course.explorable import Explorable, choice, slider
from ftlib.course.lab_e2.curves import LEAST, points_of
from ftlib.course.lab_e2.pictures import draw_curves, those_run
from ftlib.course.plots import style
from ftlib.course.records.live import Result

PRICES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
EVERY = "all methods"


class FrontierExplorer(Explorable):
    """`curves`: {method: its arms}. The handles: how many nats of loss one nat forgotten is worth,
    and a method whose single seeds are shown.
    """

    def __init__(self, result: Result, curves: Mapping[str, Sequence[str]]):
        self.result = result
        self.curves = curves
        self.arms = those_run(result, list(dict.fromkeys(_arms_of(curves))))
        super().__init__(
            self.draw,
            self.describe,
            price=slider("price of a nat", PRICES, 1.0),
            method=choice("seeds of", [EVERY, *curves], EVERY),
        )

    def costs(self, price: float) -> np.ndarray:
        """Loss + price · forgotten of every run, (seeds, arms)."""
        points = points_of(self.result, self.arms)
        return points[:, :, 0] + price * points[:, :, 1]

    def best(self, price: float) -> tuple[str, int]:
        """The arm of the lowest mean cost, and in how many seeds it is the cheapest."""
        costs = self.costs(price)
        arm = int(costs.mean(0).argmin())
        return self.arms[arm], int((costs.argmin(1) == arm).sum())

    def describe(self, price: float, method: str) -> str:
        """Which arm is best at this price."""
        if not self.arms:
            return self.result.why
        arm, seeds = self.best(price)
        return (
            f"With one forgotten nat worth {price:g} nats of loss, {arm} is best on average and in "
            f"{seeds} of {len(self.result.seeds)} single seeds"
        )

    def draw(self, price: float, method: str) -> Figure:
        """The curves, the line of equal cost through the best point, and seeds; closed, so that a
        cell shows it once.
        """
        figure, ax = plt.subplots(figsize=(7.2, 4.2))
        if not self.arms:
            plt.close(figure)
            return figure
        draw_curves(self.result, self.curves, "The best point at a price of forgetting", ax=ax)
        arm, _ = self.best(price)
        low, high = ax.get_xlim()
        losses = np.geomspace(low, high, 200)
        level = float(self.costs(price).mean(0).min())
        heights = (level - losses) / price
        shown = heights > LEAST
        ax.plot(losses[shown], heights[shown], color="black", linestyle=":", linewidth=1)
        ax.annotate(
            arm,
            points_of(self.result, [arm]).mean(0)[0],
            (10, 10),
            textcoords="offset points",
            fontsize=9,
        )
        self._draw_seeds(ax, method)
        ax.set_xlim(low, high)
        plt.close(figure)
        return figure

    def _draw_seeds(self, ax: Axes, method: str) -> None:
        if method == EVERY:
            return
        there = those_run(self.result, self.curves[method])
        points = np.maximum(points_of(self.result, there), [0, LEAST]).reshape(-1, 2)
        colour = style(list(self.curves).index(method))["color"]
        ax.plot(*points.T, ".", color=colour, alpha=0.5, markersize=5)


def _arms_of(curves: Mapping[str, Sequence[str]]) -> list[str]:
    return [arm for arms in curves.values() for arm in arms]
