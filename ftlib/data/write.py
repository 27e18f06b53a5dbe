"""Rows into files: JSONL, JSON, CSV and Parquet, the text formats gzipped too, in bounded memory,
written beside and renamed.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import logging
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
        text.encode()
        return text
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"row {number} cannot be written as JSON: {error}") from None


def _same_keys(rows: Iterable[dict]) -> Iterator[tuple[int, dict]]:
    """Numbered rows. DataError where a row's keys are not the first one's: a table has one set of
    columns.
    """
    first = None
    for number, row in enumerate(rows, 1):
        first = row.keys() if first is None else first
        if row.keys() != first:
            raise DataError(
                f"row {number} has the keys {', '.join(row)}, the first one {', '.join(first)}: a "
                "table needs the same "
                "in every row; write .jsonl, or fill in the missing ones"
            )
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
        raise DataError(
            f"row {number}: the text {value[:60]!r} in {key!r} would not be read back as that "
            "text: write .jsonl"
        )
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
    """Write what Parquet gives back unchanged, and nothing else: a column's type is that of its
    first rows.
    """
    first = last - len(batch) + 1
    try:
        table = pa.Table.from_pylist(batch, schema=writer and writer.schema)
        for number, (row, kept) in enumerate(zip(batch, table.to_pylist(), strict=True), first):
            if row != kept:
                raise DataError(
                    f"row {number} would change in Parquet, where all objects of a column have "
                    "the same keys: "
                    "write .jsonl"
                )
        writer = writer or pq.ParquetWriter(
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
    ".jsonl": _write_lines,
    ".json": _write_json,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}


def write_rows(path, rows: Iterable[dict]) -> int:
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
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not all(isinstance(k, str) for k in row):
            raise DataError(
                f"row {number} is {repr(row)[:60]}: a dict with text for keys is needed"
            )
        yield row
