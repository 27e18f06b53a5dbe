"""Checks of arguments that several layers make."""

from __future__ import annotations

from numbers import Integral


def check_positive_integer(
    name: str, value, error: type[Exception] = ValueError, hint: str = ""
) -> int:
    """The value as an int, if it is a whole number of at least 1, NumPy's included; `error` names
    the argument, its value, and `hint`, what to pass instead, if it is not.
    """
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < 1:
        advice = f"; {hint}" if hint else ""
        raise error(f"{name}={value!r}: must be a whole number of at least 1{advice}")
    return int(value)
