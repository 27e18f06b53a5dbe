"""A class's folder as classes are: renamed notebooks, things that are no notebooks, students who
leave. Nothing stops the class, and marks are kept as long as they hold.

The checks themselves are not run here: `run_steps` is replaced by what they would say.
"""

import csv
import json
import os

import nbformat
import pytest
from small_lab import (
    FILE,
    LAB,
    NAME,
    SETUP,
    STUB,
    answer,
    check,
    notebook,
    own,
    says,
    source,
    write,
)

from ftlib.course import catalogue, grading, submissions
from ftlib.course.sandbox import Ran
from ftlib.course.submissions import GradingError

GOOD = notebook(answer(says("good")), check())
BAD = notebook(answer(says("bad")), check())


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course with the one small lab; the list of what was graded, in order."""
    monkeypatch.setattr(catalogue, "LABS", tmp_path / "labs")
    write(tmp_path / "labs" / FILE, source())
    ran = []

    def said(setup, steps, limit):
        text = "\n".join(step.source for step in steps)
        ran.append("good" if "good" in text else "bad")
        return Ran(["✗ wrong" if step.check and "good" not in text else "" for step in steps])

    monkeypatch.setattr(grading, "run_steps", said)
    return ran


def marks_of(tmp_path, **options) -> dict:
    grading.grade_class(tmp_path / "in", tmp_path / "marks.csv", **options)
    return read(tmp_path / "marks.csv")


def read(path) -> dict:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


# --- which lab a notebook is ----------------------------------------------------------------------
TITLED = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Lab 3.1.7 · DPO")])
OPENED = nbformat.v4.new_notebook(cells=[own(SETUP)])
MARKED = nbformat.v4.new_notebook(cells=[answer(STUB)])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("my_dpo.ipynb", GOOD),
        ("ben_lab-3.1.7-dpo-training.ipynb", GOOD),
        ("Copy of lab-3.1.7-dpo-training.ipynb", b"broken"),
        ("Lab 3.1.7.IPYNB", b"broken"),
        ("my_dpo.ipynb.txt", GOOD),
        ("titled.ipynb", TITLED),
        ("opened.ipynb", OPENED),
        ("marked.ipynb", MARKED),
        ("lab-3.1.1-renamed.ipynb", GOOD),
        ("Übung für Jürgen (1).ipynb", GOOD),
    ],
)
def test_a_lab_is_found_by_its_content_and_else_by_its_name(course, tmp_path, name, content):
    write(tmp_path / "in" / "Jürgen Groß" / "week 7" / name, content)
    found = submissions.find_submissions(tmp_path / "in")
    assert {lab: [p.name for p in paths] for lab, paths in found["Jürgen Groß"].items()} == {
        LAB: [name]
    }


def test_a_renamed_notebook_is_graded_and_the_row_says_which(course, tmp_path):
    write(tmp_path / "in" / "ben" / "my_dpo.ipynb", GOOD)
    row = marks_of(tmp_path)["ben"]
    assert row["total"] == "1" and row["reason"] == "graded from my_dpo.ipynb"


def test_a_notebook_that_is_no_lab_is_named(course, tmp_path):
    write(tmp_path / "in" / "ada" / FILE, GOOD)
    write(tmp_path / "in" / "ben" / "my_dpo.ipynb", nbformat.v4.new_notebook(cells=[own("1")]))
    row = marks_of(tmp_path)["ben"]
    assert row["total"] == "0"
    assert row["reason"].startswith("not handed in; found my_dpo.ipynb, which is no lab: ")
    (tmp_path / "in" / "ada" / FILE).unlink()
    with pytest.raises(GradingError, match=r"no notebook of a lab in .*found my_dpo.ipynb"):
        grading.grade_class(tmp_path / "in", tmp_path / "other.csv")


def test_notebooks_without_folders_of_students_are_counted(course, tmp_path):
    write(tmp_path / "in" / FILE, GOOD)
    with pytest.raises(GradingError, match="put its 1 notebooks into folders named after"):
        submissions.find_submissions(tmp_path / "in")


# --- what else lies there -------------------------------------------------------------------------
def _format_3() -> bytes:
    cells = [
        {
            "cell_type": "code",
            "input": cell.source,
            "language": "python",
            "outputs": [],
            "metadata": dict(cell.metadata),
        }
        for cell in GOOD.cells[1:]
    ]
    content = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}}
    return json.dumps({**content, "worksheets": [{"metadata": {}, "cells": cells}]}).encode()


def _format_4(cells) -> bytes:
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}).encode()


UNREADABLE = "not a readable notebook"
FILES = {
    "cut off": (b'{"cells": [', "0", UNREADABLE),
    "empty file": (b"", "0", UNREADABLE),
    "no UTF-8": (b"\xff\xfe\x00", "0", UNREADABLE),
    "a list": (b"[]", "0", UNREADABLE),
    "nested deeply": (b"[" * 100_000, "0", UNREADABLE),
    "cells are a number": (_format_4(5), "0", UNREADABLE),
    "cells are numbers": (_format_4([1, 2]), "0", UNREADABLE),
    "a source is a number": (
        _format_4([{"cell_type": "code", "source": 7, "metadata": {}, "outputs": []}]),
        "0",
        UNREADABLE,
    ),
    "no cells": (_format_4([]), "0", f"the answer cell {NAME} is missing"),
    "metadata of another kind": (
        _format_4([{"cell_type": "code", "source": "1", "metadata": {"nbgrader": [1]}}]),
        "0",
        f"the answer cell {NAME} is missing",
    ),
    "format 3": (_format_3(), "1", ""),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_notebook_costs_its_own_points(course, tmp_path, kind):
    content, total, reason = FILES[kind]
    write(tmp_path / "in" / "a" / FILE, content)
    write(tmp_path / "in" / "b" / FILE, GOOD)
    rows = marks_of(tmp_path)
    assert rows["a"]["total"] == total and reason in rows["a"]["reason"]
    assert rows["b"]["total"] == "1"


def test_a_notebook_with_very_much_output_is_refused_unread(course, tmp_path):
    """Its size is a hole in the file, so the test writes nothing."""
    for name in (FILE, "my_dpo.ipynb"):
        path = tmp_path / "in" / name.partition(".")[0] / name
        write(path, b"{")
        os.truncate(path, 30_000_000)
    rows = marks_of(tmp_path)
    too_large = "30 MB, more than 20: clear its outputs"
    assert rows["lab-3"]["reason"] == too_large
    assert rows["my_dpo"]["reason"] == f"not handed in; found my_dpo.ipynb, which is {too_large}"


def test_folders_links_and_pipes_in_place_of_a_notebook_are_named(course, tmp_path):
    folder = tmp_path / "in"
    write(folder / "good" / FILE, GOOD)
    (folder / "folder" / FILE).mkdir(parents=True)
    for student in ("loop", "pipe"):
        (folder / student).mkdir()
    (folder / "loop" / FILE).symlink_to(FILE)
    (folder / "loop" / "up").symlink_to("..")
    os.mkfifo(folder / "pipe" / FILE)
    rows = marks_of(tmp_path)
    found = f"not handed in; found {FILE}, which is "
    assert {student: row["reason"] for student, row in rows.items()} == {
        "good": "",
        "folder": found + "a folder",
        "loop": found + "a link that leads nowhere",
        "pipe": found + "not a regular file",
    }


def test_a_name_that_is_not_there_says_what_failed_before_it(course, tmp_path, monkeypatch):
    """Here the student's own file was not handed in with the notebook."""
    write(tmp_path / "in" / "a" / FILE, notebook(own(f"from mine import {NAME}"), check()))
    missing = "ModuleNotFoundError: No module\nnamed 'mine'"
    absent = f"NameError: name '{NAME}' is not defined"
    monkeypatch.setattr(grading, "run_steps", lambda setup, steps, limit: Ran([missing, absent]))
    said = f"{NAME}: {absent} (a cell before: ModuleNotFoundError: No module named 'mine')"
    assert marks_of(tmp_path)["a"]["reason"].endswith(said)


