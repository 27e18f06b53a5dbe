"""Lab 3.1.9, KTO, exercise 1: Kahneman and Tversky's value."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def prospect_value(z: Tensor, alpha: float, lam: float) -> Tensor:
    """Value of a gain or loss z (n,), measured from the reference point: z^α above 0, -λ·|z|^α
    below.
    """
    size = z.abs() ** alpha
    return torch.where(z >= 0, size, -lam * size)


def _prospect_cases(g):
    yield torch.linspace(-5, 5, 11), 0.88, 2.25
    yield torch.randn(20, generator=g), 0.5, 2.0
    yield torch.randn(20, generator=g), 1.0, 3.0


PROSPECT = Exercise(
    name="prospect_value",
    title="What a loss feels like",
    minutes=6,
    difficulty=1,
    reference=prospect_value,
    cases=_prospect_cases,
    points=1,
    hints=(
        "Work with the size |z| first, raise it to α, and give it the sign afterwards: "
        "a negative number to the power 0.88 is NaN.",
        "Losses are multiplied by λ, gains are not.",
        "size = z.abs() ** alpha; return torch.where(z >= 0, size, -lam * size)",
    ),
    wrong=(
        Wrong(
            "power of a negative number",
            lambda z, a, k: torch.where(z >= 0, z**a, -k * (-z.abs()) ** a),
            "You raised a negative number to a fractional power, which is NaN: raise |z|, and give "
            "the sign afterwards.",
        ),
        Wrong(
            "no loss aversion",
            lambda z, a, k: z.sign() * z.abs() ** a,
            "Losses and gains count alike: λ is missing on the side of the losses.",
        ),
        Wrong(
            "gains multiplied",
            lambda z, a, k: torch.where(z >= 0, k * z.abs() ** a, -(z.abs() ** a)),
            "λ is on the gains: people weigh *losses* more, so it belongs below zero.",
        ),
        Wrong(
            "sign lost",
            lambda z, a, k: torch.where(z >= 0, z.abs() ** a, k * z.abs() ** a),
            "A loss has come out as a positive value: the minus is missing below zero.",
        ),
        Wrong(
            "linear",
            lambda z, a, k: torch.where(z >= 0, z, k * z),
            "α is missing: without it the second hundred feels like the first, and there is no "
            "diminishing sensitivity.",
        ),
        Wrong(
            "lambda under the power",
            lambda z, a, k: torch.where(z >= 0, z.abs() ** a, -((k * z.abs()) ** a)),
            "λ was raised to the power too: multiply after raising to α.",
        ),
    ),
)
