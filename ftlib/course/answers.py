"""Of a submission, what is graded: the student's answers and what they need, in the notebook's own
order, with the source's checks in their places.

Answer cells run as they are. Of the other cells, what defines is kept: imports, functions, classes,
assignments without a call, and whatever makes a name that an answer looks up. So a lab that trains
for minutes is graded in seconds, and a function counts wherever it was moved.
"""

from __future__ import annotations

import ast
import functools
import re
import symtable
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_notebook

from ftlib.course.executing import title
from ftlib.course.submissions import GradingError, grade_id, nbgrader_mark

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (ast.Import, ast.ImportFrom, *FUNCTIONS, ast.ClassDef)
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)  # of ast.parse and unparse
CHECKED = re.compile(r"^(\w+) = check\(\1\)$", re.M)
TOOLS = {"check", "hint", "solution", "predict"}  # what open_lab gives
RUNS_HERE = re.compile(r"\s*%%(?:time|capture|prun)\b[^\n]*\n")  # magics whose cell defines names


# --- the source -----------------------------------------------------------------------------------
def checked_name(cell) -> str:
    """The exercise that a cell of the source checks; empty for a cell that checks none."""
    found = CHECKED.search(cell.source)
    return found[1] if found and nbgrader_mark(cell).get("grade") else ""


def setup_cell(source):
    """The cell of a lab that calls `open_lab`."""
    for cell in source.cells:
        if cell.cell_type == "code" and "open_lab(" in cell.source:
            return cell
    raise GradingError(f"{title(source)!r} has no cell that calls open_lab(…)")


# --- statements -----------------------------------------------------------------------------------
def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """A statement's nodes that run with it: not what is inside a function, a lambda or a class."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)


def _calls(node: ast.stmt) -> bool:
    return any(isinstance(part, (ast.Call, ast.Await)) for part in _outside_functions(node))


def _only_defines(node: ast.stmt) -> bool:
    """Whether a statement is an import, a function, a class, or an assignment without a call."""
    if isinstance(node, DEFINITIONS):
        return True
    return isinstance(node, (ast.Assign, ast.AnnAssign)) and not _calls(node)


def _asks_the_lab(node: ast.stmt) -> bool:
    """Whether a statement calls `check` or another of the lab's tools."""
    calls = [part for part in _outside_functions(node) if isinstance(part, ast.Call)]
    return any(isinstance(call.func, ast.Name) and call.func.id in TOOLS for call in calls)


