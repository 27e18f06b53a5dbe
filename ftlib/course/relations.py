"""How the numbers that came are related to those that were wanted: a factor, an offset, a shift,
another dimension, a function of them, the places that are wrong.

Every relation holds for all pairs that are given, or it is not told.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

CLOSEST = 1e-6  # relative: two right formulas in fp32 round differently
MOST_LABELS = 3  # names for one thing that are said; with more, it is ambiguous


@dataclass(frozen=True)
class Pair:
    """Two results as float64 tensors; what rounding in the result's own dtype explains is equal."""

    got: Tensor
    want: Tensor
    given: Mapping[str, Any]
    rounding: float

    def gives(self, expected: Tensor, tolerance: float) -> bool:
        """Whether what came is the expected."""
        return _equal(self.got, expected, max(tolerance, self.rounding))


# --- numbers --------------------------------------------------------------------------------------
def as_pair(came: Any, wanted: Any, given: Mapping[str, Any]) -> Pair | None:
    """Two results as numbers; None where one is none."""
    got = _numbers(came)
    want = _numbers(wanted)
    if got is None or want is None:
        return None
    dtypes = [v.dtype for v in (came, wanted) if isinstance(v, Tensor)]
    half = [torch.finfo(d).eps for d in dtypes if d in (torch.float16, torch.bfloat16)]
    return Pair(got, want, given, max(half, default=0.0))


def _numbers(value) -> Tensor | None:
    """A tensor, an array, a number or a rectangular list of numbers in float64; else None."""
    if isinstance(value, (list, tuple)):
        if not value or not all(is_number(v) for v in _flat(value)):
            return None
    elif not isinstance(value, (Tensor, np.ndarray)) and not is_number(value):
        return None
    try:
        if isinstance(value, Tensor):
            return None if value.is_complex() else value.detach().cpu().to_dense().double()
        return torch.from_numpy(np.asarray(value, dtype=np.float64))
    except (RuntimeError, TypeError, ValueError, NotImplementedError, OverflowError):
        return None


def _flat(values) -> Iterator:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def is_number(value) -> bool:
    """A number of Python's or NumPy's, and no truth value."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _equal(got: Tensor, want: Tensor, tolerance: float) -> bool:
    """Within the exercise's tolerance of the largest number."""
    if got.shape != want.shape:
        return False
    finite = want[want.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 1.0
    allowed = max(tolerance, CLOSEST)
    return torch.allclose(got, want, rtol=allowed, atol=allowed * scale, equal_nan=True)


def relation(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """The first relation that holds for every pair, in a sentence."""
    claims: tuple[Callable, ...] = (_not_finite, _other_axis, _moved)
    if all(pair.got.shape == pair.want.shape for pair in pairs):
        claims = (*claims, _factor, _offset, _function_of, _places)
    else:
        claims = (*claims, _other_shape)
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
        pair.got.shape == pair.want.shape and _equal(pair.got[~one], pair.want[~one], tolerance)
        for one, pair in zip(bad, pairs, strict=True)
    )
    return f"{sentence}, and all others are right." if same and number < total else f"{sentence}."


def _several(pairs: Sequence[Pair]) -> bool:
    """Whether enough different numbers are wanted that a relation is no accident."""
    wanted = torch.cat([pair.want.flatten() for pair in pairs])
    different = wanted[wanted != 0].unique()
    whole = bool((different == different.round()).all())
    return different.numel() >= (3 if whole else 2)


# --- where the right numbers are ------------------------------------------------------------------
_REDUCTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "sum": lambda x, axis: x.sum(axis),
    "mean": lambda x, axis: x.mean(axis),
    "norm": lambda x, axis: x.norm(dim=axis),
    "maximum": lambda x, axis: x.amax(axis),
}


