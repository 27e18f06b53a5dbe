"""An exercise of an instructor's own: one command writes one that works, or nothing, and the tests
take it up by themselves. (What an exercise must have is in test_soundness.py.)
"""

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from ftlib import cli
from ftlib.core import atomic
from ftlib.course.answers import checked_name
from ftlib.course.authoring import AuthoringError, new_exercise
from ftlib.course.catalogue import MODULES, POINTS

LAB = "3.1.7"
NAME = "exercise_of_these_tests"  # not INSTRUCTORS.md's: who follows it has that one


# --- the whole checkout ---------------------------------------------------------------------------
# Tests that go through all exercises, by what they ask, and what is chosen of them.
ASKED = (
    "test_course.py",
    "test_exercises.py",
    "test_check.py",
    "test_progress_file.py",
    "test_grading.py",
    "../labs/test_notebooks.py",
    "../test_layers.py",
)
CHOSEN = f"{NAME} or lab-{LAB} or catalogue or second_solutions or points_and_reasons or map"
# One process, which imports the libraries once. What tests/course/mutants.py makes of the new
# exercise is judged apart, since its own test first makes those of all the others.
ASK = f"""
import sys
import pytest
from ftlib import cli
from ftlib.course.exercise import judge, load_lab
sys.path.insert(0, "tests/course")
import mutants
code = cli.main(["exercise", "check", "{LAB}", "{NAME}"])
print("check:", code)
exercise = load_lab("{LAB}").find("{NAME}")
for mutant, came in mutants.mutants(exercise):
    verdict = judge(exercise, mutant.function)
    false = mutants.untrue(mutant, verdict.message, came)
    print("mutant:", verdict.status, mutant.name if verdict.status == "right" or false else "")
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what an exercise is written into, with a new one; the data are linked."""
    root = tmp_path_factory.mktemp("checkout")
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("ftlib", "labs", "tests", "tools"):
        shutil.copytree(ROOT / name, root / name, ignore=skipped)
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, root)
    (root / "data").symlink_to(ROOT / "data")
    new_exercise(LAB, NAME, root=root)
    return root


@pytest.fixture(scope="module")
def said(checkout) -> str:
    """What `ftlib exercise check`, the mutants and the tests say of it in that copy."""
    files = [str(checkout / "tests" / "course" / name) for name in ASKED]
    options = ["-q", "-p", "no:cacheprovider", "-m", "not labs", "-k", CHOSEN, *files]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *options],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def test_the_template_is_a_sound_exercise_and_says_what_to_replace(said):
    assert "check: 0" in said, said
    assert f"✓ {NAME}(values, weights): 2 points, 3 wrong answers, 3 hints" in said
    replace = [line for line in said.splitlines() if line.startswith("○ still the template's: ")]
    assert any(f"ftlib/course/lab_3_1_7/{NAME}.py:" in line for line in replace)
    assert any(f"tests/second_solutions/{NAME}.py:" in line for line in replace)
    assert any("labs/lab-3.1.7-dpo-training.ipynb, cell " in line for line in replace)


def test_no_wrong_answer_made_by_code_is_accepted_by_the_template(said):
    mutants = [line for line in said.splitlines() if line.startswith("mutant: ")]
    assert len(mutants) > 20 and set(mutants) == {"mutant: wrong "}, mutants


def test_the_tests_take_up_a_new_exercise_by_themselves(said):
    """All pass, but for the two of the notebook's outputs, which name the command that renews
    them.
    """
    failed = re.findall(r"^FAILED \S*::(\w+)\[lab-(\S+?)-", said, re.M)
    of_outputs = ("test_committed_outputs", "test_committed_outputs_are_of_the_committed_code")
    assert failed == [(name, LAB) for name in of_outputs], said
    assert re.search(r"\b[1-9]\d passed", said), said
    assert said.count(f"`ftlib labs {LAB} --write-back` renews them") >= 2


def test_what_is_written_is_laid_out_by_ruff(checkout):
    files = [
        f"ftlib/course/{MODULES[LAB]}/{NAME}.py",
        f"ftlib/course/{MODULES[LAB]}/exercises.py",
        "ftlib/course/catalogue.py",
        f"tests/second_solutions/{NAME}.py",
    ]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *files],
            cwd=checkout,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


# --- the files that an exercise is written into ---------------------------------------------------
def small_checkout(root: Path, lab: str = LAB) -> Path:
    """A folder with those files alone."""
    package = Path("ftlib") / "course"
    notebook = next((ROOT / "labs").glob(f"lab-{lab}-*.ipynb")).relative_to(ROOT)
    for path in (package / MODULES[lab] / "exercises.py", package / "catalogue.py", notebook):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, root / path)
    (root / "tests" / "second_solutions").mkdir(parents=True)
    return root


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def cells(root: Path) -> list:
    return nbformat.read(next((root / "labs").iterdir()), as_version=4).cells


