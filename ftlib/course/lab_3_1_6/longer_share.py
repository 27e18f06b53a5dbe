"""Lab 3.1.6, data, exercise 10: length bias."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def longer_share(chosen: list[int], rejected: list[int]) -> float:
    """Share of pairs whose chosen answer is the longer one; equal lengths count one half."""
    pairs = zip(chosen, rejected, strict=True)
    return sum((c > r) + 0.5 * (c == r) for c, r in pairs) / len(chosen)


def _pair_length_cases(g):
    yield [5, 7, 3, 9], [4, 7, 8, 2]
    yield [1, 2, 3], [1, 2, 3]
    yield [10, 20, 5, 6, 1], [1, 30, 5, 5, 2]
    yield [4], [9]


def _longer(score):
    return lambda chosen, rejected: score(list(zip(chosen, rejected, strict=True)))


LONGER = Exercise(
    name="longer_share",
    title="Does length give it away?",
    minutes=5,
    difficulty=1,
    reference=longer_share,
    cases=_pair_length_cases,
    points=1,
    hints=(
        "Pair by pair: 1 where the chosen answer is longer, 0 where it is shorter.",
        "Pairs of equal length say nothing: with one half each, 0.5 means no bias whatever their "
        "number.",
        "sum((c > r) + 0.5 * (c == r) for c, r in zip(chosen, rejected)) / len(chosen)",
    ),
    wrong=(
        Wrong(
            "ties as shorter",
            _longer(lambda z: sum(c > r for c, r in z) / len(z)),
            "Equal lengths count as shorter in yours: pairs all of one length would look biased "
            "towards short answers.",
        ),
        Wrong(
            "ties as longer",
            _longer(lambda z: sum(c >= r for c, r in z) / len(z)),
            "Equal lengths count as longer in yours: pairs all of one length would look biased "
            "towards long answers.",
        ),
        Wrong(
            "ties left out",
            _longer(lambda z: sum(c > r for c, r in z) / max(1, sum(c != r for c, r in z))),
            "You left pairs of equal length out: two pairs that differ among a thousand that do "
            "not would look like "
            "a bias of the whole set.",
        ),
        Wrong(
            "shorter",
            _longer(lambda z: sum((c < r) + 0.5 * (c == r) for c, r in z) / len(z)),
            "That is the share in which the chosen answer is shorter.",
        ),
        Wrong(
            "mean difference",
            _longer(lambda z: sum(c - r for c, r in z) / len(z)),
            "You took the mean difference: one very long answer rules it. A share is wanted, "
            "between 0 and 1.",
        ),
        Wrong(
            "share of length",
            _longer(lambda z: sum(c for c, _ in z) / sum(c + r for c, r in z)),
            "You compared the total lengths: one very long pair decides. Count pairs.",
        ),
    ),
)
