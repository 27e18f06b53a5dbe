"""What an exercise is, and how an answer to it is judged."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

from ftlib.core.runtime import configure
from ftlib.course.calls import Outcome, call, fault_of
from ftlib.course.catalogue import MODULES, exercise_module
from ftlib.course.comparing import difference, dtype_difference, shown, unordered
from ftlib.course.diagnosis import Case, as_if, diagnose, which_inputs
from ftlib.course.gradients import TOLERANCE as GRADIENT_TOLERANCE
from ftlib.course.gradients import Trained, train
from ftlib.course.progress import note_exercise, note_help
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
    all of them, and the arguments must be what they were. `property(function)` may return a
    sentence about a fault that values do not show (a dense product, say), or a whole verdict.

    `gradient_of`: parameters of the reference through which the result trains; they require grad
    in a second round, and their gradients must be the reference's. `dtypes`: parts of the result
    whose dtype is asked for (`comparing.dtype_difference`). `keywords`, `defaults`: parameters that
    the lab passes by name, or leaves out. `any_order`: the result is a list of items in no order.
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
    property: Callable[[Callable], str | Verdict | None] | None = None
    praise: str = "equal to the reference"
    gradient_of: tuple[str, ...] = ()
    dtypes: Mapping[Any, str] = field(default_factory=dict)
    keywords: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    any_order: bool = False


@dataclass(frozen=True)
class Verdict:
    """`status`: "right", "open" (not attempted) or "wrong"; and the sentence to show."""

    status: str
    message: str

    def line(self, name: str) -> str:
        """What `check` shows of the exercise `name`."""
        return f"{SIGNS[self.status]} {name}: {self.message}"

    def reason(self, name: str) -> str:
        """The same as one line of a table: what is said while a submission is graded."""
        return self.line(name).replace("\n    ", "; ")


# Where a property cannot see what is allocated, nothing is claimed of it.
UNMEASURED = Verdict(
    "right",
    "equal to the reference; what is allocated outside PyTorch was not measured, so whether an "
    "out × in array was made is not known.",
)


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


# --- an answer's results --------------------------------------------------------------------------
def _cases(exercise: Exercise) -> list[tuple]:
    return list(exercise.cases(torch.Generator().manual_seed(0)))


def _difference(got, want, exercise: Exercise) -> str | None:
    if exercise.any_order and isinstance(got, (list, tuple, set, frozenset)):
        return difference(unordered(got), unordered(want), exercise.tolerance)
    return difference(got, want, exercise.tolerance)


def _alike(one: Outcome, other: Outcome, exercise: Exercise) -> bool:
    if one.fault is not None and other.fault is not None:
        return one.fault.name == other.fault.name and one.fault.text == other.fault.text
    if one.fault is not None or other.fault is not None:
        return False
    return _difference(one.value, other.value, exercise) is None


def _known_mistake(outcomes: list[Outcome], exercise: Exercise, cases) -> Wrong | None:
    """The wrong answer of the bank that gives the same on every case: values and errors."""
    for wrong in exercise.wrong:
        pairs = zip(outcomes, cases, strict=True)
        if all(_alike(seen, call(wrong.function, args), exercise) for seen, args in pairs):
            return wrong
    return None


# --- messages -------------------------------------------------------------------------------------
def _names(function: Callable, count: int) -> list[str]:
    """The names of the first `count` parameters; "argument 1" and so on where it does not tell."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [*named, *(f"argument {i + 1}" for i in range(len(named), count))][:count]


def _listed(names) -> str:
    quoted = [f"`{name}`" for name in names]
    if len(quoted) < 2:
        return "".join(quoted)
    return ", ".join(quoted[:-1]) + " and " + quoted[-1]


def _input_line(exercise: Exercise, cases, i: int) -> str:
    names = _names(exercise.reference, len(cases[i]))
    given = [f"{name} = {shown(value)}" for name, value in zip(names, cases[i], strict=True)]
    return f"\n    input {i + 1} of {len(cases)}: {'; '.join(given)}"


def _said_of_all(exercise: Exercise, cases, outcomes: list[Outcome], wanted: list) -> str:
    """How what came is related to what was wanted in every wrong case, and which these are; ends in
    a colon.
    """
    right = []
    wrong = []
    failed = False
    for args, seen, want in zip(cases, outcomes, wanted, strict=True):
        given = dict(zip(_names(exercise.reference, len(args)), args, strict=True))
        if seen.fault is None and _difference(seen.value, want, exercise) is None:
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
        return _difference(got, want, exercise) is None

    try:
        return diagnose(wrong, exercise.tolerance) or as_if(exercise.reference, wrong, equal)
    except Exception:  # what came may be of a class of the student's
        return None


