"""Release the labs to a class and grade what comes back, with nbgrader's machinery: its assignment,
its autograde, its gradebook.

A whole lab trains for minutes. Its checks need only the set-up cell and the student's answers, so
that is what is graded: the locked checks, their points and the set-up come from the source
notebook, the answers from the submission. The cells run through `ftlib.course.sandbox` instead of
nbgrader's kernel, because nbgrader gives up on a whole submission when its kernel dies.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbgrader.api import Gradebook
from nbgrader.apps.api import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearOutput,
    ComputeChecksums,
    LockCells,
    NbGraderPreprocessor,
    SaveAutoGrades,
    SaveCells,
)
from tqdm import tqdm
from traitlets import Float
from traitlets.config import Config

from ftlib.core.atomic import replacing
from ftlib.course import catalogue
from ftlib.course import notebooks as labs
from ftlib.course import sandbox as forked
from ftlib.course.exercise import exercise_module
from ftlib.course.sandbox import Step, run_steps

LIMIT = 20.0  # seconds a cell
BIGGEST = 20_000_000  # bytes of a submitted notebook
COLUMNS = ("student", "lab", "total", "max", "submission", "reason")
CHECKED = re.compile(r"^(\w+) = check\(\1\)$", re.M)


class GradingError(ValueError):
    """Grading cannot begin or go on; the message says why."""


# --- what of a lab is graded ----------------------------------------------------------------------
def _mark(cell) -> dict:
    mark = cell.get("metadata", {}).get("nbgrader", {})
    return mark if isinstance(mark, dict) else {}


def setup_cell(source):
    """The cell of a lab that calls `open_lab`."""
    for cell in source.cells:
        if cell.cell_type == "code" and "open_lab(" in cell.source:
            return cell
    raise GradingError(f"{labs.title(source)!r} has no cell that calls open_lab(…)")


def definitions(text: str) -> str:
    """Of a cell, what only defines: imports, functions, classes, and assignments without a call.
    SyntaxError if it does not parse.
    """
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    body = ast.parse(TransformerManager().transform_cell(text)).body
    return "\n\n".join(
        ast.unparse(node)
        for node in body
        if isinstance(node, kept)
        or (
            isinstance(node, (ast.Assign, ast.AnnAssign))
            and not any(isinstance(part, (ast.Call, ast.Await)) for part in ast.walk(node))
        )
    )


def _submitted(notebook, source) -> tuple[dict, dict, list[str]]:
    """(answers, helpers, notes): the answer cells by id; the student's own definitions by the id of
    the graded cell that they come before. Cells that are the source's own are left out: they train.
    """
    known, given = (
        {_mark(c)["grade_id"] for c in source.cells if _mark(c)},
        {c.source for c in source.cells},
    )
    answers, helpers, notes, waiting = {}, {}, [], []
    for cell in notebook.cells:
        identity, text = _mark(cell).get("grade_id"), cell.get("source", "")
        if identity in known:
            if identity in answers:
                notes.append(f"{identity}: the cell is there twice, the last one counts")
            helpers.setdefault(identity, []).extend(waiting)
            answers[identity], waiting = text, []
        elif cell.get("cell_type") == "code" and text not in given:
            try:
                waiting += [own] if (own := definitions(text)) else []
            except (SyntaxError, ValueError, RecursionError):
                notes.append(
                    "a cell of the student's own does not parse and was left out: "
                    f"{text.strip()[:40]!r}"
                )
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
        if _mark(cell).get("solution"):
            fresh.source = answers.get(identity, "")
        what = "answer" if _mark(cell).get("solution") else "check"
        if identity not in answers:
            notes.append(f"the {what} cell {identity} is missing")
        elif what == "check" and answers[identity] != cell.source:
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


# --- nbgrader's course ----------------------------------------------------------------------------
class RunChecks(NbGraderPreprocessor):
    """In the place of nbgrader's Execute: the same errors under the same cells, and a cell that
    loops or ends its process costs only its own points.
    """

    limit = Float(LIMIT, help="Seconds that one cell may take.").tag(config=True)

    def preprocess(self, nb, resources):
        setup, *cells = nb.cells
        steps = [
            Step(c.source, CHECKED.search(c.source)[1] if _mark(c).get("grade") else "")
            for c in cells
        ]
        for cell, wrong in zip(cells, run_steps(setup.source, steps, self.limit)):
            cell.outputs = (
                [new_output("error", ename="Grade", evalue=wrong, traceback=[wrong])]
                if wrong
                else []
            )
        return nb, resources


def course_config(root: Path, limit: float = LIMIT) -> Config:
    """nbgrader's settings. Its ClearSolutions would put its own stub in the place of the labs', so
    it is left out.
    """
    config = Config()
    config.CourseDirectory.root = str(root)
    config.GenerateAssignment.preprocessors = [
        LockCells,
        ClearOutput,
        CheckCellMetadata,
        ComputeChecksums,
        SaveCells,
    ]
    config.Autograde.autograde_preprocessors = [RunChecks, SaveAutoGrades]
    config.RunChecks.limit = limit
    return config


def open_course(root: Path, files: list[Path], limit: float = LIMIT) -> NbGraderAPI:
    """A course folder with each lab as an assignment: its source, its released notebook and its
    entry in the gradebook.
    """
    config = course_config(root, limit)
    course = NbGraderAPI(CourseDirectory(config=config), config=config, log_level="ERROR")
    # nbgrader calls alembic by its name, and its own setenv leaves the process without a PATH.
    with patch.dict(
        os.environ,
        PATH=os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        ),
    ):
        for path in files:
            folder = root / "source" / path.stem
            folder.mkdir(parents=True)
            shutil.copy(path, folder)
            _succeed(course.generate_assignment(path.stem), path.name)
    return course


def _succeed(result: dict, what: str) -> None:
    if not result["success"]:
        raise GradingError(
            f"nbgrader could not take {what}: "
            f"{result.get('log', '').strip()}\n{result.get('error', '')}"
        )


def release(output, which: list[str] | None = None) -> list[Path]:
    """Write the labs (all, or those whose numbers are in `which`) for students: outputs stripped,
    stubs kept, checks locked.
    """
    output, files = Path(output), labs.lab_files(which)
    if output.exists() and output.samefile(catalogue.LABS):
        raise GradingError(f"{output} holds the labs' sources: release them to another folder")
    with tempfile.TemporaryDirectory(prefix="ftlib-course-") as root:
        open_course(Path(root), files)
        for path in files:
            with replacing(output / path.name) as temporary:
                shutil.copyfile(Path(root, "release", path.stem, path.name), temporary)
    return [output / path.name for path in files]


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
    folder = folder / "submitted" if (folder / "submitted").is_dir() else folder
    if not folder.is_dir():
        raise GradingError(
            f"{folder} is not a folder: name the one that has a folder for each student"
        )
    found = {}
    for student in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        mine = found[student.name] = {}
        notebooks = [
            p
            for p in student.rglob("lab-*.ipynb")
            if p.is_file() and not any(x.startswith(".") for x in p.relative_to(student).parts)
        ]
        for path in sorted(notebooks, key=lambda p: (-p.stat().st_mtime_ns, str(p))):
            mine.setdefault(number(path), []).append(path)
    if not found:
        raise GradingError(f"{folder} has no folder of a student")
    return found


class Grader:
    """Grades notebooks of some labs, one at a time, in a temporary course folder: `with
    Grader(files) as grader`.
    """

    def __init__(self, files: list[Path], limit: float = LIMIT):
        self.files, self.limit, self.count = files, limit, 0
        self.sources = {p.stem: nbformat.read(p, as_version=4) for p in files}

    def __enter__(self):
        imported = {
            name for nb in self.sources.values() for name in _imports(setup_cell(nb).source)
        }
        modules = {exercise_module(number(p)) for p in self.files}
        forked.CONTEXT.set_forkserver_preload([*forked.PRELOAD, *sorted(imported | modules)])
        self.folder = tempfile.TemporaryDirectory(prefix="ftlib-course-")
        self.root = Path(self.folder.name)
        self.course = open_course(self.root, self.files, self.limit)
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def maximum(self, path: Path) -> dict[str, float]:
        """Points by exercise, as the source notebook has them."""
        return {
            CHECKED.search(c.source)[1]: float(_mark(c)["points"])
            for c in self.sources[path.stem].cells
            if _mark(c).get("grade")
        }

    def grade(self, lab: Path, student: str, notebooks: list[Path]) -> Row:
        """The row of one submission. Nothing that the submission holds stops the class; SetupError
        and GradingError are the machine's.
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
            notes.insert(
                0,
                f"{len(notebooks)} notebooks of this lab, the latest was graded: "
                f"{notebooks[0].name}",
            )
        row.points, lost = self._autograde(lab, notebook)
        row.reason = "; ".join([*notes, *(f"{name}: {why}" for name, why in lost.items())])
        return row

    def _autograde(self, lab: Path, notebook) -> tuple[dict, dict]:
        """(points, reasons) by exercise, from nbgrader's gradebook and the graded notebook."""
        self.count += 1
        student = f"s{self.count}"  # folder names are the students' own, and nbgrader reads them as patterns
        folder = self.root / "submitted" / student / lab.stem
        folder.mkdir(parents=True)
        nbformat.write(notebook, folder / lab.name)
        _succeed(
            self.course.autograde(lab.stem, student), f"the submission composed for {lab.name}"
        )
        names = {
            _mark(c)["grade_id"]: CHECKED.search(c.source)[1]
            for c in notebook.cells
            if _mark(c).get("grade")
        }
        graded = nbformat.read(
            self.root / "autograded" / student / lab.stem / lab.name, as_version=4
        )
        lost = {
            names[_mark(c)["grade_id"]]: " ".join(c.outputs[0].evalue.split())
            for c in graded.cells
            if _mark(c).get("grade") and c.outputs
        }
        with Gradebook(self.course.coursedir.db_url) as book:
            grades = book.find_submission_notebook(lab.stem, lab.stem, student).grades
            return {names[g.name]: float(g.auto_score) for g in grades}, {
                k: re.sub(rf"^[✗○] {k}: ", "", v) for k, v in lost.items()
            }


