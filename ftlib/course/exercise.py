"""What an exercise is, and how an answer to it is judged."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ftlib.core.runtime import configure
from ftlib.course.catalogue import MODULES, exercise_module
from ftlib.course.progress import note_exercise
from ftlib.course.report import BOLD, SIGNS


class Grade(AssertionError):  # noqa: N818 -- students read this name in a graded notebook
    """Raised instead of printed while a submission is graded."""


@dataclass(frozen=True)
class Wrong:
    """A plausible wrong answer: code that makes the mistake, and the sentence that names it."""

    name: str
    function: Callable
    message: str


@dataclass(frozen=True)
class Exercise:
    """One function for the student to write.

    `cases(generator)` yields argument tuples; the student's result must equal the reference's on
    all of them. `property(function)` may return a sentence about a fault that values do not show (a
    dense product, say).
    """

    name: str
    title: str
    minutes: int
    difficulty: int  # 1 to 3
    reference: Callable  # ftlib's own, or a line or two on it
    cases: Callable[[torch.Generator], Any]
    wrong: tuple[Wrong, ...]
    hints: tuple[str, ...]
    points: int = 2
    tolerance: float = 1e-5
    property: Callable[[Callable], str | None] | None = None
    praise: str = "equal to the reference"


@dataclass(frozen=True)
class Verdict:
    """`status`: "right", "open" (not attempted) or "wrong"; and the sentence to show."""

    status: str
    message: str


def grading() -> bool:
    """True where a submission is being graded (nbgrader sets NBGRADER_EXECUTION; FTLIB_GRADING=1
    does the same).
    """
    return bool(os.environ.get("NBGRADER_EXECUTION")) or os.environ.get("FTLIB_GRADING") == "1"


def _show(verdict: Verdict, name: str, text: str) -> None:
    """Print a check's line; in a notebook its sign and name are green or red."""
    from ftlib.core.notebook import in_notebook

    colour = BOLD.get(verdict.status) if in_notebook() else None
    if colour:
        lead = f"{SIGNS[verdict.status]} {name}:"
        text = f"\x1b[1;{colour}m{lead}\x1b[0m{text.removeprefix(lead)}"
    print(text)


# --- comparing results ----------------------------------------------------------------------------
def _size(value) -> str:
    return str(len(value)) if hasattr(value, "__len__") else type(value).__name__


def difference(got, want, tolerance: float) -> str | None:
    """None if equal, else the first difference in words."""
    if isinstance(want, np.ndarray):
        if not isinstance(got, np.ndarray):
            return f"it returns {type(got).__name__}, an array is wanted"
        return _tensor_difference(torch.from_numpy(got), torch.from_numpy(want), tolerance)
    if isinstance(want, torch.Tensor):
        return _tensor_difference(got, want, tolerance)
    if isinstance(want, (bool, str)) or want is None:
        equal = type(got) is type(want) and got == want
        return None if equal else f"it returns {got!r}, {want!r} is wanted"
    if isinstance(want, (int, float, np.number)):
        return _number_difference(got, want, tolerance)
    if isinstance(want, dict):
        return _dict_difference(got, want, tolerance)
    if isinstance(want, (list, tuple)):
        return _sequence_difference(got, want, tolerance)
    return None if got == want else f"it returns {got!r}, {want!r} is wanted"


def _tensor_difference(got, want: torch.Tensor, tolerance: float) -> str | None:
    if not isinstance(got, torch.Tensor):
        return f"it returns {type(got).__name__}, a tensor is wanted"
    if got.shape != want.shape:
        return f"its shape is {tuple(got.shape)}, {tuple(want.shape)} is wanted"
    got = got.detach().double()
    want = want.detach().double()
    if torch.allclose(got, want, rtol=tolerance, atol=tolerance, equal_nan=True):
        return None
    return f"values differ by up to {(got - want).abs().max():.3g}"


def _number_difference(got, want, tolerance: float) -> str | None:
    try:
        close = math.isclose(float(got), float(want), rel_tol=tolerance, abs_tol=tolerance)
        if close or (math.isnan(got) and math.isnan(want)):
            return None
    except (TypeError, ValueError):
        return f"it returns {type(got).__name__}, a number is wanted"
    return f"it returns {float(got):.6g}, {float(want):.6g} is wanted"


def _dict_difference(got, want: dict, tolerance: float) -> str | None:
    if not isinstance(got, dict) or got.keys() != want.keys():
        what = sorted(got) if isinstance(got, dict) else type(got).__name__
        return f"it returns {what}, keys {sorted(want)} are wanted"
    for key, value in want.items():
        found = difference(got[key], value, tolerance)
        if found:
            return f"at {key!r} {found}"
    return None


def _sequence_difference(got, want, tolerance: float) -> str | None:
    if not isinstance(got, (list, tuple)) or len(got) != len(want):
        return f"it returns {_size(got)} items, {len(want)} are wanted"
    for i, (one, other) in enumerate(zip(got, want, strict=True)):
        found = difference(one, other, tolerance)
        if found:
            return f"item {i}: {found}"
    return None


def _cases(exercise: Exercise) -> list[tuple]:
    return list(exercise.cases(torch.Generator().manual_seed(0)))


