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

# Of one row: 16 MiB of text is no training example, but a file without line ends.
MAX_BYTES = 1 << 24
CHUNK = 1 << 16  # characters or bytes read at once
BATCH = 1_000  # rows of Parquet at once
_PLAIN = json.JSONDecoder()
_NUMBER = tuple("0123456789.eE+-")
LONGEST_TOKEN = 16  # characters in which a word or an escape that a chunk cuts off begins

# What a reader yields: (number of the line or row, its text or None for Parquet, the row or the
# DataError that tells why not).
Item = tuple[int, str | bytes | None, "object | DataError"]

# Why JSON and CSV are not left to pyarrow or datasets, which read them too but keep less of what is
# promised here (tried with pyarrow 26 and datasets 5.2). pyarrow.json takes no array, makes a float
# of 2^63 and a value of NaN, fills keys that only other rows have with None, turns
# "2024-01-31 10:00:00" into a datetime, and one bad line ends the file: the third line, after a
# blank one, as "row 1". pyarrow.csv keeps one of two columns of one name, reads `"1"x` as 1x, takes
# NUL for text, gives no line number to a ragged row, and an open quote swallows the rest of the
# file. datasets keeps the last of two equal keys, drops half a surrogate pair, refuses integers
# beyond 64 bits without naming the row, and holds a whole array in memory (279 MB for a file of 43,
# here under 1).


# --- lines ----------------------------------------------------------------------------------------
def _lines(file) -> Iterator[tuple[int, bytes, bool]]:
    """(number, line, whether it was cut at MAX_BYTES); a byte order mark at the start of the file
    is left out.
    """
    number = 0
    while line := file.readline(MAX_BYTES + 1):
        number += 1
        is_cut = len(line) > MAX_BYTES and not line.endswith(b"\n")
        if is_cut:
            _skip_line(file)
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        yield number, line, is_cut


def _skip_line(file) -> None:
    """Read on to the next line without keeping what is between."""
    while piece := file.readline(CHUNK):
        if piece.endswith(b"\n"):
            return


def _attempt(parse: Callable, raw):
    """What `parse` makes of the raw text, or the DataError that it raises."""
    try:
        return parse(raw)
    except DataError as error:
        return error


def _too_long() -> DataError:
    return DataError(f"the line is longer than {MAX_BYTES:,} bytes: is this one row a line?")


def read_lines(file) -> Iterator[Item]:
    """JSONL from a binary file: one item a line that holds something."""
    for number, line, is_cut in _lines(file):
        if not line.strip():
            continue
        row = _too_long() if is_cut else _attempt(parse_json, line)
        yield number, line, row


# --- one JSON array -------------------------------------------------------------------------------
class _Text:
    """A window over a file's text that can grow: what was consumed is forgotten."""

    def __init__(self, file):
        self.file = file
        self.text = ""
        self.at = 0  # where in `text` what was not consumed begins
        self.bytes = 0  # read so far
        self.ended = False
        self.decode = codecs.getincrementaldecoder("utf-8-sig")().decode

    def grow(self) -> None:
        """Read as much again as the window holds: a long row is then parsed a few times at most."""
        rest = self.text[self.at :]
        chunk = self.file.read(max(CHUNK, len(rest)))
        self.bytes += len(chunk)
        self.ended = not chunk
        try:
            self.text = rest + self.decode(chunk, self.ended)
        except UnicodeDecodeError as error:
            # The decoder's bytes are the last of those read, some kept from the chunk before.
            place = self.bytes - len(error.object) + error.start
            raise DataError(f"not UTF-8 ({error.reason} at byte {place})") from None
        self.at = 0

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
        end = self._end_of_value()
        while end is None:
            if len(self.text) - self.at > MAX_BYTES:
                raise DataError(
                    f"the row is longer than {MAX_BYTES:,} characters: is a quote or a bracket "
                    "missing?"
                )
            self.grow()
            end = self._end_of_value()
        raw = self.text[self.at : end]
        self.at = end
        return raw, _attempt(parse_json, raw)

    def _end_of_value(self) -> int | None:
        """Where the JSON value at the window's start ends; None if the window may cut it off.
        DataError where there is none.
        """
        try:
            value, end = _PLAIN.raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            is_open_string = error.msg.startswith("Unterminated string")
            is_at_edge = error.pos >= len(self.text) - LONGEST_TOKEN
            if not self.ended and (is_open_string or is_at_edge):
                return None
            raise DataError(
                f"not valid JSON ({error.msg}): the rows from here on cannot be told apart"
            ) from None
        except (RecursionError, ValueError) as error:
            raise DataError(f"not usable JSON ({error})") from None
        if self.ended:
            return end
        # A number that the window cuts off, 1 of 1.5 or of 1e5, is one too.
        is_number = isinstance(value, (int, float))
        may_go_on = is_number and self.text[end : end + 1] in _NUMBER
        if end == len(self.text) or may_go_on:
            return None
        return end


def _read_json(file) -> Iterator[Item]:
    text = _Text(file)
    number = 0
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
        if not mark:
            raise DataError(f"row {number}: the file ends after it without ]: it is cut off")
        if mark not in (",", "]"):
            raise DataError(f"row {number}: followed by {mark!r} where , or ] is due")
        if mark == ",":
            text.at += 1
            text.peek()
    text.at += 1
    rest = text.peek()
    if rest:
        raise DataError(f"row {number}: after the closing ] comes {rest!r}: one array a file")


# --- CSV ------------------------------------------------------------------------------------------
class _Records:
    """CSV records with the lines they came from. The lines after the first of a broken record are
    read again, each on its own: one quote too many costs one line, not the rest of the file.
    """

    def __init__(self, file):
        self.lines = _lines(file)
        self.again: deque[tuple[int, bytes, bool]] = deque()  # lines to be read once more
        self.taken: list[tuple[int, bytes, bool]] = []  # lines of the record at hand
        self.reader = csv.reader(self, strict=True)

    def __iter__(self):
        return self

    def __next__(self) -> str:
        """The next line, for the csv module's reader, which asks for as many as a record has."""
        taken = self.again.popleft() if self.again else next(self.lines)
        self.taken.append(taken)
        _, line, _ = taken
        return line.decode("utf-8", "surrogateescape")

    def records(self) -> Iterator[tuple[int, bytes, list[str] | DataError]]:
        """(number of the first line, the lines, the cells or why there are none) of each record."""
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
            if any(is_cut for _, _, is_cut in self.taken):
                record = _too_long()
            if record:  # a line that holds nothing is a record without cells
                first, _, _ = self.taken[0]
                raw = b"".join(line for _, line, _ in self.taken)
                yield first, raw, record


def looks_nested(cell: str) -> bool:
    """Whether a CSV cell is read as JSON: a whole array or object, true, false or null."""
    if cell in ("true", "false", "null"):
        return True
    ends = cell[:1] + cell[-1:]
    if ends not in ("[]", "{}"):
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
    """The row of a record, whose text is `raw`; DataError for what is no row of this table."""
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
            f"line {number}: no header of column names (a name is empty or is there twice)"
        )
    return names


# --- Parquet --------------------------------------------------------------------------------------
def _read_parquet(file) -> Iterator[Item]:
    number = 0
    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        for batch in parquet.iter_batches(batch_size=BATCH):
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
    is_packed = path.name.lower().endswith(".gz")
    try:
        yield from reader(gzip.GzipFile(fileobj=file) if is_packed else file)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (OSError, EOFError, zlib.error) as error:  # gzip's
        raise DataError(f"{path}: {_damaged(error)}") from error
