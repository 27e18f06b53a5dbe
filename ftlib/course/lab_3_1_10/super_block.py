"""A super-block of Q4_K taken apart: 256 weights in 144 bytes.

    bytes 0–1    d, fp16: the unit of the scales
    bytes 2–3    dmin, fp16: the unit of the minima
    bytes 4–15   eight scales and eight minima, 6 bits each
    bytes 16–143 256 codes of 4 bits

Sub-block j, 32 weights, has the levels ``d·scale_j·code − dmin·min_j``, code from 0 to 15. As in
ggml/src/ggml-quants.c (`block_q4_K`, `get_scale_min_k4`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BYTES = 144
WEIGHTS = 256
SUB_BLOCKS = 8
# Where the parts are: name, first byte, number of bytes.
PARTS = (("d", 0, 2), ("dmin", 2, 2), ("scales and minima", 4, 12), ("codes", 16, 128))


@dataclass(frozen=True)
class SuperBlocks:
    """n super-blocks of Q4_K: `d` and `dmin` (n,), fp32; `scales` and `mins` (n, 8), from 0 to 63;
    `nibbles` (n, 128), uint8, two codes a byte.
    """

    d: Tensor
    dmin: Tensor
    scales: Tensor
    mins: Tensor
    nibbles: Tensor


def take_apart(blocks: Tensor) -> SuperBlocks:
    """Bytes (n, 144), uint8, to their parts. ValueError for another shape or dtype."""
    if blocks.dtype != torch.uint8 or blocks.ndim != 2 or blocks.shape[1] != BYTES:
        raise ValueError(
            f"blocks: {tuple(blocks.shape)} of {blocks.dtype}: pass (n, {BYTES}) of uint8"
        )
    units = blocks[:, :4].contiguous().view(torch.float16).float()  # (n, 2)
    scales, mins = _six_bits(blocks[:, 4:16].int())
    return SuperBlocks(units[:, 0], units[:, 1], scales, mins, blocks[:, 16:])


def _six_bits(packed: Tensor) -> tuple[Tensor, Tensor]:
    """(scales, minima), (n, 8) each, from 12 bytes: the first four of each lie in the low 6 bits of
    bytes 0–3 and 4–7; of the last four the low 4 bits share bytes 8–11, and the high 2 bits are at
    the top of bytes 0–7.
    """
    first, second, shared = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    late_scales = (shared & 15) | ((first >> 6) << 4)
    late_mins = (shared >> 4) | ((second >> 6) << 4)
    scales = torch.cat([first & 63, late_scales], dim=1)
    mins = torch.cat([second & 63, late_mins], dim=1)
    return scales, mins


def levels(parts: SuperBlocks, block: int) -> np.ndarray:
    """The 16 values that each sub-block of a super-block can take, (8, 16)."""
    scale = parts.d[block] * parts.scales[block]  # (8,)
    low = parts.dmin[block] * parts.mins[block]
    codes = torch.arange(16)
    return (scale[:, None] * codes - low[:, None]).numpy()


def blocks_of(tensor) -> Tensor:
    """The super-blocks of a Q4_K tensor of a GGUF, (n, 144). ValueError for another type."""
    if tensor.tensor_type.name != "Q4_K":
        raise ValueError(f"{tensor.name} is {tensor.tensor_type.name}: choose a Q4_K tensor")
    return torch.from_numpy(np.array(tensor.data)).reshape(-1, BYTES)
