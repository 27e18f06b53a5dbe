"""Right numbers at other places, over another dimension or in another shape; and which places are
wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ftlib.course.pairs import Pair, as_numbers, equal, several

# --- where the right numbers are ------------------------------------------------------------------
_REDUCTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "sum": lambda x, axis: x.sum(axis),
    "mean": lambda x, axis: x.mean(axis),
    "norm": lambda x, axis: x.norm(dim=axis),
    "maximum": lambda x, axis: x.amax(axis),
}


def other_axis(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """A sum, mean, norm or maximum of an argument along another axis, or another of these."""
    for name in pairs[0].given:
        tensors = [as_numbers(pair.given.get(name)) for pair in pairs]
        if any(x is None or x.dim() != 2 or not x.numel() for x in tensors):
            continue
        for (came, f), (wanted, h) in itertools.product(_REDUCTIONS.items(), repeat=2):
            for one, other in itertools.product((0, 1), repeat=2):
                both = zip(pairs, tensors, strict=True)
                if all(
                    equal(p.got.squeeze(), f(x, one), tolerance)
                    and equal(p.want.squeeze(), h(x, other), tolerance)
                    for p, x in both
                ):
                    return (
                        f"It is the {came} of `{name}` over dimension {one}: the {wanted} over "
                        f"dimension {other} is wanted."
                    )
    return None


def _moves(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What is wanted, in other orders."""
    if x.dim() >= 2:
        yield "It is transposed: the last two dimensions are exchanged.", x.mT
    for axis in range(x.dim()):
        yield f"It is in reverse order along dimension {axis}.", x.flip(axis)
        for step, words in ((1, "forwards"), (-1, "backwards")):
            rolled = x.roll(step, axis)
            yield f"It is rotated by one position {words} along dimension {axis}.", rolled


