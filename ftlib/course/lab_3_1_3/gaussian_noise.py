"""Lab 3.1.3, NEFTune, exercise 7: Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_3.masked_rows import masked, masked_cases, own_length, padded_length


def gaussian_noise(z: Tensor, mask: Tensor, alpha: float) -> Tensor:
    """Normal noise with the uniform form's standard deviation, alpha/√(3·L·d). z (B, T, d) standard
    normal, mask (B, T).
    """
    std = alpha / (3 * mask.sum(1) * z.shape[-1]).sqrt()
    return z * (std[:, None] * mask)[..., None].to(z.dtype)


def _as_is(z):
    return z


GAUSSIAN = Exercise(
    name="gaussian_noise",
    title="A bell instead of a box",
    minutes=5,
    difficulty=2,
    reference=gaussian_noise,
    cases=lambda g: masked_cases(g, torch.randn),
    points=1,
    hints=(
        "A fair comparison holds the size still: the same standard deviation for every element, "
        "only another shape.",
        "A uniform number in ±b has the standard deviation b/√3, so here alpha/√(3·L·d).",
        "Lengths and padding as in `masked_noise`; z takes the place of 2u − 1.",
        "std = alpha / (3 * mask.sum(1) * z.shape[-1]).sqrt(); return z * std[:, None, None] * "
        "mask[..., None]",
    ),
    wrong=(
        Wrong(
            "bound as deviation",
            masked(own_length, centre=_as_is),
            "You took the bound for the standard deviation: your Gaussian is √3 larger than the "
            "uniform noise, "
            "so the two would not be comparable.",
        ),
        Wrong(
            "divided by three",
            masked(own_length, centre=_as_is, factor=1 / 3),
            "You divided by 3: the variance has b²/3, the standard deviation b/√3.",
        ),
        Wrong(
            "padded length",
            masked(padded_length, centre=_as_is, factor=3**-0.5),
            "You took the padded length T for every row: count each row's ones in the mask.",
        ),
        Wrong(
            "noise on padding",
            masked(own_length, keep=torch.ones_like, centre=_as_is, factor=3**-0.5),
            "Padding is noised too: multiply by the mask.",
        ),
        Wrong(
            "treated as uniform",
            masked(own_length, centre=lambda z: 2 * z - 1, factor=3**-0.5),
            "You still compute 2·z − 1: that is for numbers in [0, 1). z has mean 0 already.",
        ),
    ),
)
