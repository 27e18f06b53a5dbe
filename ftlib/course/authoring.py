"""A new exercise from a template: its module, its place in the lab's list and in the catalogue, its
cells in the notebook, and a second solution for the tests. And what is asked of every exercise.
"""

from __future__ import annotations

import ast
import inspect
import keyword
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import torch

from ftlib.core.atomic import replacing_together
from ftlib.core.paths import ROOT
from ftlib.course.catalogue import MODULES, POINTS
from ftlib.course.exercise import Exercise, judge, load_lab

TEMPLATES = Path(__file__).parent / "templates"
FEWEST_MISTAKES = 3
FEWEST_HINTS = 2
SHORTEST_MESSAGE = 20  # characters of the sentence that names a mistake


class AuthoringError(ValueError):
    """An exercise cannot be written as asked; the message says what to change."""


# --- a new exercise -------------------------------------------------------------------------------
@dataclass(frozen=True)
class _New:
    """What the templates are filled with, and after which exercise it comes."""

    lab: str
    name: str
    title: str
    after: str

    @property
    def constant(self) -> str:
        return self.name.upper()

    def fill(self, template: str) -> str:
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        for field in ("lab", "name", "title", "constant"):
            text = text.replace(f"@{field.upper()}@", getattr(self, field))
        return text


def new_exercise(
    lab: str, name: str, title: str = "", after: str = "", root: Path = ROOT
) -> list[Path]:
    """Write a working exercise from the template into the checkout `root`, behind the exercise
    `after` (default: the lab's last); returns the files written or changed.

    All of them or none. AuthoringError for an unknown lab, a name that is taken or no lower-case
    identifier, an `after` that the lab does not have, and where this is no checkout.
    """
    new = _New(lab, name, title or name.replace("_", " "), after or _last(lab))
    _check(new)
    package = root / "ftlib" / "course" / MODULES[lab]
    notebook = _notebook_of(lab, root)
    texts = {
        package / f"{name}.py": new.fill("exercise.txt"),
        package / "exercises.py": _listed(new, package / "exercises.py"),
        package.parent / "catalogue.py": _catalogued(new, package.parent / "catalogue.py"),
        root / "tests" / "second_solutions" / f"{name}.py": new.fill("second_solution.txt"),
        notebook: _with_cells(new, notebook),
    }
    there = [path for path in (package / f"{name}.py",) if path.exists()]
    if there:
        raise AuthoringError(f"{there[0]} is there already: choose another name, or delete it")
    with replacing_together(*texts) as temporary:
        for path, text in zip(temporary, texts.values(), strict=True):
            path.write_text(text, encoding="utf-8")
    return list(texts)


def _last(lab: str) -> str:
    if lab not in POINTS:
        raise AuthoringError(f"lab {lab!r} is unknown: use one of {', '.join(MODULES)}")
    return list(POINTS[lab])[-1]


def _check(new: _New) -> None:
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", new.name) or keyword.iskeyword(new.name):
        raise AuthoringError(
            f"name={new.name!r}: the student's function has this name, so use lower-case letters, "
            "digits and _, such as margin_of_pairs"
        )
    for lab, points in POINTS.items():
        if new.name in points:
            raise AuthoringError(f"name={new.name!r} is an exercise of lab {lab}: choose another")
    if new.after not in POINTS[new.lab]:
        raise AuthoringError(
            f"after={new.after!r}: lab {new.lab} has the exercises {', '.join(POINTS[new.lab])}"
        )


def _notebook_of(lab: str, root: Path) -> Path:
    found = sorted((root / "labs").glob(f"lab-{lab}-*.ipynb"))
    if not found:
        raise AuthoringError(
            f"{root / 'labs'} has no notebook of lab {lab}: exercises are written in a checkout of "
            "the course (git clone), not in an installed package"
        )
    return found[0]


