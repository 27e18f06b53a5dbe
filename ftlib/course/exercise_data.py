"""An exercise: its cases, its hints and its wrong answers; and a verdict on an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ftlib.course.report import SIGNS


@dataclass(frozen=True)
class Wrong:
    """A plausible wrong answer: code that makes the mistake, and the sentence that names it."""

    name: str
    function: Callable
    message: str


@dataclass(frozen=True)
class Exercise:
    """One function for the student to write.

    `cases(generator)` yields argument tuples; the student's result must equal the reference's on
    all of them, and the arguments must be what they were. `property(function)` may return a
    sentence about a fault that values do not show (a dense product, say), or a whole verdict.

    `gradient_of`: parameters of the reference through which the result trains; they require grad
    in a second round, and their gradients must be the reference's. `dtypes`: parts of the result
    whose dtype is asked for (`comparing.dtype_difference`). `keywords`, `defaults`: parameters that
    the lab passes by name, or leaves out. `any_order`: the result is a list of items in no order.
    """

    name: str
    title: str
    minutes: int
    difficulty: int  # 1 to 3
    reference: Callable  # ftlib's own, or a line or two on it
    cases: Callable[[torch.Generator], Any]
    wrong: tuple[Wrong, ...]
    hints: tuple[str, ...]
    points: int = 2
    tolerance: float = 1e-5
    property: Callable[[Callable], str | Verdict | None] | None = None
    praise: str = "equal to the reference"
    gradient_of: tuple[str, ...] = ()
    dtypes: Mapping[Any, str] = field(default_factory=dict)
    keywords: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    any_order: bool = False


@dataclass(frozen=True)
class Verdict:
    """`status`: "right", "open" (not attempted) or "wrong"; and the sentence to show."""

    status: str
    message: str

    def line(self, name: str) -> str:
        """What `check` shows of the exercise `name`."""
        return f"{SIGNS[self.status]} {name}: {self.message}"

    def reason(self, name: str) -> str:
        """The same as one line of a table: what is said while a submission is graded."""
        return self.line(name).replace("\n    ", "; ")


# Where a property cannot see what is allocated, nothing is claimed of it.
UNMEASURED = Verdict(
    "right",
    "equal to the reference; what is allocated outside PyTorch was not measured, so whether an "
    "out × in array was made is not known.",
)
