"""Packing: several conversations in one row, each seeing only itself, so that little of a batch is
padding.
"""

from __future__ import annotations

from dataclasses import dataclass

from ftlib.batches.template import IGNORE
from ftlib.core.errors import DataError


@dataclass
class Packed:
    """`rows` with several conversations each, `blocks` the indices of the conversations in each,
    and the shares of padding: in one batch of all rows, each padded to the longest, before and
    after packing.
    """

    rows: list[dict]
    blocks: list[list[int]]
    padding_before: float
    padding_after: float

    def __str__(self) -> str:
        conversations = sum(len(block) for block in self.blocks)
        return (
            f"packed {conversations} conversations into {len(self.rows)} rows; "
            f"padding {self.padding_before:.1%} before, {self.padding_after:.1%} after"
        )


def first_fit_decreasing(lengths: list[int], capacity: int) -> list[list[int]]:
    """Indices by bin: the longest first, each into the first bin with room (Johnson 1973: at most
    11/9 of the fewest bins plus 6/9, Dósa 2007). Equal lengths keep their order. O(n log n): a tree
    over the bins holds the most room of each half.
    """
    size = 1 << max(len(lengths) - 1, 0).bit_length()  # leaves: a bin each, a power of two
    room = [capacity] * (2 * size)  # of node n, whose halves are 2n and 2n + 1; the root is 1
    bins: list[list[int]] = []
    longest_first = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    for index in longest_first:
        node = 1
        while node < size:
            node = 2 * node
            if room[node] < lengths[index]:
                node += 1
        place = node - size
        if place == len(bins):
            bins.append([])
        bins[place].append(index)
        room[node] -= lengths[index]
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return bins


def _join(rows: list[dict]) -> dict[str, list[int]]:
    """One row of several; the first token of each has no label, for nothing before it may predict
    it.
    """
    out: dict[str, list[int]] = {"input_ids": [], "labels": [], "position_ids": []}
    for row in rows:
        out["input_ids"] += row["input_ids"]
        out["labels"] += [IGNORE, *row["labels"][1:]]
        out["position_ids"] += range(len(row["input_ids"]))
    return out


def pack(rows: list[dict], max_length: int) -> Packed:
    """Encoded rows ({"input_ids", "labels"}, from `encode_rows`) into as few rows of at most
    `max_length` tokens as first-fit decreasing finds. Nothing is cut: DataError names a row that is
    empty or too long. The same rows give the same packing.

    Each packed row has also "position_ids", which begin again at 0 with each conversation.
    """
    if not rows:
        raise DataError("no rows to pack")
    lengths = [len(row["input_ids"]) for row in rows]
    for i, length in enumerate(lengths):
        if not 0 < length <= max_length:
            raise DataError(
                f"row {i} has {length} tokens, max_length={max_length}: "
                "raise it, or leave the row out (encode_rows does)"
            )
    blocks = first_fit_decreasing(lengths, max_length)
    packed = []
    for block in blocks:
        packed.append(_join([rows[i] for i in block]))
    packed_lengths = [len(row["input_ids"]) for row in packed]
    return Packed(packed, blocks, _padding(lengths), _padding(packed_lengths))


def _padding(lengths: list[int]) -> float:
    """The share of padding in a batch of rows of these lengths."""
    return 1 - sum(lengths) / (len(lengths) * max(lengths))
