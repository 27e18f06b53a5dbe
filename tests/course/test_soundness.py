"""What is asked of an exercise, and that each fault is told in words."""

import dataclasses
import shutil
import sys

import nbformat
import pytest
import torch
from conftest import ROOT

import ftlib.course
from ftlib import cli
from ftlib.course import cell_faults, soundness
from ftlib.course.answers import checked_name
from ftlib.course.authoring import AuthoringError, notebook_of, second_solutions
from ftlib.course.catalogue import MODULES
from ftlib.course.exercise import Wrong, load_lab
from ftlib.course.notebooks import left_out
from ftlib.course.soundness import check_exercise, faults_of, still_the_templates

LAB = "3.1.7"
NAME = "gradient_weight"
SOUND = load_lab(LAB).find(NAME)


def test_exercises_of_the_course_are_sound():
    assert [faults_of(exercise) for exercise in load_lab(LAB).exercises] == [
        [] for _ in load_lab(LAB).exercises
    ]


@pytest.mark.parametrize("lab", MODULES)
def test_cells_and_second_solutions_of_every_lab_agree_with_its_exercises(lab):
    """Without judging, which test_course.py and test_exercises.py do."""
    notebook = nbformat.read(notebook_of(lab), as_version=4)
    for exercise in load_lab(lab).exercises:
        faults = cell_faults.faults_of_cells(exercise, notebook)
        if not left_out(notebook_of(lab)):
            faults += soundness._faults_of_stub(exercise, notebook, usable=False)
        faults += soundness._faults_of_second(exercise, second_solutions(), usable=False)
        assert faults + soundness._incomplete(exercise) == [], exercise.name
        assert still_the_templates(lab, exercise.name) == []


@pytest.mark.parametrize("lab", MODULES)
def test_every_table_of_a_lab_is_shown(lab):
    assert cell_faults.faults_of_tables(nbformat.read(notebook_of(lab), as_version=4)) == []


@pytest.mark.parametrize(
    "source, lines",
    [
        ("rows = []\nplots.table(rows)", []),
        ("display(plots.table(rows))\nsay('so')", []),
        ("shown = plots.table(rows)\nshown", []),
        ("plots.table(rows)\nsay('so')", [1]),
        ("if rows:\n    plots.table(rows)", [2]),
        ("plots.table(rows);", [1]),
        ("figures.dots(found)\n%matplotlib inline", []),
    ],
)
def test_a_table_whose_value_is_thrown_away_is_named(source, lines):
    cells = [nbformat.v4.new_markdown_cell("plots.table(rows)"), nbformat.v4.new_code_cell(source)]
    faults = cell_faults.faults_of_tables(nbformat.v4.new_notebook(cells=cells))
    assert [fault.partition(":")[0] for fault in faults] == [f"cell 1, line {n}" for n in lines]


# --- the exercise itself --------------------------------------------------------------------------
def _right(chosen, rejected):
    return torch.sigmoid(rejected - chosen)


def _known(chosen, rejected):
    """As the bank's first wrong answer gives it."""
    return SOUND.wrong[0].function(chosen, rejected)


def _open(chosen, rejected):
    raise NotImplementedError


def _fails(chosen, rejected):
    raise ZeroDivisionError("no pairs")


def more(function, message="You have made this mistake.", name="x"):
    return {"wrong": (*SOUND.wrong, Wrong(name, function, message))}


def pairs(*shapes):
    """Cases with these shapes, from the generator that they get."""

    def cases(generator):
        for shape in shapes:
            yield tuple(torch.randn(3, generator=generator) for _ in range(shape))

    return cases


def no_tuples(generator):
    yield torch.ones(2)
    yield torch.ones(3)


def applied(function):
    return function(torch.ones(2))


def no_pickle(generator):
    for factor in (2, 3):
        yield (lambda x, factor=factor: factor * x,)


def no_inputs(generator):
    yield from [{}["pairs"]]


