"""What is wrong with a result, beyond its largest difference: a factor, an offset, another axis.

Everything said here is checked first on every case in which the answer is wrong. Nothing is guessed
of the answer's code: a sentence tells how what came is related to what was wanted.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftlib.course.comparing import difference

CLOSEST = 1e-6  # relative: two right formulas in fp32 round differently
MOST_LABELS = 3  # names for one factor that are said; with more, it is ambiguous


@dataclass(frozen=True)
class Case:
    """What came, what was wanted, and the arguments by name."""

    got: Any
    want: Any
    given: Mapping[str, Any]


@dataclass(frozen=True)
class _Pair:
    """Two results as float64 tensors; what rounding in the result's own dtype explains is equal."""

    got: Tensor
    want: Tensor
    given: Mapping[str, Any]
    rounding: float

    def gives(self, expected: Tensor, tolerance: float) -> bool:
        """Whether what came is the expected."""
        return _equal(self.got, expected, max(tolerance, self.rounding))


def diagnose(cases: Sequence[Case], tolerance: float) -> str | None:
    """One sentence on how the wrong results are related to the wanted ones, that holds for every
    wrong case; None where nothing does.

    A tuple or a dict is looked at part by part, as far as its parts are wrong.
    """
    wrong: dict[tuple, list[Case]] = {}
    for case in cases:
        for path, got, want in _leaves(case.got, case.want):
            if difference(got, want, tolerance):
                wrong.setdefault(path, []).append(Case(got, want, case.given))
    if not wrong:
        return None
    each = [(path, _claim(some, tolerance)) for path, some in wrong.items()]
    different = {claim for _, claim in each}
    together = None
    if len(different) == 1 or None in different:
        together = _claim(list(itertools.chain.from_iterable(wrong.values())), tolerance)
    if together:
        return together if () in wrong else _at(wrong, together)
    return " ".join(_at([path], claim) for path, claim in each if claim) or None


def _leaves(got, want, path: tuple = ()) -> Iterator[tuple[tuple, Any, Any]]:
    """The parts of two tuples or dicts of the same structure, beside each other."""
    if isinstance(want, dict) and isinstance(got, Mapping) and got.keys() == want.keys():
        for key in want:
            yield from _leaves(got[key], want[key], (*path, key))
    elif isinstance(want, tuple) and isinstance(got, (tuple, list)) and len(got) == len(want):
        for i, (one, other) in enumerate(zip(got, want, strict=True)):
            yield from _leaves(one, other, (*path, i))
    else:
        yield path, got, want


def _at(paths, sentence: str) -> str:
    places = ["".join(f"[{step!r}]" for step in path) for path in paths if path]
    if not places:
        return sentence
    return f"In your result's {' and '.join(places)}: {sentence}"


def _claim(cases: Sequence[Case], tolerance: float) -> str | None:
    if all(case.got is None for case in cases):
        return "Nothing comes back (None): a `return` is missing."
    pairs = [_as_pair(case) for case in cases]
    numbers = [pair for pair in pairs if pair is not None]
    if len(numbers) == len(cases):
        return _numeric_claim(numbers, tolerance)
    kinds = ((str, _TEXT_CLAIMS), ((list, tuple), _LIST_CLAIMS), (frozenset, _SET_CLAIMS))
    for kind, claims in kinds:
        if all(isinstance(c.got, kind) and isinstance(c.want, kind) for c in cases):
            return _first_that_holds(claims, cases)
    return None


def _first_that_holds(claims, cases: Sequence[Case]) -> str | None:
    for sentence, holds in claims:
        if all(holds(case.got, case.want) for case in cases):
            return sentence
    return None


# --- texts and lists ------------------------------------------------------------------------------
def _without_space(text: str) -> str:
    return "".join(text.split())


def _same_items(got, want) -> bool:
    return sorted(map(repr, got)) == sorted(map(repr, want))


def _within(some, more) -> bool:
    """Whether every item is among the others, as often as it is there."""
    return not Counter(map(repr, some)) - Counter(map(repr, more))


def _begins(longer, shorter) -> bool:
    return longer[: len(shorter)] == shorter


def _ends(longer, shorter) -> bool:
    return longer[len(longer) - len(shorter) :] == shorter


