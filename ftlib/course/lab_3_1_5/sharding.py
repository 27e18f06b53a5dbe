"""What each of several cards holds of a plan when FSDP shards it."""

from __future__ import annotations

from collections.abc import Mapping

SHARDED = ("weights", "adapter", "gradients", "optimizer")
WHOLE = (
    "quantisation constants",
    "activations",
    "logits",
    "CUDA context (estimate)",
)


def bytes_per_card(parts: Mapping[str, float], cards: int) -> float:
    """Bytes on one of `cards` cards, each with rows of its own, before any block is gathered.

    parts: those of `ftlib.training.memory_plan.MemoryPlan` for the rows of one card. Parameters,
    gradients and optimizer are cut into equal parts; the scales of 4-bit blocks are no parameters
    and whole on every card; activations, logits and context are each card's own.
    """
    cut = sum(parts.get(part, 0) for part in SHARDED)
    own = sum(parts.get(part, 0) for part in WHOLE)
    return cut / cards + own
