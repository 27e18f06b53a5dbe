"""An invented class, to try the instructors' commands with: thirty submissions in Moodle's layout,
whose mistakes are drawn with a seed from those that the exercises themselves know.

    python -m tools.sample_class --labs 3.1.7 --output sample.zip

It prints what was drawn, by exercise and mistake, so that a report can be held against it.
"""

from __future__ import annotations

import argparse
import copy
import random
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nbformat

from ftlib.core.atomic import replacing
from ftlib.course.catalogue import lab_files
from ftlib.course.exercise import Exercise, load_lab
from ftlib.course.submissions import grade_id

NAMES = """Ada Byron;Amara Okafor;Anna-Lena Groß;Arjun Mehta;Bruno Costa;Chloé Durand;Daniel O'Brien
Elif Kaya;Emeka Obi;Fatima Zahra;Grace Hopper;Hanna Nowak;Ivan Petrov;Jun Tanaka;Kofi Mensah
Lars Nilsson;Leila Haddad;Li Na;Lucía Gómez;Mei Chen;Mateo Rossi;Nadia Rahman;Noah Smith
Olga Ivanova;Pedro Alves;Priya Nair;Sam <b> Bold;Tariq Aziz;Yuki Sato;Zoë van Dijk"""
FIRST_ID = 3100  # Moodle's numbers of participants
DAY = (2026, 3, 2, 12, 0, 0)
ABSENT = 0.05  # share of the class that hands in a text in place of a notebook
OPEN = 0.12  # of the answers that a student does not have right, those not attempted
ERRORS = 0.1  # and those that raise
RAISES = 'raise ValueError("<script>alert(1)</script>; " + repr(args)[:20])'


@dataclass(frozen=True)
class Drawn:
    """What a student's answer to one exercise is to be: "solved", "open", "error", or the name of
    a wrong answer.
    """

    student: str
    lab: str
    exercise: str
    what: str


def students(count: int) -> list[str]:
    names = NAMES.replace("\n", ";").split(";")
    return [names[i] if i < len(names) else f"Student {i + 1}" for i in range(count)]


def draw(exercise: Exercise, ability: float, dice: random.Random) -> str:
    """Right with the student's probability, less for a difficult exercise; of the wrong answers the
    first ones more often, as 1/(i + 1).
    """
    if dice.random() < ability ** (exercise.difficulty / 2):
        return "solved"
    kind = dice.random()
    if kind < OPEN:
        return "open"
    if kind < OPEN + ERRORS:
        return "error"
    weights = [1 / (i + 1) for i in range(len(exercise.wrong))]
    return dice.choices([wrong.name for wrong in exercise.wrong], weights)[0]


def answer(lab: str, exercise: Exercise, what: str) -> str:
    """The text of an answer cell; it finds the function where the exercise has it."""
    head = f"def {exercise.name}(*args, **kwargs):\n"
    if what == "error":
        return f"{head}    {RAISES}"
    number = [wrong.name for wrong in exercise.wrong].index(what) if what != "solved" else 0
    part = "reference" if what == "solved" else f"wrong[{number}].function"
    return (
        f"{head}    from ftlib.course.exercise import load_lab\n"
        f"    return load_lab({lab!r}).find({exercise.name!r}).{part}(*args, **kwargs)"
    )


def submission(lab: str, source, answers: dict[str, str]):
    """The lab's notebook without its outputs, with these answers in the place of the stubs."""
    notebook = copy.deepcopy(source)
    exercises = {exercise.name: exercise for exercise in load_lab(lab).exercises}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
        what = answers.get(grade_id(cell), "open")
        if what != "open":
            cell.source = answer(lab, exercises[grade_id(cell)], what)
    return notebook


def sample_class(labs: list[str], output: Path, count: int, seed: int, most: int) -> list[Drawn]:
    """Write one zip for each lab, `output` for the first; of each lab the first `most` exercises
    are answered. Returns what was drawn.
    """
    dice = random.Random(seed)
    abilities = {name: dice.betavariate(5, 2) for name in students(count)}
    drawn = []
    for i, lab in enumerate(labs):
        path = output if i == 0 else output.with_stem(f"{output.stem}-{lab}")
        source = nbformat.read(lab_files([lab])[0], as_version=4)
        with (
            replacing(path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as zipped,
        ):
            for j, (student, ability) in enumerate(abilities.items()):
                folder = f"{student}_{FIRST_ID + 100 * i + j}_assignsubmission_file"
                if dice.random() < ABSENT:
                    zipped.writestr(zipfile.ZipInfo(f"{folder}/sorry.txt", DAY), "I was ill.")
                    continue
                answers = {}
                for exercise in load_lab(lab).exercises[:most]:
                    answers[exercise.name] = draw(exercise, ability, dice)
                    drawn.append(Drawn(student, lab, exercise.name, answers[exercise.name]))
                content = nbformat.writes(submission(lab, source, answers))
                zipped.writestr(
                    zipfile.ZipInfo(f"{folder}/{lab_files([lab])[0].name}", DAY), content
                )
        print(path)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--labs", nargs="+", default=["3.1.7"])
    parser.add_argument("--output", type=Path, default=Path("sample.zip"))
    parser.add_argument("--students", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exercises", type=int, default=100, help="of each lab, the first ones")
    args = parser.parse_args()
    drawn = sample_class(args.labs, args.output, args.students, args.seed, args.exercises)
    counts = Counter((one.lab, one.exercise, one.what) for one in drawn)
    for (lab, name, what), count in sorted(counts.items()):
        print(f"{lab} {name}: {count} {what}")


if __name__ == "__main__":
    main()
