"""Release and grading: exactly the marks that the answers deserve, whatever else a submission holds
or does.
"""

import csv
import os
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT

pytest.importorskip("nbgrader")

from ftlib import cli
from ftlib.course import answers, catalogue, sandbox
from ftlib.course import grading as grading_module
from ftlib.course import notebooks as notebooks_module
from ftlib.course.exercise import load_lab
from ftlib.course.sandbox import Ran, Step, run_steps
from ftlib.course.submissions import nbgrader_mark

LAB = "3.1.7"
LIMIT = 15.0  # seconds: a check takes less than one on an idle core
GRADABLE = [p for p in catalogue.lab_files(extensions=True) if not notebooks_module.left_out(p)]


def source(lab: str = LAB):
    return nbformat.read(catalogue.lab_files([lab])[0], as_version=4)


def right(lab: str, name: str) -> str:
    """An answer that calls the reference."""
    return _calls(lab, name, "reference")


def wrong(lab: str, name: str) -> str:
    """The first of the mistakes that the exercise knows."""
    return _calls(lab, name, "wrong[0].function")


def _calls(lab, name, what) -> str:
    return (
        f"def {name}(*args, **kwargs):\n    from ftlib.course.exercise import load_lab\n"
        f"    return load_lab({lab!r}).find({name!r}).{what}(*args, **kwargs)"
    )


def fill(lab: str, answers: dict[str, str]):
    """The lab's notebook with these answers in the place of their stubs."""
    notebook = source(lab)
    for name, text in answers.items():
        cell_of(notebook, name).source = text
    return notebook


def cell_of(notebook, grade_id: str):
    return next(
        c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id
    )


def hand_in(folder, student: str, lab: str, notebook) -> None:
    (folder / student).mkdir(parents=True, exist_ok=True)
    path = folder / student / catalogue.lab_files([lab])[0].name
    path.write_text(notebook) if isinstance(notebook, str) else nbformat.write(notebook, path)


def read(path) -> dict:
    with open(path, newline="") as file:
        return {(row["student"], row["lab"]): row for row in csv.DictReader(file)}


# --- the ten labs ---------------------------------------------------------------------------------
def partly(lab: str) -> dict[str, str]:
    """Of three exercises in turn one right, one with a known mistake, one open."""
    return {
        e.name: (right, wrong)[i % 3](lab, e.name)
        for i, e in enumerate(load_lab(lab).exercises)
        if i % 3 < 2
    }


@pytest.fixture(scope="module")
def ten_labs(tmp_path_factory):
    """Every lab, unsolved, solved and partly wrong, graded in one go."""
    folder = tmp_path_factory.mktemp("class")
    for path in GRADABLE:
        lab = catalogue.lab_number(path)
        hand_in(folder / "in", "unsolved", lab, source(lab))
        hand_in(
            folder / "in",
            "solved",
            lab,
            fill(lab, {e.name: right(lab, e.name) for e in load_lab(lab).exercises}),
        )
        hand_in(folder / "in", "partly", lab, fill(lab, partly(lab)))
    grading_module.grade_class(folder / "in", folder / "marks.csv", limit=60)
    return read(folder / "marks.csv")


@pytest.mark.labs
@pytest.mark.parametrize("lab", [catalogue.lab_number(p) for p in GRADABLE])
def test_marks_of_every_lab(ten_labs, lab):
    exercises = load_lab(lab).exercises
    full = sum(e.points for e in exercises)
    for student, expected in (
        ("unsolved", {}),
        ("solved", {e.name: e.points for e in exercises}),
        ("partly", {e.name: e.points for i, e in enumerate(exercises) if i % 3 == 0}),
    ):
        row = ten_labs[student, lab]
        got = {e.name: float(row[f"{lab} {e.name}"]) for e in exercises}
        assert got == {e.name: expected.get(e.name, 0) for e in exercises}, (student, row["reason"])
        assert float(row["total"]) == sum(expected.values()) and float(row["max"]) == full
    assert ten_labs["solved", lab]["reason"] == ""
    reasons = ten_labs["partly", lab]["reason"]
    assert all(
        " ".join(e.wrong[0].message.split()) in reasons
        for i, e in enumerate(exercises)
        if i % 3 == 1
    )
    assert ten_labs["unsolved", lab]["reason"].count("not attempted") == len(exercises)


