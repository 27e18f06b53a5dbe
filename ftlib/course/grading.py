"""Grade what a class hands in: points by exercise, and why points are missing.

A whole lab trains for minutes. Its checks need only the set-up cell and the student's answers, so
that is what is graded: the locked checks, their points and the set-up come from the source
notebook, the answers from the submission. nbgrader's metadata says which cells those are; its
autograde is not asked, because it gives up on a whole submission when its kernel dies. The cells
run through `ftlib.course.sandbox`: one that loops or ends its process costs only its own points.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_notebook
from tqdm import tqdm

from ftlib.core.atomic import replacing
from ftlib.course import catalogue
from ftlib.course.catalogue import exercise_module, lab_files
from ftlib.course.notebooks import left_out, title
from ftlib.course.sandbox import CONTEXT, PRELOAD, Step, run_steps

LIMIT = 20.0  # seconds a cell
BIGGEST = 20_000_000  # bytes of a submitted notebook
COLUMNS = ("student", "lab", "total", "max", "submission", "reason")
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
CHECKED = re.compile(r"^(\w+) = check\(\1\)$", re.M)


class GradingError(ValueError):
    """Grading cannot begin or go on; the message says why."""


# --- what of a lab is graded ----------------------------------------------------------------------
def _mark(cell) -> dict:
    mark = cell.get("metadata", {}).get("nbgrader", {})
    return mark if isinstance(mark, dict) else {}


def _checked_name(cell) -> str:
    """The exercise that a cell checks; empty for a cell that checks none."""
    found = CHECKED.search(cell.source)
    return found[1] if found and _mark(cell).get("grade") else ""


def setup_cell(source):
    """The cell of a lab that calls `open_lab`."""
    for cell in source.cells:
        if cell.cell_type == "code" and "open_lab(" in cell.source:
            return cell
    raise GradingError(f"{title(source)!r} has no cell that calls open_lab(…)")


def _only_defines(node: ast.stmt) -> bool:
    """Whether a statement is an import, a function, a class, or an assignment without a call."""
    if isinstance(node, DEFINITIONS):
        return True
    if not isinstance(node, (ast.Assign, ast.AnnAssign)):
        return False
    return not any(isinstance(part, (ast.Call, ast.Await)) for part in ast.walk(node))


def definitions(text: str) -> str:
    """Of a cell, what only defines: imports, functions, classes, and assignments without a call.
    SyntaxError if it does not parse.
    """
    body = ast.parse(TransformerManager().transform_cell(text)).body
    return "\n\n".join(ast.unparse(node) for node in body if _only_defines(node))


def _submitted(notebook, source) -> tuple[dict, dict, list[str]]:
    """(answers, helpers, notes): the answer cells by id; the student's own definitions by the id of
    the graded cell that they come before. Cells that are the source's own are left out: they train.
    """
    known = {_mark(c)["grade_id"] for c in source.cells if _mark(c)}
    given = {c.source for c in source.cells}
    answers: dict[str, str] = {}
    helpers: dict[str, list[str]] = {}
    notes: list[str] = []
    waiting: list[str] = []
    for cell in notebook.cells:
        identity = _mark(cell).get("grade_id", "")
        text = cell.get("source", "")
        if identity in known:
            if identity in answers:
                notes.append(f"{identity}: the cell is there twice, the last one counts")
            helpers.setdefault(identity, []).extend(waiting)
            answers[identity] = text
            waiting = []
        elif cell.get("cell_type") == "code" and text not in given:
            try:
                own = definitions(text)
            except (SyntaxError, ValueError, RecursionError):
                notes.append(
                    "a cell of the student's own does not parse and was left out: "
                    f"{text.strip()[:40]!r}"
                )
                continue
            if own:
                waiting.append(own)
    return answers, helpers, notes


def compose(notebook, source) -> tuple:
    """(notebook to grade, notes): the source's set-up cell and checks, with the answers and
    definitions of the submission.
    """
    answers, helpers, notes = _submitted(notebook, source)
    cells = [new_code_cell(setup_cell(source).source)]
    for cell in source.cells:
        identity = _mark(cell).get("grade_id")
        if not identity:
            continue
        cells += [new_code_cell(text) for text in helpers.get(identity, ())]
        fresh = new_code_cell(cell.source, metadata={"nbgrader": dict(_mark(cell))})
        is_answer = bool(_mark(cell).get("solution"))
        if is_answer:
            fresh.source = answers.get(identity, "")
        if identity not in answers:
            kind = "answer" if is_answer else "check"
            notes.append(f"the {kind} cell {identity} is missing")
        elif not is_answer and answers[identity] != cell.source:
            notes.append(f"the check cell {identity} was edited: the source's was run")
        cells.append(fresh)
    return new_notebook(cells=cells, metadata=source.metadata), notes


def read_submission(path: Path):
    """The submitted notebook; GradingError if it cannot be one."""
    try:
        if path.stat().st_size > BIGGEST:
            raise GradingError(
                f"{path.stat().st_size / 1e6:.0f} MB, more than {BIGGEST / 1e6:.0f}: clear its "
                "outputs"
            )
        return nbformat.read(path, as_version=4)
    except GradingError:
        raise
    except Exception as error:  # nbformat lets through what its readers and converters raise
        raise GradingError(
            f"not a readable notebook ({type(error).__name__}: {str(error)[:100]})"
        ) from None


# --- submissions and marks ------------------------------------------------------------------------
@dataclass
class Row:
    """What the CSV says of one student's lab: points an exercise, and why points are missing."""

    student: str
    lab: str
    maximum: dict[str, float]
    points: dict[str, float] = field(default_factory=dict)
    submission: str = ""
    reason: str = ""

    def cells(self) -> dict[str, str]:
        marks = {f"{self.lab} {name}": f"{self.points.get(name, 0):g}" for name in self.maximum}
        return {
            "student": self.student,
            "lab": self.lab,
            "total": f"{sum(self.points.values()):g}",
            "max": f"{sum(self.maximum.values()):g}",
            "submission": self.submission,
            "reason": self.reason,
            **marks,
        }


