"""The map of rank, alpha and rate with handles (`ftlib.course.explorable`): where the runs of the
record lie, and which way the valley goes.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from ftlib.course.explorable import Explorable, slider
from ftlib.course.lab_3_1_1.experiments import middle_rate
from ftlib.course.lab_3_1_1.sweeps import arms_with, rates_at, two_digits
from ftlib.course.plots import style
from ftlib.course.records.figures import LIVE
from ftlib.course.records.live import Result

LOSS = "validation_loss"
FORGOTTEN = "forgotten"
LEAST = 1e-3  # nats: what is forgotten less is drawn here, on a logarithmic axis


class RankMap(Explorable):
    """Handles for rank, alpha and rate, which is given as a multiple of the alpha's middle rate;
    `arm` is the run that they show, the best one at first.
    """

    def __init__(self, result: Result):
        self.result = result
        best = min(result.arms, key=self.loss)
        chosen = result.settings(best)
        settings = [result.settings(arm) for arm in result.arms]
        multiples = {self.multiple(arm) for arm in result.arms}
        super().__init__(
            self.draw,
            self.describe,
            r=slider("rank", {own["r"] for own in settings}, chosen["r"]),
            alpha=slider("alpha", {own["alpha"] for own in settings}, chosen["alpha"]),
            factor=slider("rate (× middle)", multiples, self.multiple(best)),
        )

    @property
    def arm(self) -> str:
        return self.arm_of(**self.values)

    def arm_of(self, r: int, alpha: float, factor: float) -> str:
        """The run with these settings."""
        arms = list(rates_at(self.result, r, alpha).values())
        for arm in arms:
            if self.multiple(arm) == factor:
                return arm
        known = ", ".join(f"{multiple:g}" for multiple in sorted(map(self.multiple, arms)))
        raise ValueError(f"factor={factor:g}: rank {r}, alpha {alpha:g} has runs at {known}")

    def multiple(self, arm: str) -> float:
        """The run's rate as a multiple of that around which its alpha was tried, to two digits."""
        own = self.result.settings(arm)
        return float(f"{own['lr'] / middle_rate(self.result.profile, own['alpha']):.2g}")

    def loss(self, arm: str) -> float:
        return float(self.result.means(arm, LOSS).mean())

    def forgotten(self, arm: str) -> float:
        return float(self.result.means(arm, FORGOTTEN).mean())

    def describe(self, r: int, alpha: float, factor: float) -> str:
        """The chosen run in a line."""
        arm = self.arm_of(r, alpha, factor)
        norm = float(self.result.means(arm, "norm").mean())
        return (
            f"{arm}: validation loss {two_digits(self.loss(arm))}, "
            f"forgotten {two_digits(self.forgotten(arm))} "
            f"nats, ‖ΔW‖ {norm:.0f}"
        )

    def draw(self, r: int, alpha: float, factor: float) -> Figure:
        """The loss over the rate at this alpha, and all runs on the plane; closed, so that a cell
        shows them once.
        """
        arm = self.arm_of(r, alpha, factor)
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6))
        self._draw_rates(left, arm)
        self._draw_plane(right, arm)
        plt.close(figure)
        return figure

    def _draw_rates(self, ax: Axes, arm: str) -> None:
        """Loss over the rate at the chosen alpha, a line a rank."""
        chosen = self.result.settings(arm)
        for i, r in enumerate(self.controls["r"].options):
            rates = rates_at(self.result, r, chosen["alpha"])
            losses = [self.loss(rates[rate]) for rate in sorted(rates)]
            width = 2.6 if r == chosen["r"] else 1.0
            ax.plot(sorted(rates), losses, label=f"rank {r}", linewidth=width, **style(i))
        ax.plot(chosen["lr"], self.loss(arm), **LIVE)
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="learning rate",
            ylabel="validation loss (nats per token)",
            title=f"Validation loss by rate, alpha = {chosen['alpha']}",
        )
        ax.xaxis.set_minor_formatter(NullFormatter())  # they would overlap
        ax.legend(fontsize="small")

    def _draw_plane(self, ax: Axes, arm: str) -> None:
        """What every run has learnt and forgotten, with the markers of the panel beside it: the
        runs lie all over the plane and leave a legend no room.
        """
        for i, r in enumerate(self.controls["r"].options):
            runs: list[str] = []
            for alpha in self.controls["alpha"].options:
                runs += arms_with(self.result, "lr", r=r, alpha=alpha).values()
            losses = [self.loss(run) for run in runs]
            forgotten = [max(LEAST, self.forgotten(run)) for run in runs]
            look = {**style(i), "linestyle": "none"}
            ax.plot(losses, forgotten, alpha=0.6, **look)
        ax.plot(self.loss(arm), max(LEAST, self.forgotten(arm)), **LIVE)
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="validation loss (nats per token)",
            ylabel="forgotten (nats per token)",
            title="All runs (star: the chosen one)",
        )
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # the losses span one decade
        ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.xaxis.set_minor_formatter(NullFormatter())
