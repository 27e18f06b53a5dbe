"""Lab 3.1.9, KTO, exercise 2: KTO's value."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_9.cases import value_cases


def kto_value(ratio: Tensor, z0: Tensor, desirable: Tensor, beta: float) -> Tensor:
    """σ(β·(r - z0)) where `desirable`, σ(β·(z0 - r)) elsewhere; ratio (B,) in nats, z0 a number,
    both weights 1.
    """
    gain = torch.where(desirable, ratio - z0, z0 - ratio)
    return torch.sigmoid(beta * gain)


VALUE = Exercise(
    name="kto_value",
    title="The same idea, smooth",
    minutes=6,
    difficulty=1,
    reference=kto_value,
    cases=value_cases,
    hints=(
        "What is a gain for a thumbs up (the ratio above z0) is a loss for a thumbs down. Only "
        "the sign turns.",
        "`torch.where(desirable, ratio - z0, z0 - ratio)` is the gain of every row. β multiplies "
        "it.",
        "return torch.sigmoid(beta * torch.where(desirable, ratio - z0, z0 - ratio))",
    ),
    wrong=(
        Wrong(
            "labels ignored",
            lambda r, z, d, b: torch.sigmoid(b * (r - z)),
            "Every row counts as a thumbs up: for a thumbs down the difference turns round, z0 − "
            "r.",
        ),
        Wrong(
            "labels turned",
            lambda r, z, d, b: torch.sigmoid(b * torch.where(d, z - r, r - z)),
            "The sign is flipped: a thumbs up gains by a ratio *above* z0. (Or you returned the "
            "loss, 1 − v, "
            "which is σ of the opposite.)",
        ),
        Wrong(
            "no reference point",
            lambda r, z, d, b: torch.sigmoid(b * torch.where(d, r, -r)),
            "z0 is missing: the value is measured from 0, whatever the policy does elsewhere.",
        ),
        Wrong(
            "z0 added for thumbs down",
            lambda r, z, d, b: torch.sigmoid(b * torch.where(d, r - z, -r - z)),
            "For a thumbs down you turned the sign of r alone: it is −(r − z0) = z0 − r.",
        ),
        Wrong(
            "beta on the ratio alone",
            lambda r, z, d, b: torch.sigmoid(torch.where(d, b * r - z, z - b * r)),
            "β multiplies the ratio alone: it must multiply the difference from z0, or the two "
            "are in different units.",
        ),
    ),
)