def test_names_and_messages_that_utf_8_cannot_write_stop_nothing(course, tmp_path, monkeypatch):
    """An archive from another system has names in latin-1; an answer may raise a lone surrogate."""
    write(tmp_path / "in" / os.fsdecode(b"M\xfcller") / FILE, GOOD)
    monkeypatch.setattr(
        grading, "run_steps", lambda setup, steps, limit: Ran(["\ud800"] * len(steps))
    )
    row = marks_of(tmp_path)["M\\udcfcller"]
    assert row["reason"] == f"{NAME}: \\ud800"
    assert marks_of(tmp_path) == {"M\\udcfcller": row}


# --- several notebooks of a lab -------------------------------------------------------------------
def test_of_several_notebooks_the_best_counts_and_the_row_says_so(course, tmp_path):
    """The untouched original is newer than the copy in which the student has worked, and there
    again in a second copy, which is not graded twice.
    """
    folder = tmp_path / "in" / "a"
    for i, (name, content) in enumerate(
        [("my_dpo.ipynb", GOOD), (FILE, source()), ("copy.ipynb", source())]
    ):
        write(folder / name, content)
        os.utime(folder / name, (i, i))
    (folder / "copy.ipynb").write_bytes((folder / FILE).read_bytes())
    os.utime(folder / "copy.ipynb", (9, 9))
    row = marks_of(tmp_path)["a"]
    assert course == ["bad", "good"]
    assert row["total"] == "1"
    assert row["reason"] == "3 notebooks of this lab, the best counts: my_dpo.ipynb"


