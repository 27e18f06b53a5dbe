"""Lab E7, more than one GPU, exercise 7: a 4-bit weight on several processes."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong

BLOCK = 64  # weights with a scale of their own
GROUP = 256  # scales with a scale of their own
FP32 = 4


def nf4_shard_bytes(n_in: int, n_out: int, processes: int) -> tuple[int, int]:
    """(packed bytes, bytes of the scales) that the fullest process holds of an NF4 weight under
    FSDP2.

    Packed: two weights a byte, ⌈bytes/processes⌉ of them. The scales are no parameters and whole on
    each process: a byte for each 64 weights and an fp32 number for each 256 of those, begun ones
    included (double quantisation, arXiv 2305.14314).
    """
    weights = n_in * n_out
    packed = -(-weights // 2)
    blocks = -(-weights // BLOCK)
    groups = -(-blocks // GROUP)
    return -(-packed // processes), blocks + FP32 * groups


def _cases(g):
    yield 8192, 28672, 2
    yield 4096, 1024, 4
    yield 100, 33, 4
    yield 256, 512, 3
    yield 8192, 8192, 1


def _bytes(each=2, cut_scales=False, scale=1, groups=True, cut=True, down=False):
    def held(n_in, n_out, processes):
        weights = n_in * n_out
        packed = -(-weights // each)
        blocks = weights // BLOCK if down else -(-weights // BLOCK)
        scales = scale * blocks
        if groups:
            scales += FP32 * (blocks // GROUP if down else -(-blocks // GROUP))
        if cut_scales:
            scales = -(-scales // processes)
        shard = packed // processes if down else -(-packed // processes)
        return (shard if cut else packed), scales

    return held


NF4 = Exercise(
    name="nf4_shard_bytes",
    title="Bytes of a split 4-bit weight",
    minutes=8,
    difficulty=2,
    reference=nf4_shard_bytes,
    cases=_cases,
    hints=(
        "Two numbers. The packed weight is a parameter, so it is split; the scales are not, so "
        "each process has all of them.",
        "Round up everywhere: -(-a // b). blocks = ⌈weights/64⌉, groups = ⌈blocks/256⌉.",
        "packed = -(-weights // 2); blocks = -(-weights // 64); groups = -(-blocks // 256); "
        "return -(-packed // processes), blocks + 4 * groups",
    ),
    wrong=(
        Wrong(
            "scales cut",
            _bytes(cut_scales=True),
            "You split the scales too. They are the weight's state, not parameters, so FSDP "
            "leaves them whole on every process.",
        ),
        Wrong(
            "nothing cut",
            _bytes(cut=False),
            "You do not split the packed bytes: they are a parameter, split over the processes.",
        ),
        Wrong(
            "one byte per weight",
            _bytes(each=1),
            "You counted a byte for each weight: four bits are half a byte.",
        ),
        Wrong(
            "scales in fp32",
            _bytes(scale=FP32, groups=False),
            "Your scales are fp32 numbers: double quantisation stores them in one byte each, with "
            "an fp32 number for every 256 of them.",
        ),
        Wrong(
            "scales of scales forgotten",
            _bytes(groups=False),
            "The scales' own scales are missing: an fp32 number for every 256 blocks.",
        ),
        Wrong(
            "rounded down",
            _bytes(down=True),
            "You rounded down: an incomplete block has a scale too, and the fullest process holds "
            "the rounded-up share.",
        ),
    ),
)
