"""SQL judged by what it returns: the query that a model wrote and the reference run on the same
small databases.

Two queries may be written differently and mean the same, and a query that differs in one letter may
mean something else; so texts are not compared. One database proves little, since different queries
often agree on it: each query is run on several, which hold values near the reference's own literals
(the idea of Zhong et al. 2020, arXiv 2010.02840).
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ftlib.core.errors import DataError

DATABASES = 5
ROWS = 24  # of each table
MOST_STEPS = 2_000_000  # of SQLite's virtual machine, for a query that would never end
WORDS = ("amber", "birch", "cedar")
_TEXT_LITERAL = re.compile(r"'((?:[^']|'')*)'|\"([^\"]*)\"")
_NUMBER_LITERAL = re.compile(r"(?<![\w.'\"])-?\d+(?:\.\d+)?(?![\w.'\"])")
_ORDERED = re.compile(r"\border\s+by\b", re.IGNORECASE)
_NUMERIC = ("INT", "REAL", "NUM", "DEC", "FLOA", "DOUB")
# What a query may do: read. Writing, attaching a file and pragmas are refused.
_ALLOWED = (
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
)


def sql_match(predicted: str, reference: str, schema: str) -> bool:
    """Whether two queries return the same rows on `DATABASES` databases of this schema.

    Rows count as often as they occur; their order counts where the reference has ORDER BY. Columns'
    names do not count. `schema`: CREATE TABLE statements. A predicted query that fails, writes or
    does not end is wrong. DataError where the schema or the reference itself does not run.
    """
    is_ordered = bool(_ORDERED.search(reference))
    for seed in range(DATABASES):
        database = example_database(schema, reference, seed)
        try:
            wanted = _run(database, reference)
        except sqlite3.Error as error:
            raise DataError(
                f"the reference query does not run ({error}): {reference!r} on {schema!r}"
            ) from None
        try:
            found = _run(database, predicted)
        except (sqlite3.Error, sqlite3.Warning):
            return False
        if not is_ordered:
            wanted.sort(key=repr)
            found.sort(key=repr)
        if found != wanted:
            return False
    return True


def sql_accuracy(predicted: Sequence[str], rows: Sequence[dict]) -> list[bool]:
    """For each row whether the query that was written returns what its reference does.

    rows: {"answer": the reference, "schema": CREATE TABLE statements}. DataError for a row without
    them, and where there are not as many queries as rows.
    """
    if len(predicted) != len(rows):
        raise DataError(f"{len(predicted)} queries for {len(rows)} rows: one per row is needed")
    right = []
    for i, (query, row) in enumerate(zip(predicted, rows, strict=True)):
        if "schema" not in row or "answer" not in row:
            raise DataError(f"row {i} has no 'schema' or no 'answer': queries cannot be run")
        right.append(sql_match(query, row["answer"], row["schema"]))
    return right


def example_database(schema: str, reference: str, seed: int) -> sqlite3.Connection:
    """A database in memory with `ROWS` rows in every table, drawn from the values that the
    reference names, numbers beside those, and a few words.
    """
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(schema)
    except sqlite3.Error as error:
        raise DataError(f"the schema does not run ({error}): {schema!r}") from None
    rng = random.Random(seed)
    texts, numbers = _literals(reference)
    named = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in named:
        columns = database.execute(f'PRAGMA table_info("{table}")').fetchall()
        marks = ", ".join("?" for _ in columns)
        for _ in range(ROWS):
            values = [_value(rng, column[1], column[2], texts, numbers) for column in columns]
            # A key that is there already, as two rows may draw one.
            database.execute(f'INSERT OR IGNORE INTO "{table}" VALUES ({marks})', values)
    return database


def _literals(query: str) -> tuple[list[str], list[float]]:
    """The texts and the numbers that a query names."""
    texts = []
    for single, double in _TEXT_LITERAL.findall(query):
        texts.append(single.replace("''", "'") or double)
    bare = _TEXT_LITERAL.sub(" ", query)
    numbers = [float(number) for number in _NUMBER_LITERAL.findall(bare)]
    for text in texts:  # a number in quotes
        if re.fullmatch(r"-?\d+(\.\d+)?", text):
            numbers.append(float(text))
    return texts, numbers


def _value(
    rng: random.Random, column: str, kind: str, texts: list[str], numbers: list[float]
) -> Any:
    """A value for a column of this type: of texts one that the query names, one that other columns
    have too (so that joins find partners), or one of this column's own.
    """
    if any(part in kind.upper() for part in _NUMERIC):
        value = float(rng.randint(0, 12))
        if numbers and rng.random() < 0.5:
            value = rng.choice(numbers) + rng.choice((-1, 0, 1))
        return int(value) if value.is_integer() else value
    if texts and rng.random() < 0.5:
        return rng.choice(texts)
    own = f"{column} {rng.randint(1, 4)}"
    return rng.choice((*WORDS, own))


def _run(database: sqlite3.Connection, query: str) -> list[tuple]:
    """The query's rows; sqlite3.Error where it fails, writes, or takes too long."""

    def allow(action: int, *details: str | None) -> int:
        return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY

    steps = Counter[str]()

    def stop() -> int:
        steps["taken"] += 1
        return int(steps["taken"] * 1000 > MOST_STEPS)

    database.set_authorizer(allow)
    database.set_progress_handler(stop, 1000)
    try:
        rows = database.execute(query).fetchall()
    finally:
        database.set_authorizer(None)
        database.set_progress_handler(None, 0)
    return [tuple(_rounded(value) for value in row) for row in rows]


def _rounded(value: Any) -> Any:
    """A float without its last digits: sums in another order differ there."""
    return round(value, 6) if isinstance(value, float) else value
