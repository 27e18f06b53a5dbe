"""Lab 3.1.3, NEFTune, exercise 3: the sizes."""

from __future__ import annotations

import math

from ftlib.course.exercise import Exercise, Wrong


def noise_sizes(alpha: float, L: int, d: int) -> dict[str, float]:
    """Root-mean-square size of one element, of one token's vector and of a whole sequence's
    noise.
    """
    element = alpha / math.sqrt(3 * L * d)
    return {
        "element": element,
        "token": element * math.sqrt(d),
        "sequence": element * math.sqrt(L * d),
    }


def _sizes_cases(g):
    yield from [(5.0, 16, 64), (10.0, 50, 256), (15.0, 512, 4096), (1.0, 7, 5), (5.0, 100, 4096)]


def _sizes(
    element=lambda a, L, d: a / math.sqrt(3 * L * d),
    token=lambda e, L, d: e * math.sqrt(d),
    sequence=lambda e, L, d: e * math.sqrt(L * d),
):
    def sizes(alpha, L, d):
        e = element(alpha, L, d)
        return {"element": e, "token": token(e, L, d), "sequence": sequence(e, L, d)}

    return sizes


SIZES = Exercise(
    name="noise_sizes",
    title="What alpha holds still",
    minutes=8,
    difficulty=2,
    reference=noise_sizes,
    cases=_sizes_cases,
    hints=(
        "Begin with one element: a uniform number in ±b has variance b²/3. What is b here?",
        "The squares of independent numbers add up: "
        "n numbers of standard deviation s make a vector whose root-mean-square norm is s·√n.",
        "A token has d numbers, a sequence L·d of them.",
        "element = alpha / math.sqrt(3 * L * d), then element * math.sqrt(d) and element * "
        "math.sqrt(L * d)",
    ),
    wrong=(
        Wrong(
            "bound",
            _sizes(element=lambda a, L, d: a / math.sqrt(L * d)),
            "All three are √3 too large: you took the bound for the standard deviation.",
        ),
        Wrong(
            "variance",
            _sizes(element=lambda a, L, d: a**2 / (3 * L * d)),
            "Your element is a variance: take its root before you go on.",
        ),
        Wrong(
            "summed, not squared",
            _sizes(token=lambda e, L, d: e * d, sequence=lambda e, L, d: e * L * d),
            "You added sizes up: independent numbers add in squares, so n of them give √n, not n.",
        ),
        Wrong(
            "token over L",
            _sizes(token=lambda e, L, d: e * math.sqrt(L)),
            "A token's vector has d numbers: you took L of them.",
        ),
        Wrong(
            "sequence per token",
            _sizes(sequence=lambda e, L, d: e * math.sqrt(d)),
            "Your sequence is one token: a sequence has L·d numbers.",
        ),
    ),
)
