"""Lab 3.1.1, LoRA, exercise 9: effective rank."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_1.tensors import randn


def effective_rank(singular_values: Tensor, share: float = 0.9) -> int:
    """The smallest k whose k largest singular values hold `share` of Σσ²."""
    energy = singular_values.double().square().cumsum(0)
    return int((energy < share * energy[-1]).sum()) + 1


def _rank_cases(g):
    yield torch.tensor([3.0, 2.0, 1.0, 0.0]), 0.9
    yield torch.tensor([10.0, 1.0, 1.0, 1.0, 1.0]), 0.9
    yield torch.ones(20), 0.88
    yield torch.full((4,), 2.0), 0.5
    yield torch.linalg.svdvals(randn(g, 24, 16)), 0.9
    yield torch.linalg.svdvals(randn(g, 30, 3) @ randn(g, 3, 20)), 0.99
    yield torch.linalg.svdvals(randn(g, 32, 32)), 0.5


def _rank_of(energy, offset=1, share_of=lambda e: e[-1]):
    def rank(s, share):
        e = energy(s.double()).cumsum(0)
        return int((e < share * share_of(e)).sum()) + offset

    return rank


def _more_than_the_share(s, share=0.9):
    energy = s.double().square().cumsum(0)
    return int((energy <= share * energy[-1]).sum()) + 1


EFFECTIVE_RANK = Exercise(
    name="effective_rank",
    title="Effective rank",
    minutes=10,
    difficulty=2,
    reference=effective_rank,
    cases=_rank_cases,
    defaults=("share",),
    hints=(
        "‖M‖² = Σσᵢ² (Frobenius), and the best rank-k approximation keeps the k largest σ "
        "(Eckart–Young). "
        "So ask how many σ² you need.",
        "`torch.cumsum(s ** 2, 0)` is the energy kept at rank 1, 2, 3 …; its last entry is all of "
        "it.",
        "Count the ranks that do not reach `share` of the total yet: the answer is one more.",
        "energy = s.square().cumsum(0); return int((energy < share * energy[-1]).sum()) + 1",
    ),
    wrong=(
        Wrong(
            "not squared",
            _rank_of(lambda s: s),
            "You sum σ, not σ²: the share of ‖M‖² is a share of the squares.",
        ),
        Wrong(
            "off by one",
            _rank_of(lambda s: s.square(), offset=0),
            "One too small: you count the ranks that are not enough yet, so add one (or you "
            "return an index from 0).",
        ),
        Wrong(
            "above share of the largest",
            lambda s, share: int((s >= share * s[0]).sum()),
            "You count singular values near the largest one: add up the squares from the top "
            "until they reach the share.",
        ),
        Wrong(
            "numerical rank",
            lambda s, share: int((s > 1e-5 * s[0]).sum()),
            "That is the numerical rank, how many are not zero: `share` is not used.",
        ),
        Wrong(
            "more than the share",
            _more_than_the_share,
            "You go on where the share is reached exactly: *at least* `share` is asked for, so "
            "only ranks below it (<) are not enough.",
        ),
        Wrong(
            "the rest",
            lambda s, share: _rank_of(lambda t: t.square())(s, 1 - share),
            "You stop at 1 − share of the energy: go on to `share`.",
        ),
    ),
)