def number(path: Path) -> str:
    found = re.match(r"lab-(\d+\.\d+\.\d+)", path.name)
    return found[1] if found else ""


def find_submissions(folder) -> dict[str, dict[str, list[Path]]]:
    """{student: {lab number: notebooks}} of a folder with one folder a student, or of a course
    folder with `submitted/` in it. A notebook belongs to the lab whose number begins its name;
    several of a lab come with the latest first.
    """
    folder = Path(folder)
    if (folder / "submitted").is_dir():
        folder = folder / "submitted"
    if not folder.is_dir():
        raise GradingError(
            f"{folder} is not a folder: name the one that has a folder for each student"
        )
    found = {}
    for student in sorted(folder.iterdir()):
        if not student.is_dir() or student.name.startswith("."):
            continue
        by_lab: dict[str, list[Path]] = {}
        for path in sorted(_visible_notebooks(student), key=_latest_first):
            by_lab.setdefault(number(path), []).append(path)
        found[student.name] = by_lab
    if not found:
        raise GradingError(f"{folder} has no folder of a student")
    return found


def _visible_notebooks(folder: Path) -> list[Path]:
    """The labs' notebooks below a folder, none of them hidden or in a hidden folder."""
    notebooks = []
    for path in folder.rglob("lab-*.ipynb"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            notebooks.append(path)
    return notebooks


def _latest_first(path: Path) -> tuple[int, str]:
    return -path.stat().st_mtime_ns, str(path)


class Grader:
    """Grades notebooks of some labs, one at a time."""

    def __init__(self, files: list[Path], limit: float = LIMIT):
        self.limit = limit
        self.sources = {p.stem: nbformat.read(p, as_version=4) for p in files}
        modules = set()
        for path in files:
            modules |= _imports(setup_cell(self.sources[path.stem]).source)
            if number(path) in catalogue.MODULES:
                modules.add(exercise_module(number(path)))
        CONTEXT.set_forkserver_preload([*PRELOAD, *sorted(modules)])

    def maximum(self, path: Path) -> dict[str, float]:
        """Points by exercise, as the source notebook has them."""
        return {
            _checked_name(cell): float(_mark(cell)["points"])
            for cell in self.sources[path.stem].cells
            if _mark(cell).get("grade")
        }

    def grade(self, lab: Path, student: str, notebooks: list[Path]) -> Row:
        """The row of one submission. Nothing that the submission holds stops the class; SetupError
        is the machine's.
        """
        row = Row(student, number(lab), self.maximum(lab))
        if not notebooks:
            row.reason = "not handed in"
            return row
        row.submission = digest(notebooks)
        try:
            notebook, notes = compose(read_submission(notebooks[0]), self.sources[lab.stem])
        except GradingError as error:
            row.reason = str(error)
            return row
        if len(notebooks) > 1:
            several = f"{len(notebooks)} notebooks of this lab, the latest was graded: "
            notes.insert(0, several + notebooks[0].name)
        row.points, lost = self._score(notebook, row.maximum)
        notes += [f"{name}: {why}" for name, why in lost.items()]
        row.reason = "; ".join(notes)
        return row

    def _score(self, notebook, maximum: dict[str, float]) -> tuple[dict, dict]:
        """(points, reasons) by exercise: all of its points where its check runs through, and what
        the check said where it does not.
        """
        setup, *cells = notebook.cells
        steps = [Step(cell.source, _checked_name(cell)) for cell in cells]
        outcomes = run_steps(setup.source, steps, self.limit)
        points = {}
        reasons = {}
        for step, wrong in zip(steps, outcomes, strict=True):
            name = step.check
            if not name:
                continue
            points[name] = 0.0 if wrong else maximum[name]
            if wrong:
                reasons[name] = re.sub(rf"^[✗○] {name}: ", "", " ".join(wrong.split()))
        return points, reasons


def _imports(text: str) -> set[str]:
    """Modules that a cell imports: what the server loads before it forks."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return modules


def digest(notebooks: list[Path]) -> str:
    """Short name of what was handed in: it changes when a file does."""
    whole = hashlib.sha256()
    for path in notebooks:
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:12]


def read_marks(path: Path) -> dict[tuple[str, str], dict]:
    """Rows of an earlier run by (student, lab); empty if there was none."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ())[: len(COLUMNS)] != COLUMNS:
            raise GradingError(f"{path} is no CSV of marks: name another file")
        return {(row["student"], row["lab"]): row for row in rows}


def write_marks(path: Path, rows: list[dict]) -> None:
    columns = list(COLUMNS)
    for row in rows:
        columns += [key for key in row if key not in columns]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def grade_class(
    submissions, marks, which: list[str] | None = None, limit: float = LIMIT
) -> list[dict]:
    """Grade a class: one row a student and lab in the CSV `marks`, written after each submission;
    returns the rows.

    Labs are those in `which`, or all that somebody handed in; who handed in nothing gets 0. Rows of
    an earlier run whose submission has not changed are kept, so an interrupted run goes on.
    ValueErrors: no submissions, an unknown lab, a set-up that fails here.
    """
    marks = Path(marks)
    found = find_submissions(submissions)
    before = read_marks(marks)
    files = _labs_to_grade(found, which)
    if not files:
        raise GradingError(
            f"no notebook of a lab in {submissions}: their names begin with lab-3.1.1 and so on"
        )
    reasons = [reason for path in files if (reason := left_out(path))]
    if reasons:
        raise GradingError("; ".join(reasons))
    rows = dict(before)
    work = tqdm([(lab, student) for student in found for lab in files], unit="submission")
    grader = Grader(files, limit)
    for lab, student in work:
        work.set_postfix_str(f"{student}, {number(lab)}")
        notebooks = found[student].get(number(lab), [])
        key = (student, number(lab))
        if not notebooks or before.get(key, {}).get("submission") != digest(notebooks):
            rows[key] = grader.grade(lab, student, notebooks).cells()
            write_marks(marks, list(rows.values()))
    return list(rows.values())


def _labs_to_grade(found: dict[str, dict[str, list[Path]]], which: list[str] | None) -> list[Path]:
    """The labs in `which`, or all that somebody handed in."""
    if which:
        return lab_files(which)
    handed_in = set().union(*found.values())
    return [path for path in lab_files() if number(path) in handed_in]