def test_of_very_many_notebooks_the_latest_are_tried(course, tmp_path):
    for i in range(grading.MOST + 2):
        path = tmp_path / "in" / "a" / f"{i}.ipynb"
        write(path, notebook(answer(f"number = {i}"), check()))
        os.utime(path, (i, i))
    row = marks_of(tmp_path)["a"]
    assert len(course) == grading.MOST
    assert (
        "7 notebooks of this lab, the 5 latest were tried, the best counts: 6.ipynb"
        in (row["reason"])
    )


# --- marks that hold, and marks that do not -------------------------------------------------------
def test_a_mark_is_kept_while_notebook_and_grader_are_the_same(course, tmp_path, monkeypatch):
    """Graded again: after another limit, another version, other points of the lab, another
    exercise; never without a change.
    """
    write(tmp_path / "in" / "a" / FILE, GOOD)
    counts = []

    def grade(limit):
        row = marks_of(tmp_path, limit=limit)["a"]
        counts.append(len(course))
        return row["grader"]

    first = grade(20)
    assert grade(20) == first and first.startswith("ftlib ") and ", 20 s, " in first
    other_limit = grade(30)
    monkeypatch.setattr(grading.ftlib, "__version__", "9.9")
    other_version = grade(30)
    write(tmp_path / "labs" / FILE, source(points=2))
    other_points = grade(30)
    exercises = tmp_path / "course"
    exercises.mkdir()
    for path in grading.HERE.glob("*.py"):
        (exercises / path.name).write_bytes(path.read_bytes())
    (exercises / "lab_3_1_7").mkdir()
    (exercises / "lab_3_1_7" / "one.py").write_text("another = 1\n")
    monkeypatch.setattr(grading, "HERE", exercises)
    other_exercises = grade(30)
    assert grade(30) == other_exercises
    assert len({first, other_limit, other_version, other_points, other_exercises}) == 5
    assert counts == [1, 1, 2, 3, 4, 5, 5]


