"""Lab 3.1.3, NEFTune, exercise 8: the padded length."""

from __future__ import annotations

import math

from ftlib.course.exercise import Exercise, Wrong


def effective_alpha(alpha: float, lengths: list[int]) -> list[float]:
    """The alpha that each row of a padded batch really gets where the bound is computed from the
    padded length.
    """
    T = max(lengths)
    return [alpha * math.sqrt(L / T) for L in lengths]


def _effective_cases(g):
    yield from [(5.0, [10, 20, 40]), (10.0, [7, 7]), (15.0, [3, 100, 51, 9]), (5.0, [512, 64])]


EFFECTIVE = Exercise(
    name="effective_alpha",
    title="What padding does to alpha",
    minutes=5,
    difficulty=2,
    reference=effective_alpha,
    cases=_effective_cases,
    points=1,
    hints=(
        "The library's bound is alpha/√(T·d), with T the length of the longest row.",
        "Call the answer a. A row of length L is noised as if by a/√(L·d). Set the two equal and "
        "solve for a.",
        "return [alpha * math.sqrt(L / max(lengths)) for L in lengths]",
    ),
    wrong=(
        Wrong(
            "no root",
            lambda a, ls: [a * L / max(ls) for L in ls],
            "The root is missing: L and T are under one in the bound.",
        ),
        Wrong(
            "upside down",
            lambda a, ls: [a * math.sqrt(max(ls) / L) for L in ls],
            "It is upside down: padding makes the noise weaker, so no row gets more than alpha.",
        ),
        Wrong(
            "mean",
            lambda a, ls: [a * math.sqrt(L / (sum(ls) / len(ls))) for L in ls],
            "You compare with the mean length: a batch is padded to its longest row.",
        ),
        Wrong(
            "packed",
            lambda a, ls: [a * math.sqrt(L / sum(ls)) for L in ls],
            "That is what *packing* does, where all rows are joined to one sequence. Here T is "
            "the longest row.",
        ),
        Wrong(
            "unchanged",
            lambda a, ls: [a for _ in ls],
            "You return alpha for every row: that holds only where L is each row's own length.",
        ),
    ),
)
