"""Which definition of a submission is graded: the one that the notebook's own order has in force at
the check, wherever it was moved and whatever kind of object it is.

The composed cells are run here as they are, with a `check` that writes down what the answer
returns.
"""

import pytest
from nbformat.v4 import new_markdown_cell, new_notebook
from small_lab import LAB, NAME, SETUP, STUB, answer, check, notebook, own, says, source

from ftlib.course import answers

TWICE = f"{NAME}: defined 2 times, the last one before its check was graded"
AFTER = f"{NAME}: defined only after its check; that one was graded"
ELSEWHERE = f"the answer cell {NAME} is missing, the function in another cell was graded"


def graded(*cells) -> tuple[list[str], list[str]]:
    """(what the answer returned at each check, notes)."""
    small, notes = answers.compose(notebook(*cells), source())
    returned = []

    def note(function):
        returned.append(function())
        return function

    names = {"check": note}
    for cell in small.cells[1:]:
        exec(cell.source, names)
    return returned, notes


PLACES = {
    "as given": ([answer(says("a")), check()], []),
    "split, the function above": ([answer(says("a")), answer("1 + 1"), check()], []),
    "split, the function below": ([answer("import math"), answer(says("a")), check()], []),
    "split off the stub": ([answer(STUB), answer(says("a")), check()], []),
    "split check": ([answer(says("a")), check(), check("")], []),
    "without metadata": ([own(says("a")), check()], [ELSEWHERE]),
    "both without metadata": ([own(says("a")), own(f"{NAME} = check({NAME})")], [ELSEWHERE]),
    "merged with its check": (
        [answer(f"{says('a')}\n\n{NAME} = check({NAME})")],
        [],
    ),
    "in a cell above the stub": ([own(says("a")), answer(STUB), check()], []),
    "in a cell below the check": ([answer(STUB), check(), own(says("a"))], [AFTER]),
    "in the check's cell": (
        [answer(STUB), check(f"{says('a')}\n{NAME} = check({NAME})")],
        [f"the check cell check_{NAME} was edited: the source's was run"],
    ),
    "in a cell with a magic": ([own("%%time\n" + says("a")), answer(STUB), check()], []),
    "twice before the check": ([answer(says("b")), own(says("a")), check()], [TWICE]),
    "before and after the check": ([answer(says("a")), check(), own(says("b"))], [TWICE]),
    "checked, corrected, checked again": (
        [answer(says("b")), check(), own(says("a")), check()],
        [TWICE],
    ),
    "twice after the check": (
        [answer(STUB), check(), own(says("b")), own(says("a"))],
        [AFTER],
    ),
    "twice and no check": (
        [answer(says("b")), own(says("a"))],
        [
            f"{NAME}: defined 2 times, the last one was graded",
            f"the check cell check_{NAME} is missing",
        ],
    ),
    "a text cell of the same name": (
        [answer(says("a")), new_markdown_cell(says("b")), check()],
        [],
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_definition_in_force_at_the_check_is_graded_once(place):
    cells, notes = PLACES[place]
    returned, said = graded(*cells)
    if "again" not in place and "merged" not in place:
        assert returned == ["a"]
    assert returned[-1] == "a"
    assert said == notes


FORMS = {
    "lambda": f"{NAME} = lambda *args: str('a')",
    "partial": f"import functools\n{NAME} = functools.partial(str, 'a')",
    "alias": f"def helper(*args):\n    return 'a'\n\nmy = helper\n{NAME} = my",
    "callable object": f"class An:\n    def __call__(self):\n        return 'a'\n{NAME} = An()",
    "compiled": f"import functools\n\n@functools.cache\ndef {NAME}():\n    return 'a'",
    "by condition": f"try:\n    import absent\nexcept ImportError:\n    {NAME} = lambda: 'a'",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cell", [answer, own])
def test_any_object_that_can_be_called_counts_in_any_cell(form, cell):
    assert graded(cell(FORMS[form]), check())[0] == ["a"]


HELPERS = {
    "a constant that a call makes": "A = str('a')",
    "a constant of a constant": "import string\nB = string.ascii_letters\nA = B[0].lower()",
    "a table filled in a loop": "A = ''\nfor letter in 'a':\n    A += letter",
    "a list that is appended to": "LETTERS = []\nLETTERS.append('a')\nA = LETTERS[0]",
    "a value that a helper looks up": "def f():\n    return B\n\nB = ''.join(['a'])\nA = f()",
    "unpacked": "A, B = sorted('ba')",
}


@pytest.mark.parametrize("helper", HELPERS)
@pytest.mark.parametrize("after", [True, False])
def test_what_an_answer_looks_up_counts_before_and_after_it(helper, after):
    uses = answer(f"def {NAME}():\n    return A")
    cells = [uses, own(HELPERS[helper])] if after else [own(HELPERS[helper]), uses]
    assert graded(*cells, check()) == (["a"], [])


def test_a_constant_of_the_labs_own_cells_is_there_and_nothing_of_them_trains():
    """`TABLE = {1: 2}` is in a cell that the source has, beside a call of `train`, which is not
    defined here: it would raise.
    """
    given = own("TABLE = {1: 2}\nmodel = train()")
    returned, notes = graded(answer(f"def {NAME}():\n    return TABLE[1]"), given, check())
    assert (returned, notes) == ([2], [])


def test_what_no_answer_looks_up_and_calls_is_not_run():
    """`model` is local to the answer, so the student's own `model = train()` is left out."""
    text = f"def {NAME}():\n    model = 'a'\n    return model"
    cells = [own("model = train()\nmodel.fit()\nprint(train())"), answer(text), check()]
    assert graded(*cells) == (["a"], [])


def test_an_import_that_fails_here_costs_no_function_beside_it():
    helper = own("import nobody_has_this\n\ndef helper():\n    return 'a'")
    uses = answer(f"import nobody_has_this\n\ndef {NAME}():\n    return helper()")
    small, _ = answers.compose(notebook(helper, uses, check()), source())
    alone = ["import nobody_has_this", "def helper():\n    return 'a'"]
    assert [cell.source for cell in small.cells[1:3]] == alone
    assert small.cells[3].metadata["definitions"][1] == f"def {NAME}():\n    return helper()"


def test_an_untouched_lab_is_checked_as_not_attempted():
    small, notes = answers.compose(source(), source())
    assert [cell.source for cell in small.cells[1:]] == [STUB, check().source] and notes == []


def test_a_lab_without_any_cell_has_its_check_and_says_what_is_missing():
    small, notes = answers.compose(notebook(), source())
    assert [cell.source for cell in small.cells[1:]] == [check().source]
    assert notes == [
        f"the answer cell {NAME} is missing",
        f"the check cell check_{NAME} is missing",
    ]


EDITS = {
    "the set-up cell": (
        [own(SETUP + "\nimport math"), answer(says("a")), check()],
        "the set-up cell was edited: the source's was run",
    ),
    "no set-up cell": (
        [answer(says("a")), check()],
        "the set-up cell is missing: the source's was run",
    ),
    "the points": (
        [own(SETUP), answer(says("a")), check(points=100)],
        f"the points of check_{NAME} were edited: the source's count",
    ),
    "the check cell": (
        [own(SETUP), answer(says("a")), check("pass")],
        f"the check cell check_{NAME} was edited: the source's was run",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_what_is_the_sources_gains_nothing_and_is_noted(edit):
    cells, note = EDITS[edit]
    small, notes = answers.compose(new_notebook(cells=cells), source())
    assert notes == [note]
    assert small.cells[0].source == SETUP
    assert small.cells[-1] == {**check(), "id": small.cells[-1].id}


def test_a_cell_that_does_not_parse_is_named():
    _, notes = answers.compose(
        notebook(answer(f"def {NAME}(a, b:"), own("x = = 1"), check()), source()
    )
    assert notes[0].startswith(f"the answer cell {NAME} does not parse (")
    assert notes[1].endswith("does not parse and was left out: 'x = = 1'")


def test_a_sum_too_long_to_be_written_again_is_left_out_and_an_answer_is_run_as_it_is():
    """2,000 terms nest 2,000 deep, beyond Python's limit of recursion."""
    long = "A = " + " + ".join(["1"] * 2000)
    returned, notes = graded(own(long), answer(f"{says('a')}\n{long}"), check())
    assert returned == ["a"]
    assert [note.partition(" (")[0] for note in notes] == [
        "a cell of the student's own does not parse and was left out: 'A = 1 + 1 + 1 + 1 + 1 + 1 + "
        "1 + 1 + 1 + '",
        f"the answer cell {NAME} does not parse",
    ]


def test_what_is_run_again_of_an_answer_that_fails_is_its_definitions_alone():
    text = f"shown = train()\nA = 1\n\ndef {NAME}():\n    return A"
    small, _ = answers.compose(notebook(answer(text), check()), source())
    assert small.cells[1].metadata["definitions"] == ["A = 1", f"def {NAME}():\n    return A"]
    assert small.metadata == source().metadata and f'"{LAB}"' in small.cells[0].source
