"""Lab 3.1.9, KTO, exercise 6: the gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_9.cases import value_cases
from ftlib.course.lab_3_1_9.kto_value import kto_value


def loss_slope(ratio: Tensor, z0: Tensor, desirable: Tensor, beta: float) -> Tensor:
    """Derivative of KTO's loss (weights 1) by log π of each row, (B,): -βv(1 - v) where
    `desirable`, +βv(1 - v) elsewhere.
    """
    v = kto_value(ratio, z0, desirable, beta)
    return torch.where(desirable, -1.0, 1.0) * beta * v * (1 - v)


def _slope(sign=lambda d: torch.where(d, -1.0, 1.0), size=lambda v, b: b * v * (1 - v)):
    return lambda r, z, d, b: sign(d) * size(kto_value(r, z, d, b), b)


SLOPE = Exercise(
    name="loss_slope",
    title="Which way, and how hard",
    minutes=8,
    difficulty=2,
    reference=loss_slope,
    cases=value_cases,
    hints=(
        "The derivative of σ(x) is σ(x)·(1 − σ(x)); the inner derivative is ±β. The loss is 1 − "
        "v, which brings a minus.",
        "Check the sign by what training must do: it goes *against* the slope, and a thumbs up "
        "must rise.",
        "v = kto_value(ratio, z0, desirable, beta); return torch.where(desirable, -1.0, 1.0) * "
        "beta * v * (1 - v)",
    ),
    wrong=(
        Wrong(
            "sign turned",
            _slope(sign=lambda d: torch.where(d, 1.0, -1.0)),
            "The signs are flipped: training goes against the slope, so it would push thumbs "
            "up *down*.",
        ),
        Wrong(
            "one sign",
            _slope(sign=lambda d: -1.0),
            "Both kinds have the same sign: then thumbs down would be pushed up as well.",
        ),
        Wrong(
            "beta forgotten",
            _slope(size=lambda v, b: v * (1 - v)),
            "The inner derivative is missing: β multiplies the ratio inside σ, so it is in "
            "front of the slope.",
        ),
        Wrong(
            "DPO's",
            _slope(size=lambda v, b: b * (1 - v)),
            "That is the slope of −log σ, DPO's: it never lets go of a row that is far on the "
            "wrong side. KTO's has v·(1 − v).",
        ),
        Wrong(
            "squared",
            _slope(size=lambda v, b: b * v**2),
            "The derivative of σ is σ·(1 − σ), not σ².",
        ),
    ),
)
