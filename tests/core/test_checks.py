"""Checks of arguments: what is refused is named with its value and the fix."""

import numpy as np
import pytest

from ftlib.core.checks import check_positive_integer
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
