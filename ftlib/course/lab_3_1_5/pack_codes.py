"""Lab 3.1.5, QLoRA, exercise 3: two codes a byte."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def pack_codes(codes: Tensor) -> Tensor:
    """Two 4-bit codes a byte, the first in the high half: (n,) with even n -> (n/2,), uint8."""
    codes = codes.to(torch.uint8)
    return (codes[::2] << 4) | codes[1::2]


def _codes_cases(g):
    for n in (2, 8, 64, 130):
        yield (torch.randint(0, 16, (n,), generator=g),)


def _as_byte(function):
    return lambda c: function(c.to(torch.uint8)).to(torch.uint8)


PACK = Exercise(
    name="pack_codes",
    title="Two codes a byte",
    minutes=5,
    difficulty=1,
    reference=pack_codes,
    cases=_codes_cases,
    dtypes={None: "same"},
    points=1,
    hints=(
        "A byte has eight bits, a code four: the first code goes into the upper four, which is a "
        "shift by 4.",
        "`codes[::2]` are the first of each pair, `codes[1::2]` the second. `<< 4` shifts, `|` "
        "joins.",
        "codes = codes.to(torch.uint8); return (codes[::2] << 4) | codes[1::2]",
    ),
    wrong=(
        Wrong(
            "halves swapped",
            _as_byte(lambda c: (c[1::2] << 4) | c[::2]),
            "The first code is in the low half: bitsandbytes keeps it in the high one, "
            "and would read your weights in pairs the wrong way round.",
        ),
        Wrong(
            "halves of the vector",
            _as_byte(lambda c: (c[: len(c) // 2] << 4) | c[len(c) // 2 :]),
            "You paired the first half of the vector with the second: codes that follow each "
            "other share a byte.",
        ),
        Wrong(
            "added without a shift",
            _as_byte(lambda c: c[::2] + c[1::2]),
            "You added the two codes: the sum cannot be taken apart again. Shift the first by "
            "four bits.",
        ),
        Wrong(
            "not packed",
            _as_byte(lambda c: c),
            "One code per byte: that is 8 bits per weight. Put two into one.",
        ),
        Wrong(
            "times ten",
            _as_byte(lambda c: 10 * c[::2] + c[1::2]),
            "Times ten is the shift of decimal digits: four bits are a factor of 16.",
        ),
    ),
)
