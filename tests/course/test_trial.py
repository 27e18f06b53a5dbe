"""The table of `trial.py`: each row has the marks and the reason that are expected of it."""

import pytest

from ftlib.course.processes import LINUX
from tests.course import trial


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return trial.graded(tmp_path_factory.mktemp("trial"))


@pytest.mark.labs
@pytest.mark.parametrize("did", trial.ROWS)
def test_a_notebook_gets_what_it_deserves_and_the_row_says_why(rows, did):
    expected = trial.ROWS[did]
    row = rows[did]
    assert float(row["total"]) == expected.points, row["reason"]
    assert float(row["max"]) == trial.POINTS
    assert row["reason"].startswith(expected.reason)
    assert bool(row["reason"]) == bool(expected.reason)


@pytest.mark.labs
@pytest.mark.skipif(not LINUX, reason="elsewhere the process groups alone are ended")
def test_no_child_of_a_submission_is_left(rows):
    assert trial.left_behind() == []
