"""What is asked of a notebook's cells: an exercise's stub and check, its heading, a set-up cell
that stands by itself, tables that are shown.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable

from ftlib.course.answers import checked_name, setup_cell
from ftlib.course.authoring import headings
from ftlib.course.exercise import Exercise
from ftlib.course.submissions import nbgrader_mark

HEADING = re.compile(r"Exercise\b.* · (\d+) min · ([●○]+)")


def stubs_of(exercise: Exercise, notebook) -> list[int]:
    """The places of its answer cells."""
    begin = re.compile(rf"^def {exercise.name}\(", re.M)
    answers = [i for i, cell in enumerate(notebook.cells) if nbgrader_mark(cell).get("solution")]
    return [i for i in answers if begin.search(notebook.cells[i].source)]


def faults_of_cells(exercise: Exercise, notebook) -> list[str]:
    """Whether an exercise has one answer cell and after it one locked check of its points."""
    name = exercise.name
    stubs = stubs_of(exercise, notebook)
    checks = [i for i, cell in enumerate(notebook.cells) if checked_name(cell) == name]
    faults = []
    if len(stubs) != 1:
        faults.append(
            f"the notebook has {len(stubs)} answer cells of it: one begins with def {name}(…), has "
            "a docstring and `raise NotImplementedError`, and nbgrader's mark of a solution"
        )
    if len(checks) != 1:
        faults.append(
            f"the notebook has {len(checks)} check cells of it: one says {name} = check({name}), "
            "and has nbgrader's mark of a grade"
        )
    if faults:
        return faults
    if stubs[0] > checks[0]:
        faults.append(f"its check, cell {checks[0]}, comes before its stub, cell {stubs[0]}")
    faults += _faults_of_check(exercise, notebook.cells[checks[0]])
    return faults + _faults_of_heading(exercise, notebook.cells[: stubs[0]])


def _faults_of_check(exercise: Exercise, cell) -> list[str]:
    mark = nbgrader_mark(cell)
    faults = []
    if mark.get("points") != exercise.points:
        faults.append(
            f"its check cell gives {mark.get('points')} points, the exercise {exercise.points}: "
            "make them equal"
        )
    if not mark.get("locked") or mark.get("solution"):
        faults.append("its check cell is not locked: set locked to true and solution to false")
    return faults


def _faults_of_heading(exercise: Exercise, before: list) -> list[str]:
    """Whether the last heading of an exercise says the minutes and the difficulty."""
    found: re.Match | None = None
    for cell in before:
        for _, text in headings(cell):
            found = HEADING.match(text) or found
    difficulty = "●" * exercise.difficulty + "○" * (3 - exercise.difficulty)
    if found and (int(found[1]), found[2]) != (exercise.minutes, difficulty):
        return [
            f"its heading says {found[1]} min and {found[2]}, the exercise {exercise.minutes} min "
            f"and {difficulty}: make them equal"
        ]
    return []


def faults_of_setup(notebook) -> list[str]:
    """Names that the set-up cell uses and does not make: an answer is graded behind it alone."""
    table = symtable.symtable(setup_cell(notebook).source, "the set-up cell", "exec")
    foreign = []
    for symbol in table.get_symbols():
        made = symbol.is_assigned() or symbol.is_imported() or hasattr(builtins, symbol.get_name())
        if symbol.is_referenced() and not made:
            foreign.append(symbol.get_name())
    if not foreign:
        return []
    return [
        f"the set-up cell uses {', '.join(sorted(foreign))}, which another cell makes, and answers "
        "are graded behind the set-up cell alone: move what needs it to the next cell"
    ]


def faults_of_tables(notebook) -> list[str]:
    """Tables that nobody sees: `plots.table(…)` gives a value, and a notebook shows the value of a
    cell's last line alone. (A figure is shown wherever it is drawn.)
    """
    faults = []
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        for line in _unshown_tables(cell.source):
            faults.append(
                f"cell {place}, line {line}: the table of plots.table is not shown, since it is "
                "not the value of the cell's last line: move it there, or write "
                "display(plots.table(…))"
            )
    return faults


def _unshown_tables(source: str) -> list[int]:
    """The lines at which a cell makes a table and throws it away; none where it does not parse."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    shown = tree.body[-1] if tree.body and not source.rstrip().endswith(";") else None
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
            continue
        if ast.unparse(node.value.func) == "plots.table" and node is not shown:
            found.append(node.lineno)
    return sorted(found)
