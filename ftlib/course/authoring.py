"""A new exercise from a template: its module, its place in the lab's list and in the catalogue, its
cells in the notebook, and a second solution for the tests.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat

from ftlib.core.atomic import replacing_together
from ftlib.core.paths import ROOT
from ftlib.course.answers import UNREADABLE, bound_names, checked_name, setup_cell, statements
from ftlib.course.catalogue import MODULES, is_extension

TEMPLATES = Path(__file__).parent / "templates"
POINTS_OF_TEMPLATE = 2
LONGEST_NAME = 30  # characters: the import of the exercise fits into a line
LONGEST_TITLE = 50
HEADING = re.compile(r"(#{1,6}) +(.+?)\s*")


class AuthoringError(ValueError):
    """An exercise cannot be written or read as asked; the message says what to change."""


@dataclass(frozen=True)
class _New:
    """What the templates are filled with, and where it goes: behind how many of the lab's
    exercises, and before which of the notebook's cells. Only behind the last one it has a number,
    since the numbers of those behind it, and what the text says of them, stay.
    """

    lab: str
    name: str
    title: str
    constant: str
    order: int
    cell: int
    number: int | None

    def fill(self, template: str) -> str:
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        number = "" if self.number is None else f" {self.number}"
        for mark, value in {
            "@LAB@": self.lab,
            "@NAME@": self.name,
            "@TITLE@": self.title,
            "@CONSTANT@": self.constant,
            "@POINTS@": str(POINTS_OF_TEMPLATE),
            "@NUMBER@": number,
        }.items():
            text = text.replace(mark, value)
        return text.rstrip() + "\n"


def new_exercise(
    lab: str, name: str, title: str = "", after: str = "", root: Path = ROOT
) -> list[Path]:
    """Write a working exercise from the template into the checkout `root`; returns the files
    written or changed, all of them or none.

    Its cells come behind the check of the lab's last exercise. `after` names another place: an
    exercise, behind its check, or a heading of the notebook, at the end of its section.

    AuthoringError for an unknown lab, a name that is taken or no lower-case identifier, a title
    that does not fit into a line, an `after` that the notebook does not have, where this is no
    checkout, and where it cannot be written.
    """
    package = root / "ftlib" / "course" / _package(lab)
    notebook_path = notebook_of(lab, root)
    notebook = nbformat.read(notebook_path, as_version=4)
    points = _points(package.parent / "catalogue.py")
    _check_name(name, points, notebook)
    _check_files(name, package, second_solutions(root))
    title = _one_line(title or name.replace("_", " "))
    cell = _place(notebook, after)
    order = _exercises_before(notebook, cell, list(points[lab]))
    listed = (package / "exercises.py").read_text(encoding="utf-8")
    constant = _free_constant(name, listed)
    is_last = not any(checked_name(later) for later in notebook.cells[cell:])
    number = len(points[lab]) + 1 if is_last else None
    new = _New(lab, name, title, constant, order, cell, number)
    texts = {
        package / f"{name}.py": new.fill("exercise.txt"),
        package / "exercises.py": _listed(new, listed, package / "exercises.py"),
        package.parent / "catalogue.py": _catalogued(new, package.parent / "catalogue.py"),
        second_solutions(root) / f"{name}.py": new.fill("second_solution.txt"),
        notebook_path: _with_cells(new, notebook),
    }
    _write(texts)
    return list(texts)


def _write(texts: dict[Path, str]) -> None:
    try:
        with replacing_together(*texts) as temporary:
            for path, text in zip(temporary, texts.values(), strict=True):
                path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AuthoringError(
            f"{error.filename} cannot be written ({error.strerror}); nothing has been changed. "
            "Write exercises in a checkout of the course that belongs to you, on a disk that is "
            "neither full nor read-only"
        ) from error


# --- the checkout ---------------------------------------------------------------------------------
def _package(lab: str) -> str:
    if lab not in MODULES:
        raise AuthoringError(f"lab {lab!r} is unknown: use one of {', '.join(MODULES)}")
    return MODULES[lab]


def notebook_of(lab: str, root: Path = ROOT) -> Path:
    """The notebook of a lab in the checkout `root`; AuthoringError where there is none."""
    folder = root / "labs" / "extensions" if is_extension(lab) else root / "labs"
    found = sorted(folder.glob(f"lab-{lab}-*.ipynb"))
    if not found:
        raise AuthoringError(
            f"{folder} has no notebook of lab {lab}: exercises are written in a checkout of "
            "the course (git clone), not in an installed package"
        )
    return found[0]


def second_solutions(root: Path = ROOT) -> Path:
    """The folder of the second solutions; AuthoringError where there is none."""
    folder = root / "tests" / "second_solutions"
    if not folder.is_dir():
        raise AuthoringError(
            f"{folder} is no folder: exercises are written in a checkout of the course (git "
            "clone), with its tests"
        )
    return folder


def defining_files(folder: Path, name: str) -> list[Path]:
    """The Python files of a folder that define a function `name`."""
    begin = re.compile(rf"^def {re.escape(name)}\(", re.M)
    files = sorted(folder.glob("*.py"))
    return [path for path in files if begin.search(path.read_text(encoding="utf-8"))]


# --- the name, the title --------------------------------------------------------------------------
def _check_name(name: str, points: dict[str, dict], notebook) -> None:
    fits = re.fullmatch(r"[a-z][a-z0-9_]*", name) and len(name) <= LONGEST_NAME
    if not fits or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise AuthoringError(
            f"name={name!r}: the student's function has this name, so use a letter, then "
            f"lower-case letters, digits and _, {LONGEST_NAME} at most, and no word of Python's: "
            "margin_of_pairs"
        )
    if hasattr(builtins, name):
        raise AuthoringError(f"name={name!r} is a function of Python's: choose another name")
    for lab, exercises in points.items():
        if name in exercises:
            raise AuthoringError(
                f"name={name!r} is an exercise of lab {lab} already: choose another name"
            )
    for i, cell in enumerate(notebook.cells):
        if name in _names_of(cell):
            raise AuthoringError(
                f"name={name!r}: cell {i} of the notebook gives this name to something else, so "
                "choose another"
            )


def _names_of(cell) -> set[str]:
    """The names that a cell of the notebook binds."""
    if cell.cell_type != "code":
        return set()
    try:
        body = statements(cell.source)
    except UNREADABLE:
        return set()
    names: set[str] = set()
    for node in body:
        names |= bound_names(node)
    return names


def _check_files(name: str, package: Path, solutions: Path) -> None:
    taken = [package / f"{name}.py", package / name, solutions / f"{name}.py"]
    there = [path for path in taken if path.exists()] + defining_files(solutions, name)
    if there:
        raise AuthoringError(f"{there[0]} has this name already: choose another, or remove it")


def _one_line(title: str) -> str:
    """The title with a capital letter. It is written between quotes, into lines of 100 columns."""
    title = title.strip()
    if len(title) > LONGEST_TITLE or not title.isprintable() or set(title) & {'"', "\\"}:
        raise AuthoringError(
            f'title={title!r}: use one line of at most {LONGEST_TITLE} characters, without " and \\'
        )
    return title[:1].upper() + title[1:]


def _free_constant(name: str, listed: str) -> str:
    """LOSS for `loss`, or LOSS_EXERCISE where the lab's list has a LOSS already."""
    constant = name.upper()
    return f"{constant}_EXERCISE" if re.search(rf"\b{constant}\b", listed) else constant


