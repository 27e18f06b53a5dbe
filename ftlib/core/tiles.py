"""How large a tile of logits is: log-probabilities compute by it, the memory plan counts by it."""

from __future__ import annotations

# Of fp32 logits that ftlib's log-probabilities hold at a time, if TILE_ROWS fit into it.
TILE_BYTES = 16 << 20
# The fewest tokens of a tile: below it a product costs more for reading the head than for its sums.
TILE_ROWS = 192


def tile_rows(vocabulary: int) -> int:
    """Tokens whose logits ftlib's log-probabilities make at a time."""
    bytes_per_token = 4 * vocabulary
    return max(TILE_ROWS, TILE_BYTES // bytes_per_token)
