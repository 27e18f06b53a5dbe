"""The labs as committed, and each executed once from top to bottom, unsolved, in the tiny profile."""
import importlib.util
import re

import nbformat
import pytest

from ftlib import labs
from ftlib.course.exercise import LABS, load_lab

NOTEBOOKS = labs.lab_files()
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users|mnt|opt/venv|usr/local/lib)/[\w.-]+|[A-Z]:\\\\Users")
per_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[p.stem for p in NOTEBOOKS])


def number(path) -> str:
    return re.match(r"lab-(\d+\.\d+\.\d+)-", path.name)[1]


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


def test_the_labs_are_here():
    assert {"3.1.1", "3.1.4"} <= {number(p) for p in NOTEBOOKS} <= set(LABS)
    for n, module in LABS.items():
        if importlib.util.find_spec(f"ftlib.course.{module}"):
            assert n in {number(p) for p in NOTEBOOKS}, f"exercises of {n} without a notebook"


@per_notebook
def test_form(path):
    """Valid, small, begins with its title; cells of one sitting; no cell asks which profile it runs in."""
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < 400_000
    assert notebook.cells[0].cell_type == "markdown" and labs.title(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for i, cell in enumerate(notebook.cells):
        assert cell.source.strip(), f"cell {i} is empty"
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 25, f"cell {i} has {len(cell.source.splitlines())} lines"
            assert not re.search(r"""\.name\s*(==|!=|in)\s*[("'\[]+(tiny|small|spark)""",
                                 cell.source), f"cell {i} branches on the profile"
            assert "!pip" not in cell.source and "trust_remote_code=True" not in cell.source


@per_notebook
def test_committed_outputs(path):
    """Of one clean run: counted in order, figures there, no error, no noise, nothing of the machine it ran on."""
    notebook = read(path)
    counts = [c.execution_count for c in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [o for c in code_cells(notebook) for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"] and not [o for o in outputs if o.get("name") == "stderr"]
    assert len(labs.figures(notebook)) >= 2
    found = MACHINE_PATH.search(output_text(notebook))
    assert not found, found[0]


@per_notebook
def test_exercises(path):
    """Every exercise of the lab's module has a stub, then its check, with nbgrader's metadata and the same points."""
    notebook, exercises = read(path), {e.name: e for e in load_lab(number(path)).exercises}
    stubs, checks = graded(notebook, "solution"), graded(notebook, "grade")
    assert len({**stubs, **checks}) == len(stubs) + len(checks) == 2 * len(exercises)
    order = [c.source for c in notebook.cells]
    checked = {re.search(r"(\w+) = check\(\1\)", c.source)[1]: c for c in checks.values()}
    assert checked.keys() == exercises.keys()
    for name, exercise in exercises.items():
        stub = next(c for c in stubs.values() if re.search(rf"^def {name}\(", c.source, re.M))
        assert "raise NotImplementedError" in stub.source and '"""' in stub.source
        assert order.index(stub.source) < order.index(checked[name].source)
        mark = checked[name].metadata.nbgrader
        assert mark.points == exercise.points > 0 and mark.locked and not mark.solution and mark.schema_version == 3
        mark = stub.metadata.nbgrader
        assert not mark.grade and not mark.locked and mark.schema_version == 3


@pytest.mark.labs
@per_notebook
def test_execution_from_top_to_bottom_unsolved(path):
    """Every exercise says that it is open and goes on with ftlib's; the run ends, with as many figures as are committed."""
    if reason := labs.left_out(path):
        pytest.skip(reason)
    committed, notebook, before = read(path), read(path), path.read_bytes()
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    labs.execute(notebook, "tiny", cell_timeout=600)
    assert not [o for c in code_cells(notebook) for o in c.outputs if o.output_type == "error"]
    assert len(labs.figures(notebook)) == len(labs.figures(committed))
    text = output_text(notebook)
    for exercise in load_lab(number(path)).exercises:
        assert f"○ {exercise.name}: not attempted" in text
    assert path.read_bytes() == before
