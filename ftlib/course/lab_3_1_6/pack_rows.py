"""Lab 3.1.6, data, exercise 9: packing."""

from __future__ import annotations

import torch

from ftlib.course.exercise import Exercise, Wrong


def pack_rows(lengths: list[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing: indices by bin; the longest first, each into the first bin that has
    room.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((k for k, left in enumerate(room) if left >= lengths[i]), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(i)
        room[place] -= lengths[i]
    return bins


def _length_cases(g):
    yield [3, 7, 5, 5, 2, 8], 10
    yield [4, 4, 4, 6, 6, 6], 10
    yield [10, 1, 10], 10
    yield torch.randint(5, 60, (24,), generator=g).tolist(), 64
    yield [2, 3], 10


def _packer(
    order=lambda n: sorted(range(len(n)), key=lambda i: -n[i]),
    fits=lambda left, size: left >= size,
    first=lambda room: range(len(room)),
):
    def packer(lengths, capacity):
        bins = []
        room = []
        for i in order(lengths):
            k = next((k for k in first(room) if fits(room[k], lengths[i])), None)
            if k is None:
                k = len(bins)
                bins.append([])
                room.append(capacity)
            bins[k].append(i)
            room[k] -= lengths[i]
        return bins

    return packer


PACK = Exercise(
    name="pack_rows",
    title="First fit, longest first",
    minutes=12,
    difficulty=2,
    reference=pack_rows,
    cases=_length_cases,
    dtypes={None: "index"},
    hints=(
        "`sorted(range(len(lengths)), key=lambda i: -lengths[i])` gives the indices, longest "
        "first; "
        "equal lengths keep their order.",
        "Keep a list of bins and a list of the room left in each. Look through the rooms from the "
        "first bin on.",
        "If no bin has room, open one with the whole capacity. A row that fills a bin exactly "
        "fits.",
    ),
    wrong=(
        Wrong(
            "order of arrival",
            _packer(order=lambda n: range(len(n))),
            "You took the rows as they came: long ones that come late find only scraps of room. "
            "Longest first.",
        ),
        Wrong(
            "shortest first",
            _packer(order=lambda n: sorted(range(len(n)), key=lambda i: n[i])),
            "You began with the shortest: they fill the bins that the long ones need.",
        ),
        Wrong(
            "last bin only",
            _packer(first=lambda room: range(len(room) - 1, len(room)) if room else range(0)),
            "You looked into the last bin only (next fit): earlier ones may have room.",
        ),
        Wrong(
            "exact fit refused",
            _packer(fits=lambda left, size: left > size),
            "A row that fills the bin exactly fits: `>=`, not `>`.",
        ),
        Wrong(
            "fullest bin",
            lambda lengths, capacity: _best_fit(lengths, capacity),
            "You took the bin with the least room left (best fit), which is no worse but another "
            "packing: "
            "take the first that has room.",
        ),
        Wrong(
            "over-full",
            _packer(fits=lambda left, size: left > 0),
            "Bins overflow: a row was put where less room is left than it needs, so it would be "
            "cut.",
        ),
    ),
)


def _best_fit(lengths, capacity):
    bins: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = [k for k in range(len(room)) if room[k] >= lengths[i]]
        if not fits:
            bins.append([])
            room.append(capacity)
        k = min(fits, key=lambda k: room[k]) if fits else len(bins) - 1
        bins[k].append(i)
        room[k] -= lengths[i]
    return bins
