"""Exercises: every one tells right from open from wrong, and names each mistake by its own
sentence.
"""

import importlib.util
import inspect
import math
import re

import numpy as np
import pytest
import torch
from conftest import ROOT

from ftlib import course
from ftlib.course import exercise as exercise_module
from ftlib.course.catalogue import MODULES
from ftlib.course.comparing import difference
from ftlib.course.exercise import Exercise, Lab, Wrong, judge, load_lab

PRESENT = [
    number
    for number, module in MODULES.items()
    if importlib.util.find_spec(f"ftlib.course.{module}")
]
EXERCISES = {f"{n} {e.name}": e for n in PRESENT for e in load_lab(n).exercises}
MISTAKES = {f"{key}: {w.name}": (e, w) for key, e in EXERCISES.items() for w in e.wrong}


# --- the exercises of the labs --------------------------------------------------------------------
@pytest.mark.parametrize("number", PRESENT)
def test_a_lab_has_its_exercises(number):
    names = [e.name for e in load_lab(number).exercises]
    assert len(set(names)) == len(names) >= (6 if number in ("3.1.1", "3.1.4") else 4)


def test_the_first_labs_are_here():
    assert {"3.1.1", "3.1.4"} <= set(PRESENT)


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_an_exercise_is_complete(exercise):
    assert len(exercise.wrong) >= 3 and len(exercise.hints) >= 2 and exercise.points > 0
    assert (
        exercise.name.isidentifier()
        and exercise.title
        and exercise.minutes > 0
        and exercise.difficulty in (1, 2, 3)
    )
    assert (
        len({w.message for w in exercise.wrong})
        == len({w.name for w in exercise.wrong})
        == len(exercise.wrong)
    )
    assert all(len(w.message) > 20 for w in exercise.wrong) and len(set(exercise.hints)) == len(
        exercise.hints
    )
    assert len(list(exercise.cases(torch.Generator().manual_seed(0)))) >= 2


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_the_reference_is_right_and_the_stub_open(exercise):
    def stub(*args, **kwargs):
        raise NotImplementedError

    verdict = judge(exercise, exercise.reference)
    assert verdict.status == "right", verdict
    assert judge(exercise, stub).status == "open"


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_the_solution_can_be_shown(exercise):
    """hint() and solution() print something a student can use: the reference is a function with
    source and signature.
    """
    assert "def " + getattr(exercise.reference, "__name__", "?") in inspect.getsource(
        exercise.reference
    )
    assert exercise.reference.__name__ != "lambda"