# --- the files that it is put into ----------------------------------------------------------------
def _listed(new: _New, path: Path) -> str:
    """The lab's exercises.py with the import and the item, behind that of `after`."""
    text = path.read_text(encoding="utf-8")
    exercises = load_lab(new.lab).exercises
    place = [exercise.name for exercise in exercises].index(new.after) + 1
    items = _items(text, path)
    last_import = max(
        node.end_lineno or 0 for node in ast.parse(text).body if isinstance(node, ast.ImportFrom)
    )
    lines = text.splitlines()
    lines.insert(items[place - 1], f"    {new.constant},")  # behind that line
    module = f"ftlib.course.{MODULES[new.lab]}.{new.name}"
    lines.insert(last_import, f"from {module} import {new.constant}")
    return _sorted_imports("\n".join(lines) + "\n")


def _items(text: str, path: Path) -> list[int]:
    """The last line of each item of EXERCISES, from 1."""
    for node in ast.parse(text).body:
        if not isinstance(node, ast.Assign) or ast.unparse(node.targets[0]) != "EXERCISES":
            continue
        if isinstance(node.value, ast.List):
            return [item.end_lineno or item.lineno for item in node.value.elts]
    raise AuthoringError(f"{path} has no list EXERCISES: write one item a line")


def _sorted_imports(text: str) -> str:
    """The imports from the lab's own modules in alphabetical order, as the linter wants them."""
    lines = text.splitlines()
    own = [i for i, line in enumerate(lines) if line.startswith("from ftlib.course.lab_")]
    whole = [i for i in own if not lines[i].endswith("(")]
    if len(whole) < len(own):  # an import over several lines stays where it is
        return text
    for i, line in zip(own, sorted(lines[i] for i in own), strict=True):
        lines[i] = line
    return "\n".join(lines) + "\n"


def _catalogued(new: _New, path: Path) -> str:
    """catalogue.py with the exercise's points, behind those of `after`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "POINTS":
            end = _end_of_points(node.value, new)
            lines.insert(end, f'        "{new.name}": 2,')
            return "\n".join(lines) + "\n"
    raise AuthoringError(f"{path} has no table POINTS")


def _end_of_points(table: ast.expr, new: _New) -> int:
    """The line of the points of `after`, from 1."""
    assert isinstance(table, ast.Dict)
    for key, value in zip(table.keys, table.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == new.lab and isinstance(value, ast.Dict):
            for name, points in zip(value.keys, value.values, strict=True):
                if isinstance(name, ast.Constant) and name.value == new.after:
                    return points.end_lineno or points.lineno
    raise AuthoringError(f"POINTS has no {new.after!r} of lab {new.lab}")


def _with_cells(new: _New, path: Path) -> str:
    """The notebook with a heading, the stub and the check, behind the check of `after`."""
    notebook = nbformat.read(path, as_version=4)
    place = None
    for i, cell in enumerate(notebook.cells):
        mark = cell.metadata.get("nbgrader", {})
        if mark.get("grade") and re.search(rf"^{new.after} = check\(", cell.source, re.M):
            place = i + 1
    if place is None:
        raise AuthoringError(f"{path} has no check cell of {new.after}: {new.after} = check(…)")
    notebook.cells[place:place] = _cells(new)
    return nbformat.writes(notebook) + "\n"


def _cells(new: _New) -> list:
    heading = f"### Exercise · {new.title.capitalize()} · 5 min · ●○○\n\nSay here what to write."
    stub = nbformat.v4.new_code_cell(
        new.fill("stub.txt").rstrip(), metadata=_mark(new.name, points=None)
    )
    check = nbformat.v4.new_code_cell(
        f"{new.name} = check({new.name})", metadata=_mark(f"check_{new.name}", points=2)
    )
    return [nbformat.v4.new_markdown_cell(heading), stub, check]


def _mark(grade_id: str, points: int | None) -> dict:
    """nbgrader's metadata of an answer's cell, or of a check's, which has points."""
    is_check = points is not None
    mark = {
        "grade": is_check,
        "grade_id": grade_id,
        "locked": is_check,
        "schema_version": 3,
        "solution": not is_check,
        "task": False,
    }
    if is_check:
        mark["points"] = points
    return {"nbgrader": mark}


# --- what is asked of an exercise -----------------------------------------------------------------
def faults_of(exercise: Exercise) -> list[str]:
    """What is missing or wrong in an exercise, a sentence each; empty for a sound one."""
    return [*_incomplete(exercise), *_misjudged(exercise), *_unsteady(exercise)]


