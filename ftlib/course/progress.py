"""What a student has done: exercises solved and with how much help, readings ticked off, experience
points; one JSON file on this machine, which `ftlib progress --export` and `--import` carry to
another.

An exercise gives its points, a reading those of the reading list, and all ten labs together 200
more. A lab is complete when all of its exercises are solved. An extension beyond the ten is worth
50 in all: its exercises give their points, and the last one what is missing of the 50. The file is
written under a lock and replaced as a whole, so notebooks that are open side by side do not lose
each other's records; a damaged file is set aside, never deleted.
"""

from __future__ import annotations

import datetime
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
from ftlib.course.progress_merge import FIRST_DATES, merge_records
from ftlib.course.readings import READINGS, find_reading

log = logging.getLogger("ftlib")
COURSE_XP = 200
EXTENSION_XP = 50
LOCK_SECONDS = 10
FILE = "progress.json"
BIGGEST = 5_000_000  # bytes of a record: one of the whole course has about 10,000
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


def parse_record(content: bytes) -> dict:
    """A record as the file holds it. ValueError where this is none. Keys that this version does not
    know are kept.
    """
    record = json.loads(content)
    if not isinstance(record, dict):
        raise ValueError(f"it holds a {type(record).__name__}")
    record = _empty() | record
    for part in FIRST_DATES:
        labs = record.get(part, {})
        if not isinstance(labs, dict) or not all(_texts(lab) for lab in labs.values()):
            raise ValueError(f"its {part} are not what ftlib writes")
    if not _texts(record["read"]) or not _texts(record.get("unread", {})):
        raise ValueError("its readings are not what ftlib writes")
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
        return parse_record(path.read_bytes())
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
    """The record: {"exercises": {lab: {name: date}}, "read": {key: time}}, and where there are any
    "hints" and "solutions" as "exercises", "unread" as "read". OSError where the file cannot be
    read.
    """
    path = progress_path()
    try:
        return parse_record(path.read_bytes())  # replaced as a whole, so reading needs no lock
    except FileNotFoundError:
        return _empty()
    except (ValueError, RecursionError):
        with _lock(path):
            return _read(path)


def _update(change: Callable[[dict], dict | None]) -> None:
    """Read, change and replace the file, all under its lock. `change` changes the record or returns
    another.
    """
    path = progress_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        record = _read(path)
        record = change(record) or record
        _write(path, record)


def _write(path: Path, record: dict) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _today() -> str:
    return datetime.date.today().isoformat()


