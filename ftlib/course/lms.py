"""What a class handed in to a learning management system, from its zip to a folder a student.

Three layouts are known:

- Moodle, "Download all submissions": a folder `Ada Byron_1234_assignsubmission_file` a student,
  with or without an underscore at its end; or, without folders, files whose names begin like that;
- Canvas, "Download Submissions": files such as `byronada_55_901_lab.ipynb` and
  `byronada_LATE_55_901_lab.ipynb`;
- any zip with a folder a student, inside one common folder or not.

A zip is not trusted. Nothing is written where its paths say: folders are named after the student
and the zip, a file after its path, all of them without separators. Only notebooks are taken. Links,
encrypted files and what is too large are left out and said; sizes are counted while reading, since
a zip may lie about them.
"""

from __future__ import annotations

import datetime
import os
import re
import stat
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from ftlib.core.atomic import replacing
from ftlib.course.submissions import NOTEBOOK, GradingError, plain_name

MOODLE = re.compile(
    r"(?P<name>[^_].*?)_(?P<id>\d+)_assignsubmission_(?P<part>[a-z]+)(?:_(?P<file>.*))?", re.S
)
CANVAS = re.compile(
    r"(?:(?!LATE_|anon_)(?P<name>\w+?)_)?(?:LATE_)?(?P<id>\d+|anon_\w+?)_(?P<attachment>\d+)_(?P<file>.+)",
    re.S,
)
MOST_ENTRIES = 20_000
BIGGEST_FILE = 100_000_000  # bytes: more than is graded, so that `ftlib grade` says so of its row
BIGGEST_ALL = 5_000_000_000
TOO_LARGE = f"it has more than {BIGGEST_FILE // 1_000_000} MB"
CHUNK = 1_000_000
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)

Reading = tuple[str, str, str]  # of a path: the student, the LMS's number of them, the file


@dataclass(frozen=True)
class Found:
    """A notebook in a zip: whose it is, the LMS's number of them, and what it is to be called."""

    entry: zipfile.ZipInfo
    student: str
    number: str
    file: str


@dataclass
class Collected:
    """What came of a zip: its layout, the notebooks by student, their bytes, and what was left out
    and why.
    """

    layout: str = ""
    files: dict[str, list[Path]] = field(default_factory=dict)
    size: int = 0
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, entry: zipfile.ZipInfo, why: str) -> None:
        self.left_out.append(f"{shown(entry.filename)}: {why}")


def shown(name: str) -> str:
    """A name of a zip's for a terminal: what would not be seen there, or would act, as its code."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name)


# --- layouts --------------------------------------------------------------------------------------
def _parts(entry: zipfile.ZipInfo) -> list[str]:
    return [part for part in re.split(r"[/\\]", entry.filename) if part not in ("", ".")]


def _moodle(parts: list[str]) -> Reading | None:
    """(student, number, file) of a path in Moodle's zip, whatever lies around the student."""
    for i, part in enumerate(parts):
        found = MOODLE.fullmatch(part)
        if found and (found["file"] or len(parts) > i + 1):
            names = [found["file"] or "", *parts[i + 1 :]]
            return found["name"], found["id"], "_".join(name for name in names if name)
    return None


def _canvas(parts: list[str]) -> Reading | None:
    found = CANVAS.fullmatch(parts[0])
    if not found or len(parts) > 1:
        return None
    return found["name"] or "anonymous", found["id"], found["file"]


def _folders(parts: list[str]) -> Reading | None:
    return (parts[0], "", "_".join(parts[1:])) if len(parts) > 1 else None


LAYOUTS = {"Moodle": _moodle, "Canvas": _canvas, "folders": _folders}


def _without_common_folder(paths: list[list[str]]) -> list[list[str]]:
    """Without the folder that all lie in, where there is one and students' folders in it."""
    first = {parts[0] for parts in paths}
    if len(first) == 1 and all(len(parts) > 2 for parts in paths):
        return [parts[1:] for parts in paths]
    return paths


def _whose(entries: list[zipfile.ZipInfo]) -> tuple[str, list[Reading | None]]:
    """The layout that names a student for most entries, the first of equals; and what it reads."""
    paths = _without_common_folder([_parts(entry) for entry in entries])
    nobody: list[Reading | None] = [None] * len(entries)
    best = ("folders", nobody)
    most = 0
    for layout, read in LAYOUTS.items():
        said = [read(parts) for parts in paths]
        count = sum(one is not None for one in said)
        if count > most:
            best = (layout, said)
            most = count
    return best


# --- what is taken --------------------------------------------------------------------------------
def _is_there(entry: zipfile.ZipInfo) -> bool:
    """Whether an entry is a file that somebody handed in: no folder, and nothing that a system left
    in a hidden one.
    """
    parts = _parts(entry)
    hidden = [part for part in parts if part.startswith((".", "__MACOSX")) and part != ".."]
    return bool(parts) and not hidden and not entry.is_dir()


