"""The labs as committed; and the ten executed from top to bottom, unsolved, in the tiny profile,
with some of the extensions, others for another commit.
"""

import importlib.util
import random
import re
import tomllib
from pathlib import Path

import nbformat
import pytest
from conftest import this_commit

from ftlib.core.paths import ROOT
from ftlib.course import catalogue, executing, index_page, notebooks, stored_notebook
from ftlib.course.catalogue import MODULES, lab_number
from ftlib.course.exercise import load_lab

NOTEBOOKS = catalogue.lab_files(extensions=True)
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:home|root|work|tmp|Users|mnt|opt/venv|usr/local/lib)/[\w.-]+|[A-Z]:\\\\Users"
)
KEY_NUMBERS = tomllib.loads(
    (Path(__file__).parent / "key_numbers.toml").read_text(encoding="utf-8")
)
EXTENSIONS_RUN = 3  # of the seven, to save minutes; `make extensions` runs all
per_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[p.stem for p in NOTEBOOKS])


def drawn_to_run() -> list[Path]:
    """The ten labs, and extensions drawn by the commit: over a few commits all are run."""
    labs = catalogue.lab_files()
    extensions = [path for path in NOTEBOOKS if path not in labs]
    return labs + random.Random(this_commit()).sample(extensions, EXTENSIONS_RUN)


RUN = drawn_to_run()


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


def output_text(notebook) -> str:
    """All text that a reader of the committed notebook sees under its cells; pictures left out."""
    parts = []
    for cell in code_cells(notebook):
        for out in cell.outputs:
            data = {"text/plain": out.text} if out.output_type == "stream" else out.get("data", {})
            parts += ["".join(v) for k, v in data.items() if k.startswith("text/")]
    return "\n".join(parts)


def graded(notebook, kind: str) -> dict:
    """nbgrader's cells by id: kind "solution" (the student's) or "grade" (the checks)."""
    cells = [c for c in code_cells(notebook) if c.metadata.get("nbgrader", {}).get(kind)]
    return {c.metadata.nbgrader.grade_id: c for c in cells}


def key_number(text: str, find: str) -> float:
    found = re.findall(find, text)
    assert len(found) == 1, f"{find!r} matches {len(found)} times"
    return float(found[0].replace(",", ""))


def drift(committed: str, new: str, key: dict) -> str | None:
    """None if the number of the new outputs is near enough to the committed one, else the two in a
    sentence.
    """
    old = key_number(committed, key["find"])
    now = key_number(new, key["find"])
    allowed = key.get("within", key.get("share", 0) * abs(old))
    if abs(now - old) <= allowed + 1e-12:
        return None
    return f"{key['find']!r} gives {now:g}, {old:g} is committed, {allowed:.3g} is allowed"


def test_a_drifting_number_is_seen():
    """|50 − 34| = 16 is beyond 15 points; 1.2 lies 20% above 1; without a tolerance the least digit
    counts.
    """
    points = {"find": r"(\d+)%", "within": 15}
    share = {"find": r"loss ([\d.]+)", "share": 0.15}
    equal = {"find": r"([\d,]+) bytes"}
    assert drift("50%", "34%", points) and not drift("50%", "35%", points)
    assert drift("loss 1", "loss 1.2", share) and not drift("loss 1", "loss 1.1", share)
    assert drift("1,000 bytes", "1,001 bytes", equal) and not drift(
        "1,000 bytes", "1,000 bytes", equal
    )
    with pytest.raises(AssertionError, match="matches 0 times"):
        drift("50%", "none", points)


def test_every_lab_has_key_numbers():
    assert set(KEY_NUMBERS) == set(MODULES)


@per_notebook
def test_key_numbers_stand_in_the_committed_outputs(path):
    text = output_text(read(path))
    keys = KEY_NUMBERS[lab_number(path)]
    assert len(keys) >= 4 and not [d for k in keys if (d := drift(text, text, k))]


def test_the_labs_are_here():
    assert {"3.1.1", "3.1.4"} <= {lab_number(p) for p in NOTEBOOKS} <= set(MODULES)
    for n, module in MODULES.items():
        if importlib.util.find_spec(f"ftlib.course.{module}"):
            assert n in {lab_number(p) for p in NOTEBOOKS}, f"exercises of {n} without a notebook"


