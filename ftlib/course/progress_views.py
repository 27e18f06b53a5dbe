"""Progress drawn: a row of cells for each lab, one an exercise, in a notebook as SVG and in a
terminal as text. Both show what `ftlib.course.progress.summary` returns.

A cell's shape says how it was solved, so the picture needs no colour; what has no colour of its own
takes the text's (`currentColor`), so it is at home on JupyterLab's light and dark pages.
"""

from __future__ import annotations

from html import escape

SIGNS = {"solved": "■", "with hint": "▣", "solution seen": "▤", "open": "□"}
MEANINGS = {
    "solved": "solved",
    "with hint": "solved with a hint",
    "solution seen": "solved after the solution was shown",
    "open": "open, with its XP",
}
# Sizes in units of the SVG, which is as wide as the page lets it be.
WIDTH = 770
LABEL = 208  # of a row's name
STEP = 29  # from cell to cell
SIDE = 23  # of a cell
ROW = 32
BLUE = "#0072B2"  # at least 3.9 to 1 against JupyterLab's white and its near-black
CHECK = "M5 12.5 L10 17 L18.5 6.5"  # the tick in a cell


# --- words ----------------------------------------------------------------------------------------
def course_line(state: dict) -> str:
    """How far the course's own XP are."""
    left = sum(not lab["complete"] and not lab["extension"] for lab in state["labs"])
    if not left:
        return f"all ten labs complete: +{state['course_xp']} XP"
    labs = "lab" if left == 1 else "labs"
    return f"{left} {labs} to go for the course's {state['course_xp']} XP"


def next_line(state: dict) -> str:
    """What to do next."""
    step = state["next"]
    if step is None:
        return "next: a project of your own; everything here is done"
    if "reading" in step:
        return f"next: read {step['name']} (`{step['reading']}`), {step['xp']} XP"
    return f"next: {step['name']} in lab {step['lab']}, {step['xp']} XP"


def _rows(state: dict) -> list[tuple[str, list[dict], str]]:
    """(name, cells, XP) for each lab, then for the readings."""
    rows = []
    for lab in state["labs"]:
        name = f"{lab['lab']} {lab['name']}"
        rows.append((name, lab["exercises"], f"{lab['xp']} of {lab['of']} XP"))
    cells = []
    for reading in state["readings"]:
        status = "solved" if reading["read"] else "open"
        cells.append({"name": reading["title"], "points": reading["xp"], "status": status})
    won = sum(r["xp"] for r in state["readings"] if r["read"])
    most = sum(r["xp"] for r in state["readings"])
    rows.append(("readings", cells, f"{won} of {most} XP"))
    return rows


def _done(cells: list[dict]) -> int:
    return sum(cell["status"] != "open" for cell in cells)


def progress_text(state: dict) -> str:
    """Progress as text for a terminal."""
    rows = _rows(state)
    widest = max(len(cells) for _, cells, _ in rows)
    lines = [f"{state['xp']} of {state['of']} XP; {course_line(state)}", next_line(state)]
    for name, cells, won in rows:
        signs = "".join(SIGNS[cell["status"]] for cell in cells)
        lines.append(f"{name:30} {signs:{widest}} {_done(cells):>2} of {len(cells):>2}   {won}")
    legend = [f"{sign} {MEANINGS[status].split(',')[0]}" for status, sign in SIGNS.items()]
    lines.append("  ".join(legend))
    unread = [r["key"] for r in state["readings"] if not r["read"]]
    lines.append(f"not read yet: {', '.join(unread) or 'none'}")
    return "\n".join(lines)


def alt_text(state: dict) -> str:
    """The picture in words, for who hears it."""
    parts = [f"Progress: {state['xp']} of {state['of']} XP, {course_line(state)}"]
    for name, cells, _ in _rows(state):
        parts.append(f"{name}: {_done(cells)} of {len(cells)}")
    parts.append(next_line(state))
    return "; ".join(parts) + "."


