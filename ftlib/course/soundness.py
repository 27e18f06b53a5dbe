"""What is asked of an exercise, told in an instructor's words: `ftlib exercise check`."""

from __future__ import annotations

import ast
import copy
import importlib.util
import inspect
import pickle
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import torch

from ftlib.core.paths import ROOT
from ftlib.course.answers import definitions, setup_cell
from ftlib.course.authoring import (
    AuthoringError,
    defining_files,
    notebook_of,
    second_solutions,
)
from ftlib.course.catalogue import MODULES, POINTS
from ftlib.course.cell_faults import (
    faults_of_cells,
    faults_of_setup,
    faults_of_tables,
    stubs_of,
)
from ftlib.course.comparing import difference
from ftlib.course.exercise import Exercise, Wrong, judge, load_lab
from ftlib.course.notebooks import left_out

FEWEST_MISTAKES = 3
FEWEST_HINTS = 2
SHORTEST_MESSAGE = 20  # characters of the sentence that names a mistake
LONGEST_CELL = 25  # lines
REPLACE = "REPLACE:"  # begins what the template says of a part that is still its own
PLAIN = (torch.Tensor, int, float, str, list, dict, tuple, type(None))


def load_exercise(lab: str, name: str) -> Exercise:
    """An exercise by its lab and name. ValueError where there is none; AuthoringError where the
    lab's modules cannot be imported, with the line that stops them.
    """
    try:
        loaded = load_lab(lab)
    except Exception as error:
        if lab not in MODULES:
            raise
        raise AuthoringError(
            f"the exercises of lab {lab} cannot be loaded: {_raised(error)}"
        ) from error
    return loaded.find(name)


def check_exercise(lab: str, name: str, root: Path = ROOT) -> list[str]:
    """The faults of a lab's exercise, of its cells in the notebook, of its second solution and of
    its points in the catalogue, a sentence each. Errors as those of `load_exercise`.
    """
    exercise = load_exercise(lab, name)
    faults = faults_of(exercise)
    usable = not _no_tuples(exercise) and not _unusable(exercise)
    path = notebook_of(lab, root)
    notebook = nbformat.read(path, as_version=4)
    faults += faults_of_cells(exercise, notebook)
    faults += faults_of_tables(notebook)
    reason = left_out(path)  # its set-up cell may end the process here
    if reason:
        faults.append(f"its stub was not run: {reason}")
    else:
        faults += faults_of_setup(notebook)
        faults += _faults_of_stub(exercise, notebook, usable)
    faults += _faults_of_second(exercise, second_solutions(root), usable)
    if POINTS[lab].get(name) != exercise.points:
        faults.append(
            f"POINTS in ftlib/course/catalogue.py gives it {POINTS[lab].get(name)} points, the "
            f"exercise {exercise.points}: make them equal"
        )
    return faults


def describe(exercise: Exercise) -> str:
    """What an exercise holds, in a line."""
    parameters = ", ".join(inspect.signature(exercise.reference).parameters)
    return (
        f"{exercise.name}({parameters}): {exercise.points} points, {len(exercise.wrong)} wrong "
        f"answers, {len(exercise.hints)} hints"
    )


def still_the_templates(lab: str, name: str, root: Path = ROOT) -> list[str]:
    """The parts that are marked REPLACE, each with the place where it is."""
    module = root / "ftlib" / "course" / MODULES[lab] / f"{name}.py"
    second = second_solutions(root) / f"{name}.py"
    found = []
    for path in (module, second):
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for i, line in enumerate(lines, 1):
            if REPLACE in line:
                found.append(f"{path.relative_to(root)}:{i}: {_first_words(line)}")
    notebook_path = notebook_of(lab, root)
    for i, cell in enumerate(nbformat.read(notebook_path, as_version=4).cells):
        for line in cell.source.splitlines():
            if REPLACE in line:
                found.append(f"{notebook_path.relative_to(root)}, cell {i}: {_first_words(line)}")
    return found


def _first_words(line: str) -> str:
    """What is to be replaced: what follows the mark, up to a full stop or a comma."""
    return re.split(r"[.,:;]", line.partition(REPLACE)[2])[0].strip()


def _raised(error: BaseException) -> str:
    """An error in a line, with the place in the instructor's own code where that is known."""
    words = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".removesuffix(": ")
    if isinstance(error, SyntaxError):  # which names the place itself
        return words
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/lab_" in frame.filename or "/tests/" in frame.filename]
    if not own:
        return words
    return f"{words} ({Path(own[-1].filename).name}, line {own[-1].lineno})"


