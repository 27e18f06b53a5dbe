"""Rows that are not what they seem: dates from a table, a gzipped file, an array for lines."""

import datetime
import gzip
import json

import pyarrow as pa
import pytest
from conftest import chat

from ftlib.core.errors import DataError
from ftlib.data.rows import fingerprint
from ftlib.data.stream import read_jsonl, stream_rows
from ftlib.data.write import write_rows

DAY = datetime.date(2026, 11, 28)
MOMENT = datetime.datetime(2026, 11, 28, 12, 30)


def test_dates_have_a_fingerprint():
    """That of their ISO text; another day is another."""
    rows = [{"day": DAY, "at": MOMENT}]
    assert fingerprint(rows) == fingerprint([{"day": "2026-11-28", "at": "2026-11-28T12:30:00"}])
    assert fingerprint(rows) != fingerprint([{"day": DAY, "at": MOMENT.replace(hour=13)}])


def test_what_has_no_fingerprint_is_named():
    with pytest.raises(DataError, match=r"row 1 .*b'x'' is a bytes|row 1 .*is a bytes"):
        fingerprint([{"a": 1}, {"a": b"x"}])


@pytest.mark.parametrize("value, kind", [(DAY, "date"), (MOMENT, "datetime"), (b"x", "bytes")])
def test_a_value_that_json_lacks_is_named_with_its_column(value, kind, tmp_path):
    with pytest.raises(DataError, match=f"row 2 cannot be written as JSON: 'day' holds .*{kind}"):
        write_rows(tmp_path / "a.jsonl", [{"day": "x"}, {"day": value}])
    assert not list(tmp_path.iterdir())


def test_a_parquet_table_keeps_its_dates(tmp_path):
    write_rows(tmp_path / "a.parquet", [{"day": DAY}])
    assert list(stream_rows(tmp_path / "a.parquet", progress=False)) == [{"day": DAY}]
    assert pa.parquet.read_schema(tmp_path / "a.parquet").field("day").type == pa.date32()


def test_what_is_no_jsonl_is_named(tmp_path):
    rows = [chat("a", "b")]
    packed = tmp_path / "a.jsonl"
    packed.write_bytes(gzip.compress(json.dumps(rows[0]).encode()))
    with pytest.raises(DataError, match=r"a\.jsonl is gzipped: stream_rows"):
        read_jsonl(packed)
    array = tmp_path / "a.json"
    array.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"one JSON array, not a row a line: stream_rows"):
        read_jsonl(array)
    assert list(stream_rows(array, progress=False)) == rows
