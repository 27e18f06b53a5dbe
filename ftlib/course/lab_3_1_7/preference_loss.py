"""Lab 3.1.7, DPO, exercise 3: the loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def preference_loss(
    chosen_rewards: Tensor, rejected_rewards: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """−(1−ε)·log σ(z) − ε·log σ(−z) with z = r̂_chosen − r̂_rejected, all (B,)."""
    z = chosen_rewards - rejected_rewards
    return -(1 - label_smoothing) * F.logsigmoid(z) - label_smoothing * F.logsigmoid(-z)


def _loss_cases(g):
    for smoothing in (0.0, 0.1, 0.3, 0.0):
        yield torch.randn(6, generator=g), torch.randn(6, generator=g), smoothing
    yield torch.tensor([-200.0, 300.0, 0.0]), torch.zeros(3), 0.0


LOSS = Exercise(
    name="preference_loss",
    title="The loss",
    minutes=8,
    difficulty=2,
    reference=preference_loss,
    cases=_loss_cases,
    defaults=("label_smoothing",),
    gradient_of=("chosen_rewards", "rejected_rewards"),
    points=2,
    hints=(
        "Bradley and Terry: the probability that chosen wins is σ(z). The loss is its negative "
        "log.",
        "`F.logsigmoid(z)` stays finite at z = −200, where `torch.log(torch.sigmoid(z))` is −inf.",
        "With label smoothing the label is swapped with probability ε: mix −log σ(z) and −log "
        "σ(−z).",
        "return -(1 - label_smoothing) * F.logsigmoid(z) - label_smoothing * F.logsigmoid(-z)",
    ),
    wrong=(
        Wrong(
            "log of sigmoid",
            lambda c, r, e: (
                -(1 - e) * torch.sigmoid(c - r).log() - (e * torch.sigmoid(r - c).log() if e else 0)
            ),
            "Right on paper, but infinite for a pair that is ranked far wrong: σ is rounded to 0, "
            "or 1 + e^(−z) overflows, before the logarithm. Use F.logsigmoid.",
        ),
        Wrong(
            "sign of z",
            lambda c, r, e: preference_loss(r, c, e),
            "Chosen and rejected are swapped: this loss teaches the rejected answer.",
        ),
        Wrong(
            "no smoothing",
            lambda c, r, e: preference_loss(c, r, 0.0),
            "label_smoothing is not used: mix in ε times the loss of the swapped label.",
        ),
        Wrong(
            "half the smoothing",
            lambda c, r, e: preference_loss(c, r, e / 2),
            "You used half of ε: it is the share of swapped labels, not spread over two classes.",
        ),
        Wrong(
            "no minus",
            lambda c, r, e: -preference_loss(c, r, e),
            "The minus is missing: a loss is the negative log-likelihood.",
        ),
        Wrong(
            "averaged",
            lambda c, r, e: preference_loss(c, r, e).mean(),
            "You averaged over the batch: one loss per pair is wanted, (B,).",
        ),
    ),
)