_TEXT_CLAIMS: tuple[tuple[str, Callable], ...] = (
    ("The result is empty.", lambda got, want: not got),
    ("It is right but for white space at its ends.", lambda got, want: got.strip() == want.strip()),
    (
        "It is right but for white space.",
        lambda got, want: _without_space(got) == _without_space(want),
    ),
    ("It is right but for upper and lower case.", lambda got, want: got.lower() == want.lower()),
    ("It is the wanted text backwards.", lambda got, want: got[::-1] == want),
    ("The end of the wanted text is missing.", lambda got, want: _begins(want, got)),
    ("The beginning of the wanted text is missing.", lambda got, want: _ends(want, got)),
    ("After the wanted text it goes on.", lambda got, want: _begins(got, want)),
    ("Before the wanted text there is more.", lambda got, want: _ends(got, want)),
)

_LIST_CLAIMS: tuple[tuple[str, Callable], ...] = (
    ("The result is empty.", lambda got, want: len(got) == 0),
    ("It is in reverse order.", lambda got, want: list(got)[::-1] == list(want)),
    ("The items are right, and their order is not.", _same_items),
    ("The end is missing.", lambda got, want: _begins(list(want), list(got))),
    ("The beginning is missing.", lambda got, want: _ends(list(want), list(got))),
    ("After the wanted items there are more.", lambda got, want: _begins(list(got), list(want))),
    ("Before the wanted items there are more.", lambda got, want: _ends(list(got), list(want))),
    ("Items are missing, and none is wrong.", lambda got, want: _within(got, want)),
    ("There are items too many, and none is missing.", lambda got, want: _within(want, got)),
)

_SET_CLAIMS: tuple[tuple[str, Callable], ...] = (
    ("The result is empty.", lambda got, want: not got),
    ("Items are missing, and none is wrong.", lambda got, want: got < want),
    ("There are items too many, and none is missing.", lambda got, want: got > want),
)


# --- numbers --------------------------------------------------------------------------------------
def _as_pair(case: Case) -> _Pair | None:
    got = _numbers(case.got)
    want = _numbers(case.want)
    if got is None or want is None:
        return None
    dtypes = [v.dtype for v in (case.got, case.want) if isinstance(v, Tensor)]
    half = [torch.finfo(d).eps for d in dtypes if d in (torch.float16, torch.bfloat16)]
    return _Pair(got, want, case.given, max(half, default=0.0))


def _numbers(value) -> Tensor | None:
    """A tensor, an array, a number or a rectangular list of numbers in float64; else None."""
    if isinstance(value, (list, tuple)):
        if not value or not all(_is_number(v) for v in _flat(value)):
            return None
    elif not isinstance(value, (Tensor, np.ndarray)) and not _is_number(value):
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