# --- a class, unattended --------------------------------------------------------------------------
NAMES = [e.name for e in load_lab(LAB).exercises]
POINTS = {e.name: e.points for e in load_lab(LAB).exercises}
LOGP = "completion_logp"
REWARD = "implicit_reward"
LOSS = "preference_loss"
WEIGHT = "gradient_weight"
KL = "kl_estimate"
WINS = "swapped_win_rate"
GOOD = {name: right(LAB, name) for name in NAMES}


def but(**answers) -> dict:
    return {**GOOD, **answers}


def _without(grade_id):
    notebook = fill(LAB, GOOD)
    notebook.cells.remove(cell_of(notebook, grade_id))
    return notebook


def _edited():
    """Check cells that ask for nothing, points that are more, a check that says it is none."""
    notebook = fill(LAB, {})
    for name in NAMES:
        cell_of(notebook, f"check_{name}").source = "print('✓ all right')"
        cell_of(notebook, f"check_{name}").metadata.nbgrader.points = 100
    cell_of(notebook, f"check_{WINS}").metadata.nbgrader.update(
        grade=False, solution=True, locked=False
    )
    return notebook


def _helper():
    """An answer that needs an import and a function from the student's own cell, beside a call that
    must not run.
    """
    notebook = fill(
        LAB, but(**{REWARD: f"def {REWARD}(a, b, c):\n    return helper(a, b, c) + math.log(1)"})
    )
    place = notebook.cells.index(cell_of(notebook, REWARD))
    notebook.cells.insert(
        place,
        nbformat.v4.new_code_cell(
            "import math\n%matplotlib inline\nraise_now = 2\nopen('/nowhere/at/all', 'w')\n\n"
            "def helper(a, b, c):\n    return c * (a - b)"
        ),
    )
    return notebook


def _twice():
    notebook = fill(LAB, GOOD)
    copy = nbformat.from_dict(cell_of(notebook, KL))
    copy.source = wrong(LAB, KL)
    notebook.cells.insert(notebook.cells.index(cell_of(notebook, KL)), copy)
    return notebook


FULL = sum(POINTS.values())
LOOP = """    while True:
        try:
            while True:
                pass
        except BaseException:
            pass"""
ENDS_THE_SERVER = f"import os\ndef {KL}(*args):\n    os.kill(os.getppid(), 9)\n    os._exit(1)"
# How the submission is made, which answers earn nothing, what the reason says.
SPECIAL = {
    "loops": (
        lambda: fill(LAB, but(**{LOSS: f"def {LOSS}(*args):\n{LOOP}"})),
        {LOSS},
        f"{LOSS}: ran past its limit of {LIMIT:g} s",
    ),
    "crashes": (
        lambda: fill(LAB, but(**{LOGP: f"import os\ndef {LOGP}(*args):\n    os._exit(0)"})),
        {LOGP},
        f"{LOGP}: ended the process",
    ),
    "crashes-at-once": (
        lambda: fill(LAB, but(**{REWARD: "import os\nos.kill(os.getpid(), 9)"})),
        {REWARD},
        f"{REWARD}: NameError",
    ),
    "ends-the-server": (
        lambda: fill(LAB, but(**{KL: ENDS_THE_SERVER})),
        {KL},
        "ended the process",
    ),
    "exits": (lambda: fill(LAB, but(**{LOSS: "import sys\nsys.exit()"})), {LOSS}, "NameError"),
    "broken-json": (lambda: '{"cells": [', set(NAMES), "not a readable notebook"),
    "no-notebook": (lambda: '{"a": 1}', set(NAMES), ""),
    "syntax": (
        lambda: fill(LAB, but(**{WINS: f"def {WINS}(a, b:\n"})),
        {WINS},
        f"{WINS}: NameError",
    ),
    "no-answer-cell": (lambda: _without(LOSS), {LOSS}, f"the answer cell {LOSS} is missing"),
    "no-check-cell": (
        lambda: _without(f"check_{LOSS}"),
        set(),
        f"the check cell check_{LOSS} is missing",
    ),
    "edited": (_edited, set(NAMES), f"the check cell check_{LOGP} was edited"),
    "own-check": (
        lambda: fill(LAB, but(**{LOGP: f"check = lambda f: f\ndef {LOGP}(*args):\n    return 1"})),
        {LOGP},
        "",
    ),
    "helper": (_helper, set(), ""),
    "twice": (_twice, set(), f"{KL}: defined 2 times, the last one before its check was graded"),
    "builds-on": (
        lambda: fill(
            LAB,
            but(
                **{
                    REWARD: wrong(LAB, REWARD),
                    WEIGHT: f"def {WEIGHT}(c, r):\n    {REWARD}(c, r, 0.1)\n"
                    "    return torch.sigmoid(r - c)",
                }
            ),
        ),
        {REWARD},
        "",
    ),
}
ORDINARY = {
    f"student-{i:02}": {n for j, n in enumerate(NAMES) if (i * 7 + 3) >> j & 1}
    for i in range(30 - len(SPECIAL))
}


