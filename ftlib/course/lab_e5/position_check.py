"""Lab E5, benchmarks and judges, exercise 6: what the order of two answers does to a judge."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def position_check(forward: Tensor, backward: Tensor) -> tuple[float, float]:
    """(flips, advantage) of a judge. forward, backward: (n,), its score of the answer shown first,
    1, ½ or 0, with the answers in one order and in the other. flips: share of pairs with another
    winner in the other order; advantage: how much more the first place scores than the second.
    """
    flips = (forward != 1 - backward).double().mean()
    advantage = (forward + backward - 1).double().mean()
    return float(flips), float(advantage)


def _order_cases(g):
    for n in (5, 12, 40):
        forward = torch.randint(0, 3, (n,), generator=g).double() / 2
        yield forward, torch.randint(0, 3, (n,), generator=g).double() / 2
    fair = torch.tensor([1.0, 0.0, 0.5, 1.0], dtype=torch.float64)
    yield fair, 1 - fair
    yield torch.ones(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    yield torch.zeros(3, dtype=torch.float64), torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64)


def _check(flips, advantage):
    def check(forward, backward):
        return float(flips(forward, backward)), float(advantage(forward, backward))

    return check


def _flips(f, b):
    return (f != 1 - b).double().mean()


def _advantage(f, b):
    return (f + b - 1).double().mean()


POSITION = Exercise(
    name="position_check",
    title="Position bias",
    minutes=8,
    difficulty=2,
    reference=position_check,
    cases=_order_cases,
    tolerance=1e-9,
    hints=(
        "A judge that looks at the answers alone gives backward = 1 − forward: what it gave one "
        "answer it now gives the other, in the other place.",
        "The first place scored forward + backward in the two orders; without a bias the two "
        "places share 2 points, one each.",
        "flips = (forward != 1 - backward).double().mean(); advantage = (forward + backward - "
        "1).mean()",
    ),
    wrong=(
        Wrong(
            "not turned",
            _check(lambda f, b: (f != b).double().mean(), _advantage),
            "Your flips compare two verdicts on *different* answers: the one shown first was not "
            "the same. A judge without a bias has backward = 1 − forward.",
        ),
        Wrong(
            "advantage without sign",
            _check(_flips, lambda f, b: (f + b - 1).abs().double().mean()),
            "Your advantage has lost its sign: an unsure judge that flips at random now looks "
            "biased. Average the signed numbers.",
        ),
        Wrong(
            "difference of the orders",
            _check(_flips, lambda f, b: (f - b).double().mean()),
            "forward − backward says which *answer* is better. What the first *place* has gained "
            "is forward + backward − 1.",
        ),
        Wrong(
            "1 not taken off",
            _check(_flips, lambda f, b: (f + b).double().mean()),
            "The two verdicts give one point each, so with a fair judge the first place gets 1 on "
            "average: subtract it.",
        ),
        Wrong(
            "halved",
            _check(_flips, lambda f, b: ((f + b - 1) / 2).double().mean()),
            "Your advantage is half of the right one: a judge that always takes the first place "
            "gives it a point more than the second in every pair of orders, 1 + 1 − 1.",
        ),
        Wrong(
            "ties are no flips",
            _check(lambda f, b: ((f - 0.5) * (b - 0.5) > 0).double().mean(), _advantage),
            "You count only pairs in which the same place wins twice. A win that becomes a tie in "
            "the other order is another verdict too.",
        ),
    ),
)
