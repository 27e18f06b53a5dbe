"""Splits that share no group: rows that are near duplicates, paraphrases, or about the same thing
lie on one side.
"""

from __future__ import annotations

import html
import itertools
import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from ftlib.core.errors import DataError
from ftlib.data.duplicates import Groups, Union

TRIES = 100  # random deals, of which the best is taken
TOLERANCE = 1e-9  # of sums of shares, which are floats


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
        lines = []
        for name, rows in self.rows.items():
            lines.append(
                f"{name}: {len(rows):,} rows of {self.wanted[name]:,} wanted, "
                f"{self.groups[name]:,} groups"
            )
        return ", ".join(lines)

    def _repr_html_(self) -> str:
        lines = ["<tr><th>split</th><th>rows</th><th>wanted</th><th>groups</th></tr>"]
        for name, rows in self.rows.items():
            lines.append(
                f"<tr><td>{html.escape(name)}</td><td>{len(rows):,}</td>"
                f"<td>{self.wanted[name]:,}</td><td>{self.groups[name]:,}</td></tr>"
            )
        return f"<table>{''.join(lines)}</table>"


# --- how large each split is to be ----------------------------------------------------------------
def _is_size(value) -> bool:
    """Whether a value is a number of rows or a share of them: a number above 0, and no bool."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and value > 0


def _given_sizes(sizes: dict) -> list[int | float]:
    """The sizes that are numbers, which must be all counts or all shares; DataError if not."""
    given = [size for size in sizes.values() if size is not None]
    rests = len(sizes) - len(given)
    if not sizes or not all(_is_size(size) for size in given) or rests > 1:
        raise DataError(
            f"sizes={sizes!r}: name -> rows (int) or share (float), each above 0, and at most one "
            "None for the rest"
        )
    shares = [size for size in given if isinstance(size, float)]
    if shares and len(shares) < len(given):
        raise DataError(f"sizes={sizes!r}: counts and shares are mixed, use one kind")
    return given


def _wanted(sizes: dict, count: int) -> dict[str, int]:
    """Whole rows a split, summing to count: shares are rounded by largest remainder, None takes the
    rest.
    """
    given = _given_sizes(sizes)
    are_shares = all(isinstance(size, float) for size in given)
    whole = 1.0 if are_shares else count
    left = whole - sum(given)
    has_rest = len(given) < len(sizes)
    nothing_left = has_rest and left <= TOLERANCE
    not_the_whole = not has_rest and abs(left) > TOLERANCE
    if nothing_left or not_the_whole:
        less = "less than " if has_rest else ""
        total = "1" if are_shares else f"the {count} rows"
        raise DataError(
            f"sizes={sizes!r} sum to {sum(given):g}: {less}{total} is needed; "
            "None for one split takes the rest"
        )
    unit = count if are_shares else 1  # rows for each 1 in sizes
    exact = {}
    for name, size in sizes.items():
        share = left if size is None else size
        exact[name] = share * unit
    return _round_by_largest_remainder(exact, count)


def _round_by_largest_remainder(exact: dict[str, float], count: int) -> dict[str, int]:
    """Whole numbers that sum to `count`: each rounded down, then one more for those that lost
    most.
    """
    rounded = {name: int(value + TOLERANCE) for name, value in exact.items()}

    def minus_remainder(name: str) -> float:
        return rounded[name] - exact[name]

    missing = count - sum(rounded.values())
    by_remainder = sorted(exact, key=minus_remainder)
    for name in by_remainder[:missing]:
        rounded[name] += 1
    return rounded


# --- what belongs together ------------------------------------------------------------------------
def _join_groups(union: Union, groups: Groups, count: int) -> None:
    """Join the rows of each group; DataError where a group names a row that does not exist."""
    for group in groups:
        outside = [i for i in group if not 0 <= i < count]
        if outside:
            raise DataError(
                f"groups name row {outside[0]}, but there are {count} rows: were they found "
                "in other rows?"
            )
        for i in group[1:]:
            union.join(group[0], i)


def _join_by_key(union: Union, rows: list[dict], key: str | Callable[[dict], object]) -> None:
    """Join the rows that agree in `key`; DataError where a row lacks it."""
    first: dict[object, int] = {}  # the first row of each value
    for i, row in enumerate(rows):
        if callable(key):
            value = key(row)
        elif key in row:
            value = row[key]
        else:
            raise DataError(
                f"row {i} has no {key!r}: name another key, or pass a function of the row"
            )
        if not isinstance(value, Hashable):
            raise DataError(
                f"row {i} has {str(value)[:60]!r} for {key!r}, which cannot be looked up: "
                "pass a function of the row that makes text of it"
            )
        union.join(first.setdefault(value, i), i)


def _grouped(
    rows: list[dict], groups: Groups | None, key: str | Callable[[dict], object] | None
) -> Groups:
    union = Union(len(rows))
    _join_groups(union, groups or [], len(rows))
    if key is not None:
        _join_by_key(union, rows, key)
    return union.groups()


# --- dealing --------------------------------------------------------------------------------------
def _deal(groups: Groups, wanted: dict[str, int], rng: random.Random) -> dict[str, Groups]:
    """Every group to one split: large ones first, to a split drawn in proportion to the room it has
    left.
    """
    room = dict(wanted)
    dealt: dict[str, Groups] = {name: [] for name in wanted}
    shuffled = rng.sample(groups, len(groups))
    for group in sorted(shuffled, key=len, reverse=True):
        fits = [name for name in room if room[name] >= len(group)]
        if fits:
            weights = [room[name] for name in fits]
            chosen = rng.choices(fits, weights)[0]
        else:
            chosen = max(room, key=room.__getitem__)
        room[chosen] -= len(group)
        dealt[chosen].append(group)
    return dealt


def _miss(dealt: dict[str, Groups], wanted: dict[str, int]) -> tuple[int, int]:
    """(empty splits, rows too many or too few in all): the less, the better the deal."""
    empty = 0
    wrong = 0
    for name, groups in dealt.items():
        got = sum(len(group) for group in groups)
        empty += got == 0
        wrong += abs(got - wanted[name])
    return empty, wrong


def _best_deal(groups: Groups, wanted: dict[str, int], seed: int) -> dict[str, Groups]:
    """The deal that misses least out of `TRIES` random ones, the first of equals."""
    rng = random.Random(seed)
    best: dict[str, Groups] = {}
    least = None
    for _ in range(TRIES):
        dealt = _deal(groups, wanted, rng)
        miss = _miss(dealt, wanted)
        if least is None or miss < least:
            best = dealt
            least = miss
        if least == (0, 0):
            break
    return best


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
    wanted = _wanted(sizes, len(rows))
    bound = _grouped(rows, groups, key)
    best = _best_deal(bound, wanted, seed)
    empty = [name for name, dealt in best.items() if not dealt]
    if empty:
        largest = max((len(group) for group in bound), default=0)
        raise DataError(
            f"split {empty[0]!r} of {wanted[empty[0]]} rows stays empty: {len(rows)} rows are "
            f"{len(bound)} groups, the largest of {largest}; ask for fewer or larger splits"
        )
    split_rows = {}
    indices = {}
    counts = {}
    for name, dealt in best.items():
        indices[name] = sorted(itertools.chain.from_iterable(dealt))
        split_rows[name] = [rows[i] for i in indices[name]]
        counts[name] = len(dealt)
    return Splits(split_rows, indices, wanted, counts)
