"""Lab 3.1.3, NEFTune, exercise 2: the noise as the libraries draw it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_3.noise_bound import noise_bound


def stock_noise(u: Tensor, alpha: float) -> Tensor:
    """Uniform noise in ±alpha/√(T·d) from numbers u (B, T, d) in [0, 1)."""
    return (2 * u - 1) * noise_bound(alpha, u.shape)


def _stock_cases(g):
    for alpha, shape in [
        (5.0, (2, 6, 8)),
        (10.0, (4, 3, 5)),
        (15.0, (3, 12, 16)),
        (2.0, (5, 4, 7)),
    ]:
        yield torch.rand(*shape, generator=g), alpha


STOCK = Exercise(
    name="stock_noise",
    title="From uniform numbers to the noise",
    minutes=4,
    difficulty=1,
    reference=stock_noise,
    cases=_stock_cases,
    points=1,
    hints=(
        "Two steps: bring u from [0, 1) to [−1, 1), then scale.",
        "2·u − 1 is uniform in [−1, 1).",
        "return (2 * u - 1) * noise_bound(alpha, u.shape)",
    ),
    wrong=(
        Wrong(
            "one-sided",
            lambda u, a: u * noise_bound(a, u.shape),
            "Your noise is never negative: it shifts every embedding by half the bound on "
            "average. Bring u to [−1, 1) first.",
        ),
        Wrong(
            "half width",
            lambda u, a: (u - 0.5) * noise_bound(a, u.shape),
            "u − 0.5 reaches ±½ only, so your noise is half as large as alpha says: use 2u − 1.",
        ),
        Wrong(
            "root forgotten",
            lambda u, a: (2 * u - 1) * a / (u.shape[1] * u.shape[2]),
            "The root is missing: the bound is alpha/√(T·d).",
        ),
        Wrong(
            "batch included",
            lambda u, a: (2 * u - 1) * a / math.sqrt(u.numel()),
            "You divided by the root of all B·T·d numbers: a row's noise must not depend on the "
            "batch size.",
        ),
        Wrong(
            "standard deviation as bound",
            lambda u, a: (2 * u - 1) * a / math.sqrt(3 * u.shape[1] * u.shape[2]),
            "Your noise is √3 too small: you scaled by its standard deviation, the factor is the "
            "bound.",
        ),
    ),
)
