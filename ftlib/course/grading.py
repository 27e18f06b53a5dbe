"""Grade what a class hands in: points by exercise, and why points are missing.

A whole lab trains for minutes. Its checks need only the set-up cell and the student's answers, so
that is what is graded: the locked checks, their points and the set-up come from the source
notebook, the answers from the submission (`ftlib.course.answers`). nbgrader's autograde is not
asked, because it gives up on a whole submission when its kernel dies. The cells run through
`ftlib.course.sandbox`: one that loops or ends its process costs only its own points.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import logging
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from tqdm import tqdm

import ftlib
from ftlib.core.atomic import replacing
from ftlib.course import catalogue
from ftlib.course.answers import checked_name, compose, setup_cell
from ftlib.course.catalogue import exercise_module, lab_files, lab_number
from ftlib.course.notebooks import left_out
from ftlib.course.reasons import CHANGES, join_reason
from ftlib.course.sandbox import CONTEXT, PRELOAD, Step, run_steps
from ftlib.course.submissions import (
    GradingError,
    digest,
    find_submissions,
    nbgrader_mark,
    read_submission,
    readable,
    why_no_lab,
)

LIMIT = 20.0  # seconds a cell
MOST = 5  # notebooks of one lab by one student that are graded
MOST_NAMES = 3  # names that a submission has changed in ftlib, in its reason
COLUMNS = ("student", "lab", "total", "max", "submission", "reason")
GRADER = "grader"  # a column of its own: files of marks from before it are read too
HERE = Path(__file__).parent  # the code that judges: a mark depends on all of it

log = logging.getLogger("ftlib")


# --- submissions and marks ------------------------------------------------------------------------
@dataclass
class Row:
    """What the CSV says of one student's lab: points an exercise, why points are missing, and by
    what it was graded.
    """

    student: str
    lab: str
    maximum: dict[str, float]
    points: dict[str, float] = field(default_factory=dict)
    submission: str = ""
    reason: str = ""
    grader: str = ""

    def cells(self) -> dict[str, str]:
        marks = {f"{self.lab} {name}": f"{self.points.get(name, 0):g}" for name in self.maximum}
        return {
            "student": self.student,
            "lab": self.lab,
            "total": f"{sum(self.points.values()):g}",
            "max": f"{sum(self.maximum.values()):g}",
            "submission": self.submission,
            "reason": self.reason,
            GRADER: self.grader,
            **marks,
        }


def checked_limit(limit) -> float:
    """A cell's limit in seconds; GradingError if it is none."""
    is_number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
    if not is_number or not 0 < limit < math.inf:
        raise GradingError(f"limit is {limit!r}: give a cell a number of seconds above 0")
    return float(limit)