def _unknown(exercise: Exercise, cases, i: int, seen: Outcome, want: Any) -> str:
    """The first case that differs: its input, what came, and what was wanted."""
    line = _input_line(exercise, cases, i)
    if seen.fault is not None:
        return f"{seen.fault.said()}{line}\n    wanted: {shown(want)}"
    fault = str(_difference(seen.value, want, exercise))
    if seen.changed:
        names = _names(exercise.reference, len(cases[i]))
        fault += f"; and it changes {_listed(names[k] for k in seen.changed)} in place"
    came = f"\n    yours:  {shown(seen.value)}\n    wanted: {shown(want)}"
    return f"{fault}.{line}{came}"


def _open(exercise: Exercise) -> Verdict:
    return Verdict(
        "open",
        f'not attempted yet; going on with ftlib\'s. hint("{exercise.name}") gives a first step.',
    )


# --- what right values do not show ----------------------------------------------------------------
def _changed_fault(exercise: Exercise, outcomes: list[Outcome], cases) -> str | None:
    places = sorted({place for seen in outcomes for place in seen.changed})
    if not places:
        return None
    names = _names(exercise.reference, len(cases[0]))
    return (
        f"The values are right, but your function changes its argument "
        f"{_listed(names[i] for i in places)} in place, and whoever called it goes on with the "
        "changed one: work on a copy, or use the operation that returns a new value."
    )


def _dtype_fault(exercise: Exercise, outcomes, wanted, cases) -> str | None:
    for i, (seen, want) in enumerate(zip(outcomes, wanted, strict=True)):
        found = dtype_difference(seen.value, want, exercise.dtypes)
        if found:
            return f"The values are right, but {found}.{_input_line(exercise, cases, i)}"
    return None


def _call_fault(exercise: Exercise, function: Callable, cases) -> str | None:
    """Whether it can be called as the lab calls it: without what has a default, and by keyword."""
    names = _names(exercise.reference, len(cases[0]))
    given = dict(zip(names, cases[0], strict=True))
    return _default_fault(exercise, function, given) or _keyword_fault(exercise, function, given)


def _default_fault(exercise: Exercise, function: Callable, given: dict[str, Any]) -> str | None:
    if not exercise.defaults:
        return None
    needed = tuple(value for name, value in given.items() if name not in exercise.defaults)
    want = exercise.reference(*copy.deepcopy(needed))
    seen = call(function, needed)
    if seen.fault is None and _difference(seen.value, want, exercise) is None:
        return None
    parameters = inspect.signature(exercise.reference).parameters
    left_out = [f"{name}={parameters[name].default!r}" for name in exercise.defaults]
    return (
        "The values are right, but the lab also calls it without "
        f"{_listed(exercise.defaults)}: keep the stub's default, {_listed(left_out)}."
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
        f"The values are right, but the lab calls it with {_listed(by_name)} by keyword, and then "
        f"{seen.fault.said()}. Keep the names of the stub's parameters."
    )


# --- gradients ----------------------------------------------------------------------------------
def _missing_fault(exercise: Exercise, trained: list[Trained]) -> str | None:
    missing = {name for one in trained for name in one.missing()}
    if not missing:
        return None
    names = _listed(name for name in exercise.gradient_of if name in missing)
    return (
        f"The values are right, but no gradient reaches {names}: something was detached "
        "(`.detach()`, `.data`, `.item()`, a number or `torch.tensor(…)` made of a tensor, NumPy, "
        "`torch.no_grad()`). What is trained through it would learn nothing."
    )


def _gradient_fault(exercise: Exercise, trained: list[Trained], cases) -> str | None:
    for i, one in enumerate(trained):
        found = one.different()
        if found:
            name, words = found
            line = _input_line(exercise, cases, i)
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
            given = dict(zip(_names(exercise.reference, len(args)), args, strict=True))
            wrong.append(Case(*one.beside(name), given))
    return diagnose(wrong, GRADIENT_TOLERANCE)


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
        if seen.fault is not None or _difference(seen.value, want, exercise):
            known = _known_mistake(outcomes, exercise, cases)
            if known:
                message = known.message
            else:
                relation = _said_of_all(exercise, cases, outcomes, wanted)
                message = relation + _unknown(exercise, cases, i, seen, want)
            return Verdict("wrong", _with_float_hint(exercise, seen, known, message))
    fault = (
        _changed_fault(exercise, outcomes, cases)
        or _dtype_fault(exercise, outcomes, wanted, cases)
        or _call_fault(exercise, function, cases)
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
            names = _listed(exercise.gradient_of)
            return Verdict(
                "wrong",
                f"The values are right, but with {names} requiring grad, as in training, "
                f"{fault_of(error).said()}",
            )
    missing = _missing_fault(exercise, trained)
    if missing:
        return Verdict("wrong", missing)
    try:
        fault = exercise.property(function) if exercise.property else None
    except (Exception, SystemExit) as error:
        fault = f"The values are right on the cases, but on another input {fault_of(error).said()}"
    instead = fault if isinstance(fault, Verdict) else None
    sentence = fault if isinstance(fault, str) else _gradient_fault(exercise, trained, cases)
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