FAULTS = {
    "few wrong answers": ({"wrong": SOUND.wrong[:2]}, "it has 2 wrong answers: give at least 3"),
    "few hints": ({"hints": ("one",)}, "it has 1 hints: give at least 2"),
    "a hint twice": ({"hints": ("one", "two", "two")}, "two hints are the same"),
    "no points": ({"points": 0}, "points and minutes must be above 0"),
    "difficulty": ({"difficulty": 4}, "the difficulty 1, 2 or 3"),
    "no title": ({"title": ""}, "it has no title"),
    "name": ({"name": "other"}, "the reference is not `def other(…)`"),
    "no tuple": ({"hints": "one"}, "hints is a str, not a tuple: put a comma behind"),
    "right": (more(_right), "the wrong answer 'x' is right: add an input"),
    "open": (more(_open), "the wrong answer 'x' raises NotImplementedError, as a stub does"),
    "alike": (more(_known), f"'x' gives the same as {SOUND.wrong[0].name!r} on every input"),
    "sentence twice": (
        more(_fails, SOUND.wrong[0].message),
        "two wrong answers have the same sentence",
    ),
    "name twice": (more(_fails, name=SOUND.wrong[0].name), "two wrong answers have the same name"),
    "short": (more(_fails, "No."), "the sentence of 'x' is too short to teach: No."),
    "one input": ({"cases": pairs(2)}, "cases yields fewer than two inputs"),
    "no inputs": ({"cases": no_inputs}, "cases does not make its inputs: KeyError: 'pairs'"),
    "no arguments": ({"cases": no_tuples}, "input 1 of cases is a Tensor, not a tuple"),
    "arguments": ({"cases": pairs(2, 3)}, "input 2 of cases does not fit the reference's"),
    "reference": ({"reference": _fails}, "makes the reference fail: ZeroDivisionError: no pairs"),
    "pickle": (
        {"reference": applied, "cases": no_pickle},
        "input 1 of cases cannot be handed to another process, as grading does: ",
    ),
    "parameter": ({"gradient_of": ("choosen",)}, "gradient_of names 'choosen', and the reference"),
    "changing": (
        {"cases": lambda generator: [(torch.randn(3), torch.randn(3)) for _ in range(2)]},
        "the inputs change from call to call",
    ),
}


@pytest.mark.parametrize("change, said", FAULTS.values(), ids=FAULTS)
def test_what_an_exercise_lacks_is_said(change, said):
    faults = faults_of(dataclasses.replace(SOUND, **change))
    assert any(said in fault for fault in faults), faults


def test_a_sentence_that_another_fault_covers_is_said():
    """A wrong answer that only detaches is told of the missing gradient."""
    trained = load_lab(LAB).find("implicit_reward")
    detached = Wrong(
        "detached", lambda *args: trained.reference(*args).detach(), "Do not detach it."
    )
    faults = faults_of(dataclasses.replace(trained, wrong=(*trained.wrong, detached)))
    assert len(faults) == 2  # its sentence is short too
    assert "'detached' is told another sentence than its own: The values are right" in faults[1]


def test_the_callers_random_numbers_are_left_alone():
    state = torch.random.get_rng_state()
    faults_of(SOUND)
    assert torch.equal(torch.random.get_rng_state(), state)


# --- its cells, its second solution ---------------------------------------------------------------
@pytest.fixture
def root(tmp_path):
    """A checkout with the notebook and the second solutions alone."""
    (tmp_path / "labs").mkdir()
    shutil.copy(notebook_of(LAB), tmp_path / "labs")
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(second_solutions(), second_solutions_of(tmp_path), ignore=skipped)
    return tmp_path


def second_solutions_of(root):
    return root / "tests" / "second_solutions"


def edit(root, change) -> None:
    """Change the notebook, given its cells and the places of stub and check."""
    path = notebook_of(LAB, root)
    notebook = nbformat.read(path, as_version=4)
    marks = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in notebook.cells]
    names = [checked_name(cell) for cell in notebook.cells]
    change(notebook.cells, marks.index(NAME), names.index(NAME))
    nbformat.write(notebook, path)


def without_stub(cells, stub, check):
    del cells[stub]


def without_check(cells, stub, check):
    del cells[check]


def check_first(cells, stub, check):
    cells[stub], cells[check] = cells[check], cells[stub]


def more_points(cells, stub, check):
    cells[check].metadata.nbgrader.points = 5


def unlocked(cells, stub, check):
    cells[check].metadata.nbgrader.locked = False


def solved(cells, stub, check):
    cells[stub].source = (
        f'def {NAME}(chosen_rewards, rejected_rewards):\n    """σ(−z)."""\n'
        "    return torch.sigmoid(rejected_rewards - chosen_rewards)"
    )


def without_docstring(cells, stub, check):
    cells[
        stub
    ].source = f"def {NAME}(chosen_rewards, rejected_rewards):\n    raise NotImplementedError"


def needs_another_cell(cells, stub, check):
    cells[stub].source = f"MARGINS = margins_of_cell_9\n{cells[stub].source}"


def other_parameters(cells, stub, check):
    cells[stub].source = cells[stub].source.replace("rejected_rewards", "other", 1)


def long_stub(cells, stub, check):
    cells[stub].source += "\n# and so on" * 30


def other_minutes(cells, stub, check):
    for cell in cells[:stub]:
        cell.source = cell.source.replace("8 min · ●●○", "9 min · ●●○")


def setup_needs_another_cell(cells, stub, check):
    setup = next(cell for cell in cells if "open_lab(" in cell.source)
    setup.source += "\nquiet_libraries_of_cell_1()"


