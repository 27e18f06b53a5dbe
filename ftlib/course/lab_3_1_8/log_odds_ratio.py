"""Lab 3.1.8, SimPO and ORPO, exercise 5: log odds."""

from __future__ import annotations

from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_8.cases import pair_cases
from ftlib.losses import preference as losses


def log_odds_ratio(chosen: Tensor, rejected: Tensor) -> Tensor:
    """log of odds(chosen)/odds(rejected), of mean log-probabilities, (B,) both -> (B,)."""
    return (chosen - losses.log1mexp(chosen)) - (rejected - losses.log1mexp(rejected))


ODDS = Exercise(
    name="log_odds_ratio",
    title="The odds ratio",
    minutes=8,
    difficulty=2,
    reference=log_odds_ratio,
    cases=pair_cases,
    gradient_of=("chosen", "rejected"),
    tolerance=1e-4,
    hints=(
        "odds(p) = p/(1 − p). With x = log p its logarithm is x − log(1 − e^x): your log1mexp.",
        "The logarithm of a ratio is a difference: log odds of the chosen minus log odds of the "
        "rejected.",
        "return (chosen - log1mexp(chosen)) - (rejected - log1mexp(rejected))",
    ),
    wrong=(
        Wrong(
            "probability ratio",
            lambda c, r: c - r,
            "That is the ratio of probabilities: the odds also have 1 − p below the line.",
        ),
        Wrong(
            "sign",
            lambda c, r: (c - r) + (losses.log1mexp(c) - losses.log1mexp(r)),
            "You added log(1 − p): it is below the line, so subtract it.",
        ),
        Wrong(
            "odds, not logs",
            lambda c, r: (c.exp() / (1 - c.exp())) / (r.exp() / (1 - r.exp())),
            "That is the odds ratio itself: its logarithm is wanted.",
        ),
        Wrong(
            "difference of odds",
            lambda c, r: c.exp() / (1 - c.exp()) - r.exp() / (1 - r.exp()),
            "You took the difference of the odds: the logarithm of a *ratio* is the difference of "
            "the log odds.",
        ),
        Wrong(
            "swapped",
            lambda c, r: (r - losses.log1mexp(r)) - (c - losses.log1mexp(c)),
            "Rejected over chosen: the ratio is upside down.",
        ),
    ),
)
