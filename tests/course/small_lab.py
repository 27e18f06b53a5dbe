"""A lab with one exercise, `implicit_reward` of lab 3.1.7, and notebooks that answer it."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

LAB = "3.1.7"
FILE = "lab-3.1.7-dpo-training.ipynb"
NAME = "implicit_reward"
SETUP = (
    "from ftlib.course.exercise import open_lab\n\n"
    f'check, hint, solution, predict = open_lab("{LAB}")'
)
STUB = f'def {NAME}(*args):\n    """β·(log π − log π_ref)."""\n    raise NotImplementedError'


def answer(text: str, **metadata):
    """The answer cell with this text."""
    mark = {"grade": False, "grade_id": NAME, "locked": False, "schema_version": 3}
    return new_code_cell(
        text, metadata={"nbgrader": mark | {"solution": True, "task": False}, **metadata}
    )


def check(text: str = f"{NAME} = check({NAME})", points: int = 1):
    """The check cell."""
    mark = {"grade": True, "grade_id": f"check_{NAME}", "locked": True, "schema_version": 3}
    return new_code_cell(
        text, metadata={"nbgrader": mark | {"points": points, "solution": False, "task": False}}
    )


def own(text: str):
    """A cell that the student added, or one that lost its metadata."""
    return new_code_cell(text)


def notebook(*cells):
    return new_notebook(
        cells=[new_markdown_cell("# Lab 3.1.7 · DPO\n\nTwo hours."), own(SETUP), *cells]
    )


def source(points: int = 1):
    return notebook(answer(STUB), own("TABLE = {1: 2}\nmodel = train()"), check(points=points))


def says(word: str) -> str:
    """An answer that can be told from others by what it returns."""
    return f"def {NAME}(*args):\n    return {word!r}"


def write(path, content) -> None:
    """A notebook, or the bytes of what is called one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        nbformat.write(content, path)
