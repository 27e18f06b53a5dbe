"""How the numbers that came are related to those that were wanted: a factor, an offset, a shift,
another dimension, a function of them, the places that are wrong.

Every relation holds for all pairs that are given, or it is not told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ftlib.course.pairs import Pair, equal
from ftlib.course.place_relations import at_places, in_other_order, other_axis, other_shape
from ftlib.course.value_relations import by_factor, by_function, by_offset


def relation(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """The first relation that holds for every pair, in a sentence."""
    claims: tuple[Callable, ...] = (_not_finite, other_axis, in_other_order)
    if all(pair.got.shape == pair.want.shape for pair in pairs):
        claims = (*claims, by_factor, by_offset, by_function, at_places)
    else:
        claims = (*claims, other_shape)
    for claim in claims:
        found = claim(pairs, tolerance)
        if found:
            return found
    return None


def _not_finite(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """NaN or infinity in the result of every wrong case, where the wanted one is finite."""
    bad = [~pair.got.isfinite() for pair in pairs]
    if not all(
        one.any() and pair.want.isfinite().all() for one, pair in zip(bad, pairs, strict=True)
    ):
        return None
    number = sum(int(one.sum()) for one in bad)
    total = sum(one.numel() for one in bad)
    nan = sum(int(pair.got.isnan().sum()) for pair in pairs)
    word = "NaN" if nan == number else "NaN or infinite" if nan else "infinite"
    sentence = f"{number} of {total} numbers are {word}"
    same = all(
        pair.got.shape == pair.want.shape and equal(pair.got[~one], pair.want[~one], tolerance)
        for one, pair in zip(bad, pairs, strict=True)
    )
    return f"{sentence}, and all others are right." if same and number < total else f"{sentence}."
