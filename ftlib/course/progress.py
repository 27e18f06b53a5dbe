"""What a student has done: exercises solved, readings ticked off, experience points; one JSON file
on this machine.

An exercise gives its points, a reading those of the reading list, and all ten labs together 200
more. A lab is complete when all of its exercises are solved. An extension beyond the ten is worth
50 in all: its exercises give their points, and the last one what is missing of the 50. The file is
written under a lock and replaced as a whole, so notebooks that are open side by side do not lose
each other's records; a damaged file is set aside, never deleted.
"""

from __future__ import annotations

import datetime
import html
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from platformdirs import user_data_path

from ftlib.core.atomic import replacing
from ftlib.course.catalogue import NAMES, POINTS, is_extension
from ftlib.course.readings import READINGS, find_reading

log = logging.getLogger("ftlib")
COURSE_XP = 200
EXTENSION_XP = 50
LOCK_SECONDS = 10
FILE = "progress.json"
ELSEWHERE = ("darwin", "win32")  # where a user's data is not in ~/.local/share
_reported = False


# --- the file -------------------------------------------------------------------------------------
def progress_path() -> Path:
    """FTLIB_PROGRESS, else ftlib/progress.json in the user's data folder (`platformdirs`; on Linux
    XDG_DATA_HOME, by default ~/.local/share). Where no home is known (a container under a user that
    it does not list) the folder of temporary files takes its place.
    """
    if named := os.environ.get("FTLIB_PROGRESS"):
        return Path(named).expanduser()
    try:
        folder = user_data_path("ftlib", appauthor=False)
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / ".local" / "share" / "ftlib"
    path = folder / FILE
    if sys.platform in ELSEWHERE and not path.exists():
        # Version 0.1.0 kept it in ~/.local/share here too: it goes on where it is.
        earlier = Path("~/.local/share/ftlib").expanduser() / FILE
        if earlier.is_file():
            return earlier
    return path


def _lock(path: Path) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS)


def _empty() -> dict:
    return {"exercises": {}, "read": {}}


def _texts(value) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def _parse(content: bytes) -> dict:
    """ValueError where this is not a record. Keys that this version does not know are kept."""
    record = json.loads(content)
    if not isinstance(record, dict):
        raise ValueError(f"it holds a {type(record).__name__}")
    record = _empty() | record
    labs = record["exercises"]
    labs_are_fine = isinstance(labs, dict) and all(_texts(lab) for lab in labs.values())
    if not labs_are_fine or not _texts(record["read"]):
        raise ValueError("exercises or readings are not what ftlib writes")
    return record


def _free_name(path: Path) -> Path:
    """A name beside `path` for a damaged file: the first that no file has."""
    number = 1
    while True:
        aside = path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")
        if not aside.exists():
            return aside
        number += 1


def _read(path: Path) -> dict:
    """The record at `path`, under its lock; a damaged file is renamed, and an empty record
    returned.
    """
    try:
        return _parse(path.read_bytes())
    except FileNotFoundError:
        return _empty()
    except (ValueError, RecursionError) as error:
        aside = _free_name(path)
        os.replace(path, aside)
        log.warning(
            "%s is damaged (%s): set aside as %s, and a new one begun. Put a repaired copy back to "
            "have its records again.",
            path,
            error,
            aside.name,
        )
        return _empty()


def load_progress() -> dict:
    """The record: {"exercises": {lab: {name: date}}, "read": {key: date}}. OSError where the file
    cannot be read.
    """
    path = progress_path()
    try:
        return _parse(path.read_bytes())  # replaced as a whole, so reading needs no lock
    except FileNotFoundError:
        return _empty()
    except (ValueError, RecursionError):
        with _lock(path):
            return _read(path)


def _update(change: Callable[[dict], None]) -> None:
    """Read, change and replace the file, all under its lock."""
    path = progress_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        record = _read(path)
        change(record)
        with replacing(path) as temporary:
            temporary.write_text(
                json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8"
            )


def _today() -> str:
    return datetime.date.today().isoformat()


def record_exercise(lab: str, name: str) -> None:
    """Note that an exercise is solved; the first date stays. OSError where the file cannot be
    written.
    """

    def change(record: dict) -> None:
        record["exercises"].setdefault(lab, {}).setdefault(name, _today())

    if name not in load_progress()["exercises"].get(lab, {}):
        _update(change)


def note_exercise(lab: str, name: str) -> None:
    """`record_exercise` for a lab that must go on: a file that cannot be written is reported once a
    session.
    """
    global _reported
    try:
        record_exercise(lab, name)
    except OSError as error:
        if not _reported:
            log.warning(
                "progress is not kept: %s cannot be written (%s). FTLIB_PROGRESS names another "
                "file.",
                progress_path(),
                error,
            )
        _reported = True