class Grader:
    """Grades notebooks of some labs, one at a time."""

    def __init__(self, files: list[Path], limit: float = LIMIT):
        self.limit = checked_limit(limit)
        self.sources = {p.stem: nbformat.read(p, as_version=4) for p in files}
        self.stamps = {path.stem: self._stamp(path) for path in files}
        modules = set()
        for path in files:
            modules |= imported_modules(setup_cell(self.sources[path.stem]).source)
            if lab_number(path) in catalogue.MODULES:
                modules.add(exercise_module(lab_number(path)))
        CONTEXT.set_forkserver_preload([*PRELOAD, *sorted(modules)])

    def _stamp(self, path: Path) -> str:
        """What a mark depends on besides the notebook: ftlib's version, the limit of a cell, and a
        digest of the lab's exercises and of the code that judges them.
        """
        whole = hashlib.sha256()
        source = self.sources[path.stem]
        for cell in source.cells:
            if nbgrader_mark(cell):
                whole.update(repr((cell.source, sorted(nbgrader_mark(cell).items()))).encode())
        whole.update(setup_cell(source).source.encode())
        files = sorted(HERE.glob("*.py"))
        if lab_number(path) in catalogue.MODULES:
            files += sorted((HERE / catalogue.MODULES[lab_number(path)]).glob("*.py"))
        for file in files:
            whole.update(file.read_bytes())
        return f"ftlib {ftlib.__version__}, {self.limit:g} s, {whole.hexdigest()[:12]}"

    def stamp(self, lab: Path) -> str:
        """What a row of this lab says of its grader: it differs where a mark may."""
        return self.stamps[lab.stem]

    def maximum(self, path: Path) -> dict[str, float]:
        """Points by exercise, as the source notebook has them."""
        return {
            checked_name(cell): float(nbgrader_mark(cell)["points"])
            for cell in self.sources[path.stem].cells
            if nbgrader_mark(cell).get("grade")
        }

    def grade(self, lab: Path, student: str, notebooks: list[Path]) -> Row:
        """The row of one student's lab. Of several notebooks, the latest first, the best counts.
        Nothing that a submission holds stops the class; SetupError is the machine's.
        """
        row = Row(student, lab_number(lab), self.maximum(lab), grader=self.stamp(lab))
        if not notebooks:
            row.reason = "not handed in"
            return row
        row.submission = digest(notebooks)
        tried = {}
        for path in _different(notebooks)[:MOST]:
            tried[path] = self._grade_one(lab, path)
            if tried[path][0] == row.maximum:
                break
        best = max(tried, key=lambda path: sum(tried[path][0].values()))  # the first of equals
        row.points, notes, said, changed = tried[best]
        which = _which(best, notebooks, lab_number(lab))
        row.reason = join_reason([*which, *notes], said, changed)
        return row

    def not_handed_in(self, lab: Path, student: str, others: list[str]) -> Row:
        """The row of who has no notebook of this lab; `others` says what was found instead."""
        row = self.grade(lab, student, [])
        if others:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            row.reason += "; found " + "; ".join(others[:3]) + more
        return row

    def _grade_one(self, lab: Path, path: Path) -> tuple[dict, list[str], dict, list[str]]:
        """(points by exercise, notes, what the checks said by exercise, what the code changes) of
        one notebook.
        """
        source = self.sources[lab.stem]
        try:
            notebook, notes = compose(read_submission(path), source)
        except GradingError as error:
            return {}, [str(error)], {}, []
        points, said, changed = self._score(notebook, self.maximum(lab))
        return points, notes, said, _patched(changed)

    def _score(self, notebook, maximum: dict[str, float]) -> tuple[dict, dict, list[str]]:
        """(points, reasons) by exercise: all of its points where its check says that it is right,
        and what the check said where it does not; and what the code has changed in ftlib.
        """
        setup, *cells = notebook.cells
        steps = [
            Step(cell.source, checked_name(cell), tuple(cell.metadata.get("definitions", ())))
            for cell in cells
        ]
        ran = run_steps(setup.source, steps, self.limit)
        points = {}
        reasons = dict.fromkeys(maximum, "")  # in the source's order
        before = ""  # what went wrong in the cells before a check
        for step, wrong in zip(steps, ran.wrong, strict=True):
            wrong = " ".join(wrong.split())
            name = step.check
            if not name:
                before = before or wrong
                continue
            points[name] = 0.0 if wrong else maximum[name]
            if wrong:
                reasons[name] = re.sub(rf"^[✗○] {name}: ", "", wrong)
            if before and wrong.startswith(f"NameError: name {name!r}"):
                reasons[name] += f" (a cell before: {before})"
            before = ""
        return points, {name: why for name, why in reasons.items() if why}, ran.changed


def _patched(names: list[str]) -> list[str]:
    """A note where a submission has changed the code that checks it."""
    if not names:
        return []
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return [f"{CHANGES}{', '.join(names[:MOST_NAMES])}{more}"]


def _different(notebooks: list[Path]) -> list[Path]:
    """Without the copies: of files with the same content the first."""
    first_of: dict[str, Path] = {}
    for path in notebooks:
        first_of.setdefault(digest([path]), path)
    return list(first_of.values())


def _which(graded: Path, notebooks: list[Path], lab: str) -> list[str]:
    """A note where the notebook is not the only one, or not named as it was given out."""
    name = readable(graded.name)
    notes = []
    if len(notebooks) > 1:
        tried = f"the {MOST} latest were tried, " if len(_different(notebooks)) > MOST else ""
        notes.append(f"{len(notebooks)} notebooks of this lab, {tried}the best counts: {name}")
    elif lab_number(graded) != lab:
        notes.append(f"graded from {name}")
    return notes


def imported_modules(text: str) -> set[str]:
    """Modules that a cell imports: what the server loads before it forks. `from a import b` may
    name a module `a.b` or something in `a`; the server passes over a name that is no module.
    """
    modules: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    return modules