@pytest.fixture(scope="module")
def class_of_30(tmp_path_factory):
    folder = tmp_path_factory.mktemp("class")
    for student, (make, *_) in SPECIAL.items():
        hand_in(folder / "in", student, LAB, make())
    for student, lost in ORDINARY.items():
        hand_in(
            folder / "in",
            student,
            LAB,
            fill(LAB, {n: (wrong if n in lost else right)(LAB, n) for n in NAMES}),
        )
    status = cli.main(
        [
            "grade",
            str(folder / "in"),
            "--csv",
            str(folder / "marks.csv"),
            "--cell-timeout",
            f"{LIMIT:g}",
        ]
    )
    assert status == 0
    return folder


@pytest.mark.labs
@pytest.mark.parametrize("student", [*SPECIAL, *ORDINARY])
def test_a_class_of_30_graded_unattended(class_of_30, student):
    rows = read(class_of_30 / "marks.csv")
    assert len(rows) == 30
    lost, reason = SPECIAL[student][1:] if student in SPECIAL else (ORDINARY[student], "")
    row = rows[student, LAB]
    assert {n: float(row[f"{LAB} {n}"]) for n in NAMES} == {
        n: 0 if n in lost else POINTS[n] for n in NAMES
    }, row["reason"]
    assert float(row["total"]) == FULL - sum(POINTS[n] for n in lost) and float(row["max"]) == FULL
    assert reason in row["reason"] and bool(row["reason"]) >= bool(lost)


@pytest.mark.labs
def test_a_second_run_grades_only_what_has_changed(class_of_30, monkeypatch):
    graded = []
    monkeypatch.setattr(
        grading_module.Grader,
        "grade",
        lambda self, lab, student, notebooks: (
            graded.append(student)
            or grading_module.Row(
                student, LAB, self.maximum(lab), {LOGP: 3.0}, grading_module.digest(notebooks)
            )
        ),
    )
    before = read(class_of_30 / "marks.csv")
    hand_in(class_of_30 / "in", "broken-json", LAB, source())
    assert (
        cli.main(
            [
                "grade",
                str(class_of_30 / "in"),
                "--csv",
                str(class_of_30 / "marks.csv"),
                "--cell-timeout",
                f"{LIMIT:g}",
            ]
        )
        == 0
    )
    after = read(class_of_30 / "marks.csv")
    assert graded == ["broken-json"] and after["broken-json", LAB]["total"] == "3"
    assert {k: v for k, v in after.items() if k[0] != "broken-json"} == {
        k: v for k, v in before.items() if k[0] != "broken-json"
    }


# --- the parts ------------------------------------------------------------------------------------
def test_what_a_setup_cell_imports_is_loaded_before_the_processes_fork():
    """A submodule named after `from … import` too: left to each process, it costs seconds a
    submission.
    """
    text = "import a.b\nfrom c import d, e as f\nfrom . import g\nif d:\n    import h\n"
    assert grading_module.imported_modules(text) == {"a.b", "c", "c.d", "c.e", "h"}


