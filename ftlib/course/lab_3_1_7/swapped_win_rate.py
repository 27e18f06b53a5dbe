"""Lab 3.1.7, DPO, exercise 7: win rate."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def swapped_win_rate(forward: Tensor, backward: Tensor) -> float:
    """Win rate of a over b. forward: verdicts with a shown first; backward: with b shown first;
    each (n,): 1 the first is better, 0 the second, 0.5 tie.
    """
    return float(((forward + 1 - backward) / 2).mean())


def _win_cases(g):
    for n in (4, 9, 30):
        yield torch.randint(0, 3, (n,), generator=g) / 2, torch.randint(0, 3, (n,), generator=g) / 2


WIN = Exercise(
    name="swapped_win_rate",
    title="A judge in both orders",
    minutes=6,
    difficulty=1,
    reference=swapped_win_rate,
    cases=_win_cases,
    points=1,
    hints=(
        "In the second order a comes second: a verdict of 1 is a win for b.",
        "a's score there is 1 − backward. Average both orders, then the pairs.",
        "return float(((forward + 1 - backward) / 2).mean())",
    ),
    wrong=(
        Wrong(
            "not turned",
            lambda f, b: float(((f + b) / 2).mean()),
            "backward is about b: take 1 − backward before you average.",
        ),
        Wrong(
            "one order",
            lambda f, b: float(f.float().mean()),
            "Only one order counts here: a judge that likes the first answer would favour a.",
        ),
        Wrong(
            "ties lost",
            lambda f, b: float(((f > 0.5).float() + (b < 0.5).float()).mean() / 2),
            "A tie counts one half, not nothing.",
        ),
        Wrong("for b", lambda f, b: float(((1 - f + b) / 2).mean()), "That is the win rate of b."),
        Wrong(
            "sum",
            lambda f, b: float((f + 1 - b).mean()),
            "You added the two orders: average them, a rate lies between 0 and 1.",
        ),
    ),
)
