"""Lab 3.1.5, QLoRA, exercise 4: back to numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_5.pack_codes import pack_codes
from ftlib.course.lab_3_1_5.quantize_blocks import quantize_blocks
from ftlib.models.nf4 import NF4_LEVELS


def dequantize_packed(packed: Tensor, scales: Tensor, levels: Tensor, block_size: int) -> Tensor:
    """Weights (n,) fp32 from n/2 bytes, the scales of the blocks and the 16 levels."""
    codes = torch.stack([packed >> 4, packed & 15], 1).reshape(-1)
    return (levels[codes.int()].reshape(-1, block_size) * scales[:, None]).reshape(-1)


def _packed_cases(g):
    for n, block in ((64, 32), (256, 64), (24, 4), (128, 64)):
        w = 0.1 * torch.randn(n, generator=g)
        codes, scales = quantize_blocks(w, block, NF4_LEVELS)
        yield pack_codes(codes), scales, NF4_LEVELS, block


def _unpacked(
    halves=lambda b: torch.stack([b >> 4, b & 15], 1).reshape(-1),
    value=lambda c, lv: lv[c.int()],
    scale=lambda v, s, n: (v.reshape(-1, n) * s[:, None]).reshape(-1),
):
    return lambda packed, scales, levels, block: scale(value(halves(packed), levels), scales, block)


UNPACK = Exercise(
    name="dequantize_packed",
    title="Back to numbers",
    minutes=8,
    difficulty=2,
    reference=dequantize_packed,
    cases=_packed_cases,
    hints=(
        "`packed >> 4` is the first code of each byte, `packed & 15` the second. In which order "
        "must they be?",
        "`torch.stack([first, second], 1).reshape(-1)` puts them back in turns.",
        "A code is an index: `levels[codes.int()]`. (A uint8 tensor would be taken for a mask.) "
        "Then each block times its scale.",
        "return (levels[codes.int()].reshape(-1, block_size) * scales[:, None]).reshape(-1)",
    ),
    wrong=(
        Wrong(
            "halves in a row",
            _unpacked(halves=lambda b: torch.cat([b >> 4, b & 15])),
            "You put all first codes before all second ones: they must alternate, `torch.stack(…, "
            "1)`.",
        ),
        Wrong(
            "low half first",
            _unpacked(halves=lambda b: torch.stack([b & 15, b >> 4], 1).reshape(-1)),
            "The low half comes first in your result: each pair of weights is swapped.",
        ),
        Wrong(
            "an even grid",
            _unpacked(value=lambda c, lv: c.float() / 7.5 - 1),
            "You took the code for a number on an even grid: it is an index into the levels.",
        ),
        Wrong(
            "scales forgotten",
            _unpacked(scale=lambda v, s, n: v),
            "Your weights all lie in [−1, 1]: multiply each block by its scale.",
        ),
        Wrong(
            "scales tiled",
            _unpacked(scale=lambda v, s, n: v * s.repeat(n)),
            "The scales run through in turns: each must hold for a whole block, "
            "so shape the values to (blocks, block_size) first.",
        ),
        Wrong(
            "divided",
            _unpacked(scale=lambda v, s, n: (v.reshape(-1, n) / s[:, None]).reshape(-1)),
            "You divided by the scale: quantising divided, so here it is a product.",
        ),
    ),
)
