"""γ and β with handles: SimPO's loss and its gradient, with the recorded pairs on the curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit

from ftlib.course.explorable import Explorable, choice, slider
from ftlib.course.plots import style

BETAS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
RATIOS = (0.0, 0.1, 0.25, 0.5, 1.0, 1.5)
EDGE = 0.2  # nats a token that the axis goes beyond the outermost pair
DONE = 0.1  # a pair whose weight is below has little left to say


def loss_of(margins: np.ndarray, beta: float, ratio: float) -> np.ndarray:
    """−log σ(β·(margin − γ/β)), without overflow."""
    return np.logaddexp(0, -beta * (margins - ratio))


def push_of(margins: np.ndarray, beta: float, ratio: float) -> np.ndarray:
    """|∂loss/∂margin| = β·σ(−β·(margin − γ/β))."""
    return beta * expit(-beta * (margins - ratio))


class MarginCloud(Explorable):
    """Handles for β, γ/β and the model whose pairs are shown. `clouds`: {model: margins p̄_c − p̄_r
    of its pairs, nats a token}.
    """

    def __init__(self, clouds: Mapping[str, Sequence[float]]):
        self.clouds = {name: np.asarray(values, dtype=float) for name, values in clouds.items()}
        every = np.concatenate(list(self.clouds.values()))
        self.axis = np.linspace(every.min() - EDGE, every.max() + EDGE, 300)
        super().__init__(
            self.draw,
            self.describe,
            model=choice("pairs as seen by", self.clouds, next(iter(self.clouds))),
            beta=slider("β", BETAS, 2.0),
            ratio=slider("γ/β", RATIOS, 0.5),
        )

    def describe(self, model: str, beta: float, ratio: float) -> str:
        """How many pairs still ask for something, and how evenly."""
        weights = push_of(self.clouds[model], beta, ratio) / beta
        done = (weights < DONE).mean()
        ahead = (self.clouds[model] > ratio).mean()
        return (
            f"γ = {beta * ratio:.2g}. {ahead:.0%} of the pairs lead by γ/β; {done:.0%} have a "
            f"weight below {DONE:g}. Weights: mean {weights.mean():.2f}, from {weights.min():.2f} "
            f"to {weights.max():.2f}"
        )

    def draw(self, model: str, beta: float, ratio: float) -> Figure:
        """Loss and push over the margin, the pairs as dots; closed, so that a cell shows it
        once.
        """
        margins = self.clouds[model]
        figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.2))
        parts = (("loss, nats", loss_of), ("push, |∂loss/∂margin|", push_of))
        for i, (label, function) in enumerate(parts):
            look = {**style(i), "linestyle": "none"}
            axes[i].plot(self.axis, function(self.axis, beta, ratio), color="black", linewidth=1)
            axes[i].plot(margins, function(margins, beta, ratio), alpha=0.5, **look)
            axes[i].axvline(ratio, color="grey", linestyle=":", label="γ/β, the lead asked for")
            axes[i].set(xlabel="margin of means (nats per token)", ylabel=label)
            axes[i].set_ylim(bottom=0)
        axes[0].legend(fontsize="small")
        axes[0].set_title(f"β {beta:g}, γ/β {ratio:g}: what a pair costs")
        axes[1].set_title("and how hard it is pushed")
        plt.close(figure)
        return figure
