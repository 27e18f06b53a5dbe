"""Checks of arguments that several layers make."""

from __future__ import annotations

from numbers import Integral


def check_positive_integer(name: str, value, error: type[Exception] = ValueError) -> int:
    """The value, if it is a whole number of at least 1; `error` names the argument if it is not."""
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < 1:
        raise error(f"{name}={value!r}: must be a whole number of at least 1")
    return value
