"""Queries judged by what they return."""

import pytest

from ftlib.core.errors import DataError
from ftlib.evaluation.sql import example_database, sql_accuracy, sql_match

SCHEMA = "CREATE TABLE staff (name TEXT, city TEXT, age INTEGER, pay REAL)"
OLD = "SELECT name FROM staff WHERE age > 40"


@pytest.mark.parametrize(
    "predicted",
    [
        OLD,
        "select NAME from staff where 40 < age",
        "SELECT s.name AS who FROM staff AS s WHERE NOT s.age <= 40;",
        "SELECT name FROM staff WHERE age >= 41",
    ],
)
def test_another_way_to_write_it_is_right(predicted):
    assert sql_match(predicted, OLD, SCHEMA)


@pytest.mark.parametrize(
    "predicted",
    [
        "SELECT name FROM staff WHERE age >= 40",  # the one value between
        "SELECT DISTINCT name FROM staff WHERE age > 40",  # rows count as often as they occur
        "SELECT name, age FROM staff WHERE age > 40",
        "SELECT city FROM staff WHERE age > 40",
        "SELECT name FROM staff",
        "SELECT nothing FROM staff",
        "",
        "I think the answer is SELECT",
        f"{OLD}; DROP TABLE staff",
        "DELETE FROM staff",
        "ATTACH 'somewhere.db' AS other",
        "PRAGMA table_info(staff)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
    ],
)
def test_what_returns_something_else_or_nothing_is_wrong(predicted):
    assert not sql_match(predicted, OLD, SCHEMA)


def test_order_counts_where_the_reference_asks_for_it():
    ordered = "SELECT name, age FROM staff ORDER BY age, name"
    assert sql_match("SELECT name, age FROM staff ORDER BY age ASC, name ASC", ordered, SCHEMA)
    assert not sql_match("SELECT name, age FROM staff ORDER BY age DESC, name", ordered, SCHEMA)
    assert sql_match(
        "SELECT name, age FROM staff ORDER BY pay", "SELECT name, age FROM staff", SCHEMA
    )


def test_the_database_holds_the_references_values_and_their_neighbours():
    """By hand: 40 ± 1 among the ages, so that > and >= differ; the text, and others beside it."""
    query = "SELECT age FROM staff WHERE age > 40 AND city = 'St. John''s'"
    database = example_database(SCHEMA, query, seed=0)
    ages = {age for (age,) in database.execute("SELECT age FROM staff")}
    assert {39, 40, 41} <= ages
    cities = {city for (city,) in database.execute("SELECT city FROM staff")}
    assert "St. John's" in cities and len(cities) > 2


def test_sums_may_be_taken_in_another_order():
    assert sql_match("SELECT SUM(pay * 0.1) FROM staff", "SELECT SUM(0.1 * pay) FROM staff", SCHEMA)


def test_rows_are_judged_one_by_one_and_bad_ones_are_named():
    rows = [{"answer": OLD, "schema": SCHEMA}, {"answer": OLD, "schema": SCHEMA}]
    assert sql_accuracy([OLD, "SELECT 1"], rows) == [True, False]
    with pytest.raises(DataError, match="1 queries for 2 rows"):
        sql_accuracy([OLD], rows)
    with pytest.raises(DataError, match="row 0 has no 'schema'"):
        sql_accuracy([OLD], [{"answer": OLD}])
    with pytest.raises(DataError, match="reference query does not run"):
        sql_match(OLD, "SELECT nothing FROM staff", SCHEMA)
    with pytest.raises(DataError, match="schema does not run"):
        sql_match(OLD, OLD, "CREATE TABEL staff")
