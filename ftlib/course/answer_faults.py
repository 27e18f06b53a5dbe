"""What right values do not show: arguments that are changed, a dtype, a name, a gradient."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from ftlib.course.answer_messages import difference_of, input_line, listed, parameter_names
from ftlib.course.calls import Outcome, call
from ftlib.course.comparing import dtype_difference
from ftlib.course.diagnosis import Case, diagnose
from ftlib.course.exercise_data import Exercise
from ftlib.course.gradients import TOLERANCE as GRADIENT_TOLERANCE
from ftlib.course.gradients import Trained


def changed_fault(exercise: Exercise, outcomes: list[Outcome], cases) -> str | None:
    """Arguments that the answer changes in place."""
    places = sorted({place for seen in outcomes for place in seen.changed})
    if not places:
        return None
    names = parameter_names(exercise.reference, len(cases[0]))
    return (
        f"The values are right, but your function changes its argument "
        f"{listed(names[i] for i in places)} in place, and whoever called it goes on with the "
        "changed one: work on a copy, or use the operation that returns a new value."
    )


def dtype_fault(exercise: Exercise, outcomes, wanted, cases) -> str | None:
    """A part of the result whose dtype is asked for and is another."""
    for i, (seen, want) in enumerate(zip(outcomes, wanted, strict=True)):
        found = dtype_difference(seen.value, want, exercise.dtypes)
        if found:
            return f"The values are right, but {found}.{input_line(exercise, cases, i)}"
    return None


def call_fault(exercise: Exercise, function: Callable, cases) -> str | None:
    """Whether it can be called as the lab calls it: without what has a default, and by keyword."""
    names = parameter_names(exercise.reference, len(cases[0]))
    given = dict(zip(names, cases[0], strict=True))
    return _default_fault(exercise, function, given) or _keyword_fault(exercise, function, given)


def _default_fault(exercise: Exercise, function: Callable, given: dict[str, Any]) -> str | None:
    if not exercise.defaults:
        return None
    needed = tuple(value for name, value in given.items() if name not in exercise.defaults)
    want = exercise.reference(*copy.deepcopy(needed))
    seen = call(function, needed)
    if seen.fault is None and difference_of(seen.value, want, exercise) is None:
        return None
    parameters = inspect.signature(exercise.reference).parameters
    left_out = [f"{name}={parameters[name].default!r}" for name in exercise.defaults]
    return (
        "The values are right, but the lab also calls it without "
        f"{listed(exercise.defaults)}: keep the stub's default, {listed(left_out)}."
    )


def _keyword_fault(exercise: Exercise, function: Callable, given: dict[str, Any]) -> str | None:
    if not exercise.keywords:
        return None
    by_name = {name: given[name] for name in exercise.keywords}
    by_place = tuple(value for name, value in given.items() if name not in by_name)
    seen = call(function, by_place, by_name)
    if seen.fault is None:
        return None
    return (
        f"The values are right, but the lab calls it with {listed(by_name)} by keyword, and then "
        f"{seen.fault.said()}. Keep the names of the stub's parameters."
    )


def missing_fault(exercise: Exercise, trained: list[Trained]) -> str | None:
    """Parameters that no gradient reaches."""
    missing = {name for one in trained for name in one.missing()}
    if not missing:
        return None
    names = listed(name for name in exercise.gradient_of if name in missing)
    return (
        f"The values are right, but no gradient reaches {names}: something was detached "
        "(`.detach()`, `.data`, `.item()`, a number or `torch.tensor(…)` made of a tensor, NumPy, "
        "`torch.no_grad()`). What is trained through it would learn nothing."
    )


def gradient_fault(exercise: Exercise, trained: list[Trained], cases) -> str | None:
    """The first gradient that is not the reference's, and how it is related to that."""
    for i, one in enumerate(trained):
        found = one.different()
        if found:
            name, words = found
            line = input_line(exercise, cases, i)
            relation = _gradient_relation(exercise, trained, cases, name)
            said = f" {relation}" if relation else ""
            return (
                f"The values are right, but the gradient of `{name}` is not: {words}.{said}{line}"
            )
    return None


def _gradient_relation(exercise: Exercise, trained: list[Trained], cases, name: str) -> str | None:
    """How one parameter's gradient is related to the reference's in every case."""
    wrong = []
    for args, one in zip(cases, trained, strict=True):
        if name in one.want:
            given = dict(zip(parameter_names(exercise.reference, len(args)), args, strict=True))
            wrong.append(Case(*one.beside(name), given))
    return diagnose(wrong, GRADIENT_TOLERANCE)
