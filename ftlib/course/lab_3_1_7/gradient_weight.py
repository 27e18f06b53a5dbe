"""Lab 3.1.7, DPO, exercise 4: the weight in the gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_7.preference_loss import preference_loss


def gradient_weight(chosen_rewards: Tensor, rejected_rewards: Tensor) -> Tensor:
    """σ(−z), z = r̂_chosen − r̂_rejected: how strongly a pair pulls (label smoothing 0), all (B,)."""
    return torch.sigmoid(rejected_rewards - chosen_rewards)


def _weight_cases(g):
    for scale in (1, 3, 0.1):
        yield scale * torch.randn(5, generator=g), scale * torch.randn(5, generator=g)


WEIGHT = Exercise(
    name="gradient_weight",
    title="Which pair still pulls",
    minutes=8,
    difficulty=2,
    reference=gradient_weight,
    cases=_weight_cases,
    hints=(
        "Derive −log σ(z) by z. The derivative of log σ(z) is 1 − σ(z).",
        "1 − σ(z) = σ(−z).",
        "return torch.sigmoid(rejected_rewards - chosen_rewards)",
    ),
    wrong=(
        Wrong(
            "sigma of z",
            lambda c, r: torch.sigmoid(c - r),
            "That is σ(z), large where the pair is ranked right already: wrongly ranked pairs "
            "pull hardest.",
        ),
        Wrong(
            "signed",
            lambda c, r: -torch.sigmoid(r - c),
            "The derivative by z is negative; the weight of the pair is its size.",
        ),
        Wrong(
            "slope of sigma",
            lambda c, r: torch.sigmoid(c - r) * torch.sigmoid(r - c),
            "That is the derivative of σ, not of log σ: a badly ranked pair would hardly pull.",
        ),
        Wrong(
            "loss",
            lambda c, r: preference_loss(c, r),
            "That is the loss itself: its derivative by z is wanted.",
        ),
        Wrong(
            "half",
            lambda c, r: torch.full_like(c, 0.5),
            "One half holds at z = 0 only, that is at the first step.",
        ),
    ),
)
