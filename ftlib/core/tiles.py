"""How large a tile of logits is: the log-probabilities compute by it, the memory plan counts by it."""

from __future__ import annotations

TILE_BYTES = (
    16 << 20
)  # of fp32 logits that ftlib's log-probabilities hold at a time, if TILE_ROWS fit into it
TILE_ROWS = 192  # the fewest tokens of a tile: below it a product costs more for reading the head than for its sums


def tile_rows(vocabulary: int) -> int:
    """Tokens whose logits ftlib's log-probabilities make at a time."""
    return max(TILE_ROWS, TILE_BYTES // (4 * vocabulary))
