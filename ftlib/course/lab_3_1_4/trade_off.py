"""Learning against forgetting, step by step, with a handle (`ftlib.course.explorable`)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.course.explorable import Explorable, slider, switch
from ftlib.course.lab_3_1_4.pictures import whose
from ftlib.course.lab_3_1_4.readings import LEAST
from ftlib.course.plots import style
from ftlib.course.records.figures import LIVE, LIVE_LABEL
from ftlib.course.records.live import Result


class TradeOff(Explorable):
    """Every method's way through the plane of golden loss and forgetting, up to a look; `places`
    are the steps of the looks; `methods`: the arms that are drawn. Less than `LEAST` forgotten is
    drawn as that much.
    """

    def __init__(self, result: Result, places: list[int], methods: Sequence[str]):
        self.result = result
        self.methods = [method for method in methods if result.has(method)]
        self.places = places
        super().__init__(
            self.draw,
            self.describe,
            step=slider("up to step", places, places[-1]),
            seeds=switch("single seeds", False),
        )

    def at(self, method: str, metric: str, step: int) -> np.ndarray:
        """The metric of every seed at a look, (seeds,)."""
        return self.result.values(method, metric)[:, self.places.index(step)]

    def describe(self, step: int, seeds: bool) -> str:
        """Who has learnt most and who has forgotten least by then."""
        if not self.methods:
            return self.result.why
        learnt = min(self.methods, key=lambda m: self.at(m, "loss_by_step", step).mean())
        kept = min(self.methods, key=lambda m: self.at(m, "forgotten_by_step", step).mean())
        return f"By step {step}: lowest golden loss {learnt}; least forgotten {kept}"

    def draw(self, step: int, seeds: bool) -> Figure:
        """A line a method through its looks; closed, so that a cell shows it once."""
        figure, ax = plt.subplots(figsize=(7.2, 4.2))
        last = self.places.index(step) + 1
        for i, method in enumerate(self.methods):
            losses = self.result.values(method, "loss_by_step")[:, :last]
            rises = np.maximum(LEAST, self.result.values(method, "forgotten_by_step")[:, :last])
            if seeds:
                ax.plot(losses.T, rises.T, color=style(i)["color"], alpha=0.25, linewidth=0.8)
            ax.plot(losses.mean(0), rises.mean(0), label=method, **style(i))
        self._draw_live(ax, last)
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="golden loss (nats per token), learnt: to the left",
            ylabel="forgotten (nats per token)",
            title=f"Learnt and forgotten on the way, up to step {step}{whose(self.result)}",
        )
        ax.legend(fontsize=8)
        plt.close(figure)
        return figure

    def _draw_live(self, ax: Axes, last: int) -> None:
        for run in self.result.live.values():
            rise = max(LEAST, run["forgotten_by_step"][last - 1])
            ax.plot(run["loss_by_step"][last - 1], rise, **LIVE)
        if self.result.live:
            ax.plot([], [], label=LIVE_LABEL, **LIVE)