# --- the exercise itself --------------------------------------------------------------------------
def faults_of(exercise: Exercise) -> list[str]:
    """What is missing or wrong in an exercise, a sentence each; empty for a sound one."""
    faults = _no_tuples(exercise)
    if faults:
        return faults
    faults = _incomplete(exercise)
    unusable = _unusable(exercise)
    if unusable:  # nothing can be judged
        return [*faults, *unusable]
    return [*faults, *_misjudged(exercise), *_unsteady(exercise)]


def _no_tuples(exercise: Exercise) -> list[str]:
    """Fields in parentheses that lack the comma which makes a tuple."""
    faults = []
    for field in ("wrong", "hints", "gradient_of", "keywords", "defaults"):
        value = getattr(exercise, field)
        if not isinstance(value, (tuple, list)):
            faults.append(
                f"{field} is a {type(value).__name__}, not a tuple: put a comma behind its only "
                "item, inside of the parentheses"
            )
    return faults


def _incomplete(exercise: Exercise) -> list[str]:
    faults = []
    hints = len(set(exercise.hints))
    if hints < FEWEST_HINTS:
        faults.append(f"it has {hints} hints: give at least {FEWEST_HINTS}")
    elif hints < len(exercise.hints):
        faults.append("two hints are the same: each says something new")
    if exercise.points <= 0 or exercise.minutes <= 0 or exercise.difficulty not in (1, 2, 3):
        faults.append("points and minutes must be above 0, the difficulty 1, 2 or 3")
    if not exercise.title:
        faults.append("it has no title")
    if getattr(exercise.reference, "__name__", "") != exercise.name:
        faults.append(
            f"the reference is not `def {exercise.name}(…)`: solution() shows it under the "
            "student's name"
        )
    return faults + _incomplete_bank(exercise.wrong)


def _incomplete_bank(bank) -> list[str]:
    """What the wrong answers and their sentences lack."""
    faults = []
    if len(bank) < FEWEST_MISTAKES:
        faults.append(f"it has {len(bank)} wrong answers: give at least {FEWEST_MISTAKES}")
    if len({wrong.message for wrong in bank}) < len(bank):
        faults.append("two wrong answers have the same sentence: each names its own mistake")
    if len({wrong.name for wrong in bank}) < len(bank):
        faults.append("two wrong answers have the same name: each has one of its own")
    for wrong in bank:
        if len(wrong.message) <= SHORTEST_MESSAGE:
            faults.append(f"the sentence of {wrong.name!r} is too short to teach: {wrong.message}")
    return faults


def _cases(exercise: Exercise) -> list:
    return list(exercise.cases(torch.Generator().manual_seed(0)))


def _unusable(exercise: Exercise) -> list[str]:
    """Why nothing can be compared: there are no inputs, or the reference cannot take them."""
    try:
        cases = _cases(exercise)
    except Exception as error:
        return [f"cases does not make its inputs: {_raised(error)}"]
    if len(cases) < 2:
        return ["cases yields fewer than two inputs: one can be right by chance"]
    for i, args in enumerate(cases, 1):
        fault = _unfit(exercise.reference, args)
        if fault:
            return [f"input {i} of cases {fault}"]
    return _unknown_parameters(exercise)


def _unfit(reference: Callable, args: Any) -> str:
    """Why the reference cannot be called with an input; empty where it can."""
    if not isinstance(args, tuple):
        return (
            f"is a {type(args).__name__}, not a tuple of arguments: of a single argument it is "
            "written with a comma, `yield x,`"
        )
    try:
        inspect.signature(reference).bind(*args)
    except TypeError as error:
        return f"does not fit the reference's parameters: {error}"
    try:
        reference(*copy.deepcopy(args))
    except Exception as error:
        return f"makes the reference fail: {_raised(error)}"
    try:
        pickle.dumps(args)
    except Exception as error:
        return (
            f"cannot be handed to another process, as grading does: {_raised(error)}. Put the "
            "functions and classes that it holds at the top of a module"
        )
    return ""


def _unknown_parameters(exercise: Exercise) -> list[str]:
    known = list(inspect.signature(exercise.reference).parameters)
    faults = []
    for field in ("gradient_of", "keywords", "defaults"):
        for name in getattr(exercise, field):
            if name not in known:
                faults.append(
                    f"{field} names {name!r}, and the reference has {', '.join(known)}: a name in "
                    f"parentheses needs a comma, {field}=({known[0]!r},)"
                )
    return faults


def _not_written(*args, **kwargs):
    raise NotImplementedError


def _misjudged(exercise: Exercise) -> list[str]:
    verdict = judge(exercise, exercise.reference)
    if verdict.status != "right":
        return [f"the reference itself is not accepted: {verdict.message}"]
    faults = []
    if judge(exercise, _not_written).status != "open":
        faults.append("a stub that raises NotImplementedError does not count as not attempted")
    for wrong in exercise.wrong:
        fault = _misnamed(exercise, wrong)
        if fault:
            faults.append(f"the wrong answer {wrong.name!r} {fault}")
    return faults


