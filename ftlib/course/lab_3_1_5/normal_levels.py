"""Lab 3.1.5, QLoRA, exercise 1: the levels."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def normal_levels(above: int, below: int, edge: float) -> Tensor:
    """Levels at normal quantiles, ascending: `below` negative ones, 0, `above` positive ones, the
    largest 1.
    """

    def quantiles(count: int) -> Tensor:
        probabilities = torch.linspace(edge, 0.5, count + 1)[
            :-1
        ]  # from the edge inwards, 1/2 (that is 0) left out
        return torch.special.ndtri(probabilities.double()).float()

    levels = torch.cat([quantiles(above), torch.zeros(1), -quantiles(below)]).sort().values
    return levels / levels.max()


def _levels_cases(g):
    yield from [(8, 7, 0.9677083), (4, 3, 0.93), (2, 1, 0.9), (8, 7, 0.98), (5, 3, 0.95)]


def _levels(
    spread=lambda count, edge: torch.linspace(edge, 0.5, count + 1)[:-1],
    quantile=torch.special.ndtri,
    scale=lambda v: v / v.max(),
    negative=lambda above, below: below,
):
    def levels(above, below, edge):
        up, down = (quantile(spread(count, edge)) for count in (above, negative(above, below)))
        return scale(torch.cat([up, torch.zeros(1), -down]).sort().values)

    return levels


LEVELS = Exercise(
    name="normal_levels",
    title="Sixteen levels",
    minutes=12,
    difficulty=2,
    reference=normal_levels,
    cases=_levels_cases,
    dtypes={None: "same"},
    hints=(
        "`torch.special.ndtri(p)` is the normal quantile: the value below which a share p of the "
        "numbers lies. ndtri(0.5) is 0.",
        "For the positive side take `above + 1` probabilities at equal steps from `edge` down to "
        "1/2, and leave the last out: "
        "it is the zero.",
        "The negative side is the mirror image with `below` levels. Then zero once, sort, divide "
        "by the largest.",
        "half = lambda n: torch.special.ndtri(torch.linspace(edge, 0.5, n + "
        "1)[:-1].double()).float(); "
        "torch.cat([half(above), torch.zeros(1), -half(below)]).sort().values, divided by its "
        "largest",
    ),
    wrong=(
        Wrong(
            "equal values",
            _levels(quantile=lambda p: p - 0.5),
            "Your levels are at equal distances: that is an integer grid. Equal steps of "
            "*probability* are wanted, "
            "so take the quantile of each.",
        ),
        Wrong(
            "not normalised",
            _levels(scale=lambda v: v),
            "The largest level is not 1: after the division by the block's maximum all weights "
            "lie in [−1, 1], "
            "and so must the levels.",
        ),
        Wrong(
            "zero twice",
            _levels(spread=lambda count, edge: torch.linspace(edge, 0.5, count)),
            "One side ends at the probability 1/2, which is zero again: that level is lost. "
            "Take one step more and leave the last out.",
        ),
        Wrong(
            "one more below",
            _levels(negative=lambda above, below: above),
            "There are as many levels below zero as above: with the zero that is one more than "
            "the codes can count.",
        ),
        Wrong(
            "divided by the width",
            _levels(scale=lambda v: v / (v.max() - v.min())),
            "You divided by the whole width: the levels then end at about ±1/2. Divide by the "
            "largest.",
        ),
        Wrong(
            "steps from 1",
            _levels(spread=lambda count, edge: torch.linspace(1, 0.5, count + 2)[1:-1]),
            "You went down from the probability 1 and did not use `edge`: the outermost levels "
            "are in the wrong place.",
        ),
    ),
)
