"""Lab 3.1.9, KTO, exercise 7: the weights."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def balanced_weights(n_desirable: int, n_undesirable: int, target: float) -> tuple[float, float]:
    """(w_D, w_U) with w_D·n_D/(w_U·n_U) = target; the smaller of the two is 1."""
    quotient = target * n_undesirable / n_desirable  # w_D / w_U
    return (quotient, 1.0) if quotient >= 1 else (1.0, 1 / quotient)


def _weights_cases(g):
    yield from [
        (100, 100, 1.0),
        (50, 500, 1.0),
        (500, 50, 1.0),
        (300, 100, 4 / 3),
        (120, 130, 4 / 3),
        (10, 90, 1.2),
    ]


def _weights(quotient):
    def weights(up, down, target):
        q = quotient(up, down, target)
        return (q, 1.0) if q >= 1 else (1.0, 1 / q)

    return weights


WEIGHTS = Exercise(
    name="balanced_weights",
    title="A scarce thumb counts more",
    minutes=6,
    difficulty=1,
    reference=balanced_weights,
    cases=_weights_cases,
    points=1,
    hints=(
        "Solve w_D·n_D/(w_U·n_U) = target for the quotient w_D/w_U.",
        "w_D/w_U = target·n_U/n_D. If that is at least 1, w_U is 1 and w_D the quotient; else w_D "
        "is 1 and w_U its inverse.",
        "q = target * n_undesirable / n_desirable; return (q, 1.0) if q >= 1 else (1.0, 1 / q)",
    ),
    wrong=(
        Wrong(
            "upside down",
            _weights(lambda u, d, t: t * u / d),
            "The scarce side gets the smaller weight: that doubles the imbalance. The quotient is "
            "target·n_U/n_D.",
        ),
        Wrong(
            "target left out",
            _weights(lambda u, d, t: d / u),
            "`target` is not used: your weights always make the two sides equal.",
        ),
        Wrong(
            "target divided",
            _weights(lambda u, d, t: d / (t * u)),
            "The target is under the line: at 4/3 your thumbs *down* weigh more.",
        ),
        Wrong(
            "a weight below 1",
            lambda u, d, t: (t * d / u, 1.0),
            "The ratio is right, but where thumbs up are many their weight falls below 1: "
            "keep the smaller weight at 1 and raise the other.",
        ),
        Wrong(
            "shares",
            lambda u, d, t: (t * d / (u + d), u / (u + d)),
            "The ratio is right, but both weights are below 1, which shrinks every step: "
            "scale them so that the smaller one is 1.",
        ),
        Wrong(
            "frequencies",
            lambda u, d, t: (u / min(u, d), d / min(u, d)),
            "You weighted each side by its own number: the frequent side then counts twice. The "
            "scarce one needs the weight.",
        ),
    ),
)
