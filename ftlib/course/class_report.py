"""What a class has solved and which mistakes it made: a page with a picture for each lab, and the
same numbers as CSV. No student's name is on the page, so that it can be shown to the class.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median

from ftlib.core.atomic import replacing
from ftlib.course.outcomes import KINDS, Outcome, helpful_hint, lab_name, labs_in, outcomes_of
from ftlib.course.pages import page, shown_text, with_code

COLUMNS = ("lab", "exercise", "points", "kind", "mistake", "students", "share", "who")
MOST = 12  # mistakes in the table of a lab
# A kind's colour and pattern: read without colour by the pattern, and by the number in it.
LOOKS = {
    "solved": ("#0072b2", ""),
    "mistake": ("#e69f00", "stripes"),
    "other": ("#cc79a7", "dots"),
    "error": ("#8c8c8c", "cross"),
    "open": ("none", ""),
    "missing": ("none", "thin"),
}
PATTERNS = {
    "stripes": '<path d="M-1 1 l2 -2 M0 8 l8 -8 M7 9 l2 -2" stroke="#000" stroke-opacity=".35"/>',
    "dots": '<circle cx="4" cy="4" r="1.2" fill="#000" fill-opacity=".45"/>',
    "cross": '<path d="M0 0 l8 8 M8 0 l-8 8" stroke="#000" stroke-opacity=".3"/>',
    "thin": '<path d="M0 8 l8 -8" stroke="currentColor" stroke-opacity=".35" stroke-width=".7"/>',
}
LABEL = 190
BAR = 560
ROW = 30


@dataclass(frozen=True)
class Group:
    """What the same thing became of the same exercise for: one line of the report."""

    lab: str
    kind: str
    mistake: str
    outcomes: list[Outcome]

    @property
    def example(self) -> Outcome:
        return self.outcomes[0]


def groups_of(rows: list[dict]) -> list[Group]:
    """The rows' outcomes by exercise, kind and mistake: exercises in the labs' order, kinds in that
    of KINDS, of the mistakes the most frequent first.
    """
    found: dict[tuple[str, str, str, str], list[Outcome]] = {}
    order: dict[tuple[str, str], int] = {}
    for lab in labs_in(rows):
        for row in rows:
            for outcome in outcomes_of(row)[0] if row["lab"] == lab else []:
                name = outcome.exercise.name
                order.setdefault((lab, name), len(order))
                found.setdefault((lab, name, outcome.kind, outcome.mistake), []).append(outcome)
    kinds = list(KINDS)

    def place(key: tuple[str, str, str, str]):
        lab, name, kind, mistake = key
        return order[lab, name], kinds.index(kind), -len(found[key]), mistake

    return [Group(key[0], key[2], key[3], found[key]) for key in sorted(found, key=place)]


def write_class_report(rows: list[dict], path) -> tuple[Path, Path]:
    """Write the page to `path` and the CSV beside it, under the same name; returns both paths.
    ValueError where `path` does not end in .html.
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"the report is {path}: name a file that ends in .html")
    groups = groups_of(rows)
    with replacing(path) as temporary:
        temporary.write_text(report_page(rows, groups), encoding="utf-8")
    table = path.with_suffix(".csv")
    with replacing(table) as temporary:
        _write_table(temporary, groups)
    return path, table


# --- the table ------------------------------------------------------------------------------------
def _write_table(path: Path, groups: list[Group]) -> None:
    """A row for each group, with the students in it."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for group in groups:
            exercise = group.example.exercise
            count = len(group.outcomes)
            share = count / _students_at(groups, group)
            who = "; ".join(outcome.student for outcome in group.outcomes)
            cells = [group.lab, exercise.name, exercise.points, group.kind, group.mistake]
            writer.writerow([_inert(cell) for cell in [*cells, count, f"{share:.3f}", who]])


def _students_at(groups: list[Group], group: Group) -> int:
    """How many students there are at a group's exercise."""
    name = group.example.exercise.name
    same = [g for g in groups if g.lab == group.lab and g.example.exercise.name == name]
    return sum(len(g.outcomes) for g in same)


def _inert(cell) -> str:
    """A cell that a spreadsheet takes as text: texts of submissions may begin like a formula."""
    text = str(cell)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


# --- the page -------------------------------------------------------------------------------------
def report_page(rows: list[dict], groups: list[Group]) -> str:
    students = len({row["student"] for row in rows})
    labs = labs_in(rows)
    counted = f"{students} {'student' if students == 1 else 'students'}"
    listed = f"{len(labs)} {'lab' if len(labs) == 1 else 'labs'}"
    body = [f"<h1>Class report</h1><p>{counted}, {listed}.</p>", _patterns()]
    for lab in labs:
        body.append(_lab_section(lab, [row for row in rows if row["lab"] == lab], groups))
    return page("Class report", "".join(body))


def _lab_section(lab: str, rows: list[dict], groups: list[Group]) -> str:
    mine = [group for group in groups if group.lab == lab]
    handed_in = [row for row in rows if row["submission"]]
    totals = [float(row["total"]) for row in handed_in]
    middle = f"; median {median(totals):g} of {rows[0]['max']} points" if totals else ""
    return (
        f"<h2>{shown_text(lab_name(lab))}</h2>"
        f"<p>{len(handed_in)} of {len(rows)} handed in{middle}. {_hardest(mine)}</p>"
        f"{_picture(lab, mine)}{_mistakes(mine)}"
    )