def test_definitions_keep_what_defines():
    text = (
        "import math\n%matplotlib inline\nA = (1 << 3) - 1\nB = open('x')\nprint(A)\nfor i in "
        "range(3):\n    pass\n\n"
        "def f(x):\n    return train(x)\n\nclass C:\n    pass\n!ls"
    )
    assert answers.definitions(text).split("\n\n") == [
        "import math",
        "A = (1 << 3) - 1",
        "def f(x):\n    return train(x)",
        "class C:\n    pass",
    ]
    with pytest.raises(SyntaxError):
        answers.definitions("def f(:")


@pytest.mark.parametrize("path", catalogue.lab_files(extensions=True), ids=lambda p: p.stem)
def test_the_graded_notebook_holds_the_set_up_the_answers_and_the_checks_alone(path):
    """Nothing that trains; every check names its exercise; and of an unchanged notebook nothing is
    noted.
    """
    nb, exercises = (
        nbformat.read(path, as_version=4),
        load_lab(catalogue.lab_number(path)).exercises,
    )
    small, notes = grading_module.compose(nb, nb)
    assert (
        notes == []
        and len(small.cells) == 1 + 2 * len(exercises)
        and "open_lab(" in small.cells[0].source
    )
    assert {
        answers.CHECKED.search(c.source)[1] for c in small.cells if nbgrader_mark(c).get("grade")
    } == {e.name for e in exercises}


