"""Lab 3.1.7, DPO, exercise 5: the best policy at a price."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def optimal_policy(ref_logps: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """log π* of every answer to one prompt, π* ∝ π_ref·e^{r/β}, all (answers,)."""
    return torch.log_softmax(ref_logps + rewards / beta, dim=0)


def _policy_cases(g):
    for answers, beta in ((5, 0.5), (8, 0.1), (3, 2.0)):
        ref_logps = torch.log_softmax(torch.randn(answers, generator=g), dim=0)
        yield ref_logps, 2 * torch.rand(answers, generator=g), beta
    yield torch.tensor([0.7, 0.2, 0.1]).log(), torch.tensor([30.0, 31.0, 29.0]), 0.1


POLICY = Exercise(
    name="optimal_policy",
    title="The best policy at a price",
    minutes=8,
    difficulty=2,
    reference=optimal_policy,
    cases=_policy_cases,
    points=2,
    hints=(
        "Take the logarithm of π* ∝ π_ref·e^{r/β}: a sum, up to one number that is the same for "
        "every answer, log Z.",
        "log Z makes the probabilities sum to 1: `torch.log_softmax` subtracts it, and does not "
        "overflow.",
        "return torch.log_softmax(ref_logps + rewards / beta, dim=0)",
    ),
    wrong=(
        Wrong(
            "not normalised",
            lambda p, r, b: p + r / b,
            "log Z is missing: the probabilities do not sum to 1.",
        ),
        Wrong(
            "times beta",
            lambda p, r, b: torch.log_softmax(p + b * r, dim=0),
            "You multiplied by beta: it is the price of KL, and the higher it is, the less the "
            "reward counts. Divide.",
        ),
        Wrong(
            "no reference",
            lambda p, r, b: torch.log_softmax(r / b, dim=0),
            "π_ref is missing: this is the best policy near a uniform one.",
        ),
        Wrong(
            "reference tempered",
            lambda p, r, b: torch.log_softmax((p + r) / b, dim=0),
            "You divided log π_ref by beta as well: beta belongs to the reward alone.",
        ),
        Wrong(
            "probabilities",
            lambda p, r, b: torch.softmax(p + r / b, dim=0),
            "These are the probabilities: their logarithms are wanted.",
        ),
        Wrong(
            "overflow",
            lambda p, r, b: (p.exp() * (r / b).exp() / (p.exp() * (r / b).exp()).sum()).log(),
            "Right on paper, but e^{r/β} overflows for a large reward or a small beta. Stay with "
            "logarithms.",
        ),
    ),
)