def _by_exercise(groups: list[Group]) -> dict[str, Counter]:
    """How many students of each kind there are, by exercise."""
    counts: dict[str, Counter] = {}
    for group in groups:
        counter = counts.setdefault(group.example.exercise.name, Counter())
        counter[group.kind] += len(group.outcomes)
    return counts


def _hardest(groups: list[Group]) -> str:
    """The exercise that fewest have solved."""
    counts = _by_exercise(groups)
    name = min(counts, key=lambda each: counts[each]["solved"])
    solved = counts[name]["solved"]
    return f"Fewest solved <code>{name}</code>: {solved} of {counts[name].total()}."


def _mistakes(groups: list[Group]) -> str:
    """The lab's most frequent mistakes, with the hint that goes with each."""
    wrong = [group for group in groups if group.kind in ("mistake", "other", "error")]
    if not wrong:
        return ""
    wrong.sort(key=lambda group: -len(group.outcomes))
    lines = []
    for group in wrong[:MOST]:
        exercise = group.example.exercise
        lines.append(
            f'<tr><td class="number">{len(group.outcomes)}</td>'
            f"<td><code>{exercise.name}</code></td><td>{shown_text(group.mistake)}</td>"
            f"<td>{with_code(helpful_hint(exercise, group.example))}</td></tr>"
        )
    left = len(wrong) - MOST
    more = f'<p class="muted">{left} more are in the CSV.</p>' if left > 0 else ""
    return (
        "<table><caption><b>The most frequent mistakes</b></caption><thead><tr>"
        '<th scope="col">students</th><th scope="col">exercise</th>'
        '<th scope="col">what the check said</th><th scope="col">a hint that helps</th>'
        f"</tr></thead><tbody>{''.join(lines)}</tbody></table>{more}"
    )


# --- the picture ----------------------------------------------------------------------------------
def _patterns() -> str:
    """The patterns, once for all pictures of the page."""
    defined = []
    for name, drawing in PATTERNS.items():
        defined.append(
            f'<pattern id="{name}" width="8" height="8" patternUnits="userSpaceOnUse">'
            f"{drawing}</pattern>"
        )
    inner = f"<defs>{''.join(defined)}</defs>"
    return f'<svg class="hidden" width="0" height="0" aria-hidden="true">{inner}</svg>'


def _picture(lab: str, groups: list[Group]) -> str:
    """A bar for each exercise: how many solved it, and what became of it for the others."""
    counts = _by_exercise(groups)
    drawn = []
    for i, (name, counter) in enumerate(counts.items()):
        drawn.append(_bar(ROW * i, name, counter))
    height = ROW * len(counts)
    drawn.append(_legend(height + 14))
    said = [f"Lab {lab}, students by exercise."]
    for name, counter in counts.items():
        parts = [f"{counter[kind]} {KINDS[kind]}" for kind in KINDS if counter[kind]]
        said.append(f"{name}: {', '.join(parts)}.")
    return (
        f'<svg viewBox="0 0 {LABEL + BAR} {height + 60}" role="img" fill="currentColor" '
        f'font-size="13" aria-label="{escape(" ".join(said))}">{"".join(drawn)}</svg>'
    )


def _bar(y: float, name: str, counter: Counter) -> str:
    drawn = [f'<text x="0" y="{y + 18}">{escape(name)}</text>']
    x = float(LABEL)
    for kind in KINDS:
        width = BAR * counter[kind] / counter.total()
        if width:
            drawn.append(_segment(x, y + 3, width, 22, kind, str(counter[kind])))
        x += width
    return "".join(drawn)


def _segment(x: float, y: float, width: float, height: float, kind: str, number: str) -> str:
    """A part of a bar, with its number on a plate where a pattern would hide it."""
    colour, pattern = LOOKS[kind]
    place = f'x="{x:.1f}" y="{y}" width="{max(width - 1.5, 1):.1f}" height="{height}" rx="2"'
    outline = ' stroke="currentColor" stroke-opacity=".5"' if colour == "none" else ""
    drawn = [f'<rect {place} fill="{colour}"{outline}/>']
    if pattern:
        drawn.append(f'<rect {place} fill="url(#{pattern})"/>')
    if number and width >= 16:
        ink = {"solved": "#fff", "open": "currentColor", "missing": "currentColor"}
        drawn.append(
            f'<text x="{x + width / 2:.1f}" y="{y + 15.5}" text-anchor="middle" font-weight="600" '
            f'fill="{ink.get(kind, "#000")}">{number}</text>'
        )
    title = f"<title>{escape(f'{number} {KINDS[kind]}')}</title>"
    return f"<g>{title}{''.join(drawn)}</g>"


def _legend(y: float) -> str:
    drawn = []
    for i, (kind, meaning) in enumerate(KINDS.items()):
        x = (LABEL + BAR) / 3 * (i % 3)
        row = y + 20 * (i // 3)
        drawn.append(_segment(x, row, 24, 14, kind, ""))
        drawn.append(f'<text x="{x + 30:.1f}" y="{row + 12}">{escape(meaning)}</text>')
    return "".join(drawn)