def _other_axis(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """A sum, mean, norm or maximum of an argument along another axis, or another of these."""
    for name in pairs[0].given:
        tensors = [_numbers(pair.given.get(name)) for pair in pairs]
        if any(x is None or x.dim() != 2 or not x.numel() for x in tensors):
            continue
        for (came, f), (wanted, h) in itertools.product(_REDUCTIONS.items(), repeat=2):
            for one, other in itertools.product((0, 1), repeat=2):
                both = zip(pairs, tensors, strict=True)
                if all(
                    _equal(p.got.squeeze(), f(x, one), tolerance)
                    and _equal(p.want.squeeze(), h(x, other), tolerance)
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


def _moved(pairs: Sequence[Pair], tolerance: float) -> str | None:
    first = pairs[0]
    if not _several(pairs):
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
    return known and _equal(got, want, tolerance)


def _reordered(pairs: Sequence[Pair], tolerance: float) -> str | None:
    def sorted_numbers(x: Tensor) -> Tensor:
        return x.flatten().sort().values

    same = all(_equal(sorted_numbers(p.got), sorted_numbers(p.want), tolerance) for p in pairs)
    shapes = all(pair.got.shape == pair.want.shape for pair in pairs)
    return "The numbers are right, and their order is not." if same and shapes else None


# --- a factor -------------------------------------------------------------------------------------
_CONSTANTS = {
    -1.0: "The sign is the other one: it is −1 times what is wanted.",
    2.0: "It is 2 times what is wanted.",
    0.5: "It is half of what is wanted.",
    math.log(
        2
    ): "It is ln 2 (0.693) times what is wanted: logarithms to base e and 2 differ by it.",
    1 / math.log(2): "It is 1/ln 2 (1.443) times what is wanted: logarithms to base 2 and e differ "
    "by it.",
}


def _values(given: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers that the arguments are or have: themselves, sizes, counts of a mask."""
    for name, value in given.items():
        if is_number(value):
            yield name, float(value)
        elif isinstance(value, Tensor):
            for axis, size in enumerate(value.shape):
                yield f"{name}.shape[{axis}]", float(size)
            if value.dtype == torch.bool:
                yield f"{name}.sum()", float(value.sum())
            elif value.dim() == 0:
                yield name, float(value)
        elif isinstance(value, (list, tuple, dict)):
            yield f"len({name})", float(len(value))


def _labels(given: Mapping[str, Any]) -> dict[str, float]:
    """Factors by the words that tell them."""
    found = {}
    for name, value in _values(given):
        found[f"`{name}` times what is wanted"] = value
        if value > 0:
            found[f"what is wanted divided by `{name}`"] = 1 / value
            found[f"√`{name}` times what is wanted"] = math.sqrt(value)
            found[f"what is wanted divided by √`{name}`"] = 1 / math.sqrt(value)
    return found


def _factor_of(pair: Pair, tolerance: float) -> float | None:
    square = float((pair.want * pair.want).sum())
    if not 0 < square < math.inf:
        return None
    factor = float((pair.got * pair.want).sum()) / square
    return factor if pair.gives(factor * pair.want, tolerance) else None


def _same(one: float, other: float, tolerance: float) -> bool:
    return math.isclose(one, other, rel_tol=10 * max(tolerance, CLOSEST))


def _for_factors(pairs: Sequence[Pair], tolerance: float) -> float:
    """A factor is known better than one number: rounding evens out over many."""
    return max(tolerance, max(pair.rounding for pair in pairs) / 20)


def _factor(pairs: Sequence[Pair], tolerance: float) -> str | None:
    factors = [_factor_of(pair, tolerance) for pair in pairs]
    known = [factor for factor in factors if factor]
    if len(known) < len(pairs) or not _several(pairs):
        return None
    tolerance = _for_factors(pairs, tolerance)
    constant = all(_same(factor, known[0], tolerance) for factor in known)
    if constant:
        for value, sentence in _CONSTANTS.items():
            if _same(known[0], value, tolerance):
                return sentence
    named = _names_of(known, [_labels(pair.given) for pair in pairs], tolerance)
    if 0 < len(named) <= MOST_LABELS:
        return f"It is {', that is, '.join(named)}."
    if constant:
        return f"It is {known[0]:.4g} times what is wanted."
    if all(pair.want.unique().numel() > 1 for pair in pairs):
        listed = ", ".join(f"×{factor:.4g}" for factor in known)
        return f"In each case it is wrong by one factor: {listed}."
    return None


def _names_of(numbers, labels: Sequence[Mapping[str, float]], tolerance: float) -> list[str]:
    """The labels whose value is the number in every case."""
    return [
        label
        for label in labels[0]
        if all(
            label in by_label and _same(number, by_label[label], tolerance)
            for number, by_label in zip(numbers, labels, strict=True)
        )
    ]


# --- an offset ------------------------------------------------------------------------------------
def _offset(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """A number or an argument too much or too little."""
    for sign, words in ((1.0, "too much by"), (-1.0, "too little by")):
        for name in pairs[0].given:
            if all(_differs_by(pair, sign, pair.given.get(name), tolerance) for pair in pairs):
                return f"It is {words} `{name}`, everywhere."
    return _constant_offset(pairs, tolerance) or _bias(pairs, tolerance)


def _differs_by(pair: Pair, sign: float, argument, tolerance: float) -> bool:
    value = _numbers(argument)
    if value is None or (value.numel() != 1 and pair.want.numel() < 2):
        return False
    try:
        moved = pair.want + sign * value
    except RuntimeError:
        return False
    return pair.gives(moved, tolerance)


def _constant_offset(pairs: Sequence[Pair], tolerance: float) -> str | None:
    offsets = [float((pair.got - pair.want).mean()) for pair in pairs]
    offset = offsets[0]
    alike = all(pair.gives(pair.want + offset, tolerance) for pair in pairs)
    if not alike or not math.isfinite(offset) or not _several(pairs):
        return None
    words = "too large" if offset > 0 else "too small"
    return f"Every number is {words} by {abs(offset):.4g}."


def _bias(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """A difference that is the same along one axis."""
    for axis, words in ((-2, "row"), (-1, "column")):
        if all(_same_along(pair, axis, tolerance) for pair in pairs):
            return f"It is right up to a bias: the difference is the same in every {words}."
    return None


def _same_along(pair: Pair, axis: int, tolerance: float) -> bool:
    if pair.want.dim() < 2 or pair.want.size(axis) < 2:
        return False
    bias = (pair.got - pair.want).mean(axis, keepdim=True)
    return pair.gives(pair.want + bias, tolerance)


# --- a function of what is wanted -----------------------------------------------------------------
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "the exponential of what is wanted: its logarithm is right": torch.exp,
    "the logarithm of what is wanted": torch.log,
    "the base-2 logarithm of what is wanted": torch.log2,
    "the absolute value of what is wanted": torch.abs,
    "the square of what is wanted": torch.square,
    "the square root of what is wanted": torch.sqrt,
    "1 divided by what is wanted": torch.reciprocal,
    "1 minus what is wanted": lambda x: 1 - x,
    "the sigmoid of what is wanted": torch.sigmoid,
    "what is wanted, with 0 for every negative number": torch.relu,
    "what is wanted, cut to 0 … 1": lambda x: x.clamp(0, 1),
    "what is wanted, rounded down": torch.floor,
    "what is wanted, rounded": torch.round,
}


def _function_of(pairs: Sequence[Pair], tolerance: float) -> str | None:
    if not _several(pairs):
        return None
    for words, function in _FUNCTIONS.items():
        if all(pair.gives(function(pair.want), tolerance) for pair in pairs):
            return f"It is {words}."
    return None


# --- where it is wrong ----------------------------------------------------------------------------
def _wrong_places(pair: Pair, tolerance: float) -> Tensor:
    return ~torch.isclose(pair.got, pair.want, rtol=tolerance, atol=tolerance, equal_nan=True)


def _places(pairs: Sequence[Pair], tolerance: float) -> str | None:
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
    value = _numbers(argument)
    if value is None or value.shape != shape[: value.dim()] or value.dim() == 0:
        return None
    return where(value).view(*value.shape, *[1] * (len(shape) - value.dim())).expand(shape)


def _inside(wrong: Tensor, mask: Tensor) -> bool:
    """Whether all wrong places are in the mask, and the mask leaves some out."""
    return not (wrong & ~mask).any() and bool((~mask).any())


# --- another shape --------------------------------------------------------------------------------
def _other_shape(pairs: Sequence[Pair], tolerance: float) -> str | None:
    for sentence, holds in _SHAPE_CLAIMS:
        if all(holds(pair, tolerance) for pair in pairs):
            return sentence
    return _reduced(pairs, tolerance) or _cut(pairs, tolerance)


def _same_values(pair: Pair, tolerance: float) -> bool:
    return _equal(pair.got.flatten(), pair.want.flatten(), tolerance)


def _size_one(pair: Pair, tolerance: float) -> bool:
    return _equal(pair.got.squeeze(), pair.want.squeeze(), tolerance)


def _every_pair(pair: Pair, tolerance: float) -> bool:
    square = pair.got.dim() == 2 and pair.want.dim() == 1 and pair.got.size(0) == pair.got.size(1)
    return square and _equal(pair.got.diagonal(), pair.want, tolerance)


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
        if all(_equal(total(pair.got), pair.want, tolerance) for pair in pairs):
            return f"Its {name} is what is wanted."
    return None


def _is_reduction(less: Tensor, more: Tensor, f: Callable, axis: int, tolerance: float) -> bool:
    if axis >= more.dim() or more.size(axis) == 0:
        return False
    return _equal(less, f(more, axis), tolerance)


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
    return _equal(less, more.narrow(axis, start, less.size(axis)), tolerance)
