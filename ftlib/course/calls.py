"""One call of an answer, and what came of it: in this process, or in the one where the answer runs.

While a lab is worked on, an answer is a function beside its check. While a submission is graded it
is a `Distant`: it takes the same calls, and runs in another process (`ftlib.course.answering`), so
that nothing of the submission's can reach what is compared.
"""

from __future__ import annotations

import builtins
import copy
import functools
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ftlib.course.comparing import changed

LONGEST_ERROR = 300  # characters of an error that an answer raised


# --- errors ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Fault:
    """An error in words. `kinds`: the names of its class and of the classes that this is made from;
    `place`: the line that raised it, where it has no text; `stub`: whether the answer itself says
    that it is not written.
    """

    kinds: tuple[str, ...]
    text: str
    place: str = ""
    stub: bool = False

    @property
    def name(self) -> str:
        return self.kinds[0]

    def said(self) -> str:
        return f"it raises {self.name}: {self.text or self.place or 'without a text'}"


class RaisedThere(BaseException):
    """What errors of a distant process are made from here; `fault` says what was raised."""

    fault: Fault


def fault_of(error: BaseException) -> Fault:
    """An error as a `Fault`."""
    if isinstance(error, RaisedThere):
        return error.fault
    kinds = tuple(kind.__name__ for kind in type(error).__mro__)
    text = _first_line(error)
    return Fault(kinds, text, "" if text else _place(error), _is_stub(error))


def error_of(fault: Fault) -> BaseException:
    """A fault as an error that can be raised: of a class with its name, made from the first of its
    kinds that Python has.
    """
    known = [getattr(builtins, kind, None) for kind in fault.kinds]
    plain = [k for k in known if isinstance(k, type) and issubclass(k, BaseException)]
    base = next((k for k in plain if not issubclass(k, BaseExceptionGroup)), Exception)
    there: Any = type(fault.name, (base, RaisedThere), {"__str__": lambda self: self.fault.text})
    error = there.__new__(there)
    error.fault = fault
    return error


def _first_line(error: BaseException) -> str:
    try:
        return str(error).strip().partition("\n")[0][:LONGEST_ERROR]
    except Exception:  # the class may be the student's
        return ""


def _place(error: BaseException) -> str:
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    return f"line {innermost.lineno}, {innermost.line}" if innermost.line else ""


def _is_stub(error: BaseException) -> bool:
    """PyTorch raises NotImplementedError too, for an operation that a dtype does not have."""
    if not isinstance(error, NotImplementedError):
        return False
    innermost = list(traceback.walk_tb(error.__traceback__))[-1][0]
    return "NotImplementedError" in innermost.f_code.co_names


# --- answers in another process -------------------------------------------------------------------
class Distant:
    """An answer that runs in another process."""

    def watched(self, args: tuple, named: dict[str, Any]) -> tuple[Any, list, list]:
        """(the result, the arguments before, the arguments after) of one call, all of them plain
        values (`ftlib.course.plain`). Raises what the answer raises (`error_of`).
        """
        raise NotImplementedError

    def observed(self, observe: Callable, args: tuple, named: dict[str, Any]) -> Any:
        """`observe(answer, …)` in the process where the answer runs; its result as plain values."""
        raise NotImplementedError

    def __call__(self, *args, **named):
        value, _, _ = self.watched(args, named)
        return value


def observer(observe: Callable) -> Callable:
    """Decorates a function of ours that runs an answer, its first argument, and watches what no
    value shows: what it holds in memory, what it leaves on a module. It runs where the answer runs.

    Its report is not beyond the reach of a submission, so it is kept to a few plain values: a
    number, a word. The judgement on them is made here.
    """

    @functools.wraps(observe)
    def where_it_runs(answer: Callable, *args, **named):
        if isinstance(answer, Distant):
            return answer.observed(where_it_runs, args, named)
        return observe(answer, *args, **named)

    return where_it_runs


# --- one call -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Outcome:
    """What a call gave: a value or a fault; and the positions of the arguments it changed."""

    value: Any = None
    fault: Fault | None = None
    changed: tuple[int, ...] = ()


def call(function: Callable, args: tuple, named: dict[str, Any] | None = None) -> Outcome:
    """Call with copies of the arguments. An answer that ends the process ends in a fault too."""
    named = copy.deepcopy(named or {})
    try:
        if isinstance(function, Distant):
            value, before, after = function.watched(args, named)
        else:
            before = list(args)
            after = copy.deepcopy(before)
            value = function(*after, **named)
    except (Exception, SystemExit) as error:
        return Outcome(fault=fault_of(error))
    pairs = zip(before, after, strict=True)
    places = [i for i, (one, other) in enumerate(pairs) if changed(one, other)]
    return Outcome(value, changed=tuple(places))
