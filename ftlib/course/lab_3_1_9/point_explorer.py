"""KTO's value function and its slope with handles: where the rows of a recorded batch lie on them,
and what another z0 would make of the same rows.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ftlib.course.explorable import Explorable, choice, slider
from ftlib.course.lab_3_1_9.kto_value import kto_value
from ftlib.course.lab_3_1_9.loss_slope import loss_slope
from ftlib.course.lab_3_1_9.reference_points import MATCHED, RIGHT, ZERO
from ftlib.course.plots import style
from ftlib.course.records.live import Result

BETAS = (0.05, 0.1, 0.2, 0.5, 1.0)
MOMENTS = ("first step", "half-way", "last step")
SIDES = {"thumb up": True, "thumb down": False}
LEAST_REACH = 5.0  # nats to either side that are drawn


class PointExplorer(Explorable):
    """Handles for the run whose batch is shown, the moment, z0 and β. The rows are those of the
    record; z0 and β may be others than in that run: they change the curves, not the rows.
    """

    def __init__(self, result: Result, run: str, beta: float):
        self.result = result
        super().__init__(
            self.draw,
            self.describe,
            run=choice("run", result.arms, run),
            moment=choice("moment", MOMENTS, self._highest_point(run)),
            point=choice("z0", (RIGHT, ZERO, MATCHED), RIGHT),
            beta=slider("β", BETAS, beta),
        )

    def _highest_point(self, run: str) -> str:
        """The moment at which the batch has the highest z0: there the drift is seen."""
        moments = {moment: self.batch(run, moment)[2][RIGHT] for moment in MOMENTS}
        return max(moments, key=lambda moment: moments[moment])

    def batch(self, run: str, moment: str) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Log-ratios of the batch's rows in nats, whether they are thumbs up, both (B,), and z0 by
        name.
        """
        found = self.result.sample(run, "batches")[MOMENTS.index(moment)]
        ratios = torch.tensor(found["ratios"])
        points = {
            RIGHT: max(0.0, found["mismatched"]),
            ZERO: 0.0,
            MATCHED: max(0.0, ratios.mean().item()),
        }
        return ratios, torch.tensor(found["labels"]), points

    def pulls(self, run: str, moment: str, point: str, beta: float) -> tuple[Tensor, Tensor]:
        """How hard each row is pulled at, and whether it is a thumb up, both (B,)."""
        ratios, labels, points = self.batch(run, moment)
        z0 = torch.tensor(points[point])
        return loss_slope(ratios, z0, labels, beta).abs(), labels

    def describe(self, run: str, moment: str, point: str, beta: float) -> str:
        """The z0, and how the pull is divided."""
        ratios, _, points = self.batch(run, moment)
        pull, labels = self.pulls(run, moment, point, beta)
        share = (pull[labels].sum() / pull.sum()).item()
        used = (pull.mean() / (beta / 4)).item()
        return (
            f"z0 = {points[point]:.1f} nats; β·z0 = {beta * points[point]:.2f}. The mean pull is "
            f"{used:.0%} of the steepest slope, β/4; {share:.0%} of it is on thumbs up, which are "
            f"{labels.sum().item()} of {len(labels)} rows. The rows lie between "
            f"{ratios.min().item():+.1f} and {ratios.max().item():+.1f} nats{_whose(moment)}."
        )

    def draw(self, run: str, moment: str, point: str, beta: float) -> Figure:
        """Values on the left, pulls on the right; closed, so that a cell shows them once."""
        ratios, labels, points = self.batch(run, moment)
        z0 = torch.tensor(points[point])
        reach = max(LEAST_REACH, ratios.abs().max().item(), points[point]) + 2
        places = torch.linspace(-reach, reach, 201)
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.5))
        for i, (name, is_up) in enumerate(SIDES.items()):
            rows = ratios[labels == is_up]
            for ax, curve in ((left, kto_value), (right, _pull)):
                self._draw_side(ax, i, name, curve, places, rows, z0, is_up, beta)
        for ax in (left, right):
            ax.axvline(z0.item(), color="black", linestyle=":", label="z0")
            ax.set_xlabel("log-ratio r (nats)")
            ax.legend(fontsize="small")
        left.set(title=f"Value: {run}, {moment}", ylabel="value")
        right.set(title=f"Pull with z0 {point}, β = {beta:g}", ylabel="pull on log π")
        plt.close(figure)
        return figure

    def _draw_side(
        self,
        ax: Axes,
        i: int,
        name: str,
        curve,
        places: Tensor,
        rows: Tensor,
        z0: Tensor,
        is_up: bool,
        beta: float,
    ) -> None:
        """The curve of one kind of thumb, and the batch's rows of that kind on it."""
        look = style(i)
        line = {**look, "marker": ""}
        ax.plot(places, curve(places, z0, _all(is_up, places), beta), **line)
        dots = {**look, "linestyle": "none"}
        ax.plot(rows, curve(rows, z0, _all(is_up, rows), beta), label=name, **dots)


def _whose(moment: str) -> str:
    """In the first step the rows' log-ratios are those of the drifted policy itself."""
    return ", as the drifted policy has them" if moment == MOMENTS[0] else ""


def _all(is_up: bool, like: Tensor) -> Tensor:
    return torch.full(like.shape, is_up, dtype=torch.bool)


def _pull(ratio: Tensor, z0: Tensor, desirable: Tensor, beta: float) -> Tensor:
    """Up for a row that is raised, down for one that is lowered."""
    return -loss_slope(ratio, z0, desirable, beta)
