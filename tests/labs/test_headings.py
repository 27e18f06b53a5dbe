"""The headings of the labs: sections and exercises are counted without a gap, and no paragraph was
left over.
"""

import itertools
import re

import nbformat
import pytest

from ftlib.course import catalogue

NOTEBOOKS = catalogue.lab_files(extensions=True)
SECTION = re.compile(r"^## (\d+) · ", re.M)
EXERCISE = re.compile(r"^### Exercise (\d+) · ", re.M)
LONG = 200  # characters: a paragraph of that length that stands twice was left over

per_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[p.stem for p in NOTEBOOKS])


def markdown_cells(path) -> list[str]:
    notebook = nbformat.read(path, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def numbers(pattern: re.Pattern, text: str) -> list[int]:
    return [int(found) for found in pattern.findall(text)]


def counted(n: int) -> list[int]:
    return list(range(1, n + 1))


@per_notebook
def test_sections_are_counted(path):
    found = numbers(SECTION, "\n".join(markdown_cells(path)))
    assert found == counted(len(found)), f"sections {found}"


@per_notebook
def test_every_exercise_has_its_heading(path):
    """The heading's cell stands directly before the stub: its last heading is the exercise's."""
    cells = nbformat.read(path, as_version=4).cells
    found = []
    for before, cell in itertools.pairwise(cells):
        if not cell.metadata.get("nbgrader", {}).get("solution"):
            continue
        headings = numbers(EXERCISE, before.source)
        assert headings, f"{cell.metadata.nbgrader.grade_id}: no exercise heading before its stub"
        found.append(headings[-1])
    assert found == counted(len(found)), f"exercises {found}"


@per_notebook
def test_no_paragraph_stands_twice(path):
    seen = set()
    for source in markdown_cells(path):
        for paragraph in source.split("\n\n"):
            if len(paragraph) < LONG:
                continue
            assert paragraph not in seen, f"twice: {paragraph[:80]}"
            seen.add(paragraph)