def assigned(path: Path, name: str) -> ast.expr:
    (found,) = [
        node.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return found


def catalogued(root: Path, lab: str) -> list[str]:
    return list(ast.literal_eval(assigned(root / "ftlib/course/catalogue.py", "POINTS"))[lab])


def listed(root: Path, lab: str) -> list[str]:
    path = root / "ftlib" / "course" / MODULES[lab] / "exercises.py"
    return [ast.unparse(item) for item in assigned(path, "EXERCISES").elts]


def test_by_default_it_comes_behind_the_last_exercise_and_has_its_number(tmp_path):
    """In lab 3.1.3 the last that is checked is not the last of the list."""
    root = small_checkout(tmp_path, "3.1.3")
    before = cells(root)
    new_exercise("3.1.3", NAME, title="DPO's sign", root=root)
    after = cells(root)
    checks = [checked_name(cell) for cell in after if checked_name(cell)]
    assert checks[-1] == NAME and len(checks) == len(POINTS["3.1.3"]) + 1
    place = [checked_name(cell) for cell in after].index(NAME)
    heading = f"### Exercise {len(checks)} · DPO's sign · 5 min · ●○○\n"
    assert after[place - 2].source.startswith(heading)
    assert after[: place - 2] + after[place + 1 :] == before
    assert catalogued(root, "3.1.3") == [*POINTS["3.1.3"], NAME]
    assert listed(root, "3.1.3")[-1] == NAME.upper()


def test_behind_an_exercise_it_has_no_number(tmp_path):
    root = small_checkout(tmp_path)
    new_exercise(LAB, NAME, after="implicit_reward", root=root)
    checks = [checked_name(cell) for cell in cells(root) if checked_name(cell)]
    assert checks == catalogued(root, LAB) != list(POINTS[LAB])
    assert checks.index(NAME) == checks.index("implicit_reward") + 1
    assert listed(root, LAB).index(NAME.upper()) == checks.index(NAME)
    (text,) = [cell.source for cell in cells(root) if "· Exercise of these tests ·" in cell.source]
    assert text.startswith("### Exercise · Exercise of these tests · 5 min")


def test_behind_a_heading_it_comes_at_the_end_of_the_section(tmp_path):
    root = small_checkout(tmp_path)
    new_exercise(LAB, NAME, after="noisy labels", root=root)
    sources = [cell.source for cell in cells(root)]
    place = sources.index(f"{NAME} = check({NAME})")
    sections = [i for i, source in enumerate(sources) if re.search(r"^#{1,2} ", source, re.M)]
    begun = max(i for i in sections if i < place)
    assert "Noisy labels" in sources[begun] and place + 1 in sections


def test_behind_the_labs_title_it_comes_at_the_end_of_the_notebook(tmp_path):
    root = small_checkout(tmp_path)
    new_exercise(LAB, NAME, after="DPO: preferences without a reward model", root=root)
    assert cells(root)[-1].source == f"{NAME} = check({NAME})"


def test_before_all_exercises_it_is_the_first_of_both_lists(tmp_path):
    """Lab 3.1.2 has a section between its set-up cell and its first exercise."""
    root = small_checkout(tmp_path, "3.1.2")
    new_exercise("3.1.2", NAME, after="The task, the base model", root=root)
    assert catalogued(root, "3.1.2") == [NAME, *POINTS["3.1.2"]]
    assert listed(root, "3.1.2")[0] == NAME.upper()
    assert next(filter(None, map(checked_name, cells(root)))) == NAME


def test_a_constant_that_the_list_has_already_gets_another_name(tmp_path):
    """With a second LOSS, say, the list would have one exercise twice and the other not at all."""
    root = small_checkout(tmp_path)
    path = root / "ftlib" / "course" / MODULES[LAB] / "exercises.py"
    taken = NAME.upper()
    path.write_text(re.sub(r"\bLOSS\b", taken, path.read_text()))
    new_exercise(LAB, NAME, root=root)
    assert listed(root, LAB).count(taken) == 1 and listed(root, LAB)[-1] == f"{taken}_EXERCISE"
    module = path.with_name(f"{NAME}.py").read_text()
    assert f"\n{taken}_EXERCISE = Exercise(" in module


# --- refused --------------------------------------------------------------------------------------
REFUSED = [
    (("9.9", NAME), r"lab '9\.9' is unknown: use one of 3\.1\.1"),
    ((LAB, "Margin"), "name='Margin': .* lower-case letters"),
    ((LAB, "margin-of-pairs"), "name='margin-of-pairs': .* margin_of_pairs"),
    ((LAB, "_margin"), "name='_margin': the student's function has this name"),
    ((LAB, "lambda"), "name='lambda': .* no word of Python's"),
    ((LAB, "m" * 31), "name='m+': .* 30 at most"),
    ((LAB, "sum"), "name='sum' is a function of Python's"),
    ((LAB, "lora_forward"), r"name='lora_forward' is an exercise of lab 3\.1\.1 already"),
    ((LAB, "check"), r"name='check': cell \d+ of the notebook gives this name to something else"),
    ((LAB, "torch"), "name='torch': cell .* of the notebook"),
    ((LAB, "exercises"), r"exercises\.py has this name already"),
    ((LAB, "helper"), r"training\.py has this name already"),
    ((LAB, "training"), r"training\.py has this name already"),
    ((LAB, NAME, 'the "margin"'), "title='the \"margin\"': use one line"),
    ((LAB, NAME, "m" * 51), "title='m+': use one line of at most 50 characters"),
    (
        (LAB, NAME, "", "Llama"),
        "after='Llama': the notebook has no such heading, .*completion_logp",
    ),
    ((LAB, NAME, "", "Exercise"), "after='Exercise': several headings have these words"),
]


@pytest.mark.parametrize("arguments, message", REFUSED, ids=lambda value: str(value)[:60])
def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path, arguments, message):
    root = small_checkout(tmp_path)
    second = root / "tests" / "second_solutions" / "training.py"
    second.write_text("def helper(x):\n    return x\n")
    before = contents(root)
    with pytest.raises(AuthoringError, match=f"(?s){message}"):
        new_exercise(*arguments, root=root)
    assert contents(root) == before