def mark_read(keys: list[str], read: bool = True) -> None:
    """Tick readings off, or take the tick away. ValueError for a key that is not on the list,
    before anything is written.
    """
    keys = [find_reading(key).key for key in keys]

    def change(record: dict) -> None:
        for key in keys:
            if read:
                record["read"].setdefault(key, _today())
            else:
                record["read"].pop(key, None)

    _update(change)


# --- what it amounts to ---------------------------------------------------------------------------
def _lab_row(number: str, solved: dict) -> dict:
    points = POINTS[number]
    done = [name for name in points if name in solved]
    still_open = [name for name in points if name not in solved]
    won = sum(points[name] for name in done)
    most = sum(points.values())
    if is_extension(number):
        most = EXTENSION_XP
        won = won if still_open else most
    return {
        "lab": number,
        "name": NAMES[number],
        "solved": done,
        "open": still_open,
        "xp": won,
        "of": most,
        "extension": is_extension(number),
        "complete": not still_open,
    }


def summary() -> dict:
    """Progress as plain data: `labs` and `readings` with their points, `complete`, `xp` and `of`
    (what there is to win).
    """
    record = load_progress()
    labs = [_lab_row(number, record["exercises"].get(number, {})) for number in NAMES]
    readings: list[dict] = [
        {
            "key": r.key,
            "title": r.title,
            "level": r.level,
            "xp": r.xp,
            "read": r.key in record["read"],
        }
        for r in READINGS
    ]
    complete = all(lab["complete"] for lab in labs if not lab["extension"])
    won_in_labs = sum(lab["xp"] for lab in labs)
    won_by_reading = sum(r["xp"] for r in readings if r["read"])
    most_in_labs = sum(lab["of"] for lab in labs)
    most_by_reading = sum(r["xp"] for r in readings)
    return {
        "xp": won_in_labs + won_by_reading + (COURSE_XP if complete else 0),
        "of": most_in_labs + most_by_reading + COURSE_XP,
        "complete": complete,
        "course_xp": COURSE_XP,
        "labs": labs,
        "readings": readings,
    }


def _rows(state: dict) -> list[tuple[str, int, int, str]]:
    """(name, done, of, XP) for each lab, then for the readings."""
    rows = [
        (
            f"{lab['lab']} {lab['name']}",
            len(lab["solved"]),
            len(lab["solved"]) + len(lab["open"]),
            f"{lab['xp']} of {lab['of']} XP",
        )
        for lab in state["labs"]
    ]
    read = [r for r in state["readings"] if r["read"]]
    won = f"{sum(r['xp'] for r in read)} of {sum(r['xp'] for r in state['readings'])} XP"
    return [*rows, ("readings", len(read), len(state["readings"]), won)]


def _course_line(state: dict) -> str:
    left = sum(not lab["complete"] and not lab["extension"] for lab in state["labs"])
    if not left:
        return f"all ten labs complete: +{COURSE_XP} XP"
    labs = "lab" if left == 1 else "labs"
    return f"{left} {labs} to go to the course's {COURSE_XP} XP"


def progress_text(state: dict | None = None) -> str:
    """Progress as text for a terminal."""
    state = summary() if state is None else state
    lines = [f"{state['xp']} of {state['of']} XP; {_course_line(state)}"]
    for name, done, of, won in _rows(state):
        bar = "#" * round(20 * done / of)
        lines.append(f"{name:25} [{bar:20}] {done:>2} of {of:>2}   {won}")
    unread = [r["key"] for r in state["readings"] if not r["read"]]
    lines.append(f"not read yet: {', '.join(unread) or 'none'}")
    return "\n".join(lines)


def progress_html(state: dict | None = None) -> str:
    """Progress as an HTML table with bars; each bar's number is beside it."""
    state = summary() if state is None else state
    left = "style='text-align:left'"
    rows = []
    for name, done, of, won in _rows(state):
        bar = _html_bar(100 * done / of)
        rows.append(
            f"<tr><td {left}>{html.escape(name)}</td><td>{bar}</td>"
            f"<td>{done} of {of}</td><td>{won}</td></tr>"
        )
    caption = f"{state['xp']} of {state['of']} XP; {_course_line(state)}"
    return f"<table><caption {left}>{caption}</caption>{''.join(rows)}</table>"


def _html_bar(percent: float) -> str:
    filled = f"<div style='width:{percent:.0f}%;height:.8em;background:#0072B2'></div>"
    return f"<div style='width:12em;border:1px solid currentColor'>{filled}</div>"


def show_progress() -> None:
    """Show progress: in a notebook as a table with bars, in a terminal as text."""
    from ftlib.core.notebook import in_notebook

    if in_notebook():
        from IPython.display import HTML, display

        display(HTML(progress_html()))
    else:
        print(progress_text())
