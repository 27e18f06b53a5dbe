"""Lab 3.1.10, export and Ollama, exercise 3: q8_0."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def q8_0_blocks(w: Tensor) -> tuple[Tensor, Tensor]:
    """(codes (n/32, 32), integers from -127 to 127; scales (n/32,), fp16) of weights w (n,): code ·
    scale is nearly the weight.
    """
    blocks = w.float().reshape(-1, 32)
    d = blocks.abs().amax(1) / 127
    scaled = torch.where(d[:, None] > 0, blocks * (1 / d[:, None]), 0.0)
    return (scaled.sign() * (scaled.abs() + 0.5).floor()).to(torch.int8), d.half()


def _q8_cases(g):
    yield (torch.randn(64, generator=g),)
    yield (0.02 * torch.randn(96, generator=g) ** 3,)
    yield (torch.cat([torch.zeros(32), -torch.rand(32, generator=g)]),)


def _q8(
    scale=lambda b: b.abs().amax(1) / 127,
    code=lambda s: s.round(),
    cut=lambda w: w.float().reshape(-1, 32),
    safe=True,
):
    def blocks(w):
        b = cut(w)
        d = scale(b)
        s = torch.where(d[:, None] > 0, b / d[:, None], torch.zeros(())) if safe else b / d[:, None]
        return code(s), d.half()

    return blocks


Q8 = Exercise(
    name="q8_0_blocks",
    title="A block of Q8_0",
    minutes=10,
    difficulty=2,
    reference=q8_0_blocks,
    cases=_q8_cases,
    dtypes={1: "same"},
    hints=(
        "32 weights share one scale d. The largest absolute value of the block becomes ±127.",
        "d = max|w| / 127; code = w / d, rounded to the nearest integer. A block of zeros has d = "
        "0: its codes are 0.",
        "Divide by the fp32 scale, and convert the scale to fp16 only for storing: `d.half()`.",
        "blocks = w.float().reshape(-1, 32); d = blocks.abs().amax(1) / 127; "
        "codes = torch.where(d[:, None] > 0, blocks / d[:, None], 0.0).round()",
    ),
    wrong=(
        Wrong(
            "128",
            _q8(scale=lambda b: b.abs().amax(1) / 128),
            "You divided by 128: the largest weight gets code 128, which a signed byte does not "
            "have. Q8_0 uses 127.",
        ),
        Wrong(
            "not absolute",
            _q8(scale=lambda b: b.amax(1) / 127),
            "Your scale is the largest value, not the largest absolute value: a block of negative "
            "weights gets a wrong scale.",
        ),
        Wrong(
            "cut off",
            _q8(code=lambda s: s.trunc()),
            "You cut the fraction off: round to the nearest integer, else every weight shrinks.",
        ),
        Wrong(
            "one scale",
            _q8(scale=lambda b: (b.abs().max() / 127).expand(len(b))),
            "One scale for all: each block of 32 has its own.",
        ),
        Wrong(
            "zero by zero",
            _q8(safe=False),
            "A block of zeros is divided by its scale 0: NaN is no code. Give it the codes 0.",
        ),
        Wrong(
            "16 a block",
            _q8(cut=lambda w: w.float().reshape(-1, 16)),
            "Your blocks hold 16 weights: Q8_0 takes 32 (the k-quants take 256).",
        ),
        Wrong(
            "scale is the maximum",
            _q8(scale=lambda b: b.abs().amax(1)),
            "Your scale is the maximum itself, and the codes are then -1, 0 or 1: divide it by "
            "127.",
        ),
    ),
)
