"""Lab 3.1.1, LoRA, exercise 2: the scaling."""

from __future__ import annotations

import math

from ftlib.adapters.lora_layer import AdapterConfig
from ftlib.course.exercise import Exercise, Wrong


def lora_scaling(alpha: float, r: int, use_rslora: bool = False) -> float:
    """s in W + s·BA: alpha/r, or alpha/√r for rsLoRA."""
    return AdapterConfig(r=r, lora_alpha=alpha, use_rslora=use_rslora).scaling


def _scaling_cases(g):
    for alpha, r in [(16, 8), (32, 16), (1, 4), (16, 64), (8, 2)]:
        for use_rslora in (False, True):
            yield alpha, r, use_rslora


LORA_SCALING = Exercise(
    name="lora_scaling",
    title="alpha/r, and rsLoRA",
    minutes=5,
    difficulty=1,
    reference=lora_scaling,
    cases=_scaling_cases,
    defaults=("use_rslora",),
    hints=(
        "Two formulas and a switch: §4.1 of the LoRA paper, and the abstract of rsLoRA (arXiv "
        "2312.03732).",
        "LoRA divides alpha by r. rsLoRA divides it by the square root of r.",
        "return alpha / (math.sqrt(r) if use_rslora else r)",
    ),
    wrong=(
        Wrong(
            "flag ignored",
            lambda alpha, r, rs: alpha / r,
            "`use_rslora` is ignored: with it the divisor is √r.",
        ),
        Wrong(
            "always root",
            lambda alpha, r, rs: alpha / math.sqrt(r),
            "You always divide by √r: plain LoRA divides by r.",
        ),
        Wrong(
            "flag reversed",
            lambda alpha, r, rs: alpha / (r if rs else math.sqrt(r)),
            "The switch is the wrong way round: rsLoRA is the one with the root.",
        ),
        Wrong(
            "inverse",
            lambda alpha, r, rs: (math.sqrt(r) if rs else r) / alpha,
            "It is upside down: alpha is the numerator.",
        ),
        Wrong(
            "alpha only",
            lambda alpha, r, rs: alpha,
            "Nothing divides alpha: with a fixed alpha the update would grow with the rank.",
        ),
        Wrong(
            "root of the quotient",
            lambda alpha, r, rs: math.sqrt(alpha / r) if rs else alpha / r,
            "rsLoRA takes the root of r only, you took that of alpha/r.",
        ),
    ),
)
