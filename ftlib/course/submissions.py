"""What a class has handed in: the notebooks of each student, by lab.

Students rename, copy and download notebooks, so a lab is recognised by what is in the notebook:
nbgrader's grade_ids, the call of `open_lab`, the title. The file's name decides only where the
content says nothing. Whatever lies in a student's folder, nothing here raises because of it.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import warnings
from collections import Counter
from pathlib import Path

import nbformat

from ftlib.course.catalogue import NUMBER, lab_files, lab_number

BIGGEST = 20_000_000  # bytes of a submitted notebook
OPENS = re.compile(rf"open_lab\(\s*[\"']({NUMBER})[\"']")
TITLE = re.compile(rf"^\s*#+ *Lab ({NUMBER})\b", re.M)
NOTEBOOK = re.compile(r"\.ipynb(\.txt|\.json)?$", re.I)  # browsers add to names when they save
SEPARATORS = '/\\:*?"<>|'
LONGEST_NAME = 100  # characters
RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)", re.I)  # names of devices on Windows
IN_A_NAME = re.compile(rf"lab[-_ ]?({NUMBER})(?!\d)", re.I)


class GradingError(ValueError):
    """Grading cannot begin or go on; the message says why."""


def readable(name: str) -> str:
    """A file's name as UTF-8 can write it: an archive may hold names in another encoding."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def plain_name(name: str) -> str:
    """A name of somebody else's as the name of one file or folder on any system: no separators, no
    signs that a system, a shell or a spreadsheet gives a meaning to at its beginning, not hidden,
    not too long; "unnamed" where nothing is left.
    """
    composed = unicodedata.normalize("NFC", readable(name))
    plain = "".join("_" if _has_a_meaning(sign) else sign for sign in composed)
    plain = plain[:LONGEST_NAME].lstrip(" .-+=@~").rstrip(" .")
    reserved = RESERVED.fullmatch(plain.partition(".")[0])
    return f"_{plain}" if reserved else plain or "unnamed"


def _has_a_meaning(sign: str) -> bool:
    return sign in SEPARATORS or not sign.isprintable()


# --- one notebook ---------------------------------------------------------------------------------
def _raw_cells(path: Path) -> list[dict]:
    """The cells as the file has them, of format 3 or 4, unchecked; none where it cannot be read."""
    try:
        if path.stat().st_size > BIGGEST:
            return []
        content = json.loads(path.read_bytes())
        sheets = content.get("worksheets") or [content]
        return [cell for sheet in sheets for cell in sheet["cells"] if isinstance(cell, dict)]
    except Exception:  # not JSON, not of this shape, nested too deeply, not ours to read
        return []


def _text(cell: dict) -> str:
    source = cell.get("source", cell.get("input", ""))
    if isinstance(source, list):
        return "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""


def grade_id(cell) -> str:
    """The name that nbgrader's metadata give a cell; empty where it has none."""
    identity = nbgrader_mark(cell).get("grade_id", "")
    return identity if isinstance(identity, str) else ""


def nbgrader_mark(cell) -> dict:
    """nbgrader's metadata of a cell; empty where it has none."""
    metadata = cell.get("metadata", {})
    mark = metadata.get("nbgrader", {}) if isinstance(metadata, dict) else {}
    return mark if isinstance(mark, dict) else {}


class LabFinder:
    """Says of a notebook which of the course's labs it is."""

    def __init__(self) -> None:
        self.lab_of_id: dict[str, str] = {}
        self.known: set[str] = set()
        for path in lab_files(extensions=True):
            self.known.add(lab_number(path))
            for cell in _raw_cells(path):
                if grade_id(cell):
                    self.lab_of_id[grade_id(cell)] = lab_number(path)

    def lab_of(self, path: Path) -> str:
        """The lab's number; empty for a notebook that is none of the course's labs."""
        found = self._by_content(_raw_cells(path))
        if not found:
            in_name = IN_A_NAME.search(path.name)
            found = in_name[1].upper() if in_name else ""
        return found if found in self.known else ""

    def _by_content(self, cells: list[dict]) -> str:
        """By most of the grade_ids, else by the last `open_lab`, else by the first title."""
        labs = Counter(self.lab_of_id.get(grade_id(cell), "") for cell in cells)
        labs.pop("", None)
        if labs:
            return labs.most_common(1)[0][0]
        opened = ""
        titled = ""
        for cell in cells:
            if cell.get("cell_type") == "code":
                found = OPENS.findall(_text(cell))
                opened = found[-1] if found else opened
            elif not titled:
                found = TITLE.findall(_text(cell))
                titled = found[0] if found else ""
        return opened or titled


