"""What is said of a wrong answer: the mistake that it makes, or how what came differs from what was
wanted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ftlib.course.calls import Outcome, call
from ftlib.course.comparing import difference, shown, unordered
from ftlib.course.diagnosis import Case, as_if, diagnose, which_inputs
from ftlib.course.exercise_data import Exercise, Wrong


def difference_of(got, want, exercise: Exercise) -> str | None:
    """`comparing.difference`, without regard to the order where the exercise asks for none."""
    if exercise.any_order and isinstance(got, (list, tuple, set, frozenset)):
        return difference(unordered(got), unordered(want), exercise.tolerance)
    return difference(got, want, exercise.tolerance)


def _alike(one: Outcome, other: Outcome, exercise: Exercise) -> bool:
    if one.fault is not None and other.fault is not None:
        return one.fault.name == other.fault.name and one.fault.text == other.fault.text
    if one.fault is not None or other.fault is not None:
        return False
    return difference_of(one.value, other.value, exercise) is None


def known_mistake(outcomes: list[Outcome], exercise: Exercise, cases) -> Wrong | None:
    """The wrong answer of the bank that gives the same on every case: values and errors."""
    for wrong in exercise.wrong:
        pairs = zip(outcomes, cases, strict=True)
        if all(_alike(seen, call(wrong.function, args), exercise) for seen, args in pairs):
            return wrong
    return None


def parameter_names(function: Callable, count: int) -> list[str]:
    """The names of the first `count` parameters; "argument 1" and so on where it does not tell."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [*named, *(f"argument {i + 1}" for i in range(len(named), count))][:count]


def listed(names) -> str:
    """Names as a sentence has them: `a`, `b` and `c`."""
    quoted = [f"`{name}`" for name in names]
    if len(quoted) < 2:
        return "".join(quoted)
    return ", ".join(quoted[:-1]) + " and " + quoted[-1]


def input_line(exercise: Exercise, cases, i: int) -> str:
    """The arguments of one case, as a line of their own."""
    names = parameter_names(exercise.reference, len(cases[i]))
    given = [f"{name} = {shown(value)}" for name, value in zip(names, cases[i], strict=True)]
    return f"\n    input {i + 1} of {len(cases)}: {'; '.join(given)}"


def said_of_all(exercise: Exercise, cases, outcomes: list[Outcome], wanted: list) -> str:
    """How what came is related to what was wanted in every wrong case, and which these are; ends in
    a colon.
    """
    right = []
    wrong = []
    failed = False
    for args, seen, want in zip(cases, outcomes, wanted, strict=True):
        given = dict(zip(parameter_names(exercise.reference, len(args)), args, strict=True))
        if seen.fault is None and difference_of(seen.value, want, exercise) is None:
            right.append(given)
            continue
        failed = failed or seen.fault is not None
        if exercise.any_order and isinstance(seen.value, (list, tuple, set, frozenset)):
            wrong.append(
                Case(frozenset(map(shown, seen.value)), frozenset(map(shown, want)), given)
            )
        else:
            wrong.append(Case(seen.value, want, given))
    sentences = [] if failed else [_relation(exercise, wrong)]
    sentences.append(which_inputs(right, [case.given for case in wrong]))
    said = " ".join(sentence for sentence in sentences if sentence)
    if not said:
        return ""
    if said.startswith("It is "):
        said = f"Your result is {said.removeprefix('It is ')}"
    return said.removesuffix(".") + ": "


def _relation(exercise: Exercise, wrong: list[Case]) -> str | None:
    def equal(got, want) -> bool:
        return difference_of(got, want, exercise) is None

    try:
        return diagnose(wrong, exercise.tolerance) or as_if(exercise.reference, wrong, equal)
    except Exception:  # what came may be of a class of the student's
        return None


def case_that_differs(exercise: Exercise, cases, i: int, seen: Outcome, want: Any) -> str:
    """The first case that differs: its input, what came, and what was wanted."""
    line = input_line(exercise, cases, i)
    if seen.fault is not None:
        return f"{seen.fault.said()}{line}\n    wanted: {shown(want)}"
    fault = str(difference_of(seen.value, want, exercise))
    if seen.changed:
        names = parameter_names(exercise.reference, len(cases[i]))
        fault += f"; and it changes {listed(names[k] for k in seen.changed)} in place"
    came = f"\n    yours:  {shown(seen.value)}\n    wanted: {shown(want)}"
    return f"{fault}.{line}{came}"
