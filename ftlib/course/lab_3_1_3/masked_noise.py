"""Lab 3.1.3, NEFTune, exercise 4: real lengths."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_3.masked_rows import masked, masked_cases, own_length, padded_length


def masked_noise(u: Tensor, mask: Tensor, alpha: float) -> Tensor:
    """Noise in ±alpha/√(L·d) with L each row's own length, none on padding.
    u (B, T, d) in [0, 1), mask (B, T) of ones and zeros."""
    bound = alpha / (mask.sum(1) * u.shape[-1]).sqrt()
    return (2 * u - 1) * (bound[:, None] * mask)[..., None].to(u.dtype)


MASKED = Exercise(
    name="masked_noise",
    title="Each row its own length",
    minutes=8,
    difficulty=2,
    reference=masked_noise,
    cases=masked_cases,
    hints=(
        "Two things change against `stock_noise`: L is counted row by row, and padding gets "
        "nothing.",
        "`mask.sum(1)` is each row's own length, of shape (B,). So the bound is a vector of B "
        "numbers.",
        "To multiply (B, T, d) by a number for each row, give it the shape (B, 1, 1): `bound[:, "
        "None, None]`.",
        "The mask is (B, T): `mask[..., None]` makes it (B, T, 1), and a product with it silences "
        "the padding.",
        "bound = alpha / (mask.sum(1) * u.shape[-1]).sqrt(); return (2 * u - 1) * bound[:, None, "
        "None] * mask[..., None]",
    ),
    wrong=(
        Wrong(
            "padded length",
            masked(padded_length),
            "You took the padded length T for every row: short rows get too little noise. Count "
            "each row's ones in the mask.",
        ),
        Wrong(
            "noise on padding",
            masked(own_length, keep=torch.ones_like),
            "The lengths are right, but padding is noised too: multiply by the mask.",
        ),
        Wrong(
            "stock",
            masked(padded_length, keep=torch.ones_like),
            "That is `stock_noise`: the mask is not used at all.",
        ),
        Wrong(
            "mean length",
            masked(lambda m: m.sum(1).float().mean()),
            "You took the mean length of the batch: a row's noise must not depend on the other "
            "rows.",
        ),
        Wrong(
            "tokens of the batch",
            masked(lambda m: m.sum()),
            "You counted the real tokens of the whole batch: sum the mask along the row, "
            "`mask.sum(1)`.",
        ),
        Wrong(
            "one-sided",
            masked(own_length, centre=lambda u: u),
            "Your noise is never negative: bring u from [0, 1) to [−1, 1) first.",
        ),
    ),
)
