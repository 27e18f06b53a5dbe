"""Progress: what is recorded and when, points, two writers at once, damaged and unwritable files,
the reading list in the guide.
"""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from conftest import ROOT
from test_course import DOUBLE, named, not_written

from ftlib import cli
from ftlib.course import catalogue, progress
from ftlib.course.catalogue import MODULES, POINTS
from ftlib.course.exercise import Lab, load_lab
from ftlib.course.progress_views import progress_html, progress_text
from ftlib.course.readings import READINGS, reading_table

TEN = [number for number in MODULES if not catalogue.is_extension(number)]


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "progress.json"
    monkeypatch.setenv("FTLIB_PROGRESS", str(path))
    monkeypatch.setattr(progress, "_reported", False)
    return path


def solve(labs):
    for number in labs:
        for exercise in load_lab(number).exercises:
            progress.record_exercise(number, exercise.name)


# --- where it lies, and what check() writes -------------------------------------------------------
def test_where_the_file_lies(monkeypatch, tmp_path):
    monkeypatch.delenv("FTLIB_PROGRESS")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert progress.progress_path() == tmp_path / ".local/share/ftlib/progress.json"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert progress.progress_path() == tmp_path / ".local/share/ftlib/progress.json"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert progress.progress_path() == tmp_path / "data/ftlib/progress.json"
    monkeypatch.setenv("FTLIB_PROGRESS", "~/mine.json")
    assert progress.progress_path() == tmp_path / "mine.json"


def test_a_record_that_version_0_1_0_began_goes_on_where_it_is(monkeypatch, tmp_path):
    """It kept it in ~/.local/share on macOS and Windows too, where platformdirs has another folder;
    a record there goes first.
    """
    monkeypatch.delenv("FTLIB_PROGRESS")
    monkeypatch.setenv("HOME", str(tmp_path))
    new = tmp_path / "Library" / "Application Support" / "ftlib"
    monkeypatch.setattr(progress, "user_data_path", lambda name, appauthor: new)
    monkeypatch.setattr(progress.sys, "platform", "darwin")
    assert progress.progress_path() == new / "progress.json"
    earlier = tmp_path / ".local" / "share" / "ftlib" / "progress.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")
    assert progress.progress_path() == earlier
    new.mkdir(parents=True)
    (new / "progress.json").write_text("{}")
    assert progress.progress_path() == new / "progress.json"
    monkeypatch.setattr(progress.sys, "platform", "linux")
    (new / "progress.json").unlink()
    assert progress.progress_path() == new / "progress.json"  # XDG_DATA_HOME was asked for


def test_check_records_a_right_answer_of_the_students_own_and_nothing_else(file):
    lab = Lab("3.1.1", [DOUBLE])
    lab.check(named(not_written))
    lab.check(named(lambda x: x * x))
    lab.check(DOUBLE.reference)  # what check() handed back, checked again
    assert not file.parent.exists()  # an unsolved run writes nothing at all
    lab.check(named(lambda x: x * 2))
    assert list(json.loads(file.read_text())["exercises"]["3.1.1"]) == ["double"]


@pytest.mark.parametrize("variable", ["FTLIB_GRADING", "NBGRADER_EXECUTION"])
def test_grading_records_nothing(file, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    Lab("3.1.1", [DOUBLE]).check(named(lambda x: x * 2))
    assert not file.exists()


def test_an_exercise_keeps_the_date_of_its_first_solution(file, monkeypatch):
    for day in ("2026-01-01", "2026-02-02"):
        monkeypatch.setattr(progress, "_today", lambda day=day: day)
        progress.record_exercise("3.1.1", "lora_forward")
    assert progress.load_progress()["exercises"] == {"3.1.1": {"lora_forward": "2026-01-01"}}


def test_a_file_that_cannot_be_written_is_said_once_and_breaks_no_lab(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("FTLIB_PROGRESS", str(tmp_path / "a-file" / "progress.json"))
    monkeypatch.setattr(progress, "_reported", False)
    lab = Lab("3.1.1", [DOUBLE])
    mine = named(lambda x: x * 2)
    assert lab.check(mine) is mine and lab.check(mine) is mine
    assert len([r for r in caplog.records if "progress is not kept" in r.message]) == 1


# --- the file: two writers, damage ----------------------------------------------------------------
def _record_many(path, name, count):
    os.environ["FTLIB_PROGRESS"] = path
    for i in range(count):
        progress.record_exercise("3.1.1", f"{name}{i}")


def test_two_writers_lose_nothing(file):
    """Two processes of 25 records each: without the lock one of them would replace the file with an
    older reading of it.
    """
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_record_many, args=(str(file), name, 25)) for name in "ab"]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    assert len(progress.load_progress()["exercises"]["3.1.1"]) == 50


