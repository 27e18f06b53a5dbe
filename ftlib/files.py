"""Rows out of files and into them, a few at a time: JSONL, JSON, CSV and Parquet, the text formats gzipped too.

A million rows pass in bounded memory. What cannot be read is never dropped in silence: a bad row is counted, kept aside with its
file, place and reason, and too many of them stop the run; a file that is damaged as a whole raises at the place of the damage.
"""
from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ftlib.atomic import replacing
from ftlib.readers import BATCH, LINED, format_of, looks_nested, read_items
from ftlib.rows import CHECKS, DataError

log = logging.getLogger("ftlib")
JUDGE_AFTER = 100     # rows after which the share of rejects is judged for the first time
RAW_KEPT = 10_000     # characters of a bad row that the rejects file keeps


# --- reading ------------------------------------------------------------------------------------------------------------
class RowStream:
    """What `stream_rows` returns: iterate over it once; `read`, `rejected` and `reasons` (the first ten) count meanwhile."""

    def __init__(self, paths: list[Path], check, rejects: Path | None, max_reject_share: float, progress: bool):
        self.paths, self.check, self.rejects = paths, check, rejects
        self.max_reject_share, self.progress = max_reject_share, progress
        self.read, self.rejected, self.reasons = 0, 0, []

    def __iter__(self) -> Iterator[dict]:
        self.read, self.rejected, self.reasons = 0, 0, []
        with contextlib.ExitStack() as stack:
            aside = self.rejects and stack.enter_context(
                stack.enter_context(replacing(self.rejects, keep=True)).open("w", encoding="utf-8"))
            for path, number, raw, row in self._items():
                where = f"{path}{':' if format_of(path) in LINED else ' row '}{number}"
                row = self._checked(row, where)
                if isinstance(row, DataError):
                    self._reject(str(row), path, number, where, raw, aside)
                else:
                    self.read += 1
                    yield row
            self._judge()
        if self.rejected:
            log.warning("left out %s of %s rows, the first %s", self.rejected, self.read + self.rejected, self.reasons[0])

    def _items(self) -> Iterator[tuple]:
        """(path, *item) of every file, under a bar of the bytes read."""
        sizes, before = [p.stat().st_size for p in self.paths], 0
        with tqdm(total=sum(sizes), unit="B", unit_scale=True, delay=2, disable=not self.progress) as bar:
            for path, size in zip(self.paths, sizes):
                with path.open("rb") as file:
                    for i, item in enumerate(read_items(path, file)):
                        if i % 1_000 == 0:
                            bar.set_postfix_str(f"{self.read:,} rows, {self.rejected:,} rejected", refresh=False)
                            bar.update(before + file.tell() - bar.n)
                        yield path, *item
                before += size
                bar.update(before - bar.n)

    def _checked(self, row, where: str) -> dict | DataError:
        if isinstance(row, DataError):
            return DataError(f"{where}: {row}")
        try:
            if not isinstance(row, dict):
                raise DataError(f"{where}: a row is an object {{…}}, not {type(row).__name__}")
            row = self.check(row, where) if self.check else row
        except ValueError as error:
            return error if isinstance(error, DataError) else DataError(f"{where}: {error}")
        except Exception as error:  # the check is the caller's: whatever it raises, the row is named
            raise DataError(f"{where}: the check itself failed ({type(error).__name__}: {error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: the check returned {type(row).__name__}: it must return the row, or raise ValueError")
        return row

    def _reject(self, error: str, path: Path, number: int, where: str, raw, aside) -> None:
        self.rejected += 1
        self.reasons += [error] if len(self.reasons) < 10 else []
        if aside:
            text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
            aside.write(json.dumps({"file": str(path), "line": number, "reason": error.removeprefix(f"{where}: "),
                                    "raw": text and text[:RAW_KEPT]}) + "\n")
        if self.read + self.rejected >= JUDGE_AFTER:
            self._judge()

    def _judge(self) -> None:
        seen = self.read + self.rejected
        if self.rejected > self.max_reject_share * seen:
            raise DataError(f"{self.rejected} of {seen} rows are unusable, more than max_reject_share={self.max_reject_share}: "
                            "mend the file or raise it. The first:\n" + "\n".join(self.reasons))


