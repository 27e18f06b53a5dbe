"""What PPO's four knobs do to one token: ε and the advantage on the left, γ and λ on the right.
Arithmetic alone.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.course.explorable import Explorable, slider
from ftlib.course.lab_e1.clipped_loss import ppo_policy_loss
from ftlib.course.lab_e1.gae import gae

RATIOS = np.linspace(0.4, 1.8, 141)
CLIPS = (0.05, 0.1, 0.2, 0.3, 0.5)
ADVANTAGES = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
LAMS = (0.0, 0.5, 0.8, 0.9, 0.95, 1.0)
GAMMAS = (0.9, 0.95, 0.99, 1.0)
LENGTH = 20  # tokens of the answer that is drawn


def gains(advantage: float, clip_range: float) -> np.ndarray:
    """PPO's objective of one token at every ratio of `RATIOS`."""
    one = torch.ones(1, 1, dtype=torch.float64)
    found = []
    for ratio in RATIOS:
        logp = float(np.log(ratio)) * one
        loss = ppo_policy_loss(logp, 0 * one, advantage * one, one.bool(), clip_range)
        found.append(-loss.item())
    return np.array(found)


def reached(gamma: float, lam: float) -> np.ndarray:
    """(tokens,) the advantage that a score of 1 at the last token gives to each, where V is 0."""
    rewards = torch.zeros(1, LENGTH, dtype=torch.float64)
    rewards[0, -1] = 1
    mask = torch.ones_like(rewards, dtype=torch.bool)
    return gae(rewards, torch.zeros_like(rewards), mask, gamma, lam)[0].numpy()


class Knobs(Explorable):
    """Handles for the advantage, ε, γ and λ."""

    def __init__(self) -> None:
        super().__init__(
            self.draw,
            self.describe,
            advantage=slider("advantage A", ADVANTAGES, 1.0),
            clip_range=slider("ε", CLIPS, 0.2),
            gamma=slider("γ", GAMMAS, 1.0),
            lam=slider("λ", LAMS, 0.95),
        )

    def describe(self, advantage: float, clip_range: float, gamma: float, lam: float) -> str:
        """Where the gradient ends, and what the first token hears."""
        edge = 1 + clip_range if advantage > 0 else 1 - clip_range
        side = "above" if advantage > 0 else "below"
        first = reached(gamma, lam)[0]
        return (
            f"no gradient {side} ρ = {edge:.2f}; the first of {LENGTH} tokens hears {first:.1%} "
            "of a score at the last"
        )

    def draw(self, advantage: float, clip_range: float, gamma: float, lam: float) -> Figure:
        """The objective over the ratio, and how far a score at the end reaches; closed, so that a
        cell shows it once.
        """
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.3))
        _draw_objective(left, advantage, clip_range)
        right.bar(range(1, LENGTH + 1), reached(gamma, lam), color="0.6", edgecolor="black")
        right.set(
            title="How far a score at the end reaches",
            xlabel="token of the answer",
            ylabel="advantage, V = 0",
            ylim=(0, 1.05),
            xticks=(1, 5, 10, 15, LENGTH),
        )
        plt.close(figure)
        return figure


def _draw_objective(ax: Axes, advantage: float, clip_range: float) -> None:
    ax.plot(RATIOS, advantage * RATIOS, ":", color="grey", label="ρ·A")
    ax.plot(RATIOS, gains(advantage, clip_range), color="black", label="PPO's objective")
    ax.axvspan(1 - clip_range, 1 + clip_range, color="0.92", label="1 ± ε")
    ax.axvline(1, color="grey", linewidth=0.8)
    ax.set(
        title="Flat where a step has gone far enough",
        xlabel="ratio ρ = π/π_old",
        ylabel="objective",
    )
    ax.legend(fontsize="small")
