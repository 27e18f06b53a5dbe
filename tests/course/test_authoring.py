"""An exercise of an instructor's own: one command writes one that works, another says what it
lacks, and the tests take it up by themselves.
"""

import dataclasses
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from ftlib import cli
from ftlib.course.authoring import AuthoringError, faults_of, new_exercise
from ftlib.course.catalogue import POINTS
from ftlib.course.exercise import Wrong, load_lab

LAB = "3.1.7"
# Tests that go through all exercises, by what they ask.
ASKED = (
    "tests/course/test_course.py",
    "tests/course/test_exercises.py",
    "tests/course/test_progress_file.py",
    "tests/labs/test_notebooks.py",
    "tests/test_layers.py",
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what an exercise is written into; the data are linked."""
    root = tmp_path_factory.mktemp("checkout")
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("ftlib", "labs", "tests", "tools"):
        shutil.copytree(ROOT / name, root / name, ignore=skipped)
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, root)
    (root / "data").symlink_to(ROOT / "data")
    return root


def run(root, *command) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=root, env=environment, capture_output=True, text=True
    )


def test_what_the_command_writes_passes_every_test_that_goes_through_exercises(checkout):
    """Written in the middle of the lab and checked, all tests take it up and pass, but for those of
    the notebook's outputs, which name the command that renews them.
    """
    new = ("-m", "ftlib.cli", "exercise", "new", LAB, "margin_of_pairs", "--after", "kl_estimate")
    done = run(checkout, *new)
    assert done.returncode == 0, done.stderr
    assert "ftlib exercise check 3.1.7 margin_of_pairs" in done.stdout
    done = run(checkout, "-m", "ftlib.cli", "exercise", "check", LAB, "margin_of_pairs")
    assert done.returncode == 0 and done.stdout.startswith("✓ margin_of_pairs(values, weights)")
    chosen = ("-k", "margin_of_pairs or 3.1.7 or map or second_solutions or order")
    pytest_run = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not labs")
    done = run(checkout, *pytest_run, *chosen, *ASKED)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 2 and all("test_committed_outputs" in line for line in failed), failed
    assert f"`ftlib labs {LAB} --write-back` renews them" in done.stdout
    assert "margin_of_pairs" in run(checkout, "-m", "ftlib.cli", "progress", "--json").stdout


def test_bad_names_are_refused_and_nothing_is_written(checkout, capsys):
    before = sorted(path.name for path in (checkout / "ftlib" / "course").rglob("*.py"))
    for arguments, said in {
        ("9.9", "one"): r"lab '9\.9' is unknown",
        (LAB, "Margin"): "name='Margin': .* lower-case letters",
        (LAB, "lambda"): "name='lambda'",
        (LAB, "lora_forward"): r"name='lora_forward' is an exercise of lab 3\.1\.1",
        (LAB, "one", "", "two"): "after='two': lab 3.1.7 has the exercises completion_logp",
    }.items():
        with pytest.raises(AuthoringError, match=said):
            new_exercise(*arguments, root=checkout)
    assert sorted(path.name for path in (checkout / "ftlib" / "course").rglob("*.py")) == before
    assert cli.main(["exercise", "new", LAB, "Margin"]) == 2
    assert "name='Margin'" in capsys.readouterr().err


def test_outside_of_a_checkout_nothing_can_be_written(tmp_path):
    with pytest.raises(AuthoringError, match="written in a checkout of the course"):
        new_exercise(LAB, "one", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_all_as_it_was(tmp_path):
    """The folder of second solutions cannot be made, since a file has its name."""
    for name in ("ftlib/course/lab_3_1_7", "labs", "tests"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("ftlib/course/lab_3_1_7/exercises.py", "ftlib/course/catalogue.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    notebook = next((ROOT / "labs").glob(f"lab-{LAB}-*.ipynb"))
    shutil.copy(notebook, tmp_path / "labs")
    (tmp_path / "tests" / "second_solutions").write_text("in the way")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(OSError):
        new_exercise(LAB, "one", root=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


# --- what is asked of an exercise -----------------------------------------------------------------
SOUND = load_lab(LAB).find("gradient_weight")


def test_every_exercise_of_the_course_that_is_quick_to_judge_is_sound():
    assert [faults_of(exercise) for exercise in load_lab(LAB).exercises] == [[]] * len(POINTS[LAB])


def _accepted(chosen, rejected):
    return torch.sigmoid(rejected - chosen)


def _another(chosen, rejected):
    return torch.sigmoid(chosen - rejected)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"wrong": SOUND.wrong[:2]}, "it has 2 wrong answers: give at least 3"),
        ({"hints": ("one", "one")}, "it has 1 hints: give at least 2"),
        ({"points": 0}, "points and minutes must be above 0"),
        ({"cases": lambda g: [(torch.ones(2), torch.zeros(2))]}, "fewer than two inputs"),
        (
            {"wrong": (*SOUND.wrong, Wrong("x", _accepted, "You have made this mistake."))},
            "the wrong answer 'x' is right: change the cases",
        ),
        (
            {"wrong": (*SOUND.wrong, Wrong("x", _another, "You have made this mistake."))},
            "the wrong answer 'x' is told another sentence: That is σ(z)",
        ),
        (
            {"wrong": (*SOUND.wrong, Wrong("x", _another, SOUND.wrong[0].message))},
            "two wrong answers have the same sentence",
        ),
        ({"wrong": (*SOUND.wrong, Wrong("x", _another, "No."))}, "too short to teach: No."),
        (
            {"cases": lambda g: [(torch.randn(3), torch.randn(3)) for _ in range(2)]},
            "the cases change from call to call",
        ),
    ],
)
def test_what_an_exercise_lacks_is_said(change, said):
    faults = faults_of(dataclasses.replace(SOUND, **change))
    assert any(said in fault for fault in faults), faults