def test_a_section_before_the_set_up_cell_is_refused(tmp_path):
    root = small_checkout(tmp_path)
    path = next((root / "labs").iterdir())
    notebook = nbformat.read(path, as_version=4)
    headings = [nbformat.v4.new_markdown_cell(f"## {name}") for name in ("Too early", "Begin")]
    notebook.cells[1:1] = headings
    nbformat.write(notebook, path)
    with pytest.raises(AuthoringError, match="'Too early': this section ends before the set-up"):
        new_exercise(LAB, NAME, after="Too early", root=root)


def test_an_exercise_is_not_written_twice(tmp_path):
    root = small_checkout(tmp_path)
    new_exercise(LAB, NAME, root=root)
    before = contents(root)
    with pytest.raises(
        AuthoringError, match=rf"name='{NAME}' is an exercise of lab 3\.1\.7 already"
    ):
        new_exercise(LAB, NAME, root=root)
    assert contents(root) == before


def test_outside_of_a_checkout_nothing_can_be_written(tmp_path):
    with pytest.raises(AuthoringError, match="written in a checkout of the course"):
        new_exercise(LAB, NAME, root=tmp_path)
    assert list(tmp_path.iterdir()) == []
    root = small_checkout(tmp_path)
    (root / "tests" / "second_solutions").rmdir()
    with pytest.raises(AuthoringError, match=r"second_solutions is no folder: .* with its tests"):
        new_exercise(LAB, NAME, root=root)
    assert not (root / "tests" / "second_solutions").exists()


@pytest.mark.parametrize("files", range(5))
def test_a_write_that_fails_leaves_all_as_it_was(tmp_path, monkeypatch, files):
    """On a disk that refuses after so many of the five files."""
    root = small_checkout(tmp_path)
    before = contents(root)
    replace = os.replace
    done = []

    def refusing(source, target):
        if len(done) == files and not str(source).endswith(".old.tmp"):
            raise OSError(30, "Read-only file system", str(target))
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", refusing)
    with pytest.raises(
        AuthoringError, match=r"cannot be written \(Read-only file system\)"
    ) as said:
        new_exercise(LAB, NAME, root=root)
    assert "nothing has been changed" in str(said.value) and str(root) in str(said.value)
    monkeypatch.undo()
    assert contents(root) == before


# --- the command ----------------------------------------------------------------------------------
def test_the_command_names_what_it_wrote_and_what_comes_next(tmp_path, monkeypatch, capsys):
    root = small_checkout(tmp_path)
    there = functools.partial(new_exercise, root=root)
    monkeypatch.setattr("ftlib.course.authoring.new_exercise", there)
    assert cli.main(["exercise", "new", LAB, NAME, "--after", "Noisy labels"]) == 0
    *paths, next_step = capsys.readouterr().out.splitlines()
    assert len(paths) == 5 and all(Path(path).is_file() for path in paths)
    assert f"`ftlib exercise check 3.1.7 {NAME}`" in next_step
    assert "`ftlib labs 3.1.7 --write-back`" in next_step
    assert cli.main(["exercise", "new", LAB, "Margin"]) == 2
    assert capsys.readouterr().err.startswith("ftlib: name='Margin'")


def test_the_help_shows_the_three_steps(capsys):
    with pytest.raises(SystemExit):
        cli.main(["exercise", "--help"])
    text = capsys.readouterr().out
    for step in ("ftlib exercise new 3.1.7", "ftlib exercise check 3.1.7", "ftlib labs 3.1.7"):
        assert step in text
