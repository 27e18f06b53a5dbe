"""Readers of JSONL, JSON, CSV and Parquet: what each file holds, row by row, with the place and the
reason where it cannot be read.

CSV holds text. A cell that is a whole JSON array or object, or true, false or null, is read as that
value (so a column `messages` holds JSON); everything else, numbers too, stays text.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pyarrow.parquet as pq

from ftlib.core.errors import DataError
from ftlib.data.rows import STRICT, parse_json

MAX_BYTES = (
    1 << 24
)  # of one row: 16 MiB of text is no training example, but a file without line ends
CHUNK = 1 << 16  # characters or bytes read at once
BATCH = 1_000  # rows of Parquet at once
_PLAIN = json.JSONDecoder()
_NUMBER = tuple("0123456789.eE+-")

# What a reader yields: (number of the line or row, its text or None for Parquet, the row or the
# DataError that tells why not).
Item = tuple[int, str | bytes | None, "object | DataError"]


# --- lines ----------------------------------------------------------------------------------------
def _lines(file) -> Iterator[tuple[int, bytes, bool]]:
    """(number, line, whether it was cut at MAX_BYTES); a byte order mark at the start of the file
    is left out.
    """
    number = 0
    while line := file.readline(MAX_BYTES + 1):
        number += 1
        cut = len(line) > MAX_BYTES and not line.endswith(b"\n")
        while cut and (more := file.readline(CHUNK)):
            if more.endswith(b"\n"):
                break
        yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, cut


def _attempt(parse: Callable, raw):
    try:
        return parse(raw)
    except DataError as error:
        return error


def _too_long(line: bytes):
    raise DataError(f"the line is longer than {MAX_BYTES:,} bytes: is this one row a line?")


def read_lines(file) -> Iterator[Item]:
    """JSONL from a binary file: one item a line that holds something."""
    for number, line, cut in _lines(file):
        if line.strip():
            yield number, line, _attempt(_too_long if cut else parse_json, line)


# --- one JSON array -------------------------------------------------------------------------------
class _Text:
    """A window over a file's text that can grow: what was consumed is forgotten."""

    def __init__(self, file):
        self.file, self.text, self.at, self.bytes, self.ended = file, "", 0, 0, False
        self.decode = codecs.getincrementaldecoder("utf-8-sig")().decode

    def grow(self) -> None:
        """Read as much again as the window holds: a long row is then parsed a few times at most."""
        chunk = self.file.read(max(CHUNK, len(self.text) - self.at))
        self.bytes += len(chunk)
        self.ended = not chunk
        try:
            self.text, self.at = self.text[self.at :] + self.decode(chunk, self.ended), 0
        except UnicodeDecodeError as error:
            raise DataError(
                f"not UTF-8 ({error.reason} at byte {self.bytes - len(error.object) + error.start})"
            ) from None

    def peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.grow()

    def value(self) -> tuple[str, object]:
        """(text, value or DataError) of the JSON value at the window's start."""
        while True:
            try:
                value, end = _PLAIN.raw_decode(self.text, self.at)
                # A number that the window cuts off, 1 of 1.5 or of 1e5, is one too.
                cut_off = isinstance(value, (int, float)) and self.text[end : end + 1] in _NUMBER
                if self.ended or (end < len(self.text) and not cut_off):
                    break
            except json.JSONDecodeError as error:
                unfinished = (
                    error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 16
                )
                if self.ended or not unfinished:
                    raise DataError(
                        f"not valid JSON ({error.msg}): the rows from here on cannot be told apart"
                    ) from None
            except (RecursionError, ValueError) as error:
                raise DataError(f"not usable JSON ({error})") from None
            if len(self.text) - self.at > MAX_BYTES:
                raise DataError(
                    f"the row is longer than {MAX_BYTES:,} characters: is a quote or a bracket "
                    "missing?"
                )
            self.grow()
        raw, self.at = self.text[self.at : end], end
        return raw, _attempt(parse_json, raw)


def _read_json(file) -> Iterator[Item]:
    text, number = _Text(file), 0
    if text.peek() != "[":
        raise DataError(
            "no JSON array: the file must be one list of objects, [{…}, …]; one object a line is "
            ".jsonl"
        )
    text.at += 1
    mark = text.peek()
    while mark != "]":
        number += 1
        try:
            raw, row = text.value()
            mark = text.peek()
        except DataError as error:
            raise DataError(f"row {number}: {error}") from None
        yield number, raw, row
        if mark not in (",", "]"):
            raise DataError(
                f"row {number}: followed by {mark!r} where , or ] is due"
                if mark
                else f"row {number}: the file ends after it without ]: it is cut off"
            )
        if mark == ",":
            text.at += 1
            text.peek()
    text.at += 1
    if rest := text.peek():
        raise DataError(f"row {number}: after the closing ] comes {rest!r}: one array a file")