def _refused(entry: zipfile.ZipInfo) -> str:
    """Why an entry is not even opened; empty if it may be."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if ".." in _parts(entry):
        return "its path leads out of the zip"
    if kind not in (0, stat.S_IFREG):
        return "it is a link" if kind == stat.S_IFLNK else "it is no regular file"
    if not NOTEBOOK.search(entry.filename):
        return "it is no notebook"
    if entry.flag_bits & 0x1:
        return "it is encrypted"
    if entry.file_size > BIGGEST_FILE:
        return TOO_LARGE
    return ""


def _find(archive: zipfile.ZipFile, collected: Collected) -> list[Found]:
    """What is there, with whose it is; what names no student is noted as left out."""
    entries = [entry for entry in archive.infolist() if _is_there(entry)]
    collected.layout, readings = _whose(entries)
    found = []
    for entry, reading in zip(entries, readings, strict=True):
        if reading:
            name, number, file = reading
            found.append(Found(entry, plain_name(name), plain_name(number), plain_name(file)))
        else:
            collected.leave_out(entry, "it names no student")
    return found


def _students(found: list[Found]) -> dict[tuple[str, str], str]:
    """A folder's name for each (name, number): the name alone where one student has it, so that it
    is the same for each of the course's assignments, and else with the number.
    """
    numbers: dict[str, set[str]] = {}
    for one in found:
        numbers.setdefault(one.student.casefold(), set()).add(one.number)
    names = {}
    for one in found:
        alone = len(numbers[one.student.casefold()]) == 1
        names[one.student, one.number] = one.student if alone else f"{one.student} {one.number}"
    return names


# --- collecting -----------------------------------------------------------------------------------
def collect(zips, output) -> list[Collected]:
    """Sort the notebooks of zips into `output`/STUDENT/ZIP, for `ftlib grade`. Who handed in no
    notebook has a folder too. A notebook of an earlier call is replaced; nothing else there is
    touched. Each notebook is written as a whole or not at all.

    GradingError naming a file that is no zip, has too many entries or nothing of a student, and
    where a folder to write to is a link; two zips of one name. OSError where nothing can be read or
    written.
    """
    paths = [Path(path) for path in zips]
    names = [plain_name(path.stem) for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise GradingError(f"two zips are called {name!r}: rename one of them")
    output = Path(output)
    return [_collect_one(path, output, name) for path, name in zip(paths, names, strict=True)]


def _collect_one(path: Path, output: Path, name: str) -> Collected:
    collected = Collected()
    try:
        with zipfile.ZipFile(path) as archive:
            if len(archive.infolist()) > MOST_ENTRIES:
                raise GradingError(f"{path} has more than {MOST_ENTRIES:,} entries: look into it")
            found = _find(archive, collected)
            if not found:
                raise GradingError(
                    f"{path} holds nothing of a student: name a zip of Moodle's or Canvas's "
                    "download of all submissions, or one with a folder for each student"
                )
            students = _students(found)
            for one in found:
                student = students[one.student, one.number]
                files = collected.files.setdefault(student, [])
                _take(archive, one, output / student / name, files, collected)
                if collected.size > BIGGEST_ALL:
                    raise GradingError(
                        f"{path} holds more than {BIGGEST_ALL // 1_000_000_000} GB: stopped at "
                        f"{one.entry.filename!r}"
                    )
    except zipfile.BadZipFile as error:
        raise GradingError(f"{path} is no zip that can be read ({error})") from None
    return collected


def _take(
    archive: zipfile.ZipFile, one: Found, folder: Path, files: list[Path], collected: Collected
) -> None:
    """Write one notebook and add it to its student's files, or note why not."""
    for place in (folder.parent, folder):
        if place.is_symlink():
            raise GradingError(f"{place} is a link: remove it, or collect into another folder")
    folder.mkdir(parents=True, exist_ok=True)
    why = _refused(one.entry)
    path = _free_path(folder / one.file, files)
    try:
        size = 0 if why else _extract(archive, one.entry, path)
    except BROKEN as error:
        why = str(error) if str(error) == TOO_LARGE else f"it cannot be read ({error})"
    if why:
        collected.leave_out(one.entry, why)
    else:
        files.append(path)
        collected.size += size


def _free_path(path: Path, taken: list[Path]) -> Path:
    """Another name where two notebooks of one zip would have the same."""
    names = {other.name.casefold() for other in taken}
    number = 2
    free = path
    while free.name.casefold() in names:
        free = path.with_name(f"{number}_{path.name}")
        number += 1
    return free


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> int:
    """Write an entry's bytes, at most BIGGEST_FILE whatever the zip says of them; with its time,
    because of several notebooks `ftlib grade` tries the latest first. Returns how many.
    """
    size = 0
    with archive.open(entry) as source, replacing(path) as temporary:
        with temporary.open("wb") as target:
            while chunk := source.read(CHUNK):
                size += len(chunk)
                if size > BIGGEST_FILE:
                    raise EOFError(TOO_LARGE)
                target.write(chunk)
        at = _time(entry)
        os.utime(temporary, (at, at))
    return size


def _time(entry: zipfile.ZipInfo) -> float:
    """The entry's time in seconds; a zip's may be none that exists."""
    try:
        return datetime.datetime(*entry.date_time).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
