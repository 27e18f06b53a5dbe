"""Lab 3.1.5, QLoRA, exercise 8: bytes."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_5.bits_per_weight import bits_per_weight


def qlora_bytes(linear: int, others: int, trained: int) -> dict[str, float]:
    """Bytes of QLoRA with AdamW, activations not counted.

    linear: weights of the linear layers, in NF4 with double quantisation; others: embedding, head
    and norms, in 16 bits; trained: parameters of the adapter, in fp32.
    """
    return {
        "linear": linear * bits_per_weight(64, 256) / 8,
        "others": 2 * others,
        "adapter": 4 * trained,
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
    }


def _bytes_cases(g):
    yield from [
        (68_451_041_280, 2_102_665_216, 207_093_760),
        (6_476_005_376, 262_410_240, 39_976_960),
        (3_670_016, 264_448, 360_448),
        (1_000_000, 0, 10_000),
    ]


def _bytes(**wrong):
    def held(linear, others, trained):
        right = qlora_bytes(linear, others, trained)
        return {**right, **{k: f(linear, others, trained) for k, f in wrong.items()}}

    return held


BYTES = Exercise(
    name="qlora_bytes",
    title="QLoRA by hand",
    minutes=10,
    difficulty=2,
    reference=qlora_bytes,
    cases=_bytes_cases,
    tolerance=1e-6,
    hints=(
        "Bits to bytes: `bits_per_weight(64, 256) / 8` is what a weight in NF4 takes, its share "
        "of the scales included.",
        "Only linear layers are quantised. The rest stays in 16 bits: two bytes.",
        "What trains is fp32: four bytes the parameter, four its gradient, and AdamW keeps two "
        "fp32 means of it.",
        '{"linear": linear * bits_per_weight(64, 256) / 8, "others": 2 * others, '
        '"adapter": 4 * trained, "gradients": 4 * trained, "optimizer": 8 * trained}',
    ),
    wrong=(
        Wrong(
            "half a byte",
            _bytes(linear=lambda n, o, t: n / 2),
            "Half a byte is the code alone: the scales of the blocks are missing, 0.127 bit a "
            "weight. "
            "At 70B that is a gigabyte.",
        ),
        Wrong(
            "bits",
            _bytes(linear=lambda n, o, t: n * bits_per_weight(64, 256)),
            "`linear` is in bits: eight of them are a byte.",
        ),
        Wrong(
            "no double quantisation",
            _bytes(linear=lambda n, o, t: n * 4.5 / 8),
            "You counted fp32 scales, 4.5 bits per weight: with double quantisation it is 4.127.",
        ),
        Wrong(
            "all in 4 bits",
            _bytes(others=lambda n, o, t: o * bits_per_weight(64, 256) / 8),
            "Embedding and head stay in 16 bits: bitsandbytes replaces linear layers, and leaves "
            "the head out.",
        ),
        Wrong(
            "one mean",
            _bytes(optimizer=lambda n, o, t: 4 * t),
            "AdamW keeps two numbers for every trained parameter: the mean of its gradient and of "
            "its square, 8 bytes.",
        ),
        Wrong(
            "gradients of everything",
            _bytes(gradients=lambda n, o, t: 4 * (n + o + t)),
            "Frozen weights have no gradient: count what trains.",
        ),
        Wrong(
            "optimizer of everything",
            _bytes(optimizer=lambda n, o, t: 8 * (n + o + t)),
            "The optimizer knows only what trains: frozen weights have no state.",
        ),
        Wrong(
            "16-bit adapter",
            _bytes(adapter=lambda n, o, t: 2 * t),
            "The adapter is kept in fp32 here, 4 bytes: updates of 1e-4 and less would be lost in "
            "16 bits.",
        ),
    ),
)