# --- its place ------------------------------------------------------------------------------------
def headings(cell) -> list[tuple[int, str]]:
    """(level, text) of each heading in a text cell; lines of code blocks are none."""
    if cell.cell_type != "markdown":
        return []
    found = []
    in_code = False
    for line in cell.source.splitlines():
        if line.startswith("```"):
            in_code = not in_code
        match = HEADING.fullmatch(line)
        if match and not in_code:
            found.append((len(match[1]), match[2]))
    return found


def _place(notebook, after: str) -> int:
    """The index of the cell before which the new ones go."""
    checks = {checked_name(cell): i for i, cell in enumerate(notebook.cells) if checked_name(cell)}
    if not after:
        return 1 + max(checks.values(), default=len(notebook.cells) - 1)
    if after in checks:
        return checks[after] + 1
    start, level = _heading(notebook, after, list(checks))
    end = start + 1
    while end < len(notebook.cells) and not _begins(notebook.cells[end], level):
        end += 1
    setup = notebook.cells.index(setup_cell(notebook))
    if end <= setup:
        raise AuthoringError(
            f"after={after!r}: this section ends before the set-up cell, cell {setup}, which "
            "imports what an answer needs: choose a later heading"
        )
    return end


def _begins(cell, level: int) -> bool:
    """Whether a section of this level, or of one above it, begins in the cell."""
    return any(found <= level for found, _ in headings(cell))