def in_other_order(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """What is wanted, transposed, reversed, shifted or in any other order."""
    first = pairs[0]
    if not several(pairs):
        return None
    moves = [dict(_moves(pair.want)) for pair in pairs]
    for sentence in dict(_moves(first.want)):
        if all(
            sentence in by_name and pair.gives(by_name[sentence], tolerance)
            for pair, by_name in zip(pairs, moves, strict=True)
        ):
            return sentence
    return _shifted(pairs, tolerance) or _reordered(pairs, tolerance)


def _shifted(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """Right in all places but one end's, and one position off."""
    for axis, later in itertools.product(range(pairs[0].want.dim()), (True, False)):
        long = any(axis < pair.want.dim() and pair.want.size(axis) > 2 for pair in pairs)
        if long and all(_is_shift(pair, axis, later, tolerance) for pair in pairs):
            return (
                f"It is shifted by one position along dimension {axis}: each number is one place "
                f"too {'late' if later else 'early'}."
            )
    return None


def _is_shift(pair: Pair, axis: int, later: bool, tolerance: float) -> bool:
    if pair.got.shape != pair.want.shape or axis >= pair.want.dim() or pair.want.size(axis) < 2:
        return False
    count = pair.want.size(axis) - 1
    got = pair.got.narrow(axis, 1 if later else 0, count)
    want = pair.want.narrow(axis, 0 if later else 1, count)
    known = want.unique().numel() > 1 or pair.want.size(axis) == 2
    return known and equal(got, want, tolerance)


def _reordered(pairs: Sequence[Pair], tolerance: float) -> str | None:
    def sorted_numbers(x: Tensor) -> Tensor:
        return x.flatten().sort().values

    same = all(equal(sorted_numbers(p.got), sorted_numbers(p.want), tolerance) for p in pairs)
    shapes = all(pair.got.shape == pair.want.shape for pair in pairs)
    return "The numbers are right, and their order is not." if same and shapes else None


# --- where it is wrong ----------------------------------------------------------------------------
def _wrong_places(pair: Pair, tolerance: float) -> Tensor:
    return ~torch.isclose(pair.got, pair.want, rtol=tolerance, atol=tolerance, equal_nan=True)


def at_places(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """Wrong only at one end, or only where an argument has a value."""
    wrong = [_wrong_places(pair, tolerance) for pair in pairs]
    for axis, last in itertools.product(range(pairs[0].want.dim()), (False, True)):
        if all(_only_at_end(one, axis, last) for one in wrong):
            return f"Only the {'last' if last else 'first'} along dimension {axis} is wrong."
    for name in pairs[0].given:
        for words, where in _CONDITIONS.items():
            masks = [_condition(pair.given.get(name), where, pair.want.shape) for pair in pairs]
            both = list(zip(wrong, masks, strict=True))
            if all(m is not None and _inside(one, m) for one, m in both):
                return f"It is wrong only where `{name}` is {words}."
    return None


def _only_at_end(wrong: Tensor, axis: int, last: bool) -> bool:
    if axis >= wrong.dim() or wrong.size(axis) < 2 or wrong.numel() < 3:
        return False
    rest = wrong.narrow(axis, 0 if last else 1, wrong.size(axis) - 1)
    return bool(wrong.any()) and not rest.any()


_CONDITIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "False or 0": lambda x: x == 0,
    "True or not 0": lambda x: x != 0,
    "negative": lambda x: x < 0,
    "positive": lambda x: x > 0,
}


def _condition(argument, where: Callable, shape) -> Tensor | None:
    if isinstance(argument, list) and all(isinstance(v, bool) for v in argument):
        argument = torch.tensor(argument)
    value = as_numbers(argument)
    if value is None or value.shape != shape[: value.dim()] or value.dim() == 0:
        return None
    return where(value).view(*value.shape, *[1] * (len(shape) - value.dim())).expand(shape)


def _inside(wrong: Tensor, mask: Tensor) -> bool:
    """Whether all wrong places are in the mask, and the mask leaves some out."""
    return not (wrong & ~mask).any() and bool((~mask).any())


# --- another shape --------------------------------------------------------------------------------
def other_shape(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """The values in another shape, summed up, or cut at one end."""
    for sentence, holds in _SHAPE_CLAIMS:
        if all(holds(pair, tolerance) for pair in pairs):
            return sentence
    return _reduced(pairs, tolerance) or _cut(pairs, tolerance)


def _same_values(pair: Pair, tolerance: float) -> bool:
    return equal(pair.got.flatten(), pair.want.flatten(), tolerance)


def _size_one(pair: Pair, tolerance: float) -> bool:
    return equal(pair.got.squeeze(), pair.want.squeeze(), tolerance)


def _every_pair(pair: Pair, tolerance: float) -> bool:
    square = pair.got.dim() == 2 and pair.want.dim() == 1 and pair.got.size(0) == pair.got.size(1)
    return square and equal(pair.got.diagonal(), pair.want, tolerance)


_SHAPE_CLAIMS: tuple[tuple[str, Callable], ...] = (
    ("The values are right, and a dimension of size 1 is too many or too few.", _size_one),
    ("The values are right, and the shape is another.", _same_values),
    (
        "Its diagonal is what is wanted, as where (n, 1) meets (n,), which makes (n, n).",
        _every_pair,
    ),
)


def _reduced(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """A sum, mean or norm too much or too few."""
    for name, f in _REDUCTIONS.items():
        for axis in range(max(max(pair.want.dim(), pair.got.dim()) for pair in pairs)):
            if all(_is_reduction(pair.got, pair.want, f, axis, tolerance) for pair in pairs):
                return f"It is the {name} over dimension {axis} of what is wanted."
            if all(_is_reduction(pair.want, pair.got, f, axis, tolerance) for pair in pairs):
                return f"The {name} over its dimension {axis} is what is wanted."
    for name, total in (("sum", torch.sum), ("mean", torch.mean)):
        if all(pair.gives(total(pair.want), tolerance) for pair in pairs):
            return f"It is the {name} of what is wanted."
        if all(equal(total(pair.got), pair.want, tolerance) for pair in pairs):
            return f"Its {name} is what is wanted."
    return None


def _is_reduction(less: Tensor, more: Tensor, f: Callable, axis: int, tolerance: float) -> bool:
    if axis >= more.dim() or more.size(axis) == 0:
        return False
    return equal(less, f(more, axis), tolerance)


def _cut(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """Some at one end too few or too many."""
    for axis in range(min(pair.want.dim() for pair in pairs)):
        for end in ("first", "last"):
            if all(_is_cut(pair.got, pair.want, axis, end, tolerance) for pair in pairs):
                return f"The {end} along dimension {axis} are missing."
            if all(_is_cut(pair.want, pair.got, axis, end, tolerance) for pair in pairs):
                return f"The {end} along dimension {axis} are too many."
    return None


def _is_cut(less: Tensor, more: Tensor, axis: int, end: str, tolerance: float) -> bool:
    if less.dim() != more.dim() or less.size(axis) >= more.size(axis):
        return False
    start = more.size(axis) - less.size(axis) if end == "first" else 0
    return equal(less, more.narrow(axis, start, less.size(axis)), tolerance)