def _imports(text: str) -> set[str]:
    """Modules that a cell imports: what the server loads before it forks."""
    nodes = list(ast.walk(ast.parse(text)))
    return {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names} | {
        n.module for n in nodes if isinstance(n, ast.ImportFrom)
    }


def digest(notebooks: list[Path]) -> str:
    """Short name of what was handed in: it changes when a file does."""
    return hashlib.sha256(
        b"".join(hashlib.sha256(p.read_bytes()).digest() for p in notebooks)
    ).hexdigest()[:12]


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
    columns = list(dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)]))
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
    marks, found = Path(marks), find_submissions(submissions)
    known, before = {number(p): p for p in labs.lab_files()}, read_marks(marks)
    handed_in = [n for n in known if any(n in mine for mine in found.values())]
    files = labs.lab_files(which) if which else [known[n] for n in handed_in]
    if not files:
        raise GradingError(
            f"no notebook of a lab in {submissions}: their names begin with lab-3.1.1 and so on"
        )
    if reasons := [reason for p in files if (reason := labs.left_out(p))]:
        raise GradingError("; ".join(reasons))
    rows = dict(before)
    with Grader(files, limit) as grader:
        for lab, student in (
            work := tqdm([(lab, student) for student in found for lab in files], unit="submission")
        ):
            work.set_postfix_str(f"{student}, {number(lab)}")
            notebooks, key = found[student].get(number(lab), []), (student, number(lab))
            if not notebooks or before.get(key, {}).get("submission") != digest(notebooks):
                rows[key] = grader.grade(lab, student, notebooks).cells()
                write_marks(marks, list(rows.values()))
    return list(rows.values())


__all__ = ["GradingError", "RunChecks", "compose", "course_config", "grade_class", "release"]