def test_a_file_of_marks_without_the_graders_column_is_read_and_graded_again(course, tmp_path):
    """As version 0.1.0 wrote it, saved by a spreadsheet: a byte-order mark, a column of remarks,
    a field too many.
    """
    write(tmp_path / "in" / "a" / FILE, GOOD)
    digest = submissions.digest([tmp_path / "in" / "a" / FILE])
    old = f"student,lab,total,max,submission,reason,{LAB} {NAME},remark\r\n"
    old += f"a,{LAB},0,1,{digest},old,0,see me,\r\nb,3.1.8,3,9,12ab,,,\r\n"
    (tmp_path / "in" / "b").mkdir()
    (tmp_path / "marks.csv").write_text("\ufeff" + old, encoding="utf-8")
    grading.grade_class(tmp_path / "in", tmp_path / "marks.csv", [LAB])
    rows = grading.read_marks(tmp_path / "marks.csv")
    assert rows["a", LAB]["total"] == "1" and rows["a", LAB]["remark"] == "see me"
    assert rows["b", "3.1.8"]["total"] == "3" and rows["b", LAB]["reason"] == "not handed in"


@pytest.mark.parametrize("limit", [-1, 0, float("nan"), float("inf"), "20", None, True])
def test_a_limit_that_is_none_is_refused_before_anything_is_read(tmp_path, limit):
    with pytest.raises(GradingError, match=r"limit is .*: give a cell a number of seconds above 0"):
        grading.grade_class(tmp_path / "none", tmp_path / "marks.csv", limit=limit)
    with pytest.raises(GradingError, match="limit is"):
        grading.Grader([], limit)


def test_the_rows_of_who_has_left_go_to_a_file_beside(course, tmp_path, caplog):
    for student in ("a", "b", "c"):
        write(tmp_path / "in" / student / FILE, GOOD)
    before = marks_of(tmp_path)
    for student in ("b", "c"):
        os.rename(tmp_path / "in" / student, tmp_path / student)
        assert student not in marks_of(tmp_path)
    assert read(tmp_path / "marks.removed.csv") == {"b": before["b"], "c": before["c"]}
    assert "no folder any more for c" in caplog.text
    assert read(tmp_path / "marks.csv") == {"a": before["a"]} and len(course) == 3


def test_another_classs_marks_are_not_taken_for_who_has_left(course, tmp_path):
    write(tmp_path / "in" / "a" / FILE, GOOD)
    marks_of(tmp_path)
    os.rename(tmp_path / "in", tmp_path / "first")
    write(tmp_path / "in" / "z" / FILE, GOOD)
    before = (tmp_path / "marks.csv").read_bytes()
    with pytest.raises(GradingError, match=r"not in this class \(a\): name another file"):
        marks_of(tmp_path)
    assert (tmp_path / "marks.csv").read_bytes() == before


def test_a_notebook_that_was_taken_away_is_not_handed_in(course, tmp_path):
    write(tmp_path / "in" / "a" / FILE, GOOD)
    assert marks_of(tmp_path)["a"]["total"] == "1"
    (tmp_path / "in" / "a" / FILE).unlink()
    row = marks_of(tmp_path)["a"]
    assert (row["total"], row["reason"], row["submission"]) == ("0", "not handed in", "")


def test_a_file_that_cannot_be_read_is_a_reason(course, tmp_path, monkeypatch):
    """Without the right to read, whatever asks for the content raises PermissionError."""
    write(tmp_path / "in" / "a" / FILE, GOOD)

    def refuse(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(submissions.Path, "read_bytes", refuse)
    monkeypatch.setattr(submissions.nbformat, "read", refuse)
    with pytest.raises(GradingError, match="PermissionError"):
        submissions.read_submission(tmp_path / "in" / "a" / FILE)
    assert submissions.digest([tmp_path / "none.ipynb"]) == submissions.digest(
        [tmp_path / "nor-this.ipynb"]
    )
