"""Lab E5, benchmarks and judges, exercise 5: agreement beyond chance."""

from __future__ import annotations

import torch

from ftlib.course.exercise import Exercise, Wrong


def cohen_kappa(a: list[str], b: list[str]) -> float:
    """(p_o - p_e)/(1 - p_e) of two judges' verdicts on the same cases: p_o the share on which they
    agree, p_e what two judges with these frequencies would agree on by chance.
    """
    n = len(a)
    observed = sum(x == y for x, y in zip(a, b, strict=True)) / n
    expected = 0.0
    for verdict in set(a) | set(b):
        expected += (a.count(verdict) / n) * (b.count(verdict) / n)
    return (observed - expected) / (1 - expected)


def _verdict_cases(g):
    names = ["A", "B", "tie"]
    for n, kinds in ((12, 2), (20, 3), (30, 3)):
        a = [names[i] for i in torch.randint(0, kinds, (n,), generator=g).tolist()]
        b = list(a)
        for place in range(0, n, 3):
            b[place] = names[(place // 3) % kinds]
        yield a, b
    yield ["A"] * 18 + ["B", "B"], ["A"] * 17 + ["B", "A", "B"]
    yield ["A", "B", "A", "B"], ["B", "A", "B", "A"]
    yield ["A", "A", "A", "B"], ["A", "tie", "A", "A"]


def _kappa(expected_of):
    def kappa(a, b):
        n = len(a)
        observed = sum(x == y for x, y in zip(a, b, strict=True)) / n
        expected = expected_of(a, b, n)
        return (observed - expected) / (1 - expected) if expected < 1 else 0.0

    return kappa


def _shares(verdicts, other):
    return {name: verdicts.count(name) / len(verdicts) for name in set(verdicts) | set(other)}


def _of_both(a, b, n):
    of_a = _shares(a, b)
    of_b = _shares(b, a)
    return sum(of_a[name] * of_b[name] for name in of_a)


def _pooled(a, b, n):
    both = [*a, *b]
    return sum((both.count(name) / len(both)) ** 2 for name in set(both))


def _not_scaled(a, b):
    observed = sum(x == y for x, y in zip(a, b, strict=True)) / len(a)
    return observed - _of_both(a, b, len(a))


def _raw(a, b):
    return sum(x == y for x, y in zip(a, b, strict=True)) / len(a)


KAPPA = Exercise(
    name="cohen_kappa",
    title="Agreement beyond chance",
    minutes=8,
    difficulty=1,
    reference=cohen_kappa,
    cases=_verdict_cases,
    tolerance=1e-9,
    hints=(
        "p_o is the share of equal verdicts. For p_e ask: how often would both say A if they drew "
        "their verdicts from two urns with their own frequencies?",
        "Sum the product of the two judges' shares over all verdicts, including those that only "
        "one judge gives.",
        "expected = sum(a.count(v) / n * b.count(v) / n for v in set(a) | set(b))",
    ),
    wrong=(
        Wrong(
            "plain agreement",
            _raw,
            "That is the share of equal verdicts. Two judges who say A nine times in ten agree "
            "often without looking: correct for chance.",
        ),
        Wrong(
            "a fair die",
            _kappa(lambda a, b, n: 1 / len(set(a) | set(b))),
            "You let chance be 1 over the number of verdicts. Judges do not use all verdicts "
            "equally often: chance comes from their own frequencies.",
        ),
        Wrong(
            "pooled frequencies",
            _kappa(_pooled),
            "You used the frequencies of both judges together: that is Scott's π. Cohen's κ "
            "multiplies each judge's own.",
        ),
        Wrong(
            "the first judge twice",
            _kappa(lambda a, b, n: sum((a.count(name) / n) ** 2 for name in set(a))),
            "You compute chance from the first judge's frequencies alone: multiply them by the "
            "second's.",
        ),
        Wrong(
            "not scaled",
            _not_scaled,
            "You only subtract chance. Divide by 1 − p_e, the largest possible value, so that "
            "full agreement is 1.",
        ),
    ),
)
