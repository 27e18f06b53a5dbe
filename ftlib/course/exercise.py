"""A lab's exercises as a student meets them, and how an answer is judged.

What an exercise is stands in `exercise_data`.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

import torch

from ftlib.core.runtime import configure
from ftlib.course.answer_faults import (
    call_fault,
    changed_fault,
    dtype_fault,
    gradient_fault,
    missing_fault,
)
from ftlib.course.answer_messages import (
    case_that_differs,
    difference_of,
    known_mistake,
    listed,
    said_of_all,
)
from ftlib.course.calls import Outcome, call, fault_of
from ftlib.course.catalogue import MODULES, exercise_module
from ftlib.course.comparing import shown
from ftlib.course.exercise_data import Exercise, Verdict, Wrong
from ftlib.course.gradients import Trained, train
from ftlib.course.progress import note_exercise, note_help
from ftlib.course.report import BOLD, SIGNS


class Grade(AssertionError):  # noqa: N818 -- students read this name in a graded notebook
    """Raised instead of printed while a submission is graded."""


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


def _cases(exercise: Exercise) -> list[tuple]:
    return list(exercise.cases(torch.Generator().manual_seed(0)))


def _open(exercise: Exercise) -> Verdict:
    return Verdict(
        "open",
        f'not attempted yet; going on with ftlib\'s. hint("{exercise.name}") gives a first step.',
    )


# --- judging --------------------------------------------------------------------------------------
def judge(exercise: Exercise, function: Callable) -> Verdict:
    """Compare an answer with the reference on the exercise's cases, and name the mistake if it is a
    known one. Gradients are on, whatever the caller has set.
    """
    if not callable(function):
        return Verdict("wrong", f"it is {shown(function)}, not a function: define it as the stub.")
    with torch.inference_mode(False), torch.enable_grad():
        return _judge(exercise, function)


def _judge(exercise: Exercise, function: Callable) -> Verdict:
    cases = _cases(exercise)
    first = call(function, cases[0])
    if first.fault is not None and first.fault.stub:
        return _open(exercise)
    outcomes = [first, *(call(function, args) for args in cases[1:])]
    wanted = [exercise.reference(*copy.deepcopy(args)) for args in cases]
    for i, (seen, want) in enumerate(zip(outcomes, wanted, strict=True)):
        if seen.fault is not None or difference_of(seen.value, want, exercise):
            known = known_mistake(outcomes, exercise, cases)
            if known:
                message = known.message
            else:
                relation = said_of_all(exercise, cases, outcomes, wanted)
                message = relation + case_that_differs(exercise, cases, i, seen, want)
            return Verdict("wrong", _with_float_hint(exercise, seen, known, message))
    fault = (
        changed_fault(exercise, outcomes, cases)
        or dtype_fault(exercise, outcomes, wanted, cases)
        or call_fault(exercise, function, cases)
    )
    if fault:
        return Verdict("wrong", fault)
    return _judge_deeper(exercise, function, cases)


def _with_float_hint(exercise: Exercise, seen: Outcome, known: Wrong | None, message: str) -> str:
    if known or not exercise.gradient_of or not isinstance(seen.value, (int, float)):
        return message
    return (
        f"it returns a {type(seen.value).__name__}, and no gradient comes out of a number: return "
        "the tensor, without `.item()` or `float()`."
    )


def _judge_deeper(exercise: Exercise, function: Callable, cases) -> Verdict:
    """Gradients, and the exercise's own property. A gradient that is missing is said first: the
    property may need it; one that is wrong last: the property may know why.
    """
    trained: list[Trained] = []
    if exercise.gradient_of:
        try:
            trained = train(function, exercise.reference, exercise.gradient_of, cases)
        except (Exception, SystemExit) as error:
            names = listed(exercise.gradient_of)
            return Verdict(
                "wrong",
                f"The values are right, but with {names} requiring grad, as in training, "
                f"{fault_of(error).said()}",
            )
    missing = missing_fault(exercise, trained)
    if missing:
        return Verdict("wrong", missing)
    try:
        fault = exercise.property(function) if exercise.property else None
    except (Exception, SystemExit) as error:
        fault = f"The values are right on the cases, but on another input {fault_of(error).said()}"
    instead = fault if isinstance(fault, Verdict) else None
    sentence = fault if isinstance(fault, str) else gradient_fault(exercise, trained, cases)
    if sentence:
        return Verdict("wrong", sentence)
    return instead or Verdict("right", f"{exercise.praise} on {len(cases)} cases.")


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

    def _asked(self, function, caller: FrameType | None) -> Exercise | None:
        """The exercise that an answer is for: the name it has where check was called, which a
        lambda, a partial or an alias has too; else its own name.
        """
        if caller is not None:
            names = {**caller.f_globals, **caller.f_locals}
            bound = [e for e in self.exercises if names.get(e.name) is function]
            said = [e for e in bound if e.name in caller.f_code.co_names]
            for found in (said, bound):
                if len(found) == 1:
                    return found[0]
        own_name = getattr(function, "__name__", None)
        return next((e for e in self.exercises if e.name == own_name), None)

    def _nameless(self, function):
        """What is said of an answer that belongs to no exercise; it is handed back as it is."""
        known = ", ".join(exercise.name for exercise in self.exercises)
        text = (
            f"{SIGNS['wrong']} check: {shown(function)} has none of the names of this lab's "
            f"exercises ({known}): bind it to one, `name = …`, then `name = check(name)`."
        )
        if grading():
            raise Grade(text)
        print(text)
        return function

    def check(self, function: Callable) -> Callable:
        """Judge the function by its name; returns it if right, else ftlib's own. While grading,
        raises instead.

        The name is the one that it is bound to where check is called, so that a lambda, a
        `functools.partial`, an alias or a callable object is an answer too.

        A check cell run again without the answer's cell gets ftlib's own, and repeats what it said
        of the answer. An answer of the student's own that is right goes into the progress file
        (`ftlib progress`), except while grading.
        """
        here = inspect.currentframe()
        exercise = self._asked(function, here.f_back if here else None)
        if exercise is None:
            return self._nameless(function)
        verdict = self._verdict(exercise, function)
        self.said[exercise.name] = verdict
        right = verdict.status == "right"
        if grading() and not right:
            raise Grade(verdict.reason(exercise.name))
        text = verdict.line(exercise.name)
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
        """Show the next hint for an exercise; after the last one it starts again. The progress file
        notes that a hint was asked for before the exercise was solved.
        """
        exercise = self.find(name)
        self._note_help(exercise, "hints")
        given = self.given.get(exercise.name, 0)
        self.given[exercise.name] = given + 1
        count = len(exercise.hints)
        i = given % count
        print(f"hint {i + 1} of {count}: {exercise.hints[i]}")

    def solution(self, name) -> None:
        """Print the source of ftlib's own implementation. The progress file notes it, as a hint."""
        exercise = self.find(name)
        self._note_help(exercise, "solutions")
        print(textwrap.dedent(inspect.getsource(exercise.reference)))

    def _note_help(self, exercise: Exercise, part: str) -> None:
        if not grading():
            note_help(self.number, exercise.name, part)

    def predict(self, guess, answer) -> None:
        """Hold a guess against what the run showed; without one, the answer stays hidden."""
        if guess in (None, "", "...", ...):
            print("No guess yet: write one in place of ... and run this cell again.")
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