@per_notebook
def test_form(path):
    """Valid, small, begins with its title; cells of one sitting; no cell asks which profile it runs
    in.
    """
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < 400_000
    assert notebook.cells[0].cell_type == "markdown" and executing.title(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for i, cell in enumerate(notebook.cells):
        assert cell.source.strip(), f"cell {i} is empty"
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 25, (
                f"cell {i} has {len(cell.source.splitlines())} lines"
            )
            assert not re.search(
                r"""\.name\s*(==|!=|in)\s*[("'\[]+(tiny|small|spark)""", cell.source
            ), f"cell {i} branches on the profile"
            assert "!pip" not in cell.source and "trust_remote_code=True" not in cell.source


@per_notebook
def test_the_modules_it_names_are_there(path):
    """Further reading points at files of the library, which move."""
    text = "\n".join(cell.source for cell in read(path).cells)
    named = set(re.findall(r"`((?:ftlib|tests|data|benchmarks)/[\w./-]+\.\w+)`", text))
    gone = sorted(name for name in named if not (ROOT / name).exists())
    assert not gone, f"{path.name} names {', '.join(gone)}"


def renew(path) -> str:
    """What to do about outputs that are not of the cells as they are."""
    return (
        f"the outputs are of other code, or of another profile: `ftlib labs {lab_number(path)} "
        "--write-back` renews them"
    )


@per_notebook
def test_committed_outputs(path):
    """Of one clean run: counted in order, figures there, no error, no noise, nothing of the machine
    it ran on.
    """
    notebook = read(path)
    counts = [c.execution_count for c in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), renew(path)
    outputs = [o for c in code_cells(notebook) for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"] and not [
        o for o in outputs if o.get("name") == "stderr"
    ]
    assert len(index_page.figures(notebook)) >= 2
    found = MACHINE_PATH.search(output_text(notebook))
    assert not found, found[0]


@per_notebook
def test_committed_outputs_are_of_the_committed_code(path):
    """The hash was recorded when the outputs were written; code edited since then must run again,
    with --write-back.
    """
    notebook = read(path)
    assert notebook.metadata.ftlib.profile == notebooks.STORED_PROFILE, renew(path)
    assert set(notebook.metadata.ftlib.versions) == set(stored_notebook.VERSIONS)
    assert notebook.metadata.ftlib.source_sha256 == stored_notebook.source_hash(notebook), renew(
        path
    )


@per_notebook
def test_exercises(path):
    """Every exercise of the lab's module has a stub, then its check, with nbgrader's metadata and
    the same points.
    """
    notebook = read(path)
    exercises = {e.name: e for e in load_lab(lab_number(path)).exercises}
    stubs = graded(notebook, "solution")
    checks = graded(notebook, "grade")
    assert len({**stubs, **checks}) == len(stubs) + len(checks) == 2 * len(exercises)
    order = [c.source for c in notebook.cells]
    checked = {re.search(r"(\w+) = check\(\1\)", c.source)[1]: c for c in checks.values()}
    assert checked.keys() == exercises.keys()
    for name, exercise in exercises.items():
        stub = next(c for c in stubs.values() if re.search(rf"^def {name}\(", c.source, re.M))
        assert "raise NotImplementedError" in stub.source and '"""' in stub.source
        assert order.index(stub.source) < order.index(checked[name].source)
        mark = checked[name].metadata.nbgrader
        assert (
            mark.points == exercise.points > 0
            and mark.locked
            and not mark.solution
            and mark.schema_version == 3
        )
        mark = stub.metadata.nbgrader
        assert not mark.grade and not mark.locked and mark.schema_version == 3


@pytest.mark.labs
@pytest.mark.parametrize("path", RUN, ids=[p.stem for p in RUN])
def test_execution_from_top_to_bottom_unsolved(path):
    """Every exercise says that it is open and goes on with ftlib's; the run ends, with as many
    figures as are committed.
    """
    if reason := notebooks.left_out(path):
        pytest.skip(reason)
    committed = read(path)
    notebook = read(path)
    before = path.read_bytes()
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    executing.execute(notebook, "tiny", cell_timeout=600)
    assert not [o for c in code_cells(notebook) for o in c.outputs if o.output_type == "error"]
    assert len(index_page.figures(notebook)) == len(index_page.figures(committed))
    text = output_text(notebook)
    for exercise in load_lab(lab_number(path)).exercises:
        assert f"○ {exercise.name}: not attempted" in text
    assert path.read_bytes() == before
    moved = [
        d
        for key in KEY_NUMBERS[lab_number(path)]
        if (d := drift(output_text(committed), text, key))
    ]
    assert not moved, moved