def _heading(notebook, words: str, exercises: list[str]) -> tuple[int, int]:
    """(cell, level) of the one heading that is `words`, or else has them in it."""
    everything: list[tuple[int, int, str]] = []
    for i, cell in enumerate(notebook.cells):
        everything += [(i, level, text) for level, text in headings(cell)]
    wanted = words.lstrip("# ").lower()
    equal = [found for found in everything if found[2].lower() == wanted]
    within = equal or [found for found in everything if wanted in found[2].lower()]
    if len(within) == 1:
        return within[0][:2]
    shown = "\n    ".join(text for _, _, text in within or everything)
    said = "several headings have these words" if within else "the notebook has no such heading"
    raise AuthoringError(
        f"after={words!r}: {said}, and no exercise this name. Name an exercise "
        f"({', '.join(exercises)}), or one of:\n    {shown}"
    )


def _exercises_before(notebook, cell: int, names: list[str]) -> int:
    """Behind how many of the lab's list the exercise goes: behind all that are checked before."""
    before = {checked_name(earlier) for earlier in notebook.cells[:cell]}
    return 1 + max((i for i, name in enumerate(names) if name in before), default=-1)


# --- the files that it is put into ----------------------------------------------------------------
def _value_of(name: str, text: str, path: Path) -> ast.expr:
    """What a module assigns to a name."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return node.value
    raise AuthoringError(f"{path} has no {name} = …")


def _points(path: Path) -> dict[str, dict[str, int]]:
    return ast.literal_eval(_value_of("POINTS", path.read_text(encoding="utf-8"), path))


def _insert(text: str, line: str, items: list[ast.expr], place: int, path: Path) -> str:
    """The text with a line of its own behind the first `place` of these items."""
    if not items:
        raise AuthoringError(f"{path} lists no exercise of this lab: write one by hand first")
    behind = items[place - 1].end_lineno if place else items[0].lineno - 1
    assert behind is not None  # of a tree that was parsed from text
    lines = text.splitlines()
    lines.insert(behind, line)
    return "\n".join(lines) + "\n"


def _listed(new: _New, text: str, path: Path) -> str:
    """The lab's exercises.py with the item in its place, and the import."""
    value = _value_of("EXERCISES", text, path)
    if not isinstance(value, ast.List):
        raise AuthoringError(
            f"{path}: EXERCISES is no list: write `EXERCISES = […]`, an item a line"
        )
    text = _insert(text, f"    {new.constant},", value.elts, new.order, path)
    last_import = max(
        node.end_lineno or 0 for node in ast.parse(text).body if isinstance(node, ast.ImportFrom)
    )
    lines = text.splitlines()
    module = f"ftlib.course.{MODULES[new.lab]}.{new.name}"
    lines.insert(last_import, f"from {module} import {new.constant}")
    return "\n".join(_sorted_imports(lines)) + "\n"


def _sorted_imports(lines: list[str]) -> list[str]:
    """The imports from the lab's own modules in alphabetical order, as the linter wants them."""
    own = [i for i, line in enumerate(lines) if line.startswith("from ftlib.course.lab_")]
    if any(lines[i].endswith("(") for i in own):  # an import over several lines stays where it is
        return lines
    in_order = list(lines)
    for i, line in zip(own, sorted(lines[i] for i in own), strict=True):
        in_order[i] = line
    return in_order


def _catalogued(new: _New, path: Path) -> str:
    """catalogue.py with the exercise's points in their place."""
    text = path.read_text(encoding="utf-8")
    line = f'        "{new.name}": {POINTS_OF_TEMPLATE},'
    return _insert(text, line, list(_points_of(new.lab, text, path)), new.order, path)


def _points_of(lab: str, text: str, path: Path) -> Iterator[ast.expr]:
    """The points in the lab's row of POINTS, as parts of the tree."""
    table = _value_of("POINTS", text, path)
    assert isinstance(table, ast.Dict)  # it has been read as one
    for key, row in zip(table.keys, table.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == lab and isinstance(row, ast.Dict):
            yield from row.values


def _with_cells(new: _New, notebook) -> str:
    """The notebook with a heading, the stub and the check."""
    notebook.cells[new.cell : new.cell] = _cells(new)
    return nbformat.writes(notebook) + "\n"


def _cells(new: _New) -> list:
    heading = nbformat.v4.new_markdown_cell(new.fill("heading.txt").rstrip())
    stub = nbformat.v4.new_code_cell(new.fill("stub.txt").rstrip(), metadata=_mark(new.name))
    check = nbformat.v4.new_code_cell(
        f"{new.name} = check({new.name})", metadata=_mark(f"check_{new.name}", POINTS_OF_TEMPLATE)
    )
    return [heading, stub, check]


def _mark(grade_id: str, points: int | None = None) -> dict:
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
