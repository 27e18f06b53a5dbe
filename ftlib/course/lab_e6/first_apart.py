"""Lab E6, exercise: where two loss curves part."""

from __future__ import annotations

from collections.abc import Sequence

from ftlib.course.exercise import Exercise, Wrong


def first_apart(ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> int | None:
    """The first step, counted from 1, at which two losses differ by more than `tolerance`, or one
    is not a number; None where there is no such step. ValueError for curves of unlike lengths.
    """
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        if not abs(one - other) <= tolerance:
            return step
    return None


NAN = float("nan")


def _cases(g):
    yield [2.0, 1.5, 1.2], [2.0, 1.5, 1.2], 1e-4
    yield [2.0, 1.5, 1.2], [2.0, 1.5, 1.21], 1e-4
    yield [2.0, 1.5, 1.2], [2.1, 1.5, 1.2], 1e-4
    yield [2.0, 1.5, 1.2], [2.0, 1.6, 1.0], 1e-4
    yield [2.0, 1.4, 1.2], [2.0, 1.50005, 1.2], 1e-4
    yield [2.0, 1.5, 1.2], [2.0, 1.50005, 1.20005], 1e-4
    yield [0.02, 0.015, 0.012], [0.02, 0.0155, 0.012], 1e-3
    yield [2.0, 1.5, NAN], [2.0, 1.5, 1.2], 1e-4
    yield [2.0, 1.5, 1.2], [2.0, NAN, 1.2], 1e-4


def _first(differs, start=1, none=None):
    def first_apart(ours, theirs, tolerance):
        for step, (one, other) in enumerate(zip(ours, theirs, strict=True), start=start):
            if differs(one, other, tolerance):
                return step
        return none

    return first_apart


def _largest(ours, theirs, tolerance):
    gaps = [abs(one - other) for one, other in zip(ours, theirs, strict=True)]
    largest = max(gaps)
    return gaps.index(largest) + 1 if largest > tolerance else None


def _last(ours, theirs, tolerance):
    found = None
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        if not abs(one - other) <= tolerance:
            found = step
    return found


APART = Exercise(
    name="first_apart",
    title="Where do two curves diverge?",
    minutes=6,
    difficulty=1,
    reference=first_apart,
    cases=_cases,
    points=1,
    hints=(
        "Go through both curves together: `enumerate(zip(ours, theirs, strict=True), start=1)`.",
        "Every comparison with a NaN is false. So test whether the two are close, and negate "
        "that, instead of testing whether they differ.",
        "`if not abs(one - other) <= tolerance: return step`; after the loop `return None`",
    ),
    wrong=(
        Wrong(
            "NaN passes",
            _first(lambda a, b, t: abs(a - b) > t),
            "A NaN passes as equal: every comparison with a NaN is false, `abs(a - b) > "
            "tolerance` too. Test `not abs(a - b) <= tolerance`.",
        ),
        Wrong(
            "counted from 0",
            _first(lambda a, b, t: not abs(a - b) <= t, start=0),
            "Your steps are counted from 0: the first optimizer step is step 1, as in the logs.",
        ),
        Wrong(
            "exact",
            _first(lambda a, b, t: a != b),
            "You compare exactly: two correct programs round differently, so allow `tolerance`.",
        ),
        Wrong(
            "signed",
            _first(lambda a, b, t: not a - b <= t),
            "The sign is kept: where your loss is the smaller one, no difference is found. Take "
            "the absolute value.",
        ),
        Wrong(
            "relative",
            _first(lambda a, b, t: not abs(a - b) <= t * abs(b)),
            "Your tolerance is relative to the loss: the exercise asks for nats, the same at every "
            "step.",
        ),
        Wrong(
            "the largest gap",
            _largest,
            "That is the step with the largest difference. The *first* one tells where the cause "
            "is; what comes later follows from it.",
        ),
        Wrong(
            "the last",
            _last,
            "That is the last step at which they differ: return at the first.",
        ),
        Wrong(
            "number of steps",
            _first(lambda a, b, t: not abs(a - b) <= t, none=0),
            "If no step differs you return 0: return None, which cannot be a step.",
        ),
    ),
)