@pytest.mark.parametrize("exercise, wrong", MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_named_by_its_own_message(exercise, wrong):
    verdict = judge(exercise, wrong.function)
    assert verdict.status == "wrong" and verdict.message == wrong.message


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_cases_do_not_depend_on_the_global_generator(exercise):
    """The same cases in every session, so that a grade can be had again."""
    torch.manual_seed(1)
    one = exercise_module._cases(exercise)
    torch.manual_seed(2)
    two = exercise_module._cases(exercise)
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        plain = [
            i
            for i, v in enumerate(a)
            if isinstance(v, (torch.Tensor, int, float, str, list, dict, type(None)))
        ]
        assert difference([b[i] for i in plain], [a[i] for i in plain], 0.0) is None


# --- judging --------------------------------------------------------------------------------------
def double(x):
    """Twice x."""
    return 2 * x


DOUBLE = Exercise(
    name="double",
    title="Twice",
    minutes=1,
    difficulty=1,
    reference=double,
    cases=lambda g: [(torch.randn(3, generator=g),), (torch.ones(2),)],
    wrong=(
        Wrong("square", lambda x: x**2, "You squared."),
        Wrong("shape", lambda x: x @ torch.ones(7), "Wrong inner size."),
    ),
    hints=("Add.", "x + x"),
    property=lambda f: "It must not add." if "+" in inspect.getsource(f) else None,
)


def not_written(x):
    raise NotImplementedError


def named(function):
    function.__name__ = "double"
    return function


def test_verdicts():
    def not_yet(x):
        raise NotImplementedError("later")

    def adds(x):
        return x + x

    assert (
        judge(DOUBLE, lambda x: x * 2).status == "right"
        and "on 2 cases" in judge(DOUBLE, lambda x: x * 2).message
    )
    assert (
        judge(DOUBLE, not_yet).status == "open"
        and 'hint("double")' in judge(DOUBLE, not_yet).message
    )
    assert judge(DOUBLE, lambda x: x * x) == exercise_module.Verdict("wrong", "You squared.")
    assert judge(DOUBLE, adds) == exercise_module.Verdict("wrong", "It must not add.")
    unknown = judge(DOUBLE, lambda x: 3 * x)
    assert unknown.status == "wrong" and "differ by up to" in unknown.message
    raises = judge(DOUBLE, lambda x: x / {}["k"])
    assert raises.status == "wrong" and "raises KeyError" in raises.message
    assert (
        judge(DOUBLE, lambda x: x @ torch.ones(7)).message == "Wrong inner size."
    )  # known by the error that it raises
    assert "returns NoneType" in judge(DOUBLE, lambda x: None).message
    assert "takes 0" in judge(DOUBLE, lambda: 1).message


def test_check_hands_back_what_to_go_on_with(capsys):
    lab = Lab("3.1.1", [DOUBLE])
    right = named(lambda x: x * 2)
    wrong = named(lambda x: x * x)
    stub = named(not_written)
    assert lab.check(right) is right
    assert lab.check(wrong) is double and lab.check(stub) is double
    out = capsys.readouterr().out.splitlines()
    assert (
        out[0].startswith("✓ double: equal")
        and out[1] == "✗ double: You squared. Going on with ftlib's."
    )
    assert out[2].startswith("○ double: not attempted")


def test_a_check_run_again_repeats_itself(capsys):
    """A check cell binds the name to what check() hands back. Run alone again it gets that, which
    is no answer of the student's.
    """
    lab = Lab("3.1.1", [DOUBLE])
    for answer, sign in (
        (not_written, "○"),
        (lambda x: x * x, "✗"),
        (lambda x: x * 2, "✓"),
        (not_written, "○"),
    ):
        handed = lab.check(lab.check(lab.check(named(answer))))
        assert handed is double or sign == "✓"
        first, *again = capsys.readouterr().out.splitlines()
        assert first.startswith(sign) and again == [first, first]


def test_ftlibs_own_function_is_no_answer_to_a_lab_opened_anew(capsys):
    """The set-up cell run again opens a new lab; the name is bound to ftlib's function still."""
    assert (
        Lab("3.1.1", [DOUBLE]).check(Lab("3.1.1", [DOUBLE]).check(named(lambda x: x * x))) is double
    )
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["✗", "○"]


def test_a_check_is_coloured_in_a_notebook_only(capsys, monkeypatch):
    """ANSI 1;32 is bold green, 1;31 bold red. What is not attempted has no colour, so stored
    outputs hold no escapes.
    """
    lab = Lab("3.1.1", [DOUBLE])
    answers = [named(lambda x: x * 2), named(lambda x: x * x), named(not_written)]
    for answer in answers:
        lab.check(answer)
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    monkeypatch.setattr("ftlib.core.notebook.in_notebook", lambda: True)
    for answer in answers:
        lab.check(answer)
    shown = capsys.readouterr().out
    assert [re.findall(r"^(?:\x1b\[([\d;]+)m)?. double:", line) for line in shown.splitlines()] == [
        ["1;32"],
        ["1;31"],
        [""],
    ]
    assert re.sub(r"\x1b\[[\d;]+m", "", shown) == plain


@pytest.mark.parametrize(
    "variable, value", [("FTLIB_GRADING", "1"), ("NBGRADER_EXECUTION", "autograde")]
)
def test_grading_raises(variable, value, monkeypatch):
    monkeypatch.setenv(variable, value)
    lab = Lab("3.1.1", [DOUBLE])
    right = named(lambda x: x * 2)
    assert lab.check(right) is right
    with pytest.raises(course.Grade, match=r"You squared\.$"):
        lab.check(named(lambda x: x * x))
    with pytest.raises(AssertionError, match="not attempted"):
        lab.check(named(not_written))


def test_hints_solution_and_predictions(capsys):
    lab = Lab("3.1.1", [DOUBLE])
    for _ in range(3):
        lab.hint("double")
    lab.hint(double)
    assert capsys.readouterr().out.splitlines() == [
        "hint 1 of 2: Add.",
        "hint 2 of 2: x + x",
        "hint 1 of 2: Add.",
        "hint 2 of 2: x + x",
    ]
    lab.solution("double")
    assert "return 2 * x" in capsys.readouterr().out
    for guess, answer, want in (
        ("...", 3, "No guess yet: write one in place of ... and run this cell again."),
        (" Yes", "yes", "You said  Yes. Right: yes."),
        (2, 3, "You said 2. The run says: 3."),
        (None, 3, "No guess yet"),
    ):
        lab.predict(guess, answer)
        assert want in capsys.readouterr().out


def test_unknown_names():
    with pytest.raises(ValueError, match=r"lab '9\.9' is unknown: use one of 3\.1\.1"):
        course.open_lab("9.9")
    with pytest.raises(ValueError, match="no exercise 'nothing': it has double"):
        Lab("3.1.1", [DOUBLE]).hint("nothing")


def test_say_prints_outside_a_notebook(capsys):
    course.say("**7** of 9")
    assert capsys.readouterr().out == "**7** of 9\n"


def test_open_lab_gives_the_four_tools(capsys):
    check, hint, solution, predict = course.open_lab("3.1.1")
    name = load_lab("3.1.1").exercises[0].name
    hint(name)
    solution(name)
    predict("...", 1)
    assert "hint 1 of" in capsys.readouterr().out and check(
        load_lab("3.1.1").exercises[0].reference
    )


# --- difference -----------------------------------------------------------------------------------
T = torch.tensor([1.0, 2.0])
SAME = [
    (T, T + 1e-7),
    (T, T.double()),
    (1, 1.0),
    (2.0, 2.0 + 1e-9),
    (float("nan"), float("nan")),
    ([1, T], (1, T.clone())),
    ({"a": T}, {"a": T.clone()}),
    ("x", "x"),
    (True, True),
    (None, None),
    (np.array([1.0, 2]), np.array([1.0, 2])),
    (T.requires_grad_(False), T.clone().requires_grad_()),
    (torch.tensor([float("nan")]), torch.tensor([float("nan")])),
    (torch.tensor([True]), torch.tensor([True])),
    (np.float64(1), 1.0),
]
OTHER = [
    (T, T + 0.1, "differ by up to 0.1"),
    (T, T[None], r"shape is \(1, 2\), \(2,\) is wanted"),
    (T, [1.0, 2.0], "returns list, a tensor"),
    (T, None, "returns NoneType"),
    (1.0, 1.1, "returns 1.1, 1 is wanted"),
    (1.0, "x", "a number is wanted"),
    (1.0, T, "a number is wanted"),
    (1.0, None, "a number is wanted"),
    (True, 1, "returns 1, True"),
    ("x", "y", "'y', 'x'"),
    (None, 0, "0, None"),
    ({"a": 1}, {"a": 2}, "at 'a' .*2, 1 is wanted"),
    ({"a": 1}, {"b": 1}, r"\['b'\], keys \['a'\]"),
    ({"a": 1}, 5, "int, keys"),
    ([1, 2], [1, 3], "item 1: .*3, 2"),
    ([1, 2], [1], "1 items, 2"),
    ([1], 5, "returns int, a list of 1 items"),
    ({"a": [T]}, {"a": [T + 1]}, "at 'a' item 0"),
    (np.array([1.0, 2]), np.array([1.0, 3]), "differ"),
    (np.array([1.0, 2]), np.array([1.0]), "shape"),
    (np.array([1.0, 2]), [1.0, 2.0], "an array is wanted"),
    (T, torch.tensor([1.0, float("nan")]), "differ"),
]


@pytest.mark.parametrize("want, got", SAME, ids=str)
def test_no_difference(want, got):
    assert difference(got, want, 1e-5) is None


@pytest.mark.parametrize("want, got, text", OTHER, ids=str)
def test_differences_in_words(want, got, text):
    found = difference(got, want, 1e-5)
    assert found and re.search(text, found), found


def test_no_lab_outside_the_list():
    course_folder = ROOT / "ftlib" / "course"
    folders = {p.parent.name for p in course_folder.glob("lab_*/exercises.py")}
    assert (
        folders == set(MODULES.values())
        and not list(course_folder.glob("lab_*.py"))
        and math.prod(len(load_lab(n).exercises) for n in PRESENT) > 0
    )
