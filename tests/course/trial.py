"""What students do with a notebook and what becomes of it: marks, and the reason in the CSV.

`python -m tests.course.trial` hands in a class of such notebooks, grades it as `ftlib grade` does
and prints a Markdown table.
"""

from __future__ import annotations

import csv
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ftlib.course import catalogue, grading
from tests.course.small_lab import FILE, LAB, NAME, SETUP, STUB, answer, check, notebook, own, write

LIMIT = 10.0  # seconds a cell
POINTS = 1
RIGHT = f"def {NAME}(policy_logps, ref_logps, beta):\n    return beta * (policy_logps - ref_logps)"
WRONG = f"def {NAME}(policy_logps, ref_logps, beta):\n    return policy_logps - ref_logps"
WHY_WRONG = f"{NAME}: The factor beta is missing: it turns nats into reward."
NO_GRADIENT = (
    f"{NAME}: The values are right, but no gradient reaches `policy_logps`: something was detached "
    "(`.detach()`, `.data`, `.item()`, a number or `torch.tensor(…)` made of a tensor, NumPy, "
    "`torch.no_grad()`). What is trained through it would learn nothing."
)
NO_TENSOR = (
    f"{NAME}: it returns a float, and no gradient comes out of a number: return the tensor, "
    "without `.item()` or `float()`."
)
IN_PLACE = (
    f"{NAME}: The values are right, but your function changes its argument `policy_logps` in "
    "place, and whoever called it goes on with the changed one: work on a copy, or use the "
    "operation that returns a new value."
)
NO_NAME = f"{NAME}: NameError: name '{NAME}' is not defined"
MARK = "a-child-of-the-trial"  # an argument of the process that the trial's child becomes


@dataclass(frozen=True)
class Row:
    """What a student did: the notebook, or None for nothing handed in; and what it should get."""

    notebook: object
    points: float
    reason: str = ""
    file: str = FILE


def _answered(text: str):
    return notebook(answer(text), check())


def _with_setup(text: str):
    handed_in = _answered(RIGHT)
    handed_in.cells[1].source = text
    return handed_in


def _patched(patch: str, *names: str) -> Row:
    """A wrong answer beside code that would have it called right."""
    changed = f"; its code changes {', '.join(names)}"
    return Row(_answered(f"{WRONG}\n\n{patch}"), 0, WHY_WRONG + changed)


