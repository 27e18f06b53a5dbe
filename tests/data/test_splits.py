"""Splits never cut a group, reach the sizes that can be reached, and refuse what cannot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftlib.core.errors import DataError
from ftlib.data.load import load_rows
from ftlib.data.splits import split_by_group


def rows_of(keys):
    return [{"text": str(i), "key": k} for i, k in enumerate(keys)]


@given(st.lists(st.integers(0, 12), min_size=30, max_size=80), st.integers(0, 3))
def test_no_group_straddles_and_no_row_is_lost(keys, seed):
    rows = rows_of([*range(13), *keys])
    groups = [[0, 1, 5], [5, 9]]
    done = split_by_group(rows, {"train": 0.8, "validation": 0.1, "test": 0.1}, groups, "key", seed)
    where = {i: name for name, indices in done.indices.items() for i in indices}
    assert sorted(where) == list(range(len(rows))) and all(
        done[name] == [rows[i] for i in indices] for name, indices in done.indices.items()
    )
    assert all(indices == sorted(indices) for indices in done.indices.values())
    assert all(
        len({where[i] for i, row in enumerate(rows) if row["key"] == key}) == 1 for key in range(13)
    )
    assert len({where[i] for i in (0, 1, 5, 9)}) == 1
    assert (
        done.indices
        == split_by_group(
            rows, {"train": 0.8, "validation": 0.1, "test": 0.1}, groups, "key", seed
        ).indices
    )


def test_sizes_that_can_be_met_are_met():
    """Groups of 5, 4 and 3 into 7 and 5: only 4+3 and 5 will do."""
    done = split_by_group(rows_of("aaaaabbbbccc"), {"a": 7, "b": 5}, key="key")
    assert (
        [len(done[n]) for n in "ab"] == [7, 5]
        and done.groups == {"a": 2, "b": 1}
        and done.wanted == {"a": 7, "b": 5}
    )


def test_embedded_rows_by_key():
    rows = load_rows("train", "tiny")
    done = split_by_group(rows, {"train": None, "validation": 300, "test": 100}, key="key", seed=1)
    assert [len(done[n]) for n in done] == [5880, 300, 100]
    keys = [{r["key"] for r in done[n]} for n in done]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    largest = max(sum(r["key"] == k for r in done["validation"]) for k in keys[1])
    assert largest > 1, "small splits must not be made of single rows only"


def test_as_near_as_can_be_is_stated():
    done = split_by_group(rows_of("aaabbb"), {"a": 4, "b": 2}, key="key")
    assert (
        sorted(map(len, done.indices.values())) == [3, 3]
        and "3 rows of 4 wanted" in repr(done)
        and "<td>4</td>" in done._repr_html_()
    )


def test_shares_are_rounded_by_largest_remainder():
    """Of ten rows 0.55, 0.25 and 0.2 are 5.5, 2.5 and 2: the first of the equal remainders gets the
    row left over.
    """
    assert split_by_group(
        rows_of(range(10)), {"a": 0.55, "b": 0.25, "c": 0.2}, key="key"
    ).wanted == {"a": 6, "b": 2, "c": 2}
    assert split_by_group(rows_of(range(10)), {"a": None, "b": 0.1}, groups=[]).wanted == {
        "a": 9,
        "b": 1,
    }


def test_seeds_differ():
    rows = rows_of(range(40))
    assert (
        split_by_group(rows, {"a": 20, "b": 20}, key="key").indices
        != split_by_group(rows, {"a": 20, "b": 20}, key="key", seed=1).indices
    )


@pytest.mark.parametrize(
    "sizes, options, name",
    [
        ({"a": 3, "b": 9}, {"key": "key"}, "sum to 12"),
        ({"a": 2, "b": 2}, {"key": "key"}, "the 6 rows is needed"),
        ({"a": 0.5, "b": 0.6}, {"key": "key"}, "sum to 1.1"),
        ({"a": 6, "b": None}, {"key": "key"}, "less than the 6 rows"),
        ({"a": None, "b": None}, {"key": "key"}, "at most one None"),
        ({}, {"key": "key"}, "sizes={}"),
        ({"a": 5, "b": 0}, {"key": "key"}, "each above 0"),
        ({"a": 0.5, "b": 3}, {"key": "key"}, "mixed"),
        ({"a": 3, "b": 3}, {}, "both None"),
        ({"a": 3, "b": 3}, {"key": "nope"}, "row 0 has no 'nope'"),
        ({"a": 3, "b": 3}, {"groups": [[0, 6]]}, "row 6"),
        ({"a": 3, "b": 3}, {"groups": [list(range(6))]}, "6 rows are 1 groups, the largest of 6"),
        ({"a": True}, {"key": "key"}, "sizes"),
    ],
)
def test_impossible_asks(sizes, options, name):
    with pytest.raises(DataError, match=name):
        split_by_group(rows_of(range(6)), sizes, **options)


def test_a_key_that_cannot_be_compared_is_named():
    rows = [{"key": "a"}, {"key": ["a"]}]
    with pytest.raises(DataError, match=r"row 1 has .* for 'key', which cannot be looked up"):
        split_by_group(rows, {"a": 1, "b": 1}, key="key")
