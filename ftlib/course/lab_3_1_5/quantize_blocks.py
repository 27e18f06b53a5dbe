"""Lab 3.1.5, QLoRA, exercise 2: blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.models.nf4 import NF4_LEVELS


def quantize_blocks(w: Tensor, block_size: int, levels: Tensor) -> tuple[Tensor, Tensor]:
    """(codes (n,), scales (n/block_size,)) of weights w (n,): the index of the level nearest to
    w/c, c the block's largest |w|.
    """
    blocks = w.reshape(-1, block_size)
    scales = blocks.abs().amax(1)
    scaled = (
        blocks * (1 / scales.clamp(min=1e-38))[:, None]
    )  # a product with 1/c, as bitsandbytes has it
    codes = torch.bucketize(
        scaled, (levels[1:] + levels[:-1]) / 2
    )  # between two midpoints the level is the nearest
    return codes.reshape(-1), scales


def _blocks_cases(g):
    yield torch.randn(256, generator=g), 64, NF4_LEVELS
    yield torch.cat([0.02 * torch.randn(96, generator=g), torch.zeros(32)]), 32, NF4_LEVELS
    yield torch.randn(40, generator=g) ** 3, 8, torch.linspace(-1, 1, 5)
    yield -torch.rand(64, generator=g), 16, NF4_LEVELS


def _blocks(
    scale=lambda b: b.abs().amax(1),
    code=lambda s, lv: (s[..., None] - lv).abs().argmin(-1),
    cut=lambda w, n: w.reshape(-1, n),
    divide=lambda b, c: b / c.clamp(min=1e-38)[:, None],
):
    def blocks(w, block_size, levels):
        b = cut(w, block_size)
        c = scale(b)
        return code(divide(b, c), levels).reshape(-1), c

    return blocks


BLOCKS = Exercise(
    name="quantize_blocks",
    title="Codes and scales",
    minutes=15,
    difficulty=2,
    reference=quantize_blocks,
    cases=_blocks_cases,
    dtypes={0: "index"},
    hints=(
        "`w.reshape(-1, block_size)` has one block a row. The scale of a row is its largest "
        "absolute value.",
        "Divide each row by its scale. A row of zeros has scale 0: keep the divisor above 0, "
        "for instance with `clamp(min=1e-38)`.",
        "The nearest level: `(scaled[..., None] - levels).abs().argmin(-1)`; or, with a sixteenth "
        "of the memory, "
        "`torch.bucketize` with the midpoints between neighbouring levels.",
        "scaled = blocks / scales.clamp(min=1e-38)[:, None]; codes = torch.bucketize(scaled, "
        "(levels[1:] + levels[:-1]) / 2)",
    ),
    wrong=(
        Wrong(
            "maximum, not absolute",
            _blocks(scale=lambda b: b.amax(1)),
            "Your scale is the largest value, not the largest *absolute* value: "
            "a block whose extreme is negative leaves [−1, 1].",
        ),
        Wrong(
            "one scale",
            _blocks(scale=lambda b: b.abs().max().expand(len(b))),
            "All blocks share one scale: one outlier then costs the whole matrix its resolution. "
            "One scale per block.",
        ),
        Wrong(
            "rounded down",
            _blocks(
                code=lambda s, lv: (torch.bucketize(s, lv, right=True) - 1).clamp(0, len(lv) - 1)
            ),
            "You take the level below the weight, not the nearest: every weight is pulled down, "
            "and the errors no longer cancel.",
        ),
        Wrong(
            "strided blocks",
            _blocks(cut=lambda w, n: w.reshape(n, -1).T),
            "Your blocks are every n-th weight: a block is `block_size` weights that follow each "
            "other.",
        ),
        Wrong(
            "zeros divided by zero",
            _blocks(divide=lambda b, c: b / c[:, None]),
            "A block of zeros is divided by zero: NaN has no nearest level. Keep the divisor "
            "above 0.",
        ),
        Wrong(
            "standard deviation",
            _blocks(scale=lambda b: b.std(1)),
            "You scaled by the standard deviation: the largest weights of each block then fall "
            "beyond the last level. "
            "Use the largest absolute value.",
        ),
        Wrong(
            "not scaled",
            _blocks(divide=lambda b, c: b),
            "The scales are right, but the codes are those of the raw weights: divide by the "
            "scale first.",
        ),
    ),
)
