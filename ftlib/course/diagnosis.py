"""What is wrong with a result, beyond its largest difference: a factor, an offset, another axis.

Everything said here is checked first on every case in which the answer is wrong. Nothing is guessed
of the answer's code: a sentence tells how what came is related to what was wanted.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftlib.course.comparing import difference
from ftlib.course.pairs import as_pair, is_number
from ftlib.course.relations import relation
from ftlib.course.value_relations import MOST_LABELS


@dataclass(frozen=True)
class Case:
    """What came, what was wanted, and the arguments by name."""

    got: Any
    want: Any
    given: Mapping[str, Any]


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
        return "None comes back, as from a function without a `return`."
    pairs = [as_pair(case.got, case.want, case.given) for case in cases]
    numbers = [pair for pair in pairs if pair is not None]
    if len(numbers) == len(cases):
        return relation(numbers, tolerance)
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
    return type(value)(number) if is_number(value) and value != number else None


def _opposite(value):
    if isinstance(value, bool):
        return not value
    return ~value if isinstance(value, Tensor) and value.dtype == torch.bool else None


def _negative(value):
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return -value if floating or isinstance(value, float) else None


def _stepped(value, step: int):
    return value + step if is_number(value) else None


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
        elif is_number(value) and value == 0:
            yield f"`{name}` is 0"
        elif isinstance(value, (list, tuple, dict, str)) and len(value) == 0:
            yield f"`{name}` is empty"
        elif isinstance(value, Tensor):
            yield f"`{name}` is {str(value.dtype).removeprefix('torch.')}"
            yield f"`{name}` has {value.dim()} dimensions"
