"""Lab 3.1.5, QLoRA, exercise 5: bits a weight."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def bits_per_weight(block_size: int, scale_block: int | None) -> float:
    """Bits a weight of a 4-bit type with one scale a block.

    scale_block None: scales in fp32. Else double quantisation: 8-bit scales, and one fp32 scale for
    each `scale_block` of them.
    """
    if scale_block is None:
        return 4 + 32 / block_size
    return 4 + 8 / block_size + 32 / (block_size * scale_block)


def _bits_cases(g):
    yield from [(64, None), (64, 256), (32, 128), (128, None), (256, 256)]


def _bits(plain=lambda b: 4 + 32 / b, double=lambda b, s: 4 + 8 / b + 32 / (b * s)):
    return lambda block, scale_block: (
        plain(block) if scale_block is None else double(block, scale_block)
    )


BITS = Exercise(
    name="bits_per_weight",
    title="What a scale costs",
    minutes=5,
    difficulty=1,
    reference=bits_per_weight,
    cases=_bits_cases,
    points=1,
    hints=(
        "A scale of 32 bits is shared by `block_size` weights: how much of it falls on one?",
        "With double quantisation the scale has 8 bits. Its own scale has 32 and is shared by "
        "`scale_block` scales, that is by "
        "`block_size · scale_block` weights.",
        "return 4 + 8 / block_size + 32 / (block_size * scale_block)",
    ),
    wrong=(
        Wrong(
            "outer scale forgotten",
            _bits(double=lambda b, s: 4 + 8 / b),
            "The scales of the scales are missing: 32 bits for every block_size · scale_block "
            "weights. "
            "Little, but it is stored.",
        ),
        Wrong(
            "outer scale for its scales only",
            _bits(double=lambda b, s: 4 + 8 / b + 32 / s),
            "An outer scale is shared by scale_block *scales*, each of which serves block_size "
            "weights: divide by both.",
        ),
        Wrong(
            "inner scales kept",
            _bits(double=lambda b, s: 4 + 32 / b + 8 / b + 32 / (b * s)),
            "You count the fp32 scales as well: double quantisation puts 8 bits in their place.",
        ),
        Wrong(
            "16-bit scales",
            _bits(plain=lambda b: 4 + 16 / b),
            "You counted 16 bits for a scale: without double quantisation it is kept in fp32.",
        ),
        Wrong(
            "the weights forgotten",
            _bits(plain=lambda b: 32 / b, double=lambda b, s: 8 / b + 32 / (b * s)),
            "That is the overhead alone: add the 4 bits of the weight.",
        ),
    ),
)
