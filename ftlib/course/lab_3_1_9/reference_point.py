"""Lab 3.1.9, KTO, exercise 4: the reference point."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def reference_point(policy_kl_logps: Tensor, ref_kl_logps: Tensor) -> Tensor:
    """z0 of a batch: the mean log-ratio over mismatched pairs, at least 0, without gradient. Both
    (B,), summed, in nats -> ().
    """
    return (policy_kl_logps - ref_kl_logps).mean().clamp(min=0).detach()


def _point_cases(g):
    for n, shift in ((8, 2.0), (8, -2.0), (5, 0.3), (3, 4.0)):
        reference = -30 - 5 * torch.rand(n, generator=g)
        yield reference + shift + 2 * torch.randn(n, generator=g), reference


def _no_gradient(function) -> str | None:
    policy = torch.tensor([-10.0, -12.0], requires_grad=True)
    if function(policy, torch.tensor([-14.0, -15.0])).requires_grad:
        return (
            "The value is right, but it carries a gradient: "
            "training would then move the reference point instead of the policy. `detach()` it."
        )
    return None


POINT = Exercise(
    name="reference_point",
    title="The reference point",
    minutes=8,
    difficulty=2,
    reference=reference_point,
    cases=_point_cases,
    property=_no_gradient,
    praise="equal to the reference, and without gradient",
    hints=(
        "The log-ratio of a row is the difference of two log-probabilities. One number for the "
        "whole batch: the mean.",
        "A KL divergence is never negative, so an estimate below 0 is put to 0 — the mean, not "
        "each row.",
        "return (policy_kl_logps - ref_kl_logps).mean().clamp(min=0).detach()",
    ),
    wrong=(
        Wrong(
            "clamped row by row",
            lambda p, r: (p - r).clamp(min=0).mean().detach(),
            "You clamped every row before the mean: the negative ones are part of the estimate, "
            "and without them z0 is too large.",
        ),
        Wrong(
            "not clamped",
            lambda p, r: (p - r).mean().detach(),
            "z0 comes out below 0: it estimates a KL divergence, which is never negative. Clamp "
            "the mean at 0.",
        ),
        Wrong(
            "turned round",
            lambda p, r: (r - p).mean().clamp(min=0).detach(),
            "The ratio is upside down: log π − log π_ref is wanted.",
        ),
        Wrong(
            "sum",
            lambda p, r: (p - r).sum().clamp(min=0).detach(),
            "You summed over the batch: z0 would grow with the batch size. Take the mean.",
        ),
        Wrong(
            "one per row",
            lambda p, r: (p - r).clamp(min=0).detach(),
            "Every row has its own reference point: it is one number for the whole batch.",
        ),
        Wrong(
            "probabilities",
            lambda p, r: (p.exp() - r.exp()).mean().clamp(min=0).detach(),
            "You left the logarithms: the ratio of probabilities is the *difference* of the "
            "log-probabilities as they are.",
        ),
    ),
)
