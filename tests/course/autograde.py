"""nbgrader's own `autograde` beside `ftlib grade`, on the labs as they are, training included:
`python -m autograde [3.1.7 …]` in this folder prints both marks of a partly right submission.

Minutes a lab, so the tests do it for one lab without the cells that train (test_grading.py).
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from test_grading import fill, hand_in, partly, read

from ftlib.core.paths import ROOT
from ftlib.course.catalogue import MODULES, lab_files
from ftlib.course.grading import grade_class

STUDENT = "ada"


def nbgrader_settings() -> str:
    """The configuration that INSTRUCTORS.md gives."""
    text = (ROOT / "INSTRUCTORS.md").read_text(encoding="utf-8")
    return text.split("```py\n# nbgrader_config.py")[1].split("```")[0]


def by_nbgrader(folder: Path, lab: str) -> tuple[float, float]:
    """(score, highest score) of the partly right submission, by nbgrader's commands."""
    source = lab_files([lab])[0]
    (folder / "nbgrader_config.py").write_text(nbgrader_settings())
    places = {
        folder / "source" / source.stem: nbformat.read(source, as_version=4),
        folder / "submitted" / STUDENT / source.stem: fill(lab, partly(lab)),
    }
    for place, notebook in places.items():
        place.mkdir(parents=True)
        nbformat.write(notebook, place / source.name)
    programs = os.path.dirname(sys.executable)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    for command in (["generate_assignment", source.stem], ["autograde", source.stem]):
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"nbgrader {command[0]}: {done.stderr[-2000:]}")
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as book:
        submission = book.find_submission(source.stem, STUDENT)
        return submission.score, submission.max_score


def by_ftlib(folder: Path, lab: str) -> tuple[float, float]:
    """(score, highest score) of the same submission, by `ftlib grade`."""
    hand_in(folder / "class", STUDENT, lab, fill(lab, partly(lab)))
    grade_class(folder / "class", folder / "marks.csv", limit=60)
    row = read(folder / "marks.csv")[STUDENT, lab]
    return float(row["total"]), float(row["max"])


def main(labs: list[str]) -> int:
    print("| lab | nbgrader | ftlib grade | minutes of nbgrader's |\n|---|---|---|---|")
    unequal = 0
    for lab in labs:
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            theirs = by_nbgrader(Path(folder), lab)
            minutes = (time.monotonic() - start) / 60
            ours = by_ftlib(Path(folder), lab)
        unequal += theirs != ours
        print(
            f"| {lab} | {theirs[0]:g} of {theirs[1]:g} | {ours[0]:g} of {ours[1]:g} | "
            f"{minutes:.1f} |",
            flush=True,
        )
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(MODULES)))
