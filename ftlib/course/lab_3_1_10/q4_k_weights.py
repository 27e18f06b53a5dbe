"""Lab 3.1.10, export and Ollama, exercise 4: a super-block of Q4_K."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def q4_k_weights(d: Tensor, dmin: Tensor, scales: Tensor, mins: Tensor, nibbles: Tensor) -> Tensor:
    """The weights (n, 256) of n super-blocks.

    d, dmin (n,): units; scales, mins (n, 8): whole numbers from 0 to 63; nibbles (n, 128), uint8:
    each run of 32 bytes holds two sub-blocks, the first in its low, the second in its high 4 bits.
    Sub-block j is d·scale_j·code − dmin·min_j.
    """
    runs = nibbles.reshape(-1, 4, 1, 32).int()
    codes = torch.cat([runs & 15, runs >> 4], dim=2).reshape(-1, 8, 32)
    scale = (d[:, None] * scales)[:, :, None]  # (n, 8, 1)
    low = (dmin[:, None] * mins)[:, :, None]
    return (scale * codes - low).reshape(-1, 256)


def _block_cases(g):
    for n in (1, 3, 2):
        yield (
            torch.rand(n, generator=g) + 0.5,
            torch.rand(n, generator=g) + 0.5,
            torch.randint(0, 64, (n, 8), generator=g),
            torch.randint(0, 64, (n, 8), generator=g),
            torch.randint(0, 256, (n, 128), generator=g).to(torch.uint8),
        )


def _codes(nibbles):
    runs = nibbles.reshape(-1, 4, 1, 32).int()
    return torch.cat([runs & 15, runs >> 4], dim=2).reshape(-1, 8, 32)


def _neighbours(nibbles):
    """Two codes of a byte side by side."""
    low, high = nibbles.int() & 15, nibbles.int() >> 4
    return torch.stack([low, high], dim=2).reshape(-1, 8, 32)


def _all_low_first(nibbles):
    low, high = nibbles.int() & 15, nibbles.int() >> 4
    return torch.cat([low, high], dim=1).reshape(-1, 8, 32)


def _high_first(nibbles):
    runs = nibbles.reshape(-1, 4, 1, 32).int()
    return torch.cat([runs >> 4, runs & 15], dim=2).reshape(-1, 8, 32)


def _with(codes=_codes, combine=lambda scale, code, low: scale * code - low):
    """An answer with its own order of codes or its own formula."""

    def weights(d, dmin, scales, mins, nibbles):
        scale = (d[:, None] * scales)[:, :, None]
        low = (dmin[:, None] * mins)[:, :, None]
        return combine(scale, codes(nibbles), low).reshape(-1, 256)

    return weights


Q4_K = Exercise(
    name="q4_k_weights",
    title="A super-block of Q4_K",
    minutes=15,
    difficulty=3,
    reference=q4_k_weights,
    cases=_block_cases,
    hints=(
        "First the codes as (n, 8, 32). A byte holds two: `byte & 15` and `byte >> 4`. Bytes 0–31 "
        "are sub-blocks 0 (low bits) and 1 (high bits), bytes 32–63 sub-blocks 2 and 3, and so on.",
        "nibbles.reshape(-1, 4, 1, 32), its low and its high bits joined along the axis of length "
        "1, gives (n, 4, 2, 32), which is (n, 8, 32) in the right order.",
        "Scale of sub-block j: d·scales[:, j]; what is subtracted: dmin·mins[:, j]. Both get a "
        "third axis of length 1.",
        "runs = nibbles.reshape(-1, 4, 1, 32).int(); codes = torch.cat([runs & 15, runs >> 4], "
        "2).reshape(-1, 8, 32); return ((d[:, None] * scales)[..., None] * codes - (dmin[:, None] "
        "* mins)[..., None]).reshape(-1, 256)",
    ),
    wrong=(
        Wrong(
            "minimum added",
            _with(combine=lambda scale, code, low: scale * code + low),
            "You added the minimum: it is stored without its sign and is subtracted, so that the "
            "levels begin below zero.",
        ),
        Wrong(
            "neighbours",
            _with(codes=_neighbours),
            "You put the two codes of a byte side by side. They are 32 weights apart: low bits are "
            "one sub-block, high bits the next.",
        ),
        Wrong(
            "all low bits first",
            _with(codes=_all_low_first),
            "You took the low bits of all 128 bytes first: each run of 32 bytes holds two "
            "neighbouring sub-blocks.",
        ),
        Wrong(
            "high bits first",
            _with(codes=_high_first),
            "You took the high bits for the first of two sub-blocks: they are the second.",
        ),
        Wrong(
            "offset before the scale",
            _with(combine=lambda scale, code, low: scale * (code - low)),
            "You subtracted the minimum from the code and scaled both: the minimum has a unit of "
            "its own, dmin.",
        ),
        Wrong(
            "no minimum",
            _with(combine=lambda scale, code, low: scale * code),
            "The minimum is missing: codes from 0 to 15 alone give no negative weight.",
        ),
        Wrong(
            "scales and minima swapped",
            lambda d, dmin, scales, mins, nibbles: q4_k_weights(d, dmin, mins, scales, nibbles),
            "Scales and minima are swapped.",
        ),
        Wrong(
            "units swapped",
            lambda d, dmin, scales, mins, nibbles: q4_k_weights(dmin, d, scales, mins, nibbles),
            "The units are swapped: d belongs to the scales, dmin to the minima.",
        ),
        Wrong(
            "one unit",
            lambda d, dmin, scales, mins, nibbles: q4_k_weights(d, d, scales, mins, nibbles),
            "You measured the minima in d: their unit is dmin.",
        ),
        Wrong(
            "scales without unit",
            lambda d, dmin, scales, mins, nibbles: q4_k_weights(
                torch.ones_like(d), torch.ones_like(dmin), scales, mins, nibbles
            ),
            "Scales and minima are whole numbers of a unit: multiply by d and dmin, which all "
            "eight sub-blocks share.",
        ),
        Wrong(
            "centred codes",
            _with(combine=lambda scale, code, low: scale * (code - 8) - low),
            "You centred the codes at 8, as Q4_0 does: in Q4_K the minimum does that.",
        ),
        Wrong(
            "high bits not shifted",
            _with(
                codes=lambda nibbles: torch.cat(
                    [
                        nibbles.reshape(-1, 4, 1, 32).int() & 15,
                        nibbles.reshape(-1, 4, 1, 32).int() & 240,
                    ],
                    dim=2,
                ).reshape(-1, 8, 32)
            ),
            "The high bits are masked and not shifted: `byte >> 4` makes them a number from 0 to "
            "15.",
        ),
    ),
)
