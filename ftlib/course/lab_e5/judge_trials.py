"""The trials of lab E5 on judges: what the lab's tools find in one judging of a judge with a
planted bias, and how often they accuse a judge that has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ftlib.core.profiles import Profile
from ftlib.core.stats import Interval
from ftlib.course.lab_e5.cohen_kappa import cohen_kappa as right_kappa
from ftlib.course.lab_e5.judging import (
    Bias,
    Pair,
    chances,
    draw_pairs,
    draw_verdicts,
    length_gaps,
    points_of,
    qualities,
)
from ftlib.course.lab_e5.position_check import position_check as right_check
from ftlib.evaluation.judge_checks import length_controlled_win_rate, position_bias

PAIRS = 120  # of one judging
REPEATS = 200  # judgings whose alarms are counted, each of pairs of its own
MANY_FLIPS = 0.2  # a rule of thumb: more flips than that are called a bias
NAMES = {1.0: "first", 0.0: "second"}


def leaves_out(interval: Interval, value: float) -> bool:
    return interval.low > value or interval.high < value


def lengths_of(pairs: Sequence[Pair]) -> tuple[list[int], list[int]]:
    """Characters of a's answers and of b's."""
    return [len(pair.text[0]) for pair in pairs], [len(pair.text[1]) for pair in pairs]


def truth_of(pairs: Sequence[Pair]) -> np.ndarray:
    """The rule's points of a, (pairs,)."""
    return np.array([pair.truth for pair in pairs])


def verdict_names(verdicts: np.ndarray) -> list[str]:
    return [NAMES[float(verdict)] for verdict in verdicts]


def judge_trial(
    profile: Profile,
    seed: int,
    reading: str,
    first: float = 0.0,
    longer: float = 0.0,
    cohen_kappa: Callable = right_kappa,
    position_check: Callable = right_check,
) -> dict[str, Any]:
    """One judging of `PAIRS` pairs in both orders, and what the lab's tools say of the judge."""
    pairs = draw_pairs(PAIRS, seed)
    truth = truth_of(pairs)
    bias = Bias(first, longer)
    quality = qualities(profile, pairs, reading)
    verdicts = draw_verdicts(chances(quality, length_gaps(pairs), bias), seed)
    points = points_of(verdicts)
    flips, advantage = position_check(
        torch.from_numpy(verdicts[:, 0]), torch.from_numpy(verdicts[:, 1])
    )
    controlled = length_controlled_win_rate(points, *lengths_of(pairs))
    decided = truth != 0.5  # the rule calls no winner where both are right, or both wrong
    return {
        "flips": flips,
        "advantage": advantage,
        "kappa": cohen_kappa(verdict_names(verdicts[decided, 0]), verdict_names(truth[decided])),
        "raw": points.mean(),
        "truth": truth.mean(),
        "controlled": controlled.rate.mean,
        "off_raw": abs(points.mean() - truth.mean()),
        "off_controlled": abs(controlled.rate.mean - truth.mean()),
        "tilt": points.mean() - truth.mean(),
        "slope": controlled.slope.mean,
        "place_found": float(leaves_out(position_bias(verdicts.tolist()).advantage, 0.0)),
        "length_found": float(leaves_out(controlled.slope, 0.0)),
    }


def alarm_trial(
    profile: Profile, seed: int, reading: str, first: float = 0.0, longer: float = 0.0
) -> dict[str, float]:
    """Shares of `REPEATS` judgings, each of other pairs, in which a check accuses the judge, and
    the mean advantage of the first place over all of them.
    """
    found = []
    advantages = []
    for repeat in range(REPEATS):
        number = REPEATS * seed + repeat
        pairs = draw_pairs(PAIRS, number)
        quality = qualities(profile, pairs, reading)
        chance = chances(quality, length_gaps(pairs), Bias(first, longer))
        verdicts = draw_verdicts(chance, number)
        found.append(accusations(pairs, verdicts))
        advantages.append(verdicts.sum(1).mean() - 1)
    shares = np.mean(found, axis=0)
    return {
        "place": float(shares[0]),
        "length": float(shares[1]),
        "flips": float(shares[2]),
        "advantage": float(np.mean(advantages)),
    }


def accusations(pairs: Sequence[Pair], verdicts: np.ndarray) -> tuple[bool, bool, bool]:
    """Which checks accuse the judge of these verdicts: the advantage of the first place at 95%, the
    slope of length at 95%, and the rule of thumb on flips.
    """
    place = position_bias(verdicts.tolist())
    slope = length_controlled_win_rate(points_of(verdicts), *lengths_of(pairs)).slope
    return (
        leaves_out(place.advantage, 0.0),
        leaves_out(slope, 0.0),
        place.flips.mean > MANY_FLIPS,
    )
