"""What bitsandbytes 0.50.2 computes on a processor with AVX-512, for tests on any processor.

Read from its CPU source (csrc/cpu_ops.cpp, `dequantizeBlockwise4bitCpu`;
bitsandbytes/backends/cpu/ops.py). Blocks of scales lie along a weight's flat order. The vectorised
branch works row by row, sixteen weights at a time, and counts the blocks before row i as i times
the whole blocks of a row: what is left of a row is forgotten. On the Zen 4 where this was met
exactly those tests failed that have a shape and a block which `bitsandbytes_is_right` denies. Its
own fallback for blocks of 2,048 and more ("accuracy issues", pull request 1828) fits the same
cause, since rows are often shorter than such blocks.
"""

import math

import torch

import ftlib as ft

# fp32 numbers in a register; rows of another length are left to the scalar branch, which counts
# flat.
VECTOR = 16
FALLBACK = 2048  # blocks of this size and more go to PyTorch's own operations, which count flat


def bitsandbytes_is_right(shape, block_size: int) -> bool:
    """Whether bitsandbytes dequantises a weight of `shape` rightly on every processor."""
    rows = math.prod(shape[:-1])
    columns = shape[-1]
    vectorised = columns % VECTOR == 0 and block_size < FALLBACK
    rows_are_whole_blocks = columns % block_size == 0
    one_row = rows == 1
    one_block = rows * columns <= block_size
    return not vectorised or rows_are_whole_blocks or one_row or one_block


def place_of_scale(row: int, column: int, columns: int, block_size: int) -> int:
    """The place among the scales that bitsandbytes takes with AVX-512."""
    if columns % VECTOR or block_size >= FALLBACK:
        return (row * columns + column) // block_size
    return row * (columns // block_size) + column // block_size


def dequantize_as_avx512(packed, state) -> torch.Tensor:
    """`bitsandbytes.functional.dequantize_4bit` as it is with AVX-512."""
    scales = state.absmax
    if state.nested:
        outer = state.state2.absmax.repeat_interleave(state.state2.blocksize)[: len(scales)]
        scales = state.state2.code[scales.int()] * outer + state.offset
    shape = torch.Size(state.shape)
    place = torch.arange(shape.numel())
    byte = packed.reshape(-1)[place // 2].int()
    code = torch.where(place % 2 == 0, byte >> 4, byte & 15)
    own = place_of_scale(place // shape[-1], place % shape[-1], shape[-1], state.blocksize)
    return (ft.models.nf4.LEVELS[state.quant_type][code] * scales[own]).to(state.dtype).view(shape)
