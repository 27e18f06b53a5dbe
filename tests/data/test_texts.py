"""One reading of rows of every kind, and one way to change their texts."""

import pytest

from ftlib.core.errors import DataError
from ftlib.data.texts import (
    map_texts,
    outside_code,
    prose,
    row_answers,
    row_parts,
    row_text,
    tokens,
    words,
)

USER, GOOD, BAD = (
    {"role": r, "content": c} for r, c in (("user", "Q"), ("assistant", "A"), ("assistant", "B"))
)


@pytest.mark.parametrize(
    "row, parts, answers",
    [
        ({"messages": [USER, GOOD]}, [("user", "Q"), ("assistant", "A")], [("Q", "A")]),
        (
            {"prompt": "Q", "chosen": "A", "rejected": "B"},
            [("user", "Q"), ("assistant", "A"), ("assistant", "B")],
            [("Q", "A")],
        ),
        (
            {"rejected": [BAD], "chosen": [GOOD], "prompt": [USER]},
            [("user", "Q"), ("assistant", "A"), ("assistant", "B")],
            [("Q", "A")],
        ),
        (
            {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
            [("user", "Q"), ("assistant", "A"), ("user", "Q"), ("assistant", "B")],
            [("Q", "A")],
        ),
        (
            {"prompt": "Q", "completion": "B", "label": False},
            [("user", "Q"), ("assistant", "B")],
            [],
        ),
        (
            {"prompt": "Q", "completion": "A", "label": True},
            [("user", "Q"), ("assistant", "A")],
            [("Q", "A")],
        ),
        ({"text": "T", "n": 3}, [("text", "T")], []),
    ],
)
def test_every_kind_of_row(row, parts, answers):
    assert (
        row_parts(row) == parts
        and row_answers(row) == answers
        and row_text(row) == "\n".join(t for _, t in parts)
    )


@pytest.mark.parametrize(
    "row, names",
    [
        ({}, "no keys"),
        ({"output": "x"}, "output"),
        ("x", "str"),
        ({"text": 3}, "text is '3'"),
        ({"messages": [{"role": "user"}]}, "messages is"),
    ],
)
def test_what_is_no_row_is_named(row, names):
    with pytest.raises(DataError, match=names):
        row_text(row)


def test_changes_reach_every_text_and_leave_the_input():
    row = {"prompt": [USER], "chosen": "a", "rejected": "b", "answer": "a", "family": "keep"}
    assert map_texts(row, str.upper) == {
        "prompt": [USER],
        "chosen": "A",
        "rejected": "B",
        "answer": "A",
        "family": "keep",
    }
    assert row["chosen"] == "a" and map_texts(row, str.strip) is row


def test_words_and_tokens():
    assert words("It’s _A-B_ 3.5!") == ["it", "s", "a", "b", "3", "5"] and tokens("f(x) = 3!") == [
        "f",
        "(",
        "x",
        ")",
        "=",
        "3",
        "!",
    ]
    assert words("東京 is 大") == ["東", "京", "is", "大"]


def test_code_is_kept_apart():
    text = "a `b` c\n```\nd\n```\ne\n    f\ng"
    assert (
        outside_code(text, str.upper) == "A `b` C\n```\nd\n```\nE\n    f\nG"
        and "b" not in prose(text)
        and "d" not in prose(text)
    )
    assert outside_code("a\n```\nopen", str.upper) == "A\n```\nopen"
