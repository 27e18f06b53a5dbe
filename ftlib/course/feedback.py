"""A page for each student: the points of each lab, what each check said of an answer that has none,
and the hint that helps.
"""

from __future__ import annotations

from pathlib import Path

from ftlib.core.atomic import replacing
from ftlib.course.outcomes import Outcome, helpful_hint, lab_name, labs_in, lines_of, outcomes_of
from ftlib.course.pages import page, shown_text, with_code
from ftlib.course.submissions import plain_name

UNREADABLE = "There was no answer that could be graded; the notes below say why."


def write_feedback(rows: list[dict], folder) -> list[Path]:
    """Write a page for each student of the file of marks, `folder`/NAME.html; returns the paths.
    Pages of an earlier run are replaced.
    """
    folder = Path(folder)
    written = []
    for student, name in file_names(rows).items():
        mine = [row for row in rows if row["student"] == student]
        path = folder / f"{name}.html"
        with replacing(path) as temporary:
            temporary.write_text(feedback_page(student, mine), encoding="utf-8")
        written.append(path)
    return written


def file_names(rows: list[dict]) -> dict[str, str]:
    """A name for each student's file. No two are equal, not even where a file system takes "Ada"
    and "ada" for the same.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for student in sorted({row["student"] for row in rows}):
        name = plain_name(student)
        number = 2
        while name.casefold() in taken:
            name = f"{plain_name(student)}-{number}"
            number += 1
        taken.add(name.casefold())
        names[student] = name
    return names


def feedback_page(student: str, rows: list[dict]) -> str:
    """One student's page, of their rows of the file of marks."""
    sections = []
    won = 0.0
    most = 0
    for lab in labs_in(rows):
        row = next(row for row in rows if row["lab"] == lab)
        outcomes, notes = outcomes_of(row)
        won += sum(outcome.points for outcome in outcomes)
        most += sum(outcome.exercise.points for outcome in outcomes)
        sections.append(_section(lab, outcomes, notes))
    head = f"<h1>Feedback for {shown_text(student)}</h1><p>{won:g} of {most} points.</p>"
    return page(f"Feedback for {student}", head + "".join(sections))


def _section(lab: str, outcomes: list[Outcome], notes: str) -> str:
    solved = [outcome for outcome in outcomes if outcome.kind == "solved"]
    won = sum(outcome.points for outcome in outcomes)
    most = sum(outcome.exercise.points for outcome in outcomes)
    parts = [f'<h2>{shown_text(lab_name(lab))} <span class="points">{won:g} of {most}</span></h2>']
    if all(outcome.kind == "missing" for outcome in outcomes):
        parts.append(f"<p>{UNREADABLE}</p>")
    else:
        parts += [_card(outcome) for outcome in outcomes if outcome.kind != "solved"]
    if solved:
        names = ", ".join(f"<code>{outcome.exercise.name}</code>" for outcome in solved)
        parts.append(f"<p>✓ Solved: {names}.</p>")
    if notes:
        parts.append(f'<p class="muted">Notes: {shown_text(notes)}.</p>')
    return "".join(parts)


def _card(outcome: Outcome) -> str:
    """What was wrong with one exercise, and what to try."""
    exercise = outcome.exercise
    not_begun = outcome.kind == "open"
    said = "Not attempted yet." if not_begun else outcome.said or UNREADABLE
    lines = "<br>".join(shown_text(line) for line in lines_of(said))
    sign = "○" if not_begun else "✗"
    hint = helpful_hint(exercise, outcome)
    helps = f"<p><b>A hint:</b> {with_code(hint)}</p>" if hint else ""
    return (
        f'<div class="card{" open" if not_begun else ""}">'
        f"<h3>{sign} {shown_text(exercise.title)} <code>{exercise.name}</code>"
        f'<span class="points">0 of {exercise.points}</span></h3>'
        f'<p>{lines}</p>{helps}<p class="muted">In the notebook, '
        f'<code>hint("{exercise.name}")</code> goes on step by step.</p></div>'
    )