CELLS = {
    setup_needs_another_cell: "the set-up cell uses quiet_libraries_of_cell_1, which another cell",
    without_stub: f"the notebook has 0 answer cells of it: one begins with def {NAME}(",
    without_check: f"the notebook has 0 check cells of it: one says {NAME} = check({NAME})",
    check_first: "comes before its stub",
    more_points: "its check cell gives 5 points, the exercise 2",
    unlocked: "its check cell is not locked",
    solved: "does not count as not attempted: end it with `raise NotImplementedError`",
    without_docstring: "has no docstring",
    needs_another_cell: "cannot be run: NameError: name 'margins_of_cell_9' is not defined",
    other_parameters: "its stub has the parameters (",
    long_stub: "its stub has more than 25 lines",
    other_minutes: "its heading says 9 min and ●●○, the exercise 8 min and ●●○",
}


@pytest.mark.parametrize("change, said", CELLS.items(), ids=[change.__name__ for change in CELLS])
def test_cells_that_do_not_agree_are_named(root, change, said):
    assert check_exercise(LAB, NAME, root) == []
    edit(root, change)
    faults = check_exercise(LAB, NAME, root)
    assert any(said in fault for fault in faults), faults


SECOND = {
    "": "it has no second solution: write it in",
    f"import ftlib\n\ndef {NAME}(c, r):\n    return ftlib": "imports ftlib: write it without",
    f"import torch\n\ndef {NAME}(c, r):\n    return torch.sigmoid(c - r)": "is not accepted: ",
    f"def {NAME}(c, r):\n    return (": "second solution cannot be loaded: SyntaxError",
}


@pytest.mark.parametrize("text, said", SECOND.items(), ids=["none", "ftlib", "wrong", "broken"])
def test_a_second_solution_that_does_not_do_is_named(root, text, said):
    for path in second_solutions_of(root).glob("*.py"):
        path.unlink()
    (second_solutions_of(root) / "own.py").write_text(text)
    (fault,) = check_exercise(LAB, NAME, root)
    assert said in fault


def test_the_stub_of_a_lab_that_cannot_run_here_is_not_run(root, monkeypatch):
    """A library that was compiled for another processor ends the process that imports it."""
    monkeypatch.setattr(soundness, "left_out", lambda path: f"{path.name} is left out: no llama")
    monkeypatch.setattr(soundness, "setup_cell", lambda notebook: pytest.fail("it was run"))
    (fault,) = check_exercise(LAB, NAME, root)
    assert fault == "its stub was not run: lab-3.1.7-dpo-training.ipynb is left out: no llama"


def test_points_of_the_catalogue_that_do_not_agree_are_named(root, monkeypatch):
    monkeypatch.setitem(soundness.POINTS[LAB], NAME, 7)
    (fault,) = check_exercise(LAB, NAME, root)
    assert "POINTS in ftlib/course/catalogue.py gives it 7 points, the exercise 2" in fault


# --- the command ----------------------------------------------------------------------------------
def test_the_command_says_what_is_wrong_and_ends_in_1(monkeypatch, capsys):
    assert cli.main(["exercise", "check", LAB, NAME]) == 0
    assert capsys.readouterr().out.startswith(
        f"✓ {NAME}(chosen_rewards, rejected_rewards): 2 points"
    )
    monkeypatch.setitem(soundness.POINTS[LAB], NAME, 7)
    assert cli.main(["exercise", "check", LAB, NAME]) == 1
    assert capsys.readouterr().out.startswith("✗ POINTS in ")
    assert cli.main(["exercise", "check", LAB, "nothing"]) == 2
    assert "no exercise 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, said",
    [
        ("EXERCISES = [", r"SyntaxError: '\[' was never closed \(exercises\.py, line 1\)"),
        ("\nEXERCISES = [LOSS]", r"NameError: name 'LOSS' .* \(exercises\.py, line 2\)"),
        ("raise ValueError('no', 1)", r"ValueError: .* \(exercises\.py, line 1\)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_its_line(tmp_path, monkeypatch, text, said):
    package = tmp_path / "lab_broken"
    package.mkdir()
    (package / "exercises.py").write_text(text)
    monkeypatch.setattr(ftlib.course, "__path__", [*ftlib.course.__path__, str(tmp_path)])
    monkeypatch.setitem(MODULES, LAB, "lab_broken")
    for name in ("ftlib.course.lab_broken", "ftlib.course.lab_broken.exercises"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(AuthoringError, match=rf"exercises of lab 3\.1\.7 cannot be loaded: {said}"):
        check_exercise(LAB, NAME)


def test_what_is_still_the_templates_is_listed_with_its_place(root):
    path = second_solutions_of(root) / f"{NAME}.py"
    path.write_text('"""A second solution.\n\nREPLACE: your function once more, by a loop.\n"""\n')

    def mark(cells, stub, check):
        cells[stub - 1].source += "\n\nREPLACE: say what to write."

    edit(root, mark)
    first, second = still_the_templates(LAB, NAME, root)
    assert first == f"tests/second_solutions/{NAME}.py:3: your function once more"
    assert second.startswith("labs/lab-3.1.7-dpo-training.ipynb, cell ")
    assert second.endswith(": say what to write")
    assert (ROOT / "ftlib/course/templates/exercise.txt").read_text().count("# REPLACE: ") >= 5
