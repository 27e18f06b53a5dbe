"""Numbers related to those wanted at their places: by a factor, an offset, a function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ftlib.course.pairs import CLOSEST, Pair, as_numbers, is_number, several

MOST_LABELS = 3  # names for one thing that are said; with more, it is ambiguous


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


def by_factor(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """One factor in each case, told by the argument that it is, if it is one."""
    factors = [_factor_of(pair, tolerance) for pair in pairs]
    known = [factor for factor in factors if factor]
    if len(known) < len(pairs) or not several(pairs):
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
def by_offset(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """A number or an argument too much or too little."""
    for sign, words in ((1.0, "too much by"), (-1.0, "too little by")):
        for name in pairs[0].given:
            if all(_differs_by(pair, sign, pair.given.get(name), tolerance) for pair in pairs):
                return f"It is {words} `{name}`, everywhere."
    return _constant_offset(pairs, tolerance) or _bias(pairs, tolerance)


def _differs_by(pair: Pair, sign: float, argument, tolerance: float) -> bool:
    value = as_numbers(argument)
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
    if not alike or not math.isfinite(offset) or not several(pairs):
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


def by_function(pairs: Sequence[Pair], tolerance: float) -> str | None:
    """A known function of what is wanted."""
    if not several(pairs):
        return None
    for words, function in _FUNCTIONS.items():
        if all(pair.gives(function(pair.want), tolerance) for pair in pairs):
            return f"It is {words}."
    return None
