"""Checks of arguments that several layers make."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real


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


def as_rows(name: str, rows, error: type[Exception] = ValueError):
    """Rows that can be gone over more than once: those given, or a list of what a generator yields.
    `error` names the argument where it is no sequence of rows: a single text, a single row.
    """
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        kind = type(rows).__name__
        raise error(f"{name} is a {kind}: pass a list of rows, or a generator of them")
    return rows if hasattr(rows, "__len__") else list(rows)


def check_number(
    name: str, value, low: float, high: float = math.inf, error: type[Exception] = ValueError
) -> float:
    """The value, if it is a finite number from `low` up to but not at `high`, NumPy's as Python's;
    `error` names the argument if it is not.
    """
    if is_finite_number(value) and low <= value < high:
        return plain_number(value)
    wanted = f"of at least {low:g}"
    if high != math.inf:
        wanted += f" and below {high:g}"
    raise error(f"{name}={value!r}: must be a number {wanted}")


def check_above_zero(name: str, value, error: type[Exception] = ValueError) -> float:
    """The value, if it is a finite number above 0, NumPy's as Python's; `error` names the argument
    if it is not.
    """
    if is_finite_number(value) and value > 0:
        return plain_number(value)
    raise error(f"{name}={value!r}: must be a number above 0")


def is_finite_number(value) -> bool:
    """Whether this is a number, and neither a truth value nor infinite nor NaN."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def plain_number(value):
    """Python's number for NumPy's, which JSON does not take; any other as it is."""
    return value.item() if hasattr(value, "item") else value