def stream_rows(paths, check: str | Callable | None = None, rejects=None, max_reject_share: float = 0.05,
                progress: bool = True) -> RowStream:
    """The rows of one file or several, one at a time: .jsonl, .json (one array), .csv (with a header), .parquet;
    .gz on the text formats.

    `check`: None (any object), "messages", "preference", "binary", or a function (row, where) that returns the row or raises
    ValueError. A row that fails, or cannot be parsed, is left out and counted: rows read and rejected together are the lines that
    hold something. `rejects` names a JSONL file for them (file, line, reason, raw). More than `max_reject_share` of rejects, judged
    from the hundredth row on and at the end, raise DataError with the first ten; so does a file that is damaged as a whole (cut
    off, no JSON array, no Parquet), at the place of the damage. A bar shows after two seconds unless `progress` is off.
    """
    paths = [Path(p) for p in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    if check is not None and not callable(check) and check not in CHECKS:
        raise DataError(f"check={check!r}: use None, {', '.join(map(repr, CHECKS))} or a function (row, where)")
    if not 0 <= max_reject_share <= 1:
        raise DataError(f"max_reject_share={max_reject_share!r}: a share between 0 and 1 is needed")
    if not paths:
        raise DataError("no file to read: paths is empty")
    for path in paths:
        format_of(path)
        if not path.is_file():
            raise DataError(f"{path} does not exist")
    return RowStream(paths, CHECKS.get(check) if isinstance(check, str) else check, rejects and Path(rejects),
                     max_reject_share, progress)


# --- writing ------------------------------------------------------------------------------------------------------------
def to_json(row, number: int) -> str:
    """The row as one line of JSON; DataError names a value that JSON does not have."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        text.encode()
        return text
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"row {number} cannot be written as JSON: {error}") from None


def _same_keys(rows: Iterable[dict]) -> Iterator[tuple[int, dict]]:
    """Numbered rows. DataError where a row's keys are not the first one's: a table has one set of columns."""
    first = None
    for number, row in enumerate(rows, 1):
        first = row.keys() if first is None else first
        if row.keys() != first:
            raise DataError(f"row {number} has the keys {', '.join(row)}, the first one {', '.join(first)}: a table needs the same "
                            "in every row; write .jsonl, or fill in the missing ones")
        yield number, row


def _write_lines(file, rows) -> int:
    number = 0
    for number, row in enumerate(rows, 1):
        file.write(to_json(row, number).encode() + b"\n")
    return number


def _write_json(file, rows) -> int:
    number = 0
    for number, row in enumerate(rows, 1):
        file.write((b"[\n" if number == 1 else b",\n") + to_json(row, number).encode())
    file.write(b"\n]\n" if number else b"[]\n")
    return number


def _cell(key: str, value, number: int) -> str:
    if not isinstance(value, str):
        return to_json(value, number)
    if looks_nested(value) or "\0" in value:
        raise DataError(f"row {number}: the text {value[:60]!r} in {key!r} would not be read back as that text: write .jsonl")
    to_json(value, number)
    return value


def _write_csv(file, rows) -> int:
    number, text = 0, codecs.getwriter("utf-8")(file)
    for number, row in _same_keys(rows):
        if number == 1:
            writer = csv.DictWriter(text, list(row), lineterminator="\n", quoting=csv.QUOTE_ALL)
            writer.writeheader()
        writer.writerow({k: _cell(k, v, number) for k, v in row.items()})
    return number


def _write_parquet(file, rows) -> int:
    writer, batch, number = None, [], 0
    try:
        for number, row in _same_keys(rows):
            batch.append(row)
            if len(batch) == BATCH:
                writer, batch = _write_batch(file, writer, batch, number), []
        if batch or not number:
            writer = _write_batch(file, writer, batch, number)
    finally:
        if writer:
            writer.close()
    return number


def _write_batch(file, writer, batch: list[dict], last: int):
    """Write what Parquet gives back unchanged, and nothing else: a column's type is that of its first rows."""
    first = last - len(batch) + 1
    try:
        table = pa.Table.from_pylist(batch, schema=writer and writer.schema)
        for number, (row, kept) in enumerate(zip(batch, table.to_pylist()), first):
            if row != kept:
                raise DataError(f"row {number} would change in Parquet, where all objects of a column have the same keys: "
                                "write .jsonl")
        writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd", write_page_checksum=True)
        writer.write_table(table)
    except DataError:
        raise
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"rows {first} to {last} do not fit Parquet's columns ({error}): write .jsonl") from None
    return writer


WRITERS: dict[str, Callable] = {".jsonl": _write_lines, ".json": _write_json, ".csv": _write_csv, ".parquet": _write_parquet}


def write_rows(path, rows: Iterable[dict]) -> int:
    """Write rows as the path's ending says (`stream_rows` reads them back); returns how many. `rows` may be a generator.

    The file appears whole or not at all. The same rows give the same bytes. DataError names a row that the format cannot hold: CSV
    and Parquet need the same keys in every row; in CSV numbers become text, and an empty table keeps no header.
    """
    path = Path(path)
    write = WRITERS[format_of(path)]
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            if path.name.lower().endswith(".gz"):
                with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                    return write(packed, _objects(rows))
            return write(file, _objects(rows))


def _objects(rows) -> Iterator[dict]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not all(isinstance(k, str) for k in row):
            raise DataError(f"row {number} is {repr(row)[:60]}: a dict with text for keys is needed")
        yield row
