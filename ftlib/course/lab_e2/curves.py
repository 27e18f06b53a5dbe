"""Curves in the plane of what was learnt and what was forgotten: what a method forgets to end at a
given loss, and which points are on the Pareto front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftlib.core.pareto import pareto_front
from ftlib.core.stats import Interval, share_interval
from ftlib.course.records.live import Result

LEAST = 1e-3  # nats: what is forgotten less counts as this much where logarithms are taken
DRAWS = 2000  # of seeds, with replacement
BETTER = ("lower", "lower")  # the loss on the new task, and what is forgotten

ByArm = Mapping[str, Mapping[str, Any]]


def forgotten_at(by_arm: ByArm, arms: Sequence[str], loss: float) -> float:
    """ln of what a method forgets to end at `loss`, in one seed: on straight lines between those of
    its runs that no other of them dominates, in the loss and in ln of what is forgotten. Where even
    the gentlest ends below `loss`, what that one forgot is taken: too much rather than too little.
    """
    losses = np.array([by_arm[arm]["loss"] for arm in arms])
    rises = np.log([max(LEAST, by_arm[arm]["forgotten"]) for arm in arms])
    front = pareto_front(np.stack([losses, rises], axis=1), BETTER)
    order = sorted(front, key=lambda i: losses[i])
    return float(np.interp(loss, losses[order], rises[order]))


def lowest_loss(by_arm: ByArm, arms: Sequence[str]) -> float:
    """The lowest loss that a method reaches in one seed."""
    return min(by_arm[arm]["loss"] for arm in arms)


def log_ratio_at(by_arm: ByArm, method: Sequence[str], other: Sequence[str], arm: str) -> float:
    """ln(forgotten by the one method / by the other) where both end at the loss of the run `arm`,
    or at the lowest that both reach if that is higher.
    """
    reached = max(lowest_loss(by_arm, method), lowest_loss(by_arm, other), by_arm[arm]["loss"])
    return forgotten_at(by_arm, method, reached) - forgotten_at(by_arm, other, reached)


# --- the front ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class OnFront:
    """How surely an arm is on the front: whether the means over seeds are, in which share of the
    seeds its run is (Wilson's interval), and in which share of redrawn sets of seeds its mean is.
    """

    arm: str
    by_means: bool
    of_seeds: Interval
    redrawn: float


def points_of(result: Result, arms: Sequence[str]) -> np.ndarray:
    """(seeds, arms, 2): loss and forgotten of every run; of a record that is not complete, whose
    seeds come in order, the seeds that all arms have.
    """
    losses = [result.means(arm, "loss") for arm in arms]
    rises = [result.means(arm, "forgotten") for arm in arms]
    seeds = min(map(len, losses))
    by_arm = [
        np.stack([loss[:seeds], rise[:seeds]], axis=1)
        for loss, rise in zip(losses, rises, strict=True)
    ]
    return np.stack(by_arm, axis=1)


def on_front(result: Result, arms: Sequence[str], seed: int = 0) -> list[OnFront]:
    """Each of the arms, in their order, with how surely it is on the front of all of them."""
    points = points_of(result, arms)
    seeds = len(points)
    means = pareto_front(points.mean(0), BETTER)
    fronts = [pareto_front(run, BETTER) for run in points]
    dealt = np.random.default_rng(seed)
    counts = np.zeros(len(arms))
    for drawn in dealt.integers(seeds, size=(DRAWS, seeds)):
        counts[pareto_front(points[drawn].mean(0), BETTER)] += 1
    found = []
    for i, arm in enumerate(arms):
        hits = sum(i in front for front in fronts)
        found.append(OnFront(arm, i in means, share_interval(hits, seeds), counts[i] / DRAWS))
    return found