EXERCISE = "ftlib.course.exercise"
COMPARING = "ftlib.course.comparing"
MESSAGES = "ftlib.course.answer_messages"
LAB_MODULE = "ftlib.course.lab_3_1_7"
ACCEPT = "lambda *args: exercise.Verdict('right', '')"
ESCAPES = f"""import os, subprocess, sys
endless = "while True:\\n    pass"
subprocess.Popen([sys.executable, "-c", endless, "{MARK}"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    os.execv(sys.executable, [sys.executable, "-c", endless, "{MARK}"])
"""
ROWS = {
    "answers it": Row(_answered(RIGHT), POINTS),
    "leaves the stub": Row(
        _answered(STUB),
        0,
        f'{NAME}: not attempted yet; going on with ftlib\'s. hint("{NAME}") gives a first step.',
    ),
    "makes a known mistake": Row(_answered(WRONG), 0, WHY_WRONG),
    "renames the file": Row(
        _answered(RIGHT), POINTS, "graded from my solution.ipynb", "my solution.ipynb"
    ),
    "splits the answer's cell": Row(
        notebook(answer("import torch"), answer(RIGHT), check()), POINTS
    ),
    "writes it in another cell": Row(notebook(own(RIGHT), answer(STUB), check()), POINTS),
    "writes it below the check": Row(
        notebook(answer(STUB), check(), own(RIGHT)),
        POINTS,
        f"{NAME}: defined only after its check; that one was graded",
    ),
    "a lambda": Row(_answered(f"{NAME} = lambda p, r, beta: beta * (p - r)"), POINTS),
    "an alias": Row(_answered(f"{RIGHT.replace(NAME, 'mine')}\n\n{NAME} = mine"), POINTS),
    "a partial": Row(
        _answered(
            "import functools\n\ndef scaled(unit, p, r, beta):\n    return unit * beta * (p - r)\n"
            f"\n{NAME} = functools.partial(scaled, 1.0)"
        ),
        POINTS,
    ),
    "a callable object": Row(
        _answered(
            "class Reward:\n    def __call__(self, p, r, beta):\n        return beta * (p - r)\n"
            f"\n{NAME} = Reward()"
        ),
        POINTS,
    ),
    "loses the metadata": Row(
        notebook(own(RIGHT), own(f"{NAME} = check({NAME})")),
        POINTS,
        f"the answer cell {NAME} is missing, the function in another cell was graded",
    ),
    "a detached result": Row(_answered(f"{RIGHT}.detach()"), 0, NO_GRADIENT),
    "a Python number": Row(
        _answered(RIGHT.replace("beta * (policy_logps - ref_logps)", "float(policy_logps.sum())")),
        0,
        NO_TENSOR,
    ),
    "changes an argument in place": Row(
        _answered(
            f"def {NAME}(policy_logps, ref_logps, beta):\n"
            "    return policy_logps.sub_(ref_logps).mul_(beta)"
        ),
        0,
        IN_PLACE,
    ),
    "another `check`": _patched("check = lambda function: function", "check"),
    "patches `Lab.check`": _patched(
        "from ftlib.course import exercise\nexercise.Lab.check = lambda self, function: function",
        f"{EXERCISE}.Lab.check",
    ),
    "patches `judge`": _patched(
        f"from ftlib.course import exercise\nexercise.judge = exercise._judge = {ACCEPT}",
        f"{EXERCISE}.judge",
        f"{EXERCISE}._judge",
    ),
    "patches what compares": _patched(
        "import torch\nfrom ftlib.course import answer_messages, comparing\n"
        "torch.isclose = torch.allclose = lambda *args, **named: torch.tensor(True)\n"
        "answer_messages.difference = comparing.difference = lambda *args: None",
        f"{MESSAGES}.difference",
        f"{COMPARING}.difference",
    ),
    "replaces the code of what compares": _patched(
        "from ftlib.course import comparing\n"
        "comparing.difference.__code__ = (lambda got, want, tolerance: None).__code__",
        f"{COMPARING}.difference",
    ),
    "replaces the reference": _patched(
        f"from {LAB_MODULE}.{NAME} import REWARD\nobject.__setattr__(REWARD, 'reference', {NAME})",
        f"{LAB_MODULE}.exercises.REWARD.reference",
        f"{LAB_MODULE}.{NAME}.REWARD.reference",
    ),
    "edits the points": Row(
        notebook(answer(RIGHT), check(points=100)),
        POINTS,
        f"the points of check_{NAME} were edited: the source's count",
    ),
    "edits the set-up": Row(
        _with_setup(f"{SETUP}\ncheck = print"),
        POINTS,
        "the set-up cell was edited: the source's was run; its code changes check",
    ),
    "edits the check": Row(
        notebook(answer(WRONG), check("print('✓')")),
        0,
        f"the check cell check_{NAME} was edited: the source's was run; {WHY_WRONG}",
    ),
    "loops": Row(
        _answered(f"def {NAME}(*args):\n    while True:\n        pass"),
        0,
        f"{NAME}: ran past its limit of {LIMIT:g} s",
    ),
    "ends the process": Row(
        _answered(f"import os\n\ndef {NAME}(*args):\n    os._exit(0)"),
        0,
        f"{NAME}: ended the process (out of memory, or os._exit?)",
    ),
    "leaves children that loop": Row(_answered(f"{ESCAPES}\n{RIGHT}"), POINTS),
    "does not parse": Row(
        _answered(f"def {NAME}(policy_logps, ref_logps, beta:\n    return 1"),
        0,
        f"the answer cell {NAME} does not parse ('(' was never closed); {NO_NAME} (a cell before: "
        "SyntaxError: '(' was never closed",
    ),
    "imports what is not there": Row(
        _answered(f"import nobody_has_this\n\n{RIGHT}\n\nprint(nobody_has_this)"), POINTS
    ),
    "uses what is not there": Row(
        _answered(f"import nobody_has_this\n\n{RIGHT} + nobody_has_this.zero"),
        0,
        f"{NAME}: it raises NameError: name 'nobody_has_this' is not defined",
    ),
    "a broken file": Row(b'{"cells": [', 0, "not a readable notebook (NotJSONError: "),
    "hands in nothing": Row(None, 0, "not handed in"),
}


def graded(folder: Path) -> dict[str, dict]:
    """{what the student did: the row of the CSV}, from a class in `folder`."""
    labs = catalogue.LABS
    catalogue.LABS = folder / "labs"
    try:
        write(catalogue.LABS / FILE, notebook(answer(STUB), check(points=POINTS)))
        for i, row in enumerate(ROWS.values()):
            student = folder / "class" / f"{i:02}"
            student.mkdir(parents=True)
            if row.notebook is not None:
                write(student / row.file, row.notebook)
        marks = folder / "marks.csv"
        grading.grade_class(folder / "class", marks, [LAB], limit=LIMIT)
    finally:
        catalogue.LABS = labs
    with marks.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return dict(zip(ROWS, rows, strict=True))


def left_behind() -> list[int]:
    """The trial's children that still run."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                arguments = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:  # it has ended
                continue
            if MARK.encode() in arguments:
                found.append(int(entry))
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = graded(Path(folder))
    print("| what the student does | marks | reason in the CSV |\n|---|---|---|")
    for did, row in rows.items():
        reason = row["reason"].replace("|", "\\|")
        print(f"| {did} | {row['total']} of {row['max']} | {reason} |")


if __name__ == "__main__":
    main()
