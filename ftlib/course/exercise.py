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

from ftlib.course.catalogue import MODULES
from ftlib.course.progress import note_exercise
from ftlib.course.report import BOLD, SIGNS


class Grade(AssertionError):
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

    lead = f"{SIGNS[verdict.status]} {name}:"
    colour = BOLD.get(verdict.status) if in_notebook() else None
    print(f"\x1b[1;{colour}m{lead}\x1b[0m{text.removeprefix(lead)}" if colour else text)


# --- comparing results ----------------------------------------------------------------------------
def _shape(value) -> str:
    return (
        f"{tuple(value.shape)}"
        if isinstance(value, (torch.Tensor, np.ndarray))
        else type(value).__name__
    )


def difference(got, want, tolerance: float) -> str | None:
    """None if equal, else the first difference in words."""
    if isinstance(want, np.ndarray):
        if not isinstance(got, np.ndarray):
            return f"it returns {type(got).__name__}, an array is wanted"
        got, want = torch.from_numpy(got), torch.from_numpy(want)
    if isinstance(want, torch.Tensor):
        if not isinstance(got, torch.Tensor):
            return f"it returns {type(got).__name__}, a tensor is wanted"
        if got.shape != want.shape:
            return f"its shape is {_shape(got)}, {_shape(want)} is wanted"
        if not torch.allclose(
            got.detach().double(),
            want.detach().double(),
            rtol=tolerance,
            atol=tolerance,
            equal_nan=True,
        ):
            return f"values differ by up to {(got.detach().double() - want.detach().double()).abs().max():.3g}"
        return None
    if isinstance(want, bool) or want is None or isinstance(want, str):
        return (
            None
            if type(got) is type(want) and got == want
            else f"it returns {got!r}, {want!r} is wanted"
        )
    if isinstance(want, (int, float, np.number)):
        try:
            same = math.isclose(float(got), float(want), rel_tol=tolerance, abs_tol=tolerance) or (
                math.isnan(got) and math.isnan(want)
            )
        except (TypeError, ValueError):
            return f"it returns {type(got).__name__}, a number is wanted"
        return None if same else f"it returns {float(got):.6g}, {float(want):.6g} is wanted"
    if isinstance(want, dict):
        if not isinstance(got, dict) or got.keys() != want.keys():
            return f"it returns {sorted(got) if isinstance(got, dict) else type(got).__name__}, keys {sorted(want)} are wanted"
        found = ((k, difference(got[k], want[k], tolerance)) for k in want)
        return next((f"at {k!r} {d}" for k, d in found if d), None)
    if isinstance(want, (list, tuple)):
        if not isinstance(got, (list, tuple)) or len(got) != len(want):
            return f"it returns {len(got) if hasattr(got, '__len__') else type(got).__name__} items, {len(want)} are wanted"
        found = ((i, difference(g, w, tolerance)) for i, (g, w) in enumerate(zip(got, want)))
        return next((f"item {i}: {d}" for i, d in found if d), None)
    return None if got == want else f"it returns {got!r}, {want!r} is wanted"


def _cases(exercise: Exercise) -> list[tuple]:
    return list(exercise.cases(torch.Generator().manual_seed(0)))


def _call(function: Callable, args: tuple):
    return function(*copy.deepcopy(args))


def _first_difference(function, exercise: Exercise, cases) -> str | None:
    for args in cases:
        found = difference(
            _call(function, args), _call(exercise.reference, args), exercise.tolerance
        )
        if found:
            return found
    return None


def _same_as(function, other, exercise: Exercise, cases) -> bool:
    try:
        return all(
            difference(_call(function, a), _call(other, a), exercise.tolerance) is None
            for a in cases
        )
    except Exception:
        return False


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
        known = next((w for w in exercise.wrong if _same_failure(error, w, cases)), None)
        return Verdict(
            "wrong", known.message if known else f"it raises {type(error).__name__}: {error}"
        )
    if found:
        known = next(
            (w for w in exercise.wrong if _same_as(function, w.function, exercise, cases)), None
        )
        return Verdict("wrong", known.message if known else f"{found}.")
    fault = exercise.property(function) if exercise.property else None
    return (
        Verdict("wrong", fault)
        if fault
        else Verdict("right", f"{exercise.praise} on {len(cases)} random cases.")
    )


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
        raise ValueError(
            f"lab {self.number} has no exercise {name!r}: it has "
            f"{', '.join(e.name for e in self.exercises)}"
        )

    def check(self, function: Callable) -> Callable:
        """Judge the function by its name; returns it if right, else ftlib's own. While grading,
        raises instead.

        A check cell run again without the answer's cell gets ftlib's own, and repeats what it said
        of the answer. An answer of the student's own that is right goes into the progress file
        (`ftlib progress`), except while grading.
        """
        exercise = self.find(function)
        verdict = self.said[exercise.name] = self._verdict(exercise, function)
        text = f"{SIGNS[verdict.status]} {exercise.name}: {verdict.message}"
        if verdict.status == "wrong" and not grading():
            text += " Going on with ftlib's."
        if verdict.status != "right" and grading():
            raise Grade(text)
        _show(verdict, exercise.name, text)
        if verdict.status == "right" and not grading():
            note_exercise(self.number, exercise.name)
        return function if verdict.status == "right" else exercise.reference

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
        i = self.given.get(exercise.name, 0)
        self.given[exercise.name] = i + 1
        print(
            f"hint {i % len(exercise.hints) + 1} of {len(exercise.hints)}: "
            f"{exercise.hints[i % len(exercise.hints)]}"
        )

    def solution(self, name) -> None:
        """Print the source of ftlib's own implementation."""
        print(textwrap.dedent(inspect.getsource(self.find(name).reference)))

    def predict(self, guess, answer) -> None:
        """Hold a guess against what the run showed."""
        if guess in (None, "", "...", ...):
            print(f"No guess yet. The run says: {answer}.")
        else:
            right = str(guess).strip().lower() == str(answer).strip().lower()
            print(
                f"You said {guess}. "
                + (f"Right: {answer}." if right else f"The run says: {answer}.")
            )


def open_lab(number: str):
    """(check, hint, solution, predict) of a lab such as "3.1.1"."""
    lab = load_lab(number)
    return lab.check, lab.hint, lab.solution, lab.predict


def exercise_module(number: str) -> str:
    """The name of the module that holds a lab's list of exercises."""
    return f"ftlib.course.{MODULES[number]}.exercises"


def load_lab(number: str) -> Lab:
    """The `Lab` with its exercises. ValueError for a number that the course does not have."""
    if number not in MODULES:
        raise ValueError(f"lab {number!r} is unknown: use one of {', '.join(MODULES)}")
    module = importlib.import_module(exercise_module(number))
    return Lab(number, list(module.EXERCISES))
