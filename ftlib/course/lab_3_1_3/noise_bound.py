"""Lab 3.1.3, NEFTune, exercise 1: the bound."""

from __future__ import annotations

import math

from ftlib.course.exercise import Exercise, Wrong


def noise_bound(alpha: float, shape: tuple[int, int, int]) -> float:
    """alpha/√(L·d), the largest value that the noise may take; `shape` is (B, L, d)."""
    _, L, d = shape
    return alpha / math.sqrt(L * d)


def _bound_cases(g):
    yield from [
        (5.0, (4, 16, 64)),
        (10.0, (2, 50, 256)),
        (15.0, (8, 7, 4096)),
        (5.0, (3, 512, 4096)),
        (1.0, (6, 9, 5)),
    ]


BOUND = Exercise(
    name="noise_bound",
    title="How far the noise may reach",
    minutes=3,
    difficulty=1,
    reference=noise_bound,
    cases=_bound_cases,
    points=1,
    praise="equal to alpha/√(L·d)",
    hints=(
        "Algorithm 1 of the paper: the noise is uniform in [−1, 1] and then scaled by one factor. "
        "That factor is the bound.",
        "The factor holds the sequence length L and the hidden size d, both under one root. The "
        "batch does not occur in it.",
        "_, L, d = shape; return alpha / math.sqrt(L * d)",
    ),
    wrong=(
        Wrong(
            "root forgotten",
            lambda a, s: a / (s[1] * s[2]),
            "You divided by L·d itself: the root is missing. Norms add in squares, so L·d "
            "independent numbers need 1/√(L·d).",
        ),
        Wrong(
            "d forgotten",
            lambda a, s: a / math.sqrt(s[1]),
            "The hidden size is missing: with d = 4096 the noise would be 64 times too large.",
        ),
        Wrong(
            "L forgotten",
            lambda a, s: a / math.sqrt(s[2]),
            "The length is missing: the noise of a whole sequence would then grow with √L.",
        ),
        Wrong(
            "batch included",
            lambda a, s: a / math.sqrt(s[0] * s[1] * s[2]),
            "You counted the batch as well: a row's noise must not depend on how many other rows "
            "keep it company.",
        ),
        Wrong(
            "alpha under the root",
            lambda a, s: math.sqrt(a / (s[1] * s[2])),
            "alpha went under the root: twice the alpha must give twice the noise.",
        ),
        Wrong(
            "standard deviation",
            lambda a, s: a / math.sqrt(3 * s[1] * s[2]),
            "That is the standard deviation of the noise: a uniform number in ±b has b/√3. The "
            "bound is asked for.",
        ),
    ),
)
