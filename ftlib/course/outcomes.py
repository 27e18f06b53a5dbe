"""What became of each exercise of a class, from the file of marks: solved, which mistake, or why
there is no answer; and the hint that helps with it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from ftlib.course.catalogue import MODULES, NAMES
from ftlib.course.exercise import Exercise, load_lab
from ftlib.course.reasons import split_reason

KINDS = {
    "solved": "solved",
    "mistake": "a mistake that the check knows",
    "other": "another wrong result",
    "error": "an error or a stop",
    "open": "not attempted",
    "missing": "not handed in, or unreadable",
}
LONGEST = 160  # characters of a description that is not ours
# Words that say nothing of a mistake, between spaces.
COMMON = """ and are but for from has have how into its not one only that the them then they this
was what where which with you your """
ARITHMETIC = "−×·=≤≥√"
STOPPED = re.compile(r"ran past its limit|ended the process|its process sends")
ERROR = re.compile(r"\bit raises \w+|^[A-Z]\w*(?=: )")


@dataclass(frozen=True)
class Outcome:
    """One student's exercise. `kind` is one of KINDS; `mistake` names the mistake, and is the same
    for all who made it; `said` is the check's words, `points` what the file of marks has.
    """

    student: str
    lab: str
    exercise: Exercise
    kind: str
    mistake: str = ""
    said: str = ""
    points: float = 0.0


def exercises_of(lab: str, row: dict) -> list[Exercise]:
    """The exercises that a row of marks has points for, in the lab's order."""
    return [each for each in load_lab(lab).exercises if f"{lab} {each.name}" in row]


def outcomes_of(row: dict) -> tuple[list[Outcome], str]:
    """(an outcome for each exercise, notes on the submission) of a row of the file of marks."""
    lab = row["lab"]
    student = row["student"]
    exercises = exercises_of(lab, row)
    points = {each.name: _number(row[f"{lab} {each.name}"]) for each in exercises}
    lost = [name for name, number in points.items() if number <= 0]
    notes, said = split_reason(row["reason"], lost)
    outcomes = []
    for exercise in exercises:
        if exercise.name not in lost:
            won = points[exercise.name]
            outcomes.append(Outcome(student, lab, exercise, "solved", points=won))
            continue
        words = said.get(exercise.name, "")
        kind, mistake = _reading(exercise, words)
        outcomes.append(Outcome(student, lab, exercise, kind, mistake, words))
    return outcomes, notes


def _number(text: str) -> float:
    """A cell of the CSV, which an instructor may have edited."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _reading(exercise: Exercise, said: str) -> tuple[str, str]:
    """(kind, mistake) of what a check said of an answer without points."""
    if not said:
        return "missing", KINDS["missing"]
    if said.startswith("not attempted yet"):
        return "open", KINDS["open"]
    for wrong in exercise.wrong:
        if said == " ".join(wrong.message.split()):
            return "mistake", said
    if STOPPED.search(said):
        return "error", _short(said)
    if raised := ERROR.search(said):
        return "error", raised[0]  # the error's class: its text is the student's own
    return "other", _short(said)


def lines_of(said: str) -> list[str]:
    """A check's words as the lines that they are in a notebook: input, result, what was wanted."""
    return re.split(r"; (?=input \d|yours:|wanted:)", said)


def _short(said: str) -> str:
    """A description without the input on which it was seen, so that equal ones are counted
    together.
    """
    text = lines_of(said)[0]
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def labs_in(rows: list[dict]) -> list[str]:
    """The labs that rows are of, in the course's order; those that the course does not have any
    more are left out.
    """
    there = {row["lab"] for row in rows}
    return [lab for lab in MODULES if lab in there]


def lab_name(lab: str) -> str:
    return f"Lab {lab} {NAMES[lab]}"


# --- hints ----------------------------------------------------------------------------------------
def _words(text: str) -> set[str]:
    """Words of three letters and more, and signs of formulas; but for signs of arithmetic, which
    say nothing of a mistake either.
    """
    found = re.findall(r"\w{3,}|[^\x00-\x7f]", text.lower())
    return set(found) - set(COMMON.split()) - set(ARITHMETIC)


def helpful_hint(exercise: Exercise, outcome: Outcome) -> str:
    """The hint that has most words in common with what the check said, the earliest of equals;
    empty where none has any. A word that n of the hints have counts 1/n. For who has not begun, the
    first. Never the last, which is often the whole answer.
    """
    hints = exercise.hints[:-1] or exercise.hints
    if outcome.kind in ("open", "missing"):
        return hints[0]
    words = [_words(hint) for hint in hints]
    often = Counter(word for each in words for word in each)
    said = _words(outcome.said)
    shared = [sum(1 / often[word] for word in each & said) for each in words]
    return hints[shared.index(max(shared))] if max(shared) else ""