def _incomplete(exercise: Exercise) -> list[str]:
    faults = []
    if len(exercise.wrong) < FEWEST_MISTAKES:
        faults.append(
            f"it has {len(exercise.wrong)} wrong answers: give at least {FEWEST_MISTAKES}"
        )
    if len(set(exercise.hints)) < FEWEST_HINTS:
        faults.append(f"it has {len(set(exercise.hints))} hints: give at least {FEWEST_HINTS}")
    if exercise.points <= 0 or exercise.minutes <= 0 or exercise.difficulty not in (1, 2, 3):
        faults.append("points and minutes must be above 0, the difficulty 1, 2 or 3")
    if len({wrong.message for wrong in exercise.wrong}) < len(exercise.wrong):
        faults.append("two wrong answers have the same sentence: each names its own mistake")
    for wrong in exercise.wrong:
        if len(wrong.message) <= SHORTEST_MESSAGE:
            faults.append(f"the sentence of {wrong.name!r} is too short to teach: {wrong.message}")
    if getattr(exercise.reference, "__name__", "<lambda>") == "<lambda>":
        faults.append("the reference is no function with a name: solution() could not show it")
    if len(list(exercise.cases(torch.Generator().manual_seed(0)))) < 2:
        faults.append("cases yields fewer than two inputs: one can be right by chance")
    return faults


def _not_written(*args, **kwargs):
    raise NotImplementedError


def _misjudged(exercise: Exercise) -> list[str]:
    faults = []
    verdict = judge(exercise, exercise.reference)
    if verdict.status != "right":
        faults.append(f"the reference is not right: {verdict.message}")
    if judge(exercise, _not_written).status != "open":
        faults.append("the unwritten stub is not called open")
    for wrong in exercise.wrong:
        verdict = judge(exercise, wrong.function)
        if verdict.status != "wrong":
            faults.append(f"the wrong answer {wrong.name!r} is {verdict.status}: change the cases")
        elif verdict.message != wrong.message:
            faults.append(
                f"the wrong answer {wrong.name!r} is told another sentence: {verdict.message}"
            )
    return faults


def _unsteady(exercise: Exercise) -> list[str]:
    """Whether the cases depend on anything but their generator."""
    shown = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        cases = list(exercise.cases(torch.Generator().manual_seed(0)))
        shown.append(repr([[value for value in case if _is_plain(value)] for case in cases]))
    if shown[0] != shown[1]:
        return ["the cases change from call to call: draw from the generator that is handed in"]
    return []


def _is_plain(value) -> bool:
    return isinstance(value, (torch.Tensor, int, float, str, list, dict, tuple, type(None)))


def check_exercise(lab: str, name: str) -> list[str]:
    """The faults of a lab's exercise, and of its cells in the notebook. ValueError for a name that
    the lab does not have.
    """
    exercise = load_lab(lab).find(name)
    faults = faults_of(exercise)
    notebook = nbformat.read(_notebook_of(lab, ROOT), as_version=4)
    points = None
    has_stub = False
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        if mark.get("grade") and f"{name} = check({name})" in cell.source:
            points = mark.get("points")
        if mark.get("solution") and re.search(rf"^def {name}\(", cell.source, re.M):
            has_stub = "raise NotImplementedError" in cell.source and '"""' in cell.source
    if not has_stub:
        faults.append(
            f"the notebook has no stub of it: def {name}(…), with a docstring and "
            "`raise NotImplementedError`"
        )
    if points is None:
        faults.append(f"the notebook has no check cell of it: {name} = check({name})")
    elif points != exercise.points:
        faults.append(f"its check cell has {points} points, the exercise {exercise.points}")
    if POINTS[lab].get(name) != exercise.points:
        faults.append(f"ftlib/course/catalogue.py does not give it {exercise.points} points")
    return faults


def describe(exercise: Exercise) -> str:
    """What an exercise holds, in a line."""
    parameters = ", ".join(inspect.signature(exercise.reference).parameters)
    return (
        f"{exercise.name}({parameters}): {exercise.points} points, {len(exercise.wrong)} wrong "
        f"answers, {len(exercise.hints)} hints"
    )