def test_finding_submissions(tmp_path):
    """A folder a student, or nbgrader's; the latest of several first; not what an editor left in a
    hidden folder.
    """
    for i, name in enumerate(
        [
            "a/lab-3.1.1-x.ipynb",
            "a/sub/lab-3.1.1-x (1).ipynb",
            "a/.ipynb_checkpoints/lab-3.1.2-x.ipynb",
            "b/lab-3.1.10-y.ipynb",
            "b/notes.txt",
            "c/empty.txt",
            ".git/lab-3.1.1.ipynb",
        ]
    ):
        path = tmp_path / "submitted" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (i, i))
    for folder in (tmp_path, tmp_path / "submitted"):
        found = grading_module.find_submissions(folder)
        assert {
            s: {n: [p.name for p in ps] for n, ps in mine.items()} for s, mine in found.items()
        } == {
            "a": {"3.1.1": ["lab-3.1.1-x (1).ipynb", "lab-3.1.1-x.ipynb"]},
            "b": {"3.1.10": ["lab-3.1.10-y.ipynb"]},
            "c": {},
        }
    with pytest.raises(grading_module.GradingError, match="is not a folder"):
        grading_module.find_submissions(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(grading_module.GradingError, match="no folder of a student"):
        grading_module.find_submissions(tmp_path / "empty")


def test_what_cannot_be_graded_is_said_before_anything_is_written(tmp_path, capsys):
    (tmp_path / "in" / "a").mkdir(parents=True)
    marks = tmp_path / "marks.csv"
    assert (
        cli.main(["grade", str(tmp_path / "in"), "--csv", str(marks)]) == 2
        and "no notebook of a lab" in capsys.readouterr().err
    )
    assert (
        cli.main(["grade", str(tmp_path / "in"), "--csv", str(marks), "--labs", "9.9"]) == 2
        and "'9.9'" in capsys.readouterr().err
    )
    assert not marks.exists()
    marks.write_text("name,age\n")
    assert cli.main(["grade", str(tmp_path / "in"), "--csv", str(marks), "--labs", LAB]) == 2
    assert "is no CSV of marks" in capsys.readouterr().err and marks.read_text() == "name,age\n"


def test_who_handed_in_nothing_gets_nothing_and_a_reason(tmp_path):
    path = catalogue.lab_files([LAB])[0]
    row = grading_module.Grader([path]).grade(path, "a", [])
    assert (
        row.cells()["total"] == "0"
        and row.cells()["max"] == f"{FULL:g}"
        and row.reason == "not handed in"
    )


def test_points_and_reasons_are_what_the_checks_said(monkeypatch):
    """All points of an exercise where its check says nothing, none and the check's words where it
    says something; what goes wrong in an answer alone costs nothing, since its check decides.
    """
    path = catalogue.lab_files([LAB])[0]
    grader = grading_module.Grader([path], limit=3)
    notebook, _ = grading_module.compose(fill(LAB, GOOD), source())
    said = {REWARD: f"✗ {REWARD}: the margin\n has the other sign", WINS: "ended the process"}

    def outcomes(setup, steps, limit):
        assert "open_lab(" in setup and limit == 3
        wrong = [said.get(step.check, "") if step.check else "NameError" for step in steps]
        return Ran(wrong, ["ftlib.course.exercise.judge"])

    monkeypatch.setattr(grading_module, "run_steps", outcomes)
    points, reasons, changed = grader._score(notebook, grader.maximum(path))
    assert changed == ["ftlib.course.exercise.judge"]
    assert points == {**POINTS, REWARD: 0, WINS: 0}
    assert reasons == {REWARD: "the margin has the other sign", WINS: "ended the process"}


def test_a_set_up_that_fails_stops_the_grading_and_names_the_machine(tmp_path, monkeypatch):
    """No row is written for it: it is no student's fault."""
    hand_in(tmp_path / "in", "ada", LAB, source())

    def fails(*args):
        raise sandbox.SetupError("the lab's set-up cell fails on this machine: ImportError")

    monkeypatch.setattr(grading_module, "run_steps", fails)
    with pytest.raises(sandbox.SetupError, match="on this machine"):
        grading_module.grade_class(tmp_path / "in", tmp_path / "marks.csv")
    assert not (tmp_path / "marks.csv").exists()


def test_grading_needs_no_nbgrader():
    """It is asked for by `ftlib release` alone; a machine that grades may be without it."""
    code = """
import sys
sys.modules["nbgrader"] = None
from ftlib import cli
import ftlib.course.grading
sys.exit(cli.main(["release", "out"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "nbgrader is not installed: pip install" in done.stderr


def test_answers_of_any_kind_are_checked_by_their_name():
    """A lambda, a partial, an alias and a callable object have other names than the exercise, or
    none. A number is no function. What ends its process after its definition keeps the definition,
    and an exercise that failed before goes on with the reference then too.
    """
    find = f"R = load_lab({LAB!r}).find"
    alias = f"def mine(*args):\n    return R({LOSS!r}).reference(*args)\n\nmy = mine\n{LOSS} = my"
    scorer = f"class Scorer:\n    def __call__(self, *args):\n        return {WEIGHT}_(*args)"
    scorer += f"\n\n{WEIGHT}_ = R({WEIGHT!r}).reference\n{WEIGHT} = Scorer()"
    uses = f"def {WINS}(a, b):\n    assert callable({KL})\n    return R({WINS!r}).reference(a, b)"
    written = {
        LOGP: f"{LOGP} = lambda *args: R({LOGP!r}).reference(*args)",
        REWARD: f"import functools\n{REWARD} = functools.partial(R({REWARD!r}).reference)",
        LOSS: alias,
        WEIGHT: scorer,
        KL: f"{KL} = 0.5",
        WINS: f"{uses}\n\nimport os\nos._exit(1)",
    }
    steps = [Step(f"from ftlib.course.exercise import load_lab\n{find}")]
    for name, text in written.items():
        again = (uses,) if name == WINS else ()
        steps += [Step(text, definitions=again), Step(f"{name} = check({name})", name)]
    steps.append(Step(f"assert type({WEIGHT}).__name__ == 'Scorer'"))  # as it was before its check
    setup = f"from ftlib.course.exercise import open_lab\ncheck, *_ = open_lab({LAB!r})"
    wrong = run_steps(setup, steps, limit=LIMIT).wrong
    said = {step.check: why for step, why in zip(steps, wrong, strict=True) if step.check}
    assert said == dict.fromkeys(written, "") | {
        KL: "✗ kl_estimate: it is 0.5, not a function: define it as the stub.",
    }
    assert wrong[-1] == ""


@pytest.mark.labs
def test_a_set_up_that_fails_is_not_the_students_fault():
    with pytest.raises(
        sandbox.SetupError,
        match=r"set-up cell fails on this machine: ModuleNotFoundError: .*nobody_has",
    ):
        run_steps(f"import a_module_that_nobody_has\nopen_lab({LAB!r})", [Step("x = 1")], limit=5)


def test_a_set_up_that_names_no_lab_is_not_the_students_fault():
    with pytest.raises(sandbox.SetupError, match="names no lab: write `open_lab"):
        run_steps("open_lab(number)", [Step("x = 1")], limit=5)


# --- release --------------------------------------------------------------------------------------
def test_release_strips_outputs_keeps_stubs_and_locks_checks(tmp_path, capsys):
    before, surroundings = catalogue.lab_files([LAB])[0].read_bytes(), dict(os.environ)
    assert cli.main(["release", str(tmp_path / "out"), LAB, "3.1.1"]) == 0
    assert dict(os.environ) == surroundings
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        p.name for p in catalogue.lab_files([LAB, "3.1.1"])
    )
    given, own = (
        nbformat.read(tmp_path / "out" / catalogue.lab_files([LAB])[0].name, as_version=4),
        source(),
    )
    assert [c.source for c in given.cells] == [c.source for c in own.cells]
    assert not any(c.outputs or c.execution_count for c in given.cells if c.cell_type == "code")
    for name in NAMES:
        assert "raise NotImplementedError" in cell_of(given, name).source and cell_of(
            given, name
        ).metadata.get("editable", True)
        check = cell_of(given, f"check_{name}").metadata
        assert (
            check.editable is False
            and check.deletable is False
            and check.nbgrader.points == POINTS[name]
        )
    assert catalogue.lab_files([LAB])[0].read_bytes() == before


def test_release_does_not_overwrite_the_sources(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "labs"
    folder.mkdir()
    copy = folder / catalogue.lab_files([LAB])[0].name
    copy.write_bytes(catalogue.lab_files([LAB])[0].read_bytes())
    monkeypatch.setattr(catalogue, "LABS", folder)
    before = copy.read_bytes()
    assert (
        cli.main(["release", str(folder)]) == 2
        and "release them to another folder" in capsys.readouterr().err
    )
    assert copy.read_bytes() == before and [p.name for p in folder.iterdir()] == [copy.name]


# --- nbgrader itself ------------------------------------------------------------------------------
@pytest.mark.labs
def test_nbgraders_own_commands_grade_a_notebook_as_it_is(tmp_path):
    """`nbgrader generate_assignment` and `nbgrader autograde`, with nbgrader's own kernel and the
    settings of INSTRUCTORS.md: the lab's cells as they are, without those that train. Of two
    answers, the one that is right earns its points.
    """
    from nbgrader.api import Gradebook

    name = catalogue.lab_files([LAB])[0].stem
    settings = (
        (ROOT / "INSTRUCTORS.md")
        .read_text()
        .split("```py\n# nbgrader_config.py")[1]
        .split("```")[0]
    )
    (tmp_path / "nbgrader_config.py").write_text(settings)
    small = grading_module.compose(source(), source())[0]
    for folder, notebook in (
        (tmp_path / "source" / name, small),
        (tmp_path / "submitted" / "ada" / name, None),
    ):
        folder.mkdir(parents=True)
        notebook = (
            notebook
            or grading_module.compose(
                fill(LAB, {LOGP: GOOD[LOGP], REWARD: wrong(LAB, REWARD)}), source()
            )[0]
        )
        nbformat.write(notebook, folder / f"{name}.ipynb")
    environment = {
        **os.environ,
        "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
    }  # for alembic
    for command in (["generate_assignment", name], ["autograde", name, "--student=ada"]):
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    with Gradebook(f"sqlite:///{tmp_path}/gradebook.db") as book:
        submission = book.find_submission(name, "ada")
        assert (submission.score, submission.max_score) == (POINTS[LOGP], FULL)
