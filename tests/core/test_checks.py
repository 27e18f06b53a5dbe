"""Checks of arguments: what is refused is named with its value and the fix."""

import json
from functools import partial

import numpy as np
import pytest

from ftlib.core.checks import check_above_zero, check_number, check_positive_integer
from ftlib.core.errors import DataError


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_whole_numbers_come_back_as_int(value):
    found = check_positive_integer("r", value)
    assert found == value and type(found) is int


@pytest.mark.parametrize("value", [0, -1, True, 1.0, 2.5, "3", None, np.float32(1)])
def test_anything_else_is_refused_by_name(value):
    with pytest.raises(DataError) as caught:
        check_positive_integer("r", value, DataError, "8 is usual")
    assert str(caught.value) == f"r={value!r}: must be a whole number of at least 1; 8 is usual"


def test_numbers_come_back_as_pythons():
    """JSON takes no NumPy numbers."""
    checks = (
        check_above_zero("a", np.float32(0.5)),
        check_number("a", np.float32(0.5), 0, 1),
        check_above_zero("a", np.int64(16)),
    )
    assert json.dumps(checks) == "[0.5, 0.5, 16]"


@pytest.mark.parametrize("value", [True, "0.1", None, np.nan, np.inf, -1.0])
def test_no_number_is_refused_by_name(value):
    for check in (check_above_zero, partial(check_number, low=0)):
        with pytest.raises(ValueError, match=r"^a="):
            check("a", value)