# --- CSV ------------------------------------------------------------------------------------------
class _Records:
    """CSV records with the lines they came from. The lines after the first of a broken record are
    read again, each on its own: one quote too many costs one line, not the rest of the file.
    """

    def __init__(self, file):
        self.lines, self.again, self.taken = _lines(file), deque(), []
        self.reader = csv.reader(self, strict=True)

    def __iter__(self):
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else next(self.lines)
        self.taken.append(line)
        return line[1].decode("utf-8", "surrogateescape")

    def records(self) -> Iterator[tuple[int, bytes, list[str] | DataError]]:
        while True:
            self.taken = []
            try:
                record = next(self.reader)
            except StopIteration:
                return
            except csv.Error as error:
                record = DataError(
                    f"not valid CSV ({error}): is a quote missing, or doubled wrongly?"
                )
                self.again.extendleft(reversed(self.taken[1:]))
                del self.taken[1:]
            if record:
                yield (
                    self.taken[0][0],
                    b"".join(line for _, line, _ in self.taken),
                    _too_long_csv(self.taken) or record,
                )


def _too_long_csv(lines) -> DataError | None:
    return _attempt(_too_long, b"") if any(cut for *_, cut in lines) else None


def looks_nested(cell: str) -> bool:
    """Whether a CSV cell is read as JSON: a whole array or object, true, false or null."""
    if cell in ("true", "false", "null"):
        return True
    if cell[:1] + cell[-1:] not in ("[]", "{}"):
        return False
    try:
        STRICT.decode(cell)
    except DataError:
        # JSON, but with a key twice or the like: to be rejected rather than taken for text.
        return True
    except (ValueError, RecursionError):
        return False
    return True


def _cells(header: list[str], raw: bytes, record: list[str]) -> dict:
    if b"\0" in raw:
        raise DataError("a NUL byte: the file is damaged, or not UTF-8 text")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 ({error.reason} at byte {error.start})") from None
    if len(record) != len(header):
        raise DataError(
            f"{len(record)} columns where the header has {len(header)}: is a comma not quoted?"
        )
    row = {}
    for name, value in zip(header, record, strict=True):
        row[name] = parse_json(value) if looks_nested(value) else value
    return row


def _read_csv(file) -> Iterator[Item]:
    header = None
    for number, raw, record in _Records(file).records():
        if header is None:
            header = _header(number, raw, record)
        elif isinstance(record, DataError):
            yield number, raw, record
        else:
            yield number, raw, _attempt(partial(_cells, header, raw), record)


def _header(number: int, raw: bytes, record) -> list[str]:
    """The names of the columns; DataError where the first record gives none."""
    names = record
    if not isinstance(record, DataError):
        names = _attempt(partial(_cells, record, raw), record)
    if isinstance(names, DataError):
        raise DataError(f"line {number}: no header of column names ({names})")
    names = list(names)
    if len(names) != len(record) or not all(names):
        raise DataError(
            f"line {number}: no header of column names (a name is empty or stands twice)"
        )
    return names


# --- Parquet --------------------------------------------------------------------------------------
def _read_parquet(file) -> Iterator[Item]:
    number = 0
    try:
        for batch in pq.ParquetFile(file, page_checksum_verification=True).iter_batches(
            batch_size=BATCH
        ):
            batch.validate(full=True)
            for row in batch.to_pylist():
                number += 1
                yield number, None, row
    # Arrow's own, and whatever converting its values raises: each means the same to the reader.
    except Exception as error:
        raise DataError(f"after row {number}: {_damaged(error)}") from error


def _damaged(error: Exception) -> str:
    message = " ".join(str(error).split())[:200]
    return f"damaged or cut off ({type(error).__name__}: {message}): copy it again"


READERS: dict[str, Callable] = {
    ".jsonl": read_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
LINED = (".jsonl", ".csv")  # formats whose rows are numbered by line


@cache
def format_of(path: Path) -> str:
    """The path's format by its ending, without .gz."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix not in READERS or name.endswith(".parquet.gz"):
        raise DataError(
            f"{path}: unknown format; use {', '.join(READERS)}, the text formats also with .gz"
        )
    return suffix


def read_items(path: Path, file) -> Iterator[Item]:
    """The items of one file that is open for reading bytes. DataError where the file as a whole is
    damaged.
    """
    reader = READERS[format_of(path)]
    try:
        yield from reader(
            gzip.GzipFile(fileobj=file) if path.name.lower().endswith(".gz") else file
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (OSError, EOFError, zlib.error) as error:  # gzip's
        raise DataError(f"{path}: {_damaged(error)}") from error