def _base_name(node: ast.AST) -> str:
    """`table` of `table["a"].values`; empty where no name is at the base."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def bound_names(node: ast.stmt) -> set[str]:
    """The names that a statement defines or changes: `f` of `def f`, `f = …`, `f["a"] = …`."""
    names: set[str] = set()
    for part in _outside_functions(node):
        if isinstance(part, (*FUNCTIONS, ast.ClassDef)):
            names.add(part.name)
        elif isinstance(part, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in part.names}
        elif isinstance(getattr(part, "ctx", None), ast.Store):
            names.add(_base_name(part))
    return names - {""}


def _object_called(node: ast.stmt) -> str:
    """`table` of the statement `table.append(1)`, which may change it; else empty."""
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return ""
    return _base_name(call.func)


def names_looked_up(node: ast.stmt) -> set[str]:
    """The names that a statement, or a function in it, takes from the notebook."""
    try:
        table = symtable.symtable(ast.unparse(node), "<cell>", "exec")
    except UNREADABLE:
        return set()
    return _looked_up(table)


def _looked_up(table: symtable.SymbolTable) -> set[str]:
    outermost = table.get_type() == "module"
    names = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (outermost or symbol.is_global())
    }
    for inner in table.get_children():
        names |= _looked_up(inner)
    return names


def stub_name(node: ast.stmt) -> str:
    """The name of a function that only raises NotImplementedError; empty for another statement."""
    if not isinstance(node, FUNCTIONS):
        return ""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if len(body) != 1 or not isinstance(body[0], ast.Raise):
        return ""
    raised = body[0].exc.func if isinstance(body[0].exc, ast.Call) else body[0].exc
    open_still = isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    return node.name if open_still else ""


def statements(text: str) -> list[ast.stmt]:
    """The statements of a cell, magics aside; one of UNREADABLE if it does not parse, or is nested
    too deeply to be written again. A cell for another program, such as one of `%%bash`, has none.
    """
    text = RUNS_HERE.sub("", text, count=1) if RUNS_HERE.match(text) else text
    if text.lstrip().startswith("%%"):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a student's escape sequences, between the rows
        tree = ast.parse(TransformerManager().transform_cell(text))
    ast.unparse(tree)
    return tree.body


def definitions(text: str) -> str:
    """Of a cell, what only defines: imports, functions, classes, and assignments without a call.
    SyntaxError if it does not parse.
    """
    return _written(node for node in statements(text) if _only_defines(node))


def _written(body) -> str:
    return "\n\n".join(ast.unparse(node) for node in body)


# --- a submission's cells -------------------------------------------------------------------------
@dataclass
class Part:
    """A code cell of a submission. `answer`: the grade_id of an answer cell; `given`: whether the
    cell is the source's own; `checks`: the exercises that it checks.
    """

    text: str
    answer: str = ""
    given: bool = False
    checks: set[str] = field(default_factory=set)
    body: list[ast.stmt] = field(default_factory=list)

    @functools.cached_property
    def defined(self) -> set[str]:
        """The names that the cell defines by more than a stub."""
        names: set[str] = set()
        for node in self.body:
            if not stub_name(node) and not _asks_the_lab(node):
                names |= bound_names(node)
        return names

    def has_stub(self, name: str) -> bool:
        return any(stub_name(node) == name for node in self.body)


class Submission:
    """A submitted notebook beside its source: which of its cells define what, and which definition
    is in force at each check.
    """

    def __init__(self, notebook, source) -> None:
        self.source = source
        self.notes: list[str] = []
        self.check_cells = {checked_name(c): c for c in source.cells if checked_name(c)}
        self.exercise_of = {grade_id(cell): name for name, cell in self.check_cells.items()}
        self.answer_cells = {
            grade_id(cell): cell for cell in source.cells if nbgrader_mark(cell).get("solution")
        }
        self.setup = setup_cell(source).source.strip()
        self.edited: set[str] = set()
        self.unedited: set[str] = set()
        self.answered: set[str] = set()
        self.note_setup(notebook)
        self.note_points(notebook)
        self.parts = self._read(notebook)
        self.defined = {
            name: [i for i, part in enumerate(self.parts) if name in part.defined]
            for name in self.check_cells
        }
        self.assigned = self._names_assigned()
        self.needed = self._names_needed()

    def _read(self, notebook) -> list[Part]:
        """The code cells, but for the set-up cell as it was given."""
        given = {cell.source.strip() for cell in self.source.cells}
        parts = []
        for cell in notebook.cells:
            text = cell["source"]
            if cell["cell_type"] != "code" or text.strip() == self.setup:
                continue
            part = Part(text)
            identity = grade_id(cell)
            if identity in self.answer_cells:
                part.answer = identity
                self.answered.add(identity)
            else:
                part.given = text.strip() in given
            part.checks = set(CHECKED.findall(text)) & set(self.check_cells)
            if identity in self.exercise_of:
                name = self.exercise_of[identity]
                part.checks.add(name)
                same = text == self.check_cells[name].source
                (self.unedited if same else self.edited).add(identity)
            self._parse(part)
            parts.append(part)
        return parts

    def _parse(self, part: Part) -> None:
        try:
            part.body = statements(part.text)
        except UNREADABLE as error:
            said = getattr(error, "msg", "") or type(error).__name__
            if part.answer:
                self.notes.append(f"the answer cell {part.answer} does not parse ({said})")
            elif not part.given:
                start = " ".join(part.text.split())[:40]
                self.notes.append(
                    f"a cell of the student's own does not parse and was left out: {start!r}"
                )

    # --- what is kept
    def _names_needed(self) -> set[str]:
        """The exercises' names, what their answers look up, what that looks up, and so on."""
        needed = set(self.check_cells)
        waiting = []
        for part in self.parts:
            for node in part.body:
                if part.answer:
                    needed |= names_looked_up(node)
                elif _only_defines(node) or not part.given:
                    waiting.append((self._makes(node), node))
        while True:
            used = [node for names, node in waiting if names & needed]
            if not used:
                return needed
            waiting = [(names, node) for names, node in waiting if not names & needed]
            for node in used:
                needed |= names_looked_up(node)

    def _names_assigned(self) -> set[str]:
        """Names that the student's cells assign: a method called on one of them may change it."""
        names: set[str] = set()
        for part in self.parts:
            for node in part.body:
                if not part.given and not isinstance(node, DEFINITIONS):
                    names |= bound_names(node)
        return names

    def _makes(self, node: ast.stmt) -> set[str]:
        """The names that a statement defines or changes."""
        return bound_names(node) | ({_object_called(node)} & self.assigned)

    def _kept(self, part: Part) -> list[ast.stmt]:
        """The statements of a cell that define something. Of the lab's own cells only what an
        answer looks up, and nothing with a call: they train.
        """
        kept = []
        for node in part.body:
            wanted = bool(self._makes(node) & self.needed)
            only_defines = _only_defines(node)
            keep = (wanted and only_defines) if part.given else (wanted or only_defines)
            if keep and not _asks_the_lab(node) and not self._superseded(node):
                kept.append(node)
        return kept

    def _superseded(self, node: ast.stmt) -> bool:
        """A stub that was left where it was, of a function that is written in another cell."""
        return bool(self.defined.get(stub_name(node)))

    # --- where the checks go
    def place_of_check(self, name: str) -> int:
        """After which cell a check is run, -1 for before all of them: where the notebook has it
        last, if the function is defined by then; else after the last definition and the cells of
        the student's own that follow it.
        """
        checks = [i for i, part in enumerate(self.parts) if name in part.checks]
        defined = self.defined[name]
        if checks and (not defined or defined[0] <= checks[-1]):
            return checks[-1]
        stubs = [i for i, part in enumerate(self.parts) if part.has_stub(name)]
        places = defined or stubs
        return self._end_of_own_cells(places[-1]) if places else -1

    def _end_of_own_cells(self, place: int) -> int:
        while place + 1 < len(self.parts):
            following = self.parts[place + 1]
            if following.answer or following.checks:
                break
            place += 1
        return place

    def note_what_counts(self, name: str, place: int) -> None:
        """A note where a name is defined more than once, or not before its check."""
        defined = self.defined[name]
        checks = [i for i, part in enumerate(self.parts) if name in part.checks]
        if checks and defined and defined[0] > checks[-1]:
            self.notes.append(f"{name}: defined only after its check; that one was graded")
        elif len(defined) > 1:
            which = "the last one before its check" if checks else "the last one"
            self.notes.append(f"{name}: defined {len(defined)} times, {which} was graded")

    def note_setup(self, notebook) -> None:
        """A note where the set-up cell is not as it was given."""
        texts = [cell["source"].strip() for cell in notebook.cells if cell["cell_type"] == "code"]
        if self.setup in texts:
            return
        edited = any("open_lab(" in text for text in texts)
        what = "was edited" if edited else "is missing"
        self.notes.append(f"the set-up cell {what}: the source's was run")

    def note_points(self, notebook) -> None:
        """Notes on points that are not the source's."""
        points = {grade_id(c): nbgrader_mark(c).get("points") for c in self.check_cells.values()}
        noted = set()
        for cell in notebook.cells:
            identity = grade_id(cell)
            said = nbgrader_mark(cell).get("points")
            if identity in points and said != points[identity] and identity not in noted:
                noted.add(identity)
                self.notes.append(f"the points of {identity} were edited: the source's count")

    def note_missing(self) -> None:
        """Notes on answer and check cells that are missing or edited, in the source's order."""
        checked = set().union(*(part.checks for part in self.parts))
        for cell in self.source.cells:
            identity = grade_id(cell)
            name = checked_name(cell)
            if identity in self.answer_cells and identity not in self.answered:
                elsewhere = bool(self.defined.get(identity))
                graded = ", the function in another cell was graded" if elsewhere else ""
                self.notes.append(f"the answer cell {identity} is missing{graded}")
            elif name and name not in checked:
                self.notes.append(f"the check cell {identity} is missing")
            elif identity in self.edited - self.unedited:
                self.notes.append(f"the check cell {identity} was edited: the source's was run")

    # --- the notebook to grade
    def cells(self) -> list:
        """Definitions, answers and checks in the order in which they run."""
        places = {name: self.place_of_check(name) for name in self.check_cells}
        last_of = {part.answer: i for i, part in enumerate(self.parts) if part.answer}
        cells = self._checks_at(-1, places)
        for i, part in enumerate(self.parts):
            kept = self._kept(part)
            if part.answer:
                cell = self._answer(part, kept)
                if last_of[part.answer] == i:  # a grade_id is there once
                    mark = nbgrader_mark(self.answer_cells[part.answer])
                    cell.metadata["nbgrader"] = dict(mark)
                cells.append(cell)
            else:  # each by itself: an import that fails here costs no function beside it
                cells += [new_code_cell(_written([node])) for node in kept]
            cells += self._checks_at(i, places)
        for name, place in places.items():
            self.note_what_counts(name, place)
        self.note_missing()
        return cells

    def _answer(self, part: Part, kept: list[ast.stmt]):
        """An answer cell as it is, with what of it is run again if it fails half-way."""
        left = [node for node in part.body if not self._superseded(node)]
        text = part.text if len(left) == len(part.body) else _written(left)
        again = [_written([node]) for node in kept if _only_defines(node) or not _calls(node)]
        return new_code_cell(text, metadata={"definitions": again})

    def _checks_at(self, place: int, places: dict[str, int]) -> list:
        cells = []
        for name, cell in self.check_cells.items():
            if places[name] == place:
                metadata = {"nbgrader": dict(nbgrader_mark(cell))}
                cells.append(new_code_cell(cell.source, metadata=metadata))
        return cells


def compose(notebook, source) -> tuple:
    """(notebook to grade, notes): the source's set-up cell and checks, with the answers and
    definitions of the submission, in the submission's order.
    """
    submission = Submission(notebook, source)
    setup = new_code_cell(setup_cell(source).source)
    cells = [setup, *submission.cells()]
    return new_notebook(cells=cells, metadata=source.metadata), submission.notes