def _now() -> str:
    """UTC, to the microsecond: a tick and an untick are told apart, and texts are in order."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def _note(part: str, lab: str, name: str) -> None:
    """Note a first time in one part of the record; an earlier date stays."""

    def change(record: dict) -> None:
        record.setdefault(part, {}).setdefault(lab, {}).setdefault(name, _today())

    if name not in load_progress().get(part, {}).get(lab, {}):
        _update(change)


def record_exercise(lab: str, name: str) -> None:
    """Note that an exercise is solved; the first date stays. OSError where the file cannot be
    written.
    """
    _note("exercises", lab, name)


def record_help(lab: str, name: str, part: str) -> None:
    """Note that a hint or the solution was asked for (`part`: "hints" or "solutions") before the
    exercise was solved; what is looked at afterwards is no help. OSError as `record_exercise`.
    """
    if name not in load_progress()["exercises"].get(lab, {}):
        _note(part, lab, name)


def _without_stopping(record: Callable[[], None]) -> None:
    """For a lab that must go on: a file that cannot be written is reported once a session."""
    global _reported
    try:
        record()
    except OSError as error:
        if not _reported:
            log.warning(
                "progress is not kept: %s cannot be written (%s). FTLIB_PROGRESS names another "
                "file.",
                progress_path(),
                error,
            )
        _reported = True


def note_exercise(lab: str, name: str) -> None:
    """`record_exercise` for a lab that must go on."""
    _without_stopping(lambda: record_exercise(lab, name))


def note_help(lab: str, name: str, part: str) -> None:
    """`record_help` for a lab that must go on."""
    _without_stopping(lambda: record_help(lab, name, part))


def mark_read(keys: list[str], read: bool = True) -> None:
    """Tick readings off, or take the tick away. ValueError for a key that is not on the list,
    before anything is written.
    """
    keys = [find_reading(key).key for key in keys]

    def change(record: dict) -> None:
        for key in keys:
            if read:
                _tick(record, key)
            elif key in record["read"]:
                record.setdefault("unread", {})[key] = max(_now(), record["read"].pop(key))

    _update(change)


def _tick(record: dict, key: str) -> None:
    """Not before its last untick, whatever the clock says."""
    record["read"].setdefault(key, max(_now(), record.get("unread", {}).get(key, "")))


# --- from machine to machine ----------------------------------------------------------------------
def read_exported(path) -> dict:
    """A record that was exported, or a progress file itself. ValueError naming the file where it is
    none; OSError where it cannot be read.
    """
    path = Path(path)
    if path.stat().st_size > BIGGEST:
        raise ValueError(
            f"{path} has more than {BIGGEST // 1_000_000} MB, so it is no record of progress: name "
            "a file of `ftlib progress --export`"
        )
    try:
        content = path.read_bytes()
        if missing := [key for key in _empty() if key not in json.loads(content)]:
            raise ValueError(f"it has no {missing[0]!r}")
        return parse_record(content)
    except (ValueError, RecursionError, TypeError) as error:
        raise ValueError(
            f"{path} is no record of progress ({error}): name a file of `ftlib progress --export`"
        ) from None


def import_progress(paths) -> dict[str, int]:
    """Merge exported records into this machine's (`ftlib.course.progress_merge`); returns how many
    exercises and readings it has gained. All files are read first: where one is bad, ValueError or
    OSError, and nothing is written.
    """
    records = [read_exported(path) for path in paths]
    gained: dict[str, int] = {}

    def change(record: dict) -> dict:
        joined = record
        for other in records:
            joined = merge_records(joined, other)
        before = _counts(record)
        for part, count in _counts(joined).items():
            gained[part] = count - before[part]
        return joined

    _update(change)
    return gained


def export_progress(path) -> None:
    """Write this machine's record to a file. A record that is there already, such as another
    machine's, is merged with it; ValueError where the file is something else, or the record itself.
    """
    path = Path(path)
    record = load_progress()
    if path.exists():
        if path.samefile(progress_path()):
            raise ValueError(f"{path} is this machine's own record: name another file")
        record = merge_records(read_exported(path), record)
    _write(path, record)


def _counts(record: dict) -> dict[str, int]:
    solved = sum(len(lab) for lab in record["exercises"].values())
    return {"exercises": solved, "readings": len(record["read"])}


# --- what it amounts to ---------------------------------------------------------------------------
def _status(record: dict, lab: str, name: str) -> str:
    """ "open", or how an exercise was solved: "solved", "with hint" or "solution seen". Help counts
    from no later than the day of the solution.
    """
    solved = record["exercises"].get(lab, {}).get(name)
    if solved is None:
        return "open"
    for part, status in (("solutions", "solution seen"), ("hints", "with hint")):
        asked = record.get(part, {}).get(lab, {}).get(name)
        if asked is not None and asked <= solved:
            return status
    return "solved"


def _lab_row(number: str, record: dict) -> dict:
    points = POINTS[number]
    exercises = []
    done: list[str] = []
    still_open: list[str] = []
    for name, worth in points.items():
        status = _status(record, number, name)
        exercises.append({"name": name, "points": worth, "status": status})
        (still_open if status == "open" else done).append(name)
    won: int = sum(points[name] for name in done)
    most = sum(points.values())
    if is_extension(number):
        most = EXTENSION_XP
        won = won if still_open else most
    return {
        "lab": number,
        "name": NAMES[number],
        "exercises": exercises,
        "solved": done,
        "open": still_open,
        "xp": won,
        "of": most,
        "extension": is_extension(number),
        "complete": not still_open,
    }


def _last_worked_on(record: dict, numbers: list[str]) -> int:
    """The place of the lab with the latest date; 0 where nothing was done."""
    latest = ("", 0)
    for i, number in enumerate(numbers):
        for part in FIRST_DATES:
            for date in record.get(part, {}).get(number, {}).values():
                latest = max(latest, (date, i))
    return latest[1]


def _next_step(record: dict, labs: list[dict], readings: list[dict]) -> dict | None:
    """What to do next: the first open exercise of the lab that was worked on last or of those after
    it, then a required reading, then an exercise beyond the ten; None where all is done.
    """
    ten = [lab for lab in labs if not lab["extension"]]
    start = _last_worked_on(record, [lab["lab"] for lab in ten])
    beyond = [lab for lab in labs if lab["extension"]]
    for lab in [*ten[start:], *ten[:start]]:
        if lab["open"]:
            return _exercise_step(lab)
    for reading in readings:
        if reading["level"] == "required" and not reading["read"]:
            return {"reading": reading["key"], "name": reading["title"], "xp": reading["xp"]}
    for lab in beyond:
        if lab["open"]:
            return _exercise_step(lab)
    return None


def _exercise_step(lab: dict) -> dict:
    name = lab["open"][0]
    return {"lab": lab["lab"], "name": name, "xp": POINTS[lab["lab"]][name]}


def summary() -> dict:
    """Progress as plain data: `labs` with their exercises and `readings`, with their points;
    `complete`, `xp` and `of` (what there is to win); `next`, what to do next.
    """
    record = load_progress()
    labs = [_lab_row(number, record) for number in NAMES]
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
        "next": _next_step(record, labs, readings),
        "labs": labs,
        "readings": readings,
    }


def show_progress() -> None:
    """Show progress: in a notebook as a picture, in a terminal as text."""
    from ftlib.core.notebook import in_notebook
    from ftlib.course.progress_views import progress_html, progress_text

    state = summary()
    if in_notebook():
        from IPython.display import display

        display({"text/html": progress_html(state), "text/plain": progress_text(state)}, raw=True)
    else:
        print(progress_text(state))
