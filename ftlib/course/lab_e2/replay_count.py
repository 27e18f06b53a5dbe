"""Lab E2, forgetting, exercise 2: how many rows of the old data a share of the mixture is."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def replay_count(rows: int, share: float) -> int:
    """How many replayed rows must stand beside `rows` rows of the new task, so that they are
    `share` of the *mixture*: ``round(n·s / (1 − s))``, 0 ≤ share < 1.
    """
    return round(rows * share / (1 - share))


def _cases(g):
    yield 90, 0.1
    yield 500, 0.5
    yield 300, 0.25
    yield 97, 0.03
    yield 990, 0.01
    yield 12, 0.0
    yield 70, 0.3
    yield 100, 0.2


COUNT = Exercise(
    name="replay_count",
    title="How many rows are ten percent?",
    minutes=4,
    difficulty=1,
    reference=replay_count,
    cases=_cases,
    points=1,
    hints=(
        "With n rows of the task and k replayed ones the share is k / (n + k).",
        "Solve k / (n + k) = s for k.",
        "return round(rows * share / (1 - share))",
    ),
    wrong=(
        Wrong(
            "share of the task",
            lambda rows, share: round(rows * share),
            "That is a share of the *task's* rows: of the mixture it is less, at 50% a third. "
            "Solve k / (n + k) = s.",
        ),
        Wrong(
            "the whole",
            lambda rows, share: round(rows / (1 - share)),
            "That is the size of the whole mixture, task and replay: subtract the task's rows.",
        ),
        Wrong(
            "added",
            lambda rows, share: round(rows * share / (1 + share)),
            "The sign below is wrong: k = s·(n + k), so k·(1 − s) = s·n.",
        ),
        Wrong(
            "not rounded",
            lambda rows, share: rows * share / (1 - share),
            "A number of rows is whole: round it.",
        ),
        Wrong(
            "percent",
            lambda rows, share: round(rows * share / (100 - share)),
            "You treat the share as a percentage: 0.1 is ten percent.",
        ),
    ),
)