@pytest.mark.parametrize(
    "content",
    [
        b"{cut",
        b"",
        b"[]",
        b"\xff\xfe\x00",
        b'{"exercises": {"3.1.1": ["a"]}}',
        b'{"read": {"lora": 1}}',
        b'{"exercises": 3}',
        b'{"hints": {"3.1.1": {"lora_forward": null}}}',
        b'{"unread": []}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_set_aside(file, caplog, content):
    file.parent.mkdir()
    for round in (1, 2):
        file.write_bytes(content)
        assert progress.load_progress() == {"exercises": {}, "read": {}}
        assert (
            file.parent / f"progress.damaged-{round}.json"
        ).read_bytes() == content and not file.exists()
    assert "set aside as progress.damaged-2.json" in caplog.text
    progress.record_exercise("3.1.2", "x")
    assert list(progress.load_progress()["exercises"]) == ["3.1.2"]


def test_what_another_version_wrote_stays(file):
    file.parent.mkdir()
    file.write_text(json.dumps({"exercises": {"9.9.9": {"x": "2030-01-01"}}, "badges": [1]}))
    progress.mark_read(["lora"])
    kept = json.loads(file.read_text())
    assert (
        kept["badges"] == [1]
        and kept["exercises"] == {"9.9.9": {"x": "2030-01-01"}}
        and list(kept["read"]) == ["lora"]
    )
    assert progress.summary()["xp"] == 50


def test_a_failed_write_leaves_the_old_file(file, monkeypatch):
    progress.mark_read(["lora"])
    before = file.read_bytes()
    monkeypatch.setattr(
        Path,
        "write_text",
        lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(OSError, match="No space"):
        progress.mark_read(["qlora"])
    assert file.read_bytes() == before and not [
        p for p in file.parent.iterdir() if p.suffix == ".tmp"
    ]


# --- points ---------------------------------------------------------------------------------------
def test_points_of_exercises_readings_and_the_course(file):
    """An exercise gives its points; LoRA's paper 50; the course 200, once the last exercise of the
    last lab is solved.
    """
    exercises = {n: load_lab(n).exercises for n in TEN}
    beyond = 50 * (len(MODULES) - 10)
    points = {n: sum(e.points for e in found) for n, found in exercises.items()}
    readings = (
        50 + 50 + 75 + 75 + 50 + 3 * 50
    )  # LoRA, Unsloth, QLoRA, DPO, TRL; three advanced ones
    first = exercises["3.1.1"][0]
    progress.record_exercise("3.1.1", first.name)
    progress.mark_read(["lora", "when"])
    state = progress.summary()
    assert state["xp"] == first.points + 50 and state["of"] == (
        sum(points.values()) + readings + 200 + beyond
    )
    assert state["labs"][0]["solved"] == [first.name] and not state["labs"][0]["complete"]
    solve(TEN[:-1])
    state = progress.summary()
    done = [lab["complete"] for lab in state["labs"]]
    assert done == [True] * 9 + [False] * (len(MODULES) - 9) and not state["complete"]
    assert state["xp"] == 50 + sum(points.values()) - points["3.1.10"]
    assert "; 1 lab to go" in progress_text(progress.summary())
    solve(["3.1.10"])
    state = progress.summary()
    assert state["complete"] and state["xp"] == 50 + sum(points.values()) + 200
    assert "all ten labs complete: +200 XP" in progress_text(
        progress.summary()
    ) and "+200 XP" in progress_html(progress.summary())


def test_every_lab_has_a_name():
    assert list(catalogue.NAMES) == list(MODULES)


@pytest.mark.parametrize("number", MODULES)
def test_the_catalogue_has_every_exercise_with_its_points_in_order(number):
    exercises = load_lab(number).exercises
    assert list(POINTS[number].items()) == [(e.name, e.points) for e in exercises], (
        "see ftlib/course/catalogue.py"
    )


def test_the_command_and_the_notebook_show_the_exercise(file, capsys):
    exercises = load_lab("3.1.7").exercises
    progress.record_exercise("3.1.7", exercises[0].name)
    progress.show_progress()
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("3.1.7 DPO"))
    assert row.count("■") == 1 and row.count("□") == len(exercises) - 1


# --- the command ----------------------------------------------------------------------------------
def test_command(file, capsys):
    assert cli.main(["progress", "--read", "lora", "qlora", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert state["xp"] == 125 and [r["key"] for r in state["readings"] if r["read"]] == [
        "lora",
        "qlora",
    ]
    assert cli.main(["progress", "--unread", "qlora"]) == 0
    out = capsys.readouterr().out
    assert (
        out.startswith("50 of ")
        and str(file) in out
        and "not read yet: overview, unsloth, qlora" in out
    )
    assert cli.main(["progress", "--read", "dpo", "nothing"]) == 2
    assert "reading 'nothing' is not on the list: use overview, lora" in capsys.readouterr().err
    assert list(progress.load_progress()["read"]) == ["lora"]


# --- the reading list -----------------------------------------------------------------------------
def test_the_study_guide_holds_the_reading_list():
    assert reading_table() in (ROOT / "STUDY_GUIDE.md").read_text(encoding="utf-8")


def test_readings_are_well_formed():
    assert len({r.key for r in READINGS}) == len({r.url for r in READINGS}) == len(READINGS)
    assert all(
        r.url.startswith("https://") and r.hours > 0 and r.level and r.xp >= 0 for r in READINGS
    )
    assert (
        sum(r.hours for r in READINGS if r.level in ("required", "start here"))
        == 1 + 1.5 + 3 + 2 + 2 + 2
    )
