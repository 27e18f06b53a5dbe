"""Lab 3.1.7, DPO, exercise 6: KL."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def kl_estimate(policy_logps: Tensor, ref_logps: Tensor) -> float:
    """KL(π ‖ π_ref) in nats per answer, from answers that π itself drew: log-probabilities (n,)
    of whole answers -> a number.
    """
    return float((policy_logps - ref_logps).mean())


def _kl_cases(g):
    for n in (3, 8, 50):
        yield -10 * torch.rand(n, generator=g), -10 * torch.rand(n, generator=g)


KL = Exercise(
    name="kl_estimate",
    title="How far the policy went",
    minutes=5,
    difficulty=1,
    reference=kl_estimate,
    cases=_kl_cases,
    points=1,
    hints=(
        "KL(π‖π_ref) is the mean, under π, of log π(y|x) − log π_ref(y|x).",
        "The answers were drawn from π: a plain mean is the estimate.",
        "return float((policy_logps - ref_logps).mean())",
    ),
    wrong=(
        Wrong(
            "other way",
            lambda p, r: float((r - p).mean()),
            "The sign is turned: KL(π‖π_ref) has log π first.",
        ),
        Wrong(
            "weighted again",
            lambda p, r: float((p.exp() * (p - r)).sum()),
            "You weighted by π again: the answers were drawn from it, so they come with that "
            "frequency already.",
        ),
        Wrong(
            "clamped",
            lambda p, r: float((p - r).clamp(min=0).mean()),
            "You cut negative terms off: the estimate is unbiased only with them.",
        ),
        Wrong(
            "absolute",
            lambda p, r: float((p - r).abs().mean()),
            "Absolute values make the estimate too large: single terms may be negative.",
        ),
        Wrong(
            "sum",
            lambda p, r: float((p - r).sum()),
            "You summed over the answers: KL is per answer, the mean.",
        ),
    ),
)
