"""Lab E5, benchmarks and judges, exercise 3: two models on the same questions."""

from __future__ import annotations

import math

import torch

from ftlib.course.exercise import Exercise, Wrong


def mcnemar_p(right_a: list[bool], right_b: list[bool]) -> float:
    """Exact two-sided p value of McNemar's test: of the n questions that one model alone has right,
    k is the smaller model's share; p = min(1, 2·P(X ≤ k)), X ~ Binomial(n, ½); 1 where n = 0.
    """
    pairs = list(zip(right_a, right_b, strict=True))
    only_a = sum(a and not b for a, b in pairs)
    only_b = sum(b and not a for a, b in pairs)
    n = only_a + only_b
    fewer = min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
    return min(1.0, 2 * tail)


def _answers(counts: tuple[int, int, int, int], g) -> tuple[list[bool], list[bool]]:
    """Answers of two models with these numbers of questions right by both, by a alone, by b alone,
    by neither, in random order.
    """
    kinds = [(True, True), (True, False), (False, True), (False, False)]
    pairs = []
    for kind, count in zip(kinds, counts, strict=True):
        pairs += [kind] * count
    order = torch.randperm(len(pairs), generator=g).tolist()
    return [pairs[i][0] for i in order], [pairs[i][1] for i in order]


def _answer_cases(g):
    for counts in ((10, 6, 1, 5), (30, 2, 9, 12), (3, 0, 5, 1), (8, 4, 4, 2), (5, 0, 0, 5)):
        yield _answers(counts, g)
    yield _answers((40, 12, 3, 20), g)


def _counts(right_a, right_b):
    only_a = sum(a and not b for a, b in zip(right_a, right_b, strict=True))
    only_b = sum(b and not a for a, b in zip(right_a, right_b, strict=True))
    return only_a, only_b


def _binomial(n, k):
    return sum(math.comb(n, i) for i in range(k + 1)) / 2**n


def _one_sided(right_a, right_b):
    only_a, only_b = _counts(right_a, right_b)
    return _binomial(only_a + only_b, min(only_a, only_b))


def _uncapped(right_a, right_b):
    only_a, only_b = _counts(right_a, right_b)
    return 2 * _binomial(only_a + only_b, min(only_a, only_b))


def _all_questions(right_a, right_b):
    only_a, only_b = _counts(right_a, right_b)
    return min(1.0, 2 * _binomial(len(right_a), min(only_a, only_b)))


def _two_shares(right_a, right_b):
    n = len(right_a)
    a = sum(right_a) / n
    b = sum(right_b) / n
    pooled = (a + b) / 2
    error = math.sqrt(2 * pooled * (1 - pooled) / n)
    return math.erfc(abs(a - b) / error / math.sqrt(2))


def _chi_square(right_a, right_b):
    only_a, only_b = _counts(right_a, right_b)
    if only_a + only_b == 0:
        return 1.0
    z = abs(only_a - only_b) / math.sqrt(only_a + only_b)
    return math.erfc(z / math.sqrt(2))


def _larger(right_a, right_b):
    only_a, only_b = _counts(right_a, right_b)
    return min(1.0, 2 * _binomial(only_a + only_b, max(only_a, only_b)))


PAIRED = Exercise(
    name="mcnemar_p",
    title="McNemar's test",
    minutes=10,
    difficulty=2,
    reference=mcnemar_p,
    cases=_answer_cases,
    tolerance=1e-9,
    hints=(
        "A question that both have right, or both wrong, says nothing about which is better. Count "
        "the two other kinds.",
        "If the models are equally good, each of these n questions is a fair coin. P(X ≤ k) is "
        "`sum(math.comb(n, i) for i in range(k + 1)) / 2**n`, with k the smaller count.",
        "Two-sided: twice the tail, at most 1. With n = 0 the formula gives 1 by itself.",
    ),
    wrong=(
        Wrong(
            "one-sided",
            _one_sided,
            "Your p is half of the right one: nothing said beforehand which model would be "
            "better, so both tails count.",
        ),
        Wrong(
            "above 1",
            _uncapped,
            "If both counts are equal, the two tails overlap, and your p is above 1: return at "
            "most 1.",
        ),
        Wrong(
            "all questions are coins",
            _all_questions,
            "Your n counts *all* questions. Where the two agree there is no coin toss: count only "
            "the questions that exactly one has right.",
        ),
        Wrong(
            "two independent shares",
            _two_shares,
            "You compare two shares as if each model had been asked different questions. The "
            "questions are the same: their difficulty cancels in the pairs.",
        ),
        Wrong(
            "the normal approximation",
            _chi_square,
            "That is McNemar's approximation by the normal distribution: with few disagreements "
            "its p is too small. Sum the binomial probabilities.",
        ),
        Wrong(
            "the larger count",
            _larger,
            "You sum up to the larger count: nearly all of the distribution is below it, so p is "
            "nearly always 1. Use the smaller.",
        ),
    ),
)