def read_submission(path: Path):
    """The submitted notebook, of format 4 whatever it was; GradingError if it cannot be one."""
    try:
        size = path.stat().st_size
        if size > BIGGEST:
            raise GradingError(
                f"{size / 1e6:.0f} MB, more than {BIGGEST / 1e6:.0f}: clear its outputs"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cells without ids, and what conversion leaves
            notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if not isinstance(cell["source"], str) or not isinstance(cell["cell_type"], str):
                raise ValueError("a cell's source is no text")
        return notebook
    except GradingError:
        raise
    except Exception as error:  # nbformat lets through what its readers and converters raise
        said = " ".join(str(error).split())[:100]
        raise GradingError(f"not a readable notebook ({type(error).__name__}: {said})") from None


def digest(notebooks: list[Path]) -> str:
    """Short name of what was handed in: it changes when a file does."""
    whole = hashlib.sha256()
    for path in notebooks:
        try:
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:  # a file that cannot be read is graded as that
            whole.update(type(error).__name__.encode())
    return whole.hexdigest()[:12]


# --- a class --------------------------------------------------------------------------------------
def find_submissions(folder) -> dict[str, dict[str, list[Path]]]:
    """{student: {lab number: notebooks}} of a folder with one folder a student, or of a course
    folder with `submitted/` in it. Several notebooks of a lab come with the latest first; those
    that are no lab's, and what cannot be read as a file, are under "".
    """
    folder = Path(folder)
    if (folder / "submitted").is_dir():
        folder = folder / "submitted"
    if not folder.is_dir():
        raise GradingError(
            f"{folder} is not a folder: name the one that has a folder for each student"
        )
    finder = LabFinder()
    found = {}
    for student in sorted(folder.iterdir()):
        if not student.is_dir() or student.name.startswith("."):
            continue
        by_lab: dict[str, list[Path]] = {}
        for path in sorted(_visible_notebooks(student), key=_latest_first):
            lab = "" if _no_file(path) else finder.lab_of(path)
            by_lab.setdefault(lab, []).append(path)
        found[readable(student.name)] = by_lab
    if not found:
        loose = len(_visible_notebooks(folder))
        advice = f": put its {loose} notebooks into folders named after the students"
        raise GradingError(f"{folder} has no folder of a student{advice if loose else ''}")
    return found


def _visible_notebooks(folder: Path) -> list[Path]:
    """What is named as a notebook below a folder, not hidden and not in a hidden folder."""
    notebooks = []
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if NOTEBOOK.search(path.name) and not hidden:
            notebooks.append(path)
    return notebooks


def _latest_first(path: Path) -> tuple[int, str]:
    return -path.lstat().st_mtime_ns, str(path)


def _no_file(path: Path) -> str:
    """Why something that is named as a notebook is not a file; empty if it is one."""
    if path.is_symlink() and not path.exists():
        return "a link that leads nowhere"
    if path.is_dir():
        return "a folder"
    if not path.is_file():
        return "not a regular file"
    return ""


def why_no_lab(path: Path) -> str:
    """What a notebook is that counts for no lab, for the instructor to read."""
    name = readable(path.name)
    if reason := _no_file(path):
        return f"{name}, which is {reason}"
    try:
        read_submission(path)
    except GradingError as error:
        return f"{name}, which is {error}"
    return f"{name}, which is no lab: neither its title, its grade_ids nor open_lab(…) names one"
