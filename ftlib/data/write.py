"""Rows into files: JSONL, JSON, CSV and Parquet, the text formats gzipped too, in bounded memory,
written beside and renamed.
"""

from __future__ import annotations

import codecs
import csv
import datetime
import gzip
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ftlib.core.atomic import replacing
from ftlib.core.errors import DataError
from ftlib.data.read import BATCH, format_of, looks_nested

log = logging.getLogger("ftlib")


# --- writing --------------------------------------------------------------------------------------
def to_json(row, number: int) -> str:
    """The row as one line of JSON; DataError names a value that JSON does not have."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        text.encode()  # half of a surrogate pair is no text
        return text
    except (TypeError, ValueError, RecursionError) as error:
        reason = _odd_value(row) or error
        raise DataError(f"row {number} cannot be written as JSON: {reason}") from None


def _odd_value(row) -> str:
    """Which value of a row is of a type that JSON does not have; empty if none is at the top."""
    for key, value in row.items() if isinstance(row, dict) else ():
        if isinstance(value, (datetime.date, datetime.time)):
            return f"{key!r} holds a {type(value).__name__}: write value.isoformat(), or .parquet"
        if isinstance(value, bytes):
            return f"{key!r} holds bytes: write text, or .parquet"
    return ""


def _same_keys(rows: Iterable[dict]) -> Iterator[tuple[int, dict]]:
    """Numbered rows. DataError where a row's keys are not the first one's: a table has one set of
    columns.
    """
    first = None
    for number, row in enumerate(rows, 1):
        if first is None:
            first = row.keys()
        if row.keys() != first:
            raise DataError(
                f"row {number} has the keys {', '.join(row)}, the first one {', '.join(first)}: a "
                "table needs the same in every row; write .jsonl, or fill in the missing ones"
            )
        yield number, row


def write_lines(file, rows: Iterable[dict]) -> int:
    """Rows as JSONL into a file that is open for writing bytes; returns how many. DataError names a
    row that JSON cannot hold.
    """
    number = 0
    for number, row in enumerate(rows, 1):
        file.write(to_json(row, number).encode() + b"\n")
    return number


def _write_json(file, rows) -> int:
    number = 0
    for number, row in enumerate(rows, 1):
        before = b"[\n" if number == 1 else b",\n"
        file.write(before + to_json(row, number).encode())
    file.write(b"\n]\n" if number else b"[]\n")
    return number


def _cell(key: str, value, number: int) -> str:
    """A value as a cell of CSV; DataError for a text that would be read back as something else."""
    if not isinstance(value, str):
        return to_json(value, number)
    if looks_nested(value) or "\0" in value:
        raise DataError(
            f"row {number}: the text {value[:60]!r} in {key!r} would not be read back as that "
            "text: write .jsonl"
        )
    to_json(value, number)  # DataError for half of a surrogate pair
    return value


def _write_csv(file, rows) -> int:
    text = codecs.getwriter("utf-8")(file)
    number = 0
    for number, row in _same_keys(rows):
        if number == 1:
            writer = csv.DictWriter(text, list(row), lineterminator="\n", quoting=csv.QUOTE_ALL)
            writer.writeheader()
        writer.writerow({key: _cell(key, value, number) for key, value in row.items()})
    return number


def _write_parquet(file, rows) -> int:
    writer = None
    batch: list[dict] = []
    number = 0
    try:
        for number, row in _same_keys(rows):
            batch.append(row)
            if len(batch) == BATCH:
                writer = _write_batch(file, writer, batch, number)
                batch = []
        if batch or not number:
            writer = _write_batch(file, writer, batch, number)
    finally:
        if writer:
            writer.close()
    return number


def _check_unchanged(batch: list[dict], table: pa.Table, first: int) -> None:
    """DataError unless the table's rows are the batch's, the first of which is row `first`."""
    for number, (row, kept) in enumerate(zip(batch, table.to_pylist(), strict=True), first):
        if row != kept:
            raise DataError(
                f"row {number} would change in Parquet, where all objects of a column have "
                "the same keys: write .jsonl"
            )


def _write_batch(file, writer, batch: list[dict], last: int):
    """Write a batch that ends with row `last`; returns the writer, a new one for the first batch.

    DataError for rows that Parquet would not give back unchanged: a column's type is that of its
    first rows.
    """
    first = last - len(batch) + 1
    try:
        table = pa.Table.from_pylist(batch, schema=None if writer is None else writer.schema)
        _check_unchanged(batch, table, first)
        if writer is None:
            writer = pq.ParquetWriter(
                file, table.schema, compression="zstd", write_page_checksum=True
            )
        writer.write_table(table)
    except DataError:
        raise
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"rows {first} to {last} do not fit Parquet's columns ({error}): write .jsonl"
        ) from None
    return writer


WRITERS: dict[str, Callable] = {
    ".jsonl": write_lines,
    ".json": _write_json,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}


def write_rows(path: str | os.PathLike, rows: Iterable[dict]) -> int:
    """Write rows as the path's ending says (`stream_rows` reads them back); returns how many.
    `rows` may be a generator.

    The file appears whole or not at all. The same rows give the same bytes. DataError names a row
    that the format cannot hold: CSV and Parquet need the same keys in every row; in CSV numbers
    become text, and an empty table keeps no header.
    """
    path = Path(path)
    write = WRITERS[format_of(path)]
    with replacing(path) as temporary, temporary.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                return write(packed, _objects(rows))
        return write(file, _objects(rows))


def _objects(rows) -> Iterator[dict]:
    """The rows; DataError for one that is no dict with text for keys."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not all(isinstance(key, str) for key in row):
            raise DataError(
                f"row {number} is {repr(row)[:60]}: a dict with text for keys is needed"
            )
        yield row
