"""Does length decide which pair SimPO teaches? Pairs of reports that differ in length and in facts,
with the two independent of each other, scored by sums and by means.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_8.runs import (
    SHORT,
    TEST,
    held_out_rows,
    own_pairs,
    shortened,
    started,
    train,
)
from ftlib.course.lab_3_1_8.simpo_loss import simpo_loss
from ftlib.course.lab_3_1_8.trials import RANKED_SHARE, answered, correlation
from ftlib.evaluation.preference import score_pairs

TAUGHT = 0.01  # weight below which a pair is called idle
PER_TOKEN = {"mean": "SimPO", "sum": "SimPO, sums"}  # score -> the method of `train`


def margins_of(sums: np.ndarray, lengths: np.ndarray, score: str) -> np.ndarray:
    """Chosen minus rejected of each pair, (pairs,), by "sum" or by "mean"."""
    values = sums if score == "sum" else sums / lengths
    return values[:, 0] - values[:, 1]


def weights_of(margins: np.ndarray, beta: float, ratio: float) -> np.ndarray:
    """σ(γ − β·margin), (pairs,): how much of its full push a pair still has."""
    return expit(beta * (ratio - margins))


@functools.cache
def words_at_start(profile: Profile) -> float:
    """Words per answer of the start from which both arms are trained."""
    model, tokenizer = started(profile, SHORT, seed=0)
    return answered(profile, model, tokenizer, held_out_rows(profile, TEST))["words"]


def length_trial(
    profile: Profile,
    seed: int,
    score: str,
    lr: float,
    beta: float,
    ratio: float,
    is_scaled: bool = False,
    simpo_loss: Callable = simpo_loss,
) -> dict[str, Any]:
    """Train SimPO with means or with sums on pairs of unequal length; the link of margin and weight
    with the difference of length, before and after, on held-out pairs. `is_scaled`: β divided and
    γ/β multiplied by the mean number of tokens, so that a sum is as steep as a mean, γ the same.
    """
    model, tokenizer = started(profile, SHORT, seed)
    rows = held_out_rows(profile, TEST)
    pairs = shortened(rows, seed)[: len(rows) // RANKED_SHARE]
    before, lengths = score_pairs(model, tokenizer, pairs)
    longer = lengths[:, 0] - lengths[:, 1]
    own_before = margins_of(before, lengths, score)
    if is_scaled:
        tokens = float(lengths.mean())
        beta = beta / tokens
        ratio = ratio * tokens
    weights = weights_of(own_before, beta, ratio)
    taught = shortened(own_pairs(profile, SHORT, seed), seed)
    setting = {"beta": beta, "ratio": ratio}
    method = PER_TOKEN[score]
    train(profile, model, tokenizer, taught, seed, method, lr, setting, simpo_loss)
    after, _ = score_pairs(model, tokenizer, pairs)
    own_after = margins_of(after, lengths, score)
    return {
        "before": correlation(longer, own_before),
        "after": correlation(longer, own_after),
        "size_before": abs(correlation(longer, own_before)),
        "size_after": abs(correlation(longer, own_after)),
        "weight": correlation(longer, weights),
        "idle": float((weights < TAUGHT).mean()),
        "accuracy_longer": float((own_after[longer > 0] > 0).mean()),
        "accuracy_shorter": float((own_after[longer < 0] > 0).mean()),
        "longer": longer.tolist(),
        "sums": before.tolist(),
        "lengths": lengths.tolist(),
        "margins_before": own_before.tolist(),
        "margins_after": own_after.tolist(),
        "start_words": words_at_start(profile),
        **answered(profile, model, tokenizer, rows),
    }
