"""Lab 3.1.5, QLoRA, exercise 9: checkpointing."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def activation_bytes(layers: int, tokens: int, kept: int, entry: int, checkpointing: bool) -> int:
    """The most that the blocks' activations hold at one moment.

    kept: bytes per token that one block keeps for its backward pass; entry: bytes per token of a
    block's input, which checkpointing stores besides `kept`, also for the block being recomputed.
    With checkpointing every block keeps its input alone, and the one whose backward pass runs is
    recomputed.
    """
    return tokens * (layers * entry + kept) if checkpointing else tokens * layers * kept


def _activation_cases(g):
    yield from [
        (80, 1024, 397_000, 16_384, True),
        (80, 1024, 397_000, 16_384, False),
        (4, 512, 25_000, 1024, True),
        (32, 8, 9000, 700, False),
        (1, 100, 500, 20, True),
    ]


def _activation(on=lambda n, t, k, e: t * (n * e + k), off=lambda n, t, k, e: t * n * k):
    return lambda layers, tokens, kept, entry, checkpointing: (on if checkpointing else off)(
        layers, tokens, kept, entry
    )


ACTIVATIONS = Exercise(
    name="activation_bytes",
    title="What recomputing saves",
    minutes=8,
    difficulty=2,
    reference=activation_bytes,
    cases=_activation_cases,
    hints=(
        "Without checkpointing all blocks keep all they need until the backward pass comes by: "
        "layers · kept for each token.",
        "With it, each block keeps its input: layers · entry. When the backward pass reaches a "
        "block, "
        "that block runs forward once more and then holds `kept`, it alone.",
        "return tokens * (layers * entry + kept) if checkpointing else tokens * layers * kept",
    ),
    wrong=(
        Wrong(
            "recomputed block forgotten",
            _activation(on=lambda n, t, k, e: t * n * e),
            "The block that is being recomputed holds its activations too: one `kept` on top of "
            "the entries.",
        ),
        Wrong(
            "both in full",
            _activation(on=lambda n, t, k, e: t * n * (e + k)),
            "You recompute all blocks at once: they come one after the other, so only one `kept` "
            "is there at a time.",
        ),
        Wrong(
            "entries forgotten",
            _activation(on=lambda n, t, k, e: t * k),
            "The blocks' inputs are missing: they are what recomputing starts from, and they all "
            "wait.",
        ),
        Wrong(
            "entry once",
            _activation(on=lambda n, t, k, e: t * (e + k)),
            "You kept one block's input: every block keeps its own until the backward pass comes "
            "by.",
        ),
        Wrong(
            "one layer without",
            _activation(off=lambda n, t, k, e: t * k),
            "Without checkpointing all blocks keep their activations at once, not one of them.",
        ),
        Wrong(
            "wrong way round",
            _activation(on=lambda n, t, k, e: t * n * k, off=lambda n, t, k, e: t * (n * e + k)),
            "The two cases are swapped: checkpointing is the one that keeps less.",
        ),
    ),
)
