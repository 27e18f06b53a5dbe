"""NVFP4, the 4-bit type that NVIDIA's Blackwell GPUs compute with, the DGX Spark's among them.

A value has the format E2M1: one sign bit, two of exponent, one of mantissa. That is 0, ½, 1, 1½, 2,
3, 4 and 6 with either sign; plus and minus zero are one value, so 16 codes name 15 values. Sixteen
weights share a scale in FP8 (E4M3: four bits of exponent, three of mantissa, 448 at most), and the
whole tensor has one fp32 scale, which brings the block scales into FP8's range: 4 + 8/16 = 4.5 bits
a weight and 32 bits a tensor.

NVIDIA, "Introducing NVFP4" (developer.nvidia.com/blog). Here in PyTorch, as a computation on
values: no code is packed, and no tensor core is used.
"""

from __future__ import annotations

import torch
from torch import Tensor

E2M1_LEVELS = torch.tensor(
    [-6.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
)
NVFP4_BLOCK = 16
E2M1_MOST = 6.0
E4M3_MOST = 448.0


def nvfp4_scales(blocks: Tensor) -> Tensor:
    """The scale of each block as it is stored and used, fp32: FP8 times the tensor's fp32 scale.

    blocks (n, 16) -> (n,). The tensor's scale maps the largest weight of all to 448 · 6.
    """
    largest = blocks.abs().amax(1)  # (n,)
    outer = (largest.max() / (E2M1_MOST * E4M3_MOST)).clamp(min=1e-38)
    inner = (largest / E2M1_MOST / outer).to(torch.float8_e4m3fn)
    return inner.float() * outer


def round_nvfp4(weight: Tensor) -> Tensor:
    """The weight as NVFP4 gives it back, in its shape and dtype. A block whose scale is rounded to
    0 comes back as zeros.

    The number of weights is a multiple of 16, as the last dimension of real layers is; ValueError
    where it is not.
    """
    if weight.numel() % NVFP4_BLOCK:
        raise ValueError(
            f"weight has {weight.numel()} entries: NVFP4 needs a multiple of {NVFP4_BLOCK}"
        )
    blocks = weight.detach().float().reshape(-1, NVFP4_BLOCK)  # (n, 16)
    scales = nvfp4_scales(blocks)[:, None]
    scaled = blocks / scales.clamp(min=1e-38)
    levels = E2M1_LEVELS.to(weight.device)
    bounds = (levels[1:] + levels[:-1]) / 2
    nearest = levels[torch.bucketize(scaled, bounds)]  # beyond ±6 the outermost level
    return (nearest * scales).view(weight.shape).to(weight.dtype)


def nvfp4_bits(count: int) -> float:
    """Bits a weight of a tensor of `count` weights, all scales counted."""
    return 4 + 8 / NVFP4_BLOCK + 32 / count