# --- the picture ----------------------------------------------------------------------------------
def progress_html(state: dict) -> str:
    """Progress as one SVG with its text in `aria-label`; a cell's name, XP and state come up under
    the pointer.
    """
    parts = _head(state)
    y = 88
    before = ""
    for name, cells, won in _rows(state):
        group = "ten" if name[0].isdigit() else name[:1]
        if before and group != before:
            y += 10
        before = group
        parts.append(_row(y, name, cells, won, state["next"] or {}))
        y += ROW
    parts.append(_legend(y + 14))
    height = y + 44
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(alt_text(state))}" font-family="system-ui, sans-serif" '
        f'font-size="13" fill="currentColor" style="max-width:{WIDTH}px;width:100%;height:auto">'
        f"{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, **attributes) -> str:
    said = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f'<text x="{x}" y="{y}"{said}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, **attributes) -> str:
    said = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"{said}/>'


def _head(state: dict) -> list[str]:
    """The points, a bar of them, and what is next."""
    share = state["xp"] / state["of"]
    return [
        _text(0, 28, f"{state['xp']} XP", font_size=28, font_weight=700),
        _text(WIDTH, 28, f"of {state['of']} XP; {course_line(state)}", text_anchor="end"),
        _box(0, 40, WIDTH, 12, fill="currentColor", opacity=0.15),
        _box(0, 40, max(WIDTH * share, 4 if share else 0), 12, fill=BLUE),
        _text(0, 74, f"N{next_line(state).removeprefix('n')}", font_weight=600),
    ]


def _row(y: float, name: str, cells: list[dict], won: str, step: dict) -> str:
    complete = all(cell["status"] != "open" for cell in cells)
    weight = 700 if complete else 400
    label = f"★ {name}" if complete else name
    drawn = [_text(0, y + 16, label, font_weight=weight)]
    for i, cell in enumerate(cells):
        here = cell["name"] == step.get("name") and name.split()[0] == step.get("lab", "readings")
        drawn.append(_cell(LABEL + STEP * i, y, cell, here))
    drawn.append(_text(WIDTH, y + 16, won, text_anchor="end", font_weight=weight))
    return "".join(drawn)


def _cell(x: float, y: float, cell: dict, is_next: bool) -> str:
    said = f"{cell['name']}: {cell['points']} XP, {MEANINGS[cell['status']].split(',')[0]}"
    shape = _shape(cell["status"], str(cell["points"] or ""), is_next)
    return f'<g transform="translate({x:g} {y:g})"><title>{escape(said)}</title>{shape}</g>'


def _shape(status: str, worth: str = "", is_next: bool = False) -> str:
    """A full cell with a tick; half of one, a third of one; or an empty one with its XP, which has
    a strong frame where it is the next.
    """
    inner = SIDE - 2
    if status == "open":
        width = 2.5 if is_next else 1
        frame = _box(1, 1, inner, inner, fill="none", stroke="currentColor", stroke_width=width)
        number = _text(SIDE / 2, 16, worth, text_anchor="middle", font_size=11)
        return f'<g opacity="{1 if is_next else 0.65}" pointer-events="all">{frame}{number}</g>'
    frame = _box(1, 1, inner, inner, fill="none", stroke=BLUE, stroke_width=2, pointer_events="all")
    if status == "with hint":
        return f'{frame}<path d="M2 {inner} L{inner} 2 V{inner} Z" fill="{BLUE}"/>'
    if status == "solution seen":
        third = SIDE / 3
        return frame + _box(1, SIDE - third, inner, third - 1, fill=BLUE)
    tick = f'<path d="{CHECK}" fill="none" stroke="#fff" stroke-width="2.6"/>'
    return _box(0, 0, SIDE, SIDE, fill=BLUE) + tick


def _legend(y: float) -> str:
    drawn = []
    x = 0.0
    for status, meaning in MEANINGS.items():
        shape = _shape(status, "2")
        drawn.append(f'<g transform="translate({x:g} {y:g})">{shape}</g>')
        drawn.append(_text(x + SIDE + 6, y + 16, meaning))
        x += SIDE + 6 + 7 * len(meaning) + 18
    return "".join(drawn)
