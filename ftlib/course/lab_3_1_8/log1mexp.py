"""Lab 3.1.8, SimPO and ORPO, exercise 4: log(1 - e^x)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.losses import preference as losses


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, elementwise, exact at both ends, and finite gradients everywhere."""
    return losses.log1mexp(x)


def _log1mexp_cases(g):
    yield (-torch.rand(6, generator=g) * 3,)
    yield (torch.tensor([-1e-8, -1e-6, -1e-3, -0.5]),)
    yield (torch.tensor([-20.0, -40.0, -math.log(2), -1.0]),)


def _edges(function) -> str | None:
    """What the tolerance of the cases does not show: digits far below 0, and the gradient."""
    far = torch.tensor([-30.0])
    if abs(float(function(far)) / -math.exp(-30) - 1) > 1e-4:
        return (
            "Right near 0, but far below it the digits are lost: at −30 the result should be "
            "−9.4e-14. "
            "There log1p(−e^x) keeps them."
        )
    x = torch.tensor([-1e-8, -0.5, -1.0, -100.0], requires_grad=True)
    function(x).sum().backward()
    if torch.isfinite(x.grad).all():
        return None
    return (
        "The values are right, but a gradient is NaN or infinite: torch.where computes both "
        "branches, and the backward pass "
        "multiplies the infinite slope of the one not taken by 0. Give each branch only its own "
        "numbers."
    )


LOG1MEXP = Exercise(
    name="log1mexp",
    title="log(1 − eˣ) at its two edges",
    minutes=15,
    difficulty=3,
    reference=log1mexp,
    cases=_log1mexp_cases,
    gradient_of=("x",),
    tolerance=1e-6,
    property=_edges,
    hints=(
        "In fp32 e^(−1e-8) is exactly 1. `torch.expm1(x)` is e^x − 1 without that loss. So near 0: "
        "`torch.log(-torch.expm1(x))`.",
        "Far below 0 the argument of the logarithm is nearly 1, and there "
        "`torch.log1p(-torch.exp(x))` keeps the digits. "
        "Change over at −ln 2.",
        "`torch.where(near, a, b)` computes both. "
        "Put a harmless number (−1) in place of x in the branch that is not wanted, before the "
        "logarithm.",
        "near = x > -math.log(2); a = torch.log(-torch.expm1(torch.where(near, x, -1.0))); "
        "b = torch.log1p(-torch.exp(torch.where(near, -1.0, x)))",
    ),
    wrong=(
        Wrong(
            "log1p everywhere",
            lambda x: torch.log1p(-torch.exp(x)),
            "At x = −1e-8 in fp32 e^x is exactly 1, and you get −inf, with log(1 − e^x) as with "
            "log1p(−e^x). Near 0 use expm1.",
        ),
        Wrong(
            "clamped",
            lambda x: torch.log((1 - torch.exp(x)).clamp(min=1e-6)),
            "A clamp hides the −inf: every answer surer than 1 − 1e-6 gets the same odds, and no "
            "gradient.",
        ),
        Wrong(
            "log of e^x - 1",
            lambda x: torch.log(torch.expm1(-x)),
            "That is log(e^(−x) − 1), which is minus the log odds: here log(1 − e^x) is wanted.",
        ),
        Wrong(
            "no logarithm",
            lambda x: -torch.expm1(x),
            "That is 1 − p, and exact; its logarithm is wanted.",
        ),
        Wrong(
            "plus",
            lambda x: torch.log1p(torch.exp(x)),
            "You computed log(1 + e^x): the sign inside is a minus.",
        ),
    ),
)
