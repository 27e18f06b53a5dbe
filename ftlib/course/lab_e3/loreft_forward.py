"""Lab E3, ReFT and its relatives, exercise 1: LoReFT's edit."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.allocation import holds_product
from ftlib.course.exercise import Exercise, Verdict, Wrong
from ftlib.course.exercise_data import UNMEASURED
from ftlib.course.lab_e3.tensors import randn, rotation


def loreft_forward(h: Tensor, R: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """LoReFT's edit ``h + Rᵀ(W h + b − R h)``: h (..., d), R and W (r, d), b (r,) -> (..., d)."""
    wanted = h @ W.T + b  # (..., r)
    found = h @ R.T  # (..., r)
    return h + (wanted - found) @ R


def _cases(g):
    for rows, r, d in [((4,), 2, 5), ((2, 3), 1, 6), ((3,), 4, 4), ((), 3, 7)]:
        yield randn(g, *rows, d), rotation(g, r, d), randn(g, r, d), randn(g, r)
    yield randn(g, 5, 6), 0.5 * randn(g, 2, 6), randn(g, 2, 6), randn(g, 2)


def _property(function) -> str | Verdict | None:
    g = torch.Generator().manual_seed(1)
    d = 97
    arguments = (randn(g, 2, d), rotation(g, 2, d), randn(g, 2, d), randn(g, 2))
    made = holds_product(function, arguments, factors=(1, 2), limit=d * d)
    if made:
        return (
            "The values are right, but you built a d × d matrix such as RᵀW: at d = 4,096 that is "
            "64 MiB in fp32. Go through the r numbers W h + b − R h."
        )
    return UNMEASURED if made is None else None


def _edit(wanted=lambda h, R, W, b: h @ W.T + b, found=lambda h, R: h @ R.T, base=True, sign=1):
    """LoReFT's edit with one thing done wrongly."""

    def forward(h, R, W, b):
        edit = sign * (wanted(h, R, W, b) - found(h, R)) @ R
        return h + edit if base else edit

    return forward


LOREFT = Exercise(
    name="loreft_forward",
    title="The LoReFT edit",
    minutes=8,
    difficulty=1,
    reference=loreft_forward,
    cases=_cases,
    gradient_of=("h", "R", "W", "b"),
    property=_property,
    praise="equal to the paper's formula, values and gradients, without a d × d matrix",
    tolerance=1e-4,
    hints=(
        "Read it from the inside: R h are r numbers, what h has along R's rows; W h + b are r "
        "numbers too, what it should have there.",
        "A row h of `h` (..., d) times Rᵀ is `h @ R.T`, (..., r).",
        "The difference (..., r) goes back to d numbers along R's rows: `difference @ R`.",
        "return h + (h @ W.T + b - h @ R.T) @ R",
    ),
    wrong=(
        Wrong(
            "nothing taken away",
            _edit(found=lambda h, R: 0),
            "You do not subtract R h: you add W h + b to what h already has along R's rows. That "
            "is DiReFT with tied directions; LoReFT *replaces* it.",
        ),
        Wrong(
            "no bias",
            _edit(wanted=lambda h, R, W, b: h @ W.T),
            "The bias b is missing: the wanted values are W h + b.",
        ),
        Wrong(
            "reversed",
            _edit(sign=-1),
            "The difference has the wrong sign: it is what h should have, W h + b, minus what it "
            "has, R h.",
        ),
        Wrong(
            "edit alone",
            _edit(base=False),
            "You return only the edit: add it to h.",
        ),
        Wrong(
            "doubled",
            _edit(wanted=lambda h, R, W, b: h @ R.T, found=lambda h, R: 0),
            "You add RᵀR h, which doubles what h has along R: W and b are not used at all.",
        ),
        Wrong(
            "W back",
            lambda h, R, W, b: h + (h @ W.T + b - h @ R.T) @ W,
            "You go back to d numbers through W: the way back is Rᵀ, so that the edit lies in "
            "the span of R's rows.",
        ),
        Wrong(
            "scaled by the rank",
            lambda h, R, W, b: h + (h @ W.T + b - h @ R.T) @ R / len(R),
            "You divide by r: LoReFT has no scaling such as LoRA's alpha/r.",
        ),
    ),
)
