"""Questions about a table, to be answered in SQL that is run: the schema stands in the prompt.

Ten tables, eight of them to learn from; golden rows ask about the other two, in wordings that no
training row has.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

Row = dict


@dataclass(frozen=True)
class Table:
    """A table: its name, what a row is called (one, many), and its columns."""

    name: str
    one: str
    many: str
    label: str  # the column that names a row
    texts: dict[str, tuple[str, ...]]  # column -> values
    numbers: dict[str, tuple[int, int]]  # column -> range

    @property
    def schema(self) -> str:
        columns = [f"{self.label} TEXT"]
        columns += [f"{column} TEXT" for column in self.texts]
        columns += [f"{column} INTEGER" for column in self.numbers]
        return f"CREATE TABLE {self.name} ({', '.join(columns)})"


TABLES = (
    Table(
        "books",
        "book",
        "books",
        "title",
        {"genre": ("crime", "travel", "poetry", "history"), "language": ("English", "French")},
        {"pages": (80, 900), "year": (1950, 2024)},
    ),
    Table(
        "students",
        "student",
        "students",
        "name",
        {"subject": ("physics", "music", "law", "biology"), "town": ("Leeds", "York", "Bath")},
        {"age": (17, 40), "points": (0, 100)},
    ),
    Table(
        "products",
        "product",
        "products",
        "name",
        {"category": ("kitchen", "garden", "office"), "colour": ("red", "black", "white")},
        {"price": (2, 500), "stock": (0, 200)},
    ),
    Table(
        "trains",
        "train",
        "trains",
        "number",
        {"origin": ("Vienna", "Prague", "Graz"), "kind": ("night", "local", "express")},
        {"seats": (60, 700), "stops": (1, 30)},
    ),
    Table(
        "members",
        "member",
        "members",
        "name",
        {"sport": ("tennis", "rowing", "judo"), "level": ("beginner", "advanced")},
        {"fee": (10, 120), "visits": (0, 90)},
    ),
    Table(
        "recipes",
        "recipe",
        "recipes",
        "name",
        {"course": ("starter", "main", "dessert"), "diet": ("vegan", "vegetarian", "any")},
        {"minutes": (5, 180), "servings": (1, 12)},
    ),
    Table(
        "flats",
        "flat",
        "flats",
        "address",
        {"district": ("north", "old town", "harbour"), "heating": ("gas", "electric")},
        {"rent": (300, 2500), "rooms": (1, 7)},
    ),
    Table(
        "films",
        "film",
        "films",
        "title",
        {"director": ("Lang", "Varda", "Ozu"), "format": ("colour", "silent")},
        {"length": (50, 220), "awards": (0, 11)},
    ),
    Table(
        "plants",
        "plant",
        "plants",
        "name",
        {"light": ("shade", "sun"), "origin": ("Asia", "Africa", "Europe")},
        {"height": (5, 300), "leaves": (2, 80)},
    ),
    Table(
        "employees",
        "employee",
        "employees",
        "name",
        {"department": ("sales", "research", "legal"), "city": ("Oslo", "Porto", "Turin")},
        {"salary": (1500, 9000), "projects": (0, 15)},
    ),
)
HELD_OUT = ("plants", "employees")
TRIES = 20  # to find a question that has not been asked


@dataclass(frozen=True)
class Draw:
    """What a question names: two columns with a value each, and a number."""

    table: Table
    text: str
    value: str
    number: str
    limit: int
    other: str


def _draw(rng: random.Random, table: Table) -> Draw:
    text = rng.choice(list(table.texts))
    number = rng.choice(list(table.numbers))
    low, high = table.numbers[number]
    other = next(column for column in table.texts if column != text)
    return Draw(table, text, rng.choice(table.texts[text]), number, rng.randint(low, high), other)


@dataclass(frozen=True)
class Pattern:
    """A form of query: SQL, known wordings, and wordings that only golden rows have."""

    sql: Callable[[Draw], str]
    known: tuple[str, ...]
    unknown: tuple[str, ...]


def _equal(d: Draw) -> str:
    return f"SELECT {d.table.label} FROM {d.table.name} WHERE {d.text} = '{d.value}'"


def _above(d: Draw) -> str:
    return f"SELECT {d.table.label} FROM {d.table.name} WHERE {d.number} > {d.limit}"


def _below(d: Draw) -> str:
    return f"SELECT {d.table.label} FROM {d.table.name} WHERE {d.number} < {d.limit}"


def _count(d: Draw) -> str:
    return f"SELECT COUNT(*) FROM {d.table.name} WHERE {d.text} = '{d.value}'"


def _highest(d: Draw) -> str:
    return f"SELECT MAX({d.number}) FROM {d.table.name}"


def _mean(d: Draw) -> str:
    return f"SELECT AVG({d.number}) FROM {d.table.name} WHERE {d.text} = '{d.value}'"


def _both(d: Draw) -> str:
    condition = f"{d.text} = '{d.value}' AND {d.number} > {d.limit}"
    return f"SELECT {d.table.label} FROM {d.table.name} WHERE {condition}"


def _sorted(d: Draw) -> str:
    return f"SELECT {d.table.label} FROM {d.table.name} ORDER BY {d.number} DESC LIMIT 3"


def _grouped(d: Draw) -> str:
    return f"SELECT {d.other}, COUNT(*) FROM {d.table.name} GROUP BY {d.other}"


def _different(d: Draw) -> str:
    return f"SELECT DISTINCT {d.text} FROM {d.table.name}"


PATTERNS = (
    Pattern(
        _equal,
        (
            "Which {many} have the {text} {value}?",
            "List the {label} of every {one} whose {text} is {value}.",
            "Show all {many} with {text} {value}.",
        ),
        ("Give me the {label} of all {many} that have {value} as their {text}.",),
    ),
    Pattern(
        _above,
        (
            "Which {many} have {number} above {limit}?",
            "List the {label} of every {one} whose {number} is above {limit}.",
        ),
        ("For which {many} does {number} exceed {limit}?",),
    ),
    Pattern(
        _below,
        (
            "Which {many} have {number} below {limit}?",
            "List the {label} of every {one} whose {number} is below {limit}.",
        ),
        ("For which {many} does {number} stay under {limit}?",),
    ),
    Pattern(
        _count,
        (
            "How many {many} have the {text} {value}?",
            "Count the {many} whose {text} is {value}.",
        ),
        ("What is the number of {many} with {value} as their {text}?",),
    ),
    Pattern(
        _highest,
        (
            "What is the highest {number} of all {many}?",
            "Give the largest {number} among the {many}.",
        ),
        ("How large does {number} get among the {many}?",),
    ),
    Pattern(
        _mean,
        (
            "What is the average {number} of {many} with {text} {value}?",
            "Give the mean {number} of the {many} whose {text} is {value}.",
        ),
        ("On average, what {number} do {many} have whose {text} is {value}?",),
    ),
    Pattern(
        _both,
        (
            "Which {many} have the {text} {value} and {number} above {limit}?",
            "List the {label} of every {one} with {text} {value} and {number} above {limit}.",
        ),
        ("Of the {many} whose {text} is {value}, which have {number} over {limit}?",),
    ),
    Pattern(
        _sorted,
        (
            "Which three {many} have the highest {number}?",
            "List the three {many} with the largest {number}, largest first.",
        ),
        ("Name the top three {many} by {number}.",),
    ),
    Pattern(
        _grouped,
        (
            "How many {many} are there for each {other}?",
            "Count the {many} by {other}.",
        ),
        ("For every {other}, say how many {many} it has.",),
    ),
    Pattern(
        _different,
        (
            "Which different values of {text} do the {many} have?",
            "List every {text} once.",
        ),
        ("What {text} values occur among the {many}?",),
    ),
)


def _row(rng: random.Random, table: Table, pattern: Pattern, wordings: tuple[str, ...]) -> Row:
    drawn = _draw(rng, table)
    words = {
        "one": table.one,
        "many": table.many,
        "label": table.label,
        "text": drawn.text,
        "value": drawn.value,
        "number": drawn.number,
        "limit": drawn.limit,
        "other": drawn.other,
    }
    question = rng.choice(wordings).format(**words)
    answer = pattern.sql(drawn)
    request = f"{table.schema}\n\n{question} Answer with one SQL query."
    messages = [
        {"role": "user", "content": request},
        {"role": "assistant", "content": answer},
    ]
    return {
        "messages": messages,
        "answer": answer,
        "schema": table.schema,
        "family": pattern.sql.__name__.strip("_"),
        "key": f"sql/{table.name}/{question}",
    }


def _rows(seed: int, count: int, tables: list[Table], is_known: bool) -> list[Row]:
    """`count` different rows, the patterns in turn; a pattern whose questions have all been asked
    is passed over.
    """
    rng = random.Random(seed)
    rows: list[Row] = []
    seen: set[str] = set()
    for turn in itertools.count():
        pattern = PATTERNS[turn % len(PATTERNS)]
        wordings = pattern.known if is_known else pattern.unknown
        for _ in range(TRIES):
            row = _row(rng, rng.choice(tables), pattern, wordings)
            if row["key"] not in seen:
                seen.add(row["key"])
                rows.append(row)
                break
        if len(rows) == count:
            return rows
    raise AssertionError("count() has no end")


def query_rows() -> dict[str, list[Row]]:
    """The parts by name."""
    known = [table for table in TABLES if table.name not in HELD_OUT]
    held_out = [table for table in TABLES if table.name in HELD_OUT]
    return {
        "sql_train": _rows(21, 800, known, True),
        "sql_validation": _rows(22, 100, held_out, True),
        "sql_golden": _rows(23, 100, held_out, False),
    }
