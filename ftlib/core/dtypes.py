"""Which precision sums and trained weights have."""

from __future__ import annotations

import torch


def fp32_or_wider(dtype: torch.dtype) -> torch.dtype:
    """float32 for float16, bfloat16 and float32; float64 for float64. Sums over many values are
    taken in it: 16 bits would lose the small ones.
    """
    return torch.promote_types(dtype, torch.float32)


def master_like(weight: torch.Tensor) -> dict:
    """`dtype` and `device` of what is trained beside `weight`: on its device, in fp32 or wider,
    since 16 bits would lose small updates. Packed 4-bit weights are integers: fp32 beside them.
    """
    dtype = torch.float32
    if weight.is_floating_point():
        dtype = fp32_or_wider(weight.dtype)
    return {"dtype": dtype, "device": weight.device}
