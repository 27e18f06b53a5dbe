"""Splits that share no group: rows that are near duplicates, paraphrases, or about the same thing
lie on one side.
"""

from __future__ import annotations

import html
import random
from collections.abc import Callable
from dataclasses import dataclass

from ftlib.core.errors import DataError
from ftlib.data.duplicates import Groups, Union

TRIES = 100


@dataclass
class Splits:
    """Rows by the name of their split (`splits["train"]`), in the order of the input;
    `indices`, `wanted` and `groups` by name too."""

    rows: dict[str, list[dict]]
    indices: dict[str, list[int]]
    wanted: dict[str, int]
    groups: dict[str, int]

    def __getitem__(self, name: str) -> list[dict]:
        return self.rows[name]

    def __iter__(self):
        return iter(self.rows)

    def __repr__(self) -> str:
        return ", ".join(
            f"{name}: {len(rows):,} rows of {self.wanted[name]:,} wanted, {self.groups[name]:,} "
            "groups"
            for name, rows in self.rows.items()
        )

    def _repr_html_(self) -> str:
        body = "".join(
            f"<tr><td>{html.escape(n)}</td><td>{len(r):,}</td>"
            f"<td>{self.wanted[n]:,}</td><td>{self.groups[n]:,}</td></tr>"
            for n, r in self.rows.items()
        )
        head = "<tr><th>split</th><th>rows</th><th>wanted</th><th>groups</th></tr>"
        return f"<table>{head}{body}</table>"


def _wanted(sizes: dict, count: int) -> dict[str, int]:
    """Whole rows a split, summing to count: shares are rounded by largest remainder, None takes the
    rest.
    """
    values = [v for v in sizes.values() if v is not None]
    if (
        not sizes
        or any(isinstance(v, bool) or not isinstance(v, (int, float)) or v <= 0 for v in values)
        or len(sizes) - len(values) > 1
    ):
        raise DataError(
            f"sizes={sizes!r}: name -> rows (int) or share (float), each above 0, and at most one "
            "None for the rest"
        )
    shares = all(isinstance(v, float) for v in values)
    if not shares and any(isinstance(v, float) for v in values):
        raise DataError(f"sizes={sizes!r}: counts and shares are mixed, use one kind")
    left = (1.0 if shares else count) - sum(values)
    rest = len(values) < len(sizes)
    if (rest and left <= 1e-9) or (not rest and abs(left) > 1e-9):
        whole = "1" if shares else f"the {count} rows"
        raise DataError(
            f"sizes={sizes!r} sum to {sum(values):g}: {'less than ' if rest else ''}{whole} is "
            "needed; "
            "None for one split takes the rest"
        )
    exact = {
        name: (left if v is None else v) * (count if shares else 1) for name, v in sizes.items()
    }
    wanted = {name: int(v + 1e-9) for name, v in exact.items()}
    for name in sorted(exact, key=lambda n: wanted[n] - exact[n])[: count - sum(wanted.values())]:
        wanted[name] += 1
    return wanted


def _grouped(
    rows: list[dict], groups: Groups | None, key: str | Callable[[dict], object] | None
) -> Groups:
    union, first = Union(len(rows)), {}
    for group in groups or []:
        outside = [i for i in group if not 0 <= i < len(rows)]
        if outside:
            raise DataError(
                f"groups name row {outside[0]}, but there are {len(rows)} rows: were they found "
                "in other rows?"
            )
        for i in group[1:]:
            union.join(group[0], i)
    for i, row in enumerate(rows if key is not None else []):
        if isinstance(key, str) and key not in row:
            raise DataError(
                f"row {i} has no {key!r}: name another key, or pass a function of the row"
            )
        union.join(first.setdefault(row[key] if isinstance(key, str) else key(row), i), i)
    return union.groups()


def _deal(groups: Groups, wanted: dict[str, int], rng: random.Random) -> dict[str, Groups]:
    """Every group to one split: large ones first, to a split drawn in proportion to the room it has
    left.
    """
    room, dealt = dict(wanted), {name: [] for name in wanted}
    for group in sorted(rng.sample(groups, len(groups)), key=len, reverse=True):
        fits = [name for name in room if room[name] >= len(group)]
        name = rng.choices(fits, [room[n] for n in fits])[0] if fits else max(room, key=room.get)
        room[name] -= len(group)
        dealt[name].append(group)
    return dealt


def split_by_group(
    rows: list[dict],
    sizes: dict[str, int | float | None],
    groups: Groups | None = None,
    key: str | Callable[[dict], object] | None = None,
    seed: int = 0,
) -> Splits:
    """Deal rows into splits so that no group lies on two sides.

    sizes: name -> number of rows, or share of them (floats that sum to 1); None for one split takes
    the rest. Rows belong together that `groups` names together (such as `near_duplicates(rows)`),
    or that agree in `key` (a field, or a function of the row), and what is so linked over several
    steps. Groups cannot be cut, so sizes are met as nearly as the best of 100 random deals does;
    what was reached and wanted is in the result. The same seed gives the same splits. DataError for
    sizes that cannot be, keys that rows lack, and where a split would be left empty.
    """
    if groups is None and key is None:
        raise DataError(
            "groups and key are both None: pass groups=near_duplicates(rows), key='key', "
            "or groups=[] to deal single rows"
        )
    wanted, bound, rng = _wanted(sizes, len(rows)), _grouped(rows, groups, key), random.Random(seed)
    best, least = {}, None
    for _ in range(TRIES):
        dealt = _deal(bound, wanted, rng)
        got = {name: sum(map(len, d)) for name, d in dealt.items()}
        miss = (sum(not n for n in got.values()), sum(abs(got[n] - wanted[n]) for n in wanted))
        if least is None or miss < least:
            best, least = dealt, miss
        if least == (0, 0):
            break
    empty = [name for name, dealt in best.items() if not dealt]
    if empty:
        raise DataError(
            f"split {empty[0]!r} of {wanted[empty[0]]} rows stays empty: {len(rows)} rows are "
            f"{len(bound)} groups, "
            f"the largest of {max(map(len, bound), default=0)}; ask for fewer or larger splits"
        )
    indices = {name: sorted(i for group in dealt for i in group) for name, dealt in best.items()}
    return Splits(
        {n: [rows[i] for i in where] for n, where in indices.items()},
        indices,
        wanted,
        {n: len(d) for n, d in best.items()},
    )