def _misnamed(exercise: Exercise, wrong: Wrong) -> str:
    """Why a wrong answer is not told its own sentence; empty where it is."""
    verdict = judge(exercise, wrong.function)
    if verdict.status == "open":
        return "raises NotImplementedError, as a stub does: let it return what the mistake gives"
    if verdict.status == "right":
        return "is right: add an input on which it gives something else than the reference"
    if verdict.message == wrong.message:
        return ""
    for other in exercise.wrong:
        if other.message == verdict.message:
            return (
                f"gives the same as {other.name!r} on every input: add one that tells them apart, "
                "or leave one of them out"
            )
    return f"is told another sentence than its own: {verdict.message}"


def _unsteady(exercise: Exercise) -> list[str]:
    """Whether the cases depend on anything but their generator. The process's own is left as it
    was.
    """
    made = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            cases = _cases(exercise)
        made.append([[value for value in case if isinstance(value, PLAIN)] for case in cases])
    if difference(made[0], made[1], 0.0) is not None:
        return ["the inputs change from call to call: draw them from the generator that cases gets"]
    return []


# --- its code in the notebook ---------------------------------------------------------------------
def _faults_of_stub(exercise: Exercise, notebook, usable: bool) -> list[str]:
    """Whether the stub can be run where an answer is graded, behind the set-up cell's imports
    alone, counts as not attempted, and has the reference's parameters.
    """
    places = stubs_of(exercise, notebook)
    if len(places) != 1:  # which is said already
        return []
    place = places[0]
    cell = notebook.cells[place]
    faults = []
    if len(cell.source.splitlines()) > LONGEST_CELL:
        faults.append(f"its stub has more than {LONGEST_CELL} lines: shorten it")
    space: dict[str, Any] = {}
    try:
        exec(definitions(setup_cell(notebook).source), space)
        exec(compile(cell.source, f"cell {place}", "exec"), space)
    except Exception as error:
        return [
            *faults,
            f"its stub, cell {place}, cannot be run: {_raised(error)}. It may use what the set-up "
            "cell imports, and nothing that other cells make",
        ]
    stub: Any = space.get(exercise.name)
    if not inspect.getdoc(stub):
        faults.append(f"its stub, cell {place}, has no docstring: say what is wanted")
    if usable and judge(exercise, stub).status != "open":
        faults.append(
            f"its stub, cell {place}, does not count as not attempted: end it with `raise "
            "NotImplementedError`"
        )
    return faults + _faults_of_parameters(exercise, stub, usable)


def _faults_of_parameters(exercise: Exercise, stub: Callable, usable: bool) -> list[str]:
    """Whether the stub has the reference's parameters, and the defaults that the lab relies on.
    What the reference has more of, for the library's own use, no case gives and has a default.
    """
    mine = _parameters(stub)
    wanted = _parameters(exercise.reference)
    given = max(len(args) for args in _cases(exercise)) if usable else 0
    needed = max(given, sum("=" not in text for text in wanted.values()))
    relied_on = [name for name in exercise.defaults if mine.get(name) != wanted.get(name)]
    if list(mine) == list(wanted)[: len(mine)] and len(mine) >= needed and not relied_on:
        return []
    return [
        f"its stub has the parameters ({', '.join(mine.values())}), the reference "
        f"({', '.join(wanted.values())})"
    ]


def _parameters(function: Callable) -> dict[str, str]:
    """A function's parameters by name, each as it is written: with its default."""
    parameters = inspect.signature(function).parameters
    return {name: str(p.replace(annotation=p.empty)) for name, p in parameters.items()}


# --- the second solution --------------------------------------------------------------------------
def _faults_of_second(exercise: Exercise, folder: Path, usable: bool) -> list[str]:
    """Whether a right answer that is not the reference is accepted."""
    files = defining_files(folder, exercise.name)
    if not files:
        return [f"it has no second solution: write it in {folder / exercise.name}.py"]
    path = files[0]
    if "ftlib" in _imported(path):
        return [f"its second solution, {path.name}, imports ftlib: write it without"]
    try:
        second = getattr(_module(path), exercise.name)
    except Exception as error:
        return [f"its second solution cannot be loaded: {_raised(error)}"]
    if inspect.getsource(second) == inspect.getsource(exercise.reference):
        return [f"its second solution, {path.name}, is the reference: write it another way"]
    verdict = judge(exercise, second) if usable else None
    if verdict and verdict.status != "right":
        return [f"its second solution, {path.name}, is not accepted: {verdict.message}"]
    return []


def _imported(path: Path) -> set[str]:
    """The packages that a file imports; none where it does not parse, which loading it will say."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError:
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def _module(path: Path):
    spec = importlib.util.spec_from_file_location(f"second_solution_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # of a file that ends in .py
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