# --- the file of marks ----------------------------------------------------------------------------
def read_marks(path: Path) -> dict[tuple[str, str], dict]:
    """Rows of an earlier run by (student, lab); empty if there was none."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, restkey="", restval="")
        if tuple(rows.fieldnames or ())[: len(COLUMNS)] != COLUMNS:
            raise GradingError(f"{path} is no CSV of marks: name another file")
        found = {}
        for row in rows:
            row.pop("", None)  # what a line has beyond the columns
            found[row["student"], row["lab"]] = row
    return found


def write_marks(path: Path, rows: list[dict]) -> None:
    columns = [*COLUMNS, GRADER]
    for row in rows:
        columns += [key for key in row if key not in columns]
    with (
        replacing(path) as temporary,
        # what UTF-8 cannot write may be in the message of an answer's error
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _own_columns(row: dict) -> dict:
    """What an instructor has added to a row: columns that are not the grader's."""
    lab = row.get("lab", "")
    own = (*COLUMNS, GRADER)
    return {k: v for k, v in row.items() if k not in own and not k.startswith(f"{lab} ")}


def _move_removed(marks: Path, rows: dict[tuple[str, str], dict], students) -> None:
    """Move the rows of students who have no folder any more to a file beside the marks."""
    removed = {key: row for key, row in rows.items() if key[0] not in students}
    if not removed:
        return
    names = ", ".join(sorted({student for student, _ in removed}))
    if len(removed) == len(rows):
        raise GradingError(
            f"{marks} has marks of students who are not in this class ({names[:200]}): name "
            "another file"
        )
    beside = marks.with_name(f"{marks.stem}.removed{marks.suffix}")
    write_marks(beside, list((read_marks(beside) | removed).values()))
    for key in removed:
        del rows[key]
    write_marks(marks, list(rows.values()))
    log.warning("no folder any more for %s: their rows are in %s", names, beside)


def grade_class(
    submissions, marks, which: list[str] | None = None, limit: float = LIMIT
) -> list[dict]:
    """Grade a class: one row a student and lab in the CSV `marks`, written after each submission;
    returns the rows.

    Labs are those in `which`, or all that somebody handed in; who handed in nothing gets 0. Rows of
    an earlier run are kept where neither the notebooks nor what grades them (`Grader.stamp`) has
    changed, so an interrupted run goes on. Rows of students who have no folder any more go to
    `….removed.csv` beside the marks. ValueErrors: no submissions, an unknown lab, a limit that is
    none, a set-up that fails here.
    """
    marks = Path(marks)
    limit = checked_limit(limit)
    found = find_submissions(submissions)
    rows = read_marks(marks)
    files = _labs_to_grade(found, which, rows)
    if not files:
        raise GradingError(f"no notebook of a lab in {submissions}{_found_instead(found)}")
    reasons = [reason for path in files if (reason := left_out(path))]
    if reasons:
        raise GradingError("; ".join(reasons))
    grader = Grader(files, limit)
    _move_removed(marks, rows, found)
    work = tqdm([(lab, student) for student in found for lab in files], unit="submission")
    for lab, student in work:
        work.set_postfix_str(f"{student}, {lab_number(lab)}")
        key = (student, lab_number(lab))
        old = rows.get(key, {})
        row = _row(grader, lab, student, found[student], old)
        if row is not None:
            rows[key] = row.cells() | _own_columns(old)
            write_marks(marks, list(rows.values()))
    return list(rows.values())


def _row(grader: Grader, lab: Path, student: str, by_lab: dict, old: dict) -> Row | None:
    """The new row of a student's lab; None where the old one still holds."""
    notebooks = by_lab.get(lab_number(lab), [])
    if not notebooks:
        return grader.not_handed_in(lab, student, [why_no_lab(path) for path in by_lab.get("", [])])
    same = old.get("submission") == digest(notebooks) and old.get(GRADER) == grader.stamp(lab)
    return None if same else grader.grade(lab, student, notebooks)


def _found_instead(found: dict[str, dict[str, list[Path]]]) -> str:
    others = [path for by_lab in found.values() for path in by_lab.get("", [])]
    if not others:
        return ": there is no file that ends in .ipynb"
    return f": found {why_no_lab(others[0])}, and {len(others) - 1} more"


def _labs_to_grade(
    found: dict[str, dict[str, list[Path]]], which: list[str] | None, before: dict
) -> list[Path]:
    """The labs in `which`, or all that somebody handed in, now or when there were marks before."""
    if which:
        return lab_files(which)
    handed_in = set().union(*found.values())
    handed_in |= {lab for student, lab in before if student in found}
    return [path for path in lab_files(extensions=True) if lab_number(path) in handed_in]