def _is_number(value) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _equal(got: Tensor, want: Tensor, tolerance: float) -> bool:
    """Within the exercise's tolerance of the largest number."""
    if got.shape != want.shape:
        return False
    finite = want[want.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 1.0
    allowed = max(tolerance, CLOSEST)
    return torch.allclose(got, want, rtol=allowed, atol=allowed * scale, equal_nan=True)


def _numeric_claim(pairs: Sequence[_Pair], tolerance: float) -> str | None:
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


def _not_finite(pairs: Sequence[_Pair], tolerance: float) -> str | None:
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


def _several(pairs: Sequence[_Pair]) -> bool:
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


def _other_axis(pairs: Sequence[_Pair], tolerance: float) -> str | None:
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


def _moved(pairs: Sequence[_Pair], tolerance: float) -> str | None:
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


def _shifted(pairs: Sequence[_Pair], tolerance: float) -> str | None:
    """Right in all places but one end's, and one position off."""
    for axis, later in itertools.product(range(pairs[0].want.dim()), (True, False)):
        long = any(axis < pair.want.dim() and pair.want.size(axis) > 2 for pair in pairs)
        if long and all(_is_shift(pair, axis, later, tolerance) for pair in pairs):
            return (
                f"It is shifted by one position along dimension {axis}: each number is one place "
                f"too {'late' if later else 'early'}."
            )
    return None


def _is_shift(pair: _Pair, axis: int, later: bool, tolerance: float) -> bool:
    if pair.got.shape != pair.want.shape or axis >= pair.want.dim() or pair.want.size(axis) < 2:
        return False
    count = pair.want.size(axis) - 1
    got = pair.got.narrow(axis, 1 if later else 0, count)
    want = pair.want.narrow(axis, 0 if later else 1, count)
    known = want.unique().numel() > 1 or pair.want.size(axis) == 2
    return known and _equal(got, want, tolerance)


def _reordered(pairs: Sequence[_Pair], tolerance: float) -> str | None:
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
        if _is_number(value):
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


def _factor_of(pair: _Pair, tolerance: float) -> float | None:
    square = float((pair.want * pair.want).sum())
    if not 0 < square < math.inf:
        return None
    factor = float((pair.got * pair.want).sum()) / square
    return factor if pair.gives(factor * pair.want, tolerance) else None


def _same(one: float, other: float, tolerance: float) -> bool:
    return math.isclose(one, other, rel_tol=10 * max(tolerance, CLOSEST))


def _for_factors(pairs: Sequence[_Pair], tolerance: float) -> float:
    """A factor is known better than one number: rounding evens out over many."""
    return max(tolerance, max(pair.rounding for pair in pairs) / 20)


def _factor(pairs: Sequence[_Pair], tolerance: float) -> str | None:
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
def _offset(pairs: Sequence[_Pair], tolerance: float) -> str | None:
    """A number or an argument too much or too little."""
    for sign, words in ((1.0, "too much by"), (-1.0, "too little by")):
        for name in pairs[0].given:
            if all(_differs_by(pair, sign, pair.given.get(name), tolerance) for pair in pairs):
                return f"It is {words} `{name}`, everywhere."
    return _constant_offset(pairs, tolerance) or _bias(pairs, tolerance)


def _differs_by(pair: _Pair, sign: float, argument, tolerance: float) -> bool:
    value = _numbers(argument)
    if value is None or (value.numel() != 1 and pair.want.numel() < 2):
        return False
    try:
        moved = pair.want + sign * value
    except RuntimeError:
        return False
    return pair.gives(moved, tolerance)


def _constant_offset(pairs: Sequence[_Pair], tolerance: float) -> str | None:
    offsets = [float((pair.got - pair.want).mean()) for pair in pairs]
    offset = offsets[0]
    alike = all(pair.gives(pair.want + offset, tolerance) for pair in pairs)
    if not alike or not math.isfinite(offset) or not _several(pairs):
        return None
    words = "too large" if offset > 0 else "too small"
    return f"Every number is {words} by {abs(offset):.4g}."


def _bias(pairs: Sequence[_Pair], tolerance: float) -> str | None:
    """A difference that is the same along one axis."""
    for axis, words in ((-2, "row"), (-1, "column")):
        if all(_same_along(pair, axis, tolerance) for pair in pairs):
            return f"It is right up to a bias: the difference is the same in every {words}."
    return None


def _same_along(pair: _Pair, axis: int, tolerance: float) -> bool:
    if pair.want.dim() < 2 or pair.want.size(axis) < 2:
        return False
    bias = (pair.got - pair.want).mean(axis, keepdim=True)
    return pair.gives(pair.want + bias, tolerance)


# --- a function of what is wanted -----------------------------------------------------------------
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "the exponential of what is wanted: a logarithm is missing": torch.exp,
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


def _function_of(pairs: Sequence[_Pair], tolerance: float) -> str | None:
    if not _several(pairs):
        return None
    for words, function in _FUNCTIONS.items():
        if all(pair.gives(function(pair.want), tolerance) for pair in pairs):
            return f"It is {words}."
    return None


# --- where it is wrong ----------------------------------------------------------------------------
def _wrong_places(pair: _Pair, tolerance: float) -> Tensor:
    return ~torch.isclose(pair.got, pair.want, rtol=tolerance, atol=tolerance, equal_nan=True)


def _places(pairs: Sequence[_Pair], tolerance: float) -> str | None:
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
def _other_shape(pairs: Sequence[_Pair], tolerance: float) -> str | None:
    for sentence, holds in _SHAPE_CLAIMS:
        if all(holds(pair, tolerance) for pair in pairs):
            return sentence
    return _reduced(pairs, tolerance) or _cut(pairs, tolerance)


def _same_values(pair: _Pair, tolerance: float) -> bool:
    return _equal(pair.got.flatten(), pair.want.flatten(), tolerance)


def _size_one(pair: _Pair, tolerance: float) -> bool:
    return _equal(pair.got.squeeze(), pair.want.squeeze(), tolerance)


def _every_pair(pair: _Pair, tolerance: float) -> bool:
    square = pair.got.dim() == 2 and pair.want.dim() == 1 and pair.got.size(0) == pair.got.size(1)
    return square and _equal(pair.got.diagonal(), pair.want, tolerance)


_SHAPE_CLAIMS: tuple[tuple[str, Callable], ...] = (
    ("The values are right, and a dimension of size 1 is too many or too few.", _size_one),
    ("The values are right, and the shape is another.", _same_values),
    (
        "Its diagonal is what is wanted: (n, 1) and (n,) were combined, and that makes (n, n).",
        _every_pair,
    ),
)


def _reduced(pairs: Sequence[_Pair], tolerance: float) -> str | None:
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


def _cut(pairs: Sequence[_Pair], tolerance: float) -> str | None:
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


# --- as if an argument were another ---------------------------------------------------------------
def as_if(
    reference: Callable, cases: Sequence[Case], equal: Callable[[Any, Any], bool]
) -> str | None:
    """The argument with another value that makes the reference give what came, on every wrong case:
    0 or 1, one more or less for a number, the opposite of a truth value, the first or last item
    left out, two exchanged. All are said if several do; None where none does, or too many.
    """
    found = []
    for words, changed in _changes(list(cases[0].given)):
        if all(_gives(reference, changed, case, equal) for case in cases):
            found.append(words)
    return f"It is what comes out {', or '.join(found)}." if 0 < len(found) <= MOST_LABELS else None


def _changes(names: Sequence[str]) -> Iterator[tuple[str, Callable[[dict], dict | None]]]:
    for name, (words, change) in itertools.product(names, _REPLACEMENTS.items()):
        yield f"with {words.format(name=f'`{name}`')}", _one_changed(name, change)
    for one, other in itertools.combinations(names, 2):
        yield f"with `{one}` and `{other}` exchanged", _exchanged(one, other)


def _number_or_none(value, number: float):
    """The number in the argument's own type; None for what is no number or has it already."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.full_like(value, number)
    return type(value)(number) if _is_number(value) and value != number else None


def _opposite(value):
    if isinstance(value, bool):
        return not value
    return ~value if isinstance(value, Tensor) and value.dtype == torch.bool else None


def _negative(value):
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return -value if floating or isinstance(value, float) else None


def _stepped(value, step: int):
    return value + step if _is_number(value) else None


def _left_out(value, kept: slice):
    """A list or text without an item at one end."""
    return value[kept] if isinstance(value, (list, str)) and len(value) > 1 else None


def _all_true(value):
    return (
        torch.ones_like(value) if isinstance(value, Tensor) and value.dtype == torch.bool else None
    )


_REPLACEMENTS: dict[str, Callable] = {
    "{name} = 0": lambda value: _number_or_none(value, 0),
    "{name} = 1": lambda value: _number_or_none(value, 1),
    "the opposite of {name}": _opposite,
    "−{name} in place of {name}": _negative,
    "{name} true everywhere": _all_true,
    "{name} + 1": lambda value: _stepped(value, 1),
    "{name} − 1": lambda value: _stepped(value, -1),
    "{name} without its first item": lambda value: _left_out(value, slice(1, None)),
    "{name} without its last item": lambda value: _left_out(value, slice(None, -1)),
}


def _one_changed(name: str, change: Callable) -> Callable[[dict], dict | None]:
    def changed(given: dict) -> dict | None:
        value = change(given[name])
        return None if value is None else {**given, name: value}

    return changed


def _exchanged(one: str, other: str) -> Callable[[dict], dict | None]:
    def changed(given: dict) -> dict | None:
        if type(given[one]) is not type(given[other]) or given[one] is None:
            return None
        return {**given, one: given[other], other: given[one]}

    return changed


def _gives(reference: Callable, changed: Callable, case: Case, equal: Callable) -> bool:
    given = changed(dict(case.given))
    if given is None:
        return False
    try:
        return equal(case.got, reference(*copy.deepcopy(tuple(given.values()))))
    except Exception:  # an argument that the reference does not take
        return False


# --- which inputs ---------------------------------------------------------------------------------
def which_inputs(right: Sequence[Mapping], wrong: Sequence[Mapping]) -> str | None:
    """What the arguments of all wrong cases have and those of no right one, if it is one thing."""
    if not right:
        return None
    found = set.intersection(*(set(_features(given)) for given in wrong))
    found -= set().union(*(set(_features(given)) for given in right))
    if len(found) != 1:
        return f"It is right on {len(right)} of {len(right) + len(wrong)} inputs."
    return f"It is wrong only where {found.pop()}."


def _features(given: Mapping[str, Any]) -> Iterator[str]:
    for name, value in given.items():
        if value is None or isinstance(value, bool):
            yield f"`{name}` is {value}"
        elif _is_number(value) and value == 0:
            yield f"`{name}` is 0"
        elif isinstance(value, (list, tuple, dict, str)) and len(value) == 0:
            yield f"`{name}` is empty"
        elif isinstance(value, Tensor):
            yield f"`{name}` is {str(value.dtype).removeprefix('torch.')}"
            yield f"`{name}` has {value.dim()} dimensions"
