"""The course's exercises: enough of them, and each accepts an independent second solution."""

import ast
import importlib
import inspect
import pkgutil

import pytest
import second_solutions

from ftlib.course.catalogue import MODULES, is_extension
from ftlib.course.exercise import judge, load_lab

EXERCISES = {f"{number} {e.name}": e for number in MODULES for e in load_lab(number).exercises}
MODULES_OF_SECOND = [
    importlib.import_module(f"second_solutions.{found.name}")
    for found in pkgutil.iter_modules(second_solutions.__path__)
]
SECOND = {
    name: f for m in MODULES_OF_SECOND for name, f in vars(m).items() if inspect.isfunction(f)
}


def test_the_ten_labs_have_fifty_exercises_and_more():
    assert {key.split()[0] for key in EXERCISES} == set(MODULES) and sum(
        not is_extension(n) for n in MODULES
    ) == 10
    assert len({e.name for e in EXERCISES.values()}) == len(EXERCISES) >= 50
    for key, exercise in EXERCISES.items():
        assert (
            len(exercise.hints) >= 2 and len(exercise.wrong) >= 3 and callable(exercise.reference)
        ), key


def test_the_second_solutions_know_nothing_of_ftlib():
    tree = ast.parse("".join(inspect.getsource(module) for module in MODULES_OF_SECOND))
    imported = {
        n.module if isinstance(n, ast.ImportFrom) else a.name
        for n in ast.walk(tree)
        if isinstance(n, (ast.Import, ast.ImportFrom))
        for a in n.names
    }
    outside = {
        "contextlib",
        "fractions",
        "itertools",
        "math",
        "numpy",
        "re",
        "statistics",
        "torch",
        "unicodedata",
    }
    assert {name.split(".")[0] for name in imported} <= outside


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_an_independent_second_solution_is_right(exercise):
    assert exercise.name in SECOND, "write one in tests/second_solutions"
    second = SECOND[exercise.name]
    assert inspect.getsource(second) != inspect.getsource(exercise.reference)
    verdict = judge(exercise, second)
    assert verdict.status == "right", verdict