def _call(function: Callable, args: tuple):
    return function(*copy.deepcopy(args))


def _first_difference(function, exercise: Exercise, cases) -> str | None:
    for args in cases:
        got = _call(function, args)
        want = _call(exercise.reference, args)
        found = difference(got, want, exercise.tolerance)
        if found:
            return found
    return None


def _same_as(function, other, exercise: Exercise, cases) -> bool:
    try:
        for args in cases:
            one = _call(function, args)
            two = _call(other, args)
            if difference(one, two, exercise.tolerance):
                return False
    except Exception:
        return False
    return True


def _same_failure(error: Exception, wrong: Wrong, cases) -> bool:
    try:
        for args in cases:
            _call(wrong.function, args)
    except Exception as other:
        return type(other) is type(error) and str(other) == str(error)
    return False


def _open(exercise: Exercise) -> Verdict:
    return Verdict(
        "open",
        f'not attempted yet; going on with ftlib\'s. hint("{exercise.name}") gives a first step.',
    )


def judge(exercise: Exercise, function: Callable) -> Verdict:
    """Compare an answer with the reference on the exercise's cases, and name the mistake if it is a
    known one.
    """
    cases = _cases(exercise)
    try:
        found = _first_difference(function, exercise, cases)
    except NotImplementedError:
        return _open(exercise)
    except Exception as error:
        for wrong in exercise.wrong:
            if _same_failure(error, wrong, cases):
                return Verdict("wrong", wrong.message)
        return Verdict("wrong", f"it raises {type(error).__name__}: {error}")
    if found:
        for wrong in exercise.wrong:
            if _same_as(function, wrong.function, exercise, cases):
                return Verdict("wrong", wrong.message)
        return Verdict("wrong", f"{found}.")
    fault = exercise.property(function) if exercise.property else None
    if fault:
        return Verdict("wrong", fault)
    return Verdict("right", f"{exercise.praise} on {len(cases)} random cases.")


@dataclass
class Lab:
    """The exercises of one lab, and what the student sees of them."""

    number: str
    exercises: list[Exercise]
    given: dict[str, int] = field(default_factory=dict)
    said: dict[str, Verdict] = field(default_factory=dict)

    def find(self, name) -> Exercise:
        name = getattr(name, "__name__", name)
        for exercise in self.exercises:
            if exercise.name == name:
                return exercise
        known = ", ".join(exercise.name for exercise in self.exercises)
        raise ValueError(f"lab {self.number} has no exercise {name!r}: it has {known}")

    def check(self, function: Callable) -> Callable:
        """Judge the function by its name; returns it if right, else ftlib's own. While grading,
        raises instead.

        A check cell run again without the answer's cell gets ftlib's own, and repeats what it said
        of the answer. An answer of the student's own that is right goes into the progress file
        (`ftlib progress`), except while grading.
        """
        exercise = self.find(function)
        verdict = self._verdict(exercise, function)
        self.said[exercise.name] = verdict
        right = verdict.status == "right"
        text = f"{SIGNS[verdict.status]} {exercise.name}: {verdict.message}"
        if grading() and not right:
            raise Grade(text)
        if verdict.status == "wrong":
            text += " Going on with ftlib's."
        _show(verdict, exercise.name, text)
        if right and not grading():
            note_exercise(self.number, exercise.name)
        return function if right else exercise.reference

    def _verdict(self, exercise: Exercise, function: Callable) -> Verdict:
        """ftlib's own function is nobody's answer: what was said of the answer holds, after a new
        `open_lab` "not attempted yet".
        """
        if function is not exercise.reference or grading():
            return judge(exercise, function)
        return self.said.get(exercise.name, _open(exercise))

    def hint(self, name) -> None:
        """Show the next hint for an exercise; after the last one it starts again."""
        exercise = self.find(name)
        given = self.given.get(exercise.name, 0)
        self.given[exercise.name] = given + 1
        count = len(exercise.hints)
        i = given % count
        print(f"hint {i + 1} of {count}: {exercise.hints[i]}")

    def solution(self, name) -> None:
        """Print the source of ftlib's own implementation."""
        source = inspect.getsource(self.find(name).reference)
        print(textwrap.dedent(source))

    def predict(self, guess, answer) -> None:
        """Hold a guess against what the run showed."""
        if guess in (None, "", "...", ...):
            print(f"No guess yet. The run says: {answer}.")
            return
        right = str(guess).strip().lower() == str(answer).strip().lower()
        outcome = "Right" if right else "The run says"
        print(f"You said {guess}. {outcome}: {answer}.")


def open_lab(number: str):
    """(check, hint, solution, predict) of a lab such as "3.1.1"; sets the process up for it
    (`ftlib.core.runtime.configure`).
    """
    configure()
    lab = load_lab(number)
    return lab.check, lab.hint, lab.solution, lab.predict


def load_lab(number: str) -> Lab:
    """The `Lab` with its exercises. ValueError for a number that the course does not have."""
    if number not in MODULES:
        raise ValueError(f"lab {number!r} is unknown: use one of {', '.join(MODULES)}")
    module = importlib.import_module(exercise_module(number))
    return Lab(number, list(module.EXERCISES))
