"""The trials of lab 3.1.9: train on judgements, then answer and be judged. Each takes the student's
functions as keyword parameters, with ftlib's own as the default.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_9.balanced_weights import balanced_weights
from ftlib.course.lab_3_1_9.binary_loss import binary_loss
from ftlib.course.lab_3_1_9.looks import batches_before
from ftlib.course.lab_3_1_9.measures import answered, sampled
from ftlib.course.lab_3_1_9.reference_point import reference_point
from ftlib.course.lab_3_1_9.reference_points import RIGHT, Seen, points_by_name, watched_kto
from ftlib.course.lab_3_1_9.rows import (
    liked,
    other_thumbs,
    pairs_to_train,
    shuffled_labels,
    some_thumbs,
    uneven_thumbs,
)
from ftlib.course.records.kit import preference_start
from ftlib.data.feedback import flip_judgements, pairs_to_binary
from ftlib.training.finetune import finetune
from ftlib.training.prefer import prefer

BETA = 0.1
UPS = 20  # thumbs up in an uneven set, at every ratio
UPS_A_STEP = 1
WARMUP = 0.1  # of the steps, for every method
HALF_PULL = 2 * math.acosh(math.sqrt(2)) / BETA  # nats from z0, where KTO pulls half as hard
DRIFT = 8.0  # times the profile's rate, at which a policy drifts from its reference
POINT_STEPS = 12
PARTS = 6  # into which a run's steps are divided where their course is kept
LOOKS = (0.0, 0.5, 1.0)  # shares of the steps at which a batch is kept


# --- what a course is kept as ---------------------------------------------------------------------
def by_parts(values: Sequence[float]) -> list[float]:
    """Means over `PARTS` equal parts of a course."""
    return [float(np.nanmean(part)) for part in np.array_split(values, PARTS)]


def course_of(seen: Seen) -> dict[str, Any]:
    """What a KTO run at `BETA` saw: z0 by parts, the share of steps in which it was as good as 0,
    and the share of rows that had come so far on the wrong side that KTO pulled at them half as
    hard as at z0, or less.
    """
    return {
        "z0_course": by_parts(seen.z0),
        "z0_at_0": seen.share_at_zero(),
        "wrong_side": seen.share_on_wrong_side(HALF_PULL),
    }


# --- training -------------------------------------------------------------------------------------
def _options(profile: Profile, seed: int, steps: int, lr: float, batch: int) -> dict[str, Any]:
    return {
        "steps": steps,
        "learning_rate": lr,
        "batch_size": batch,
        "seed": seed,
        "warmup": WARMUP,
        "max_length": profile.max_length,
        "log_steps": steps,
        "show": False,
    }


def train_kto(
    profile: Profile,
    model: nn.Module,
    tokenizer,
    rows: Sequence[dict],
    seed: int,
    lr: float,
    steps: int,
    batch: int,
    point: str = RIGHT,
    weights: tuple[float, float] = (1.0, 1.0),
    beta: float = BETA,
    binary_loss: Callable = binary_loss,
    reference_point: Callable = reference_point,
) -> Seen:
    """KTO with the pieces given; the reference is the model with its adapter off."""
    seen = Seen()
    point_of = points_by_name(reference_point)[point]
    prefer(
        model,
        tokenizer,
        list(rows),
        loss="kto",
        beta=beta,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
        loss_function=watched_kto(point_of, binary_loss, seen),
        reference="adapter_off",
        **_options(profile, seed, steps, lr, batch),
    )
    return seen


def train_dpo(
    profile: Profile, model: nn.Module, tokenizer, pairs: Sequence[dict], seed: int, lr: float
) -> None:
    """DPO on pairs: a pair is two answers, so a step has half as many rows as one of KTO."""
    settings = profile.preference
    options = _options(profile, seed, settings.short_steps, lr, settings.batch // 2)
    prefer(
        model,
        tokenizer,
        list(pairs),
        loss="dpo",
        beta=BETA,
        reference="adapter_off",
        **options,
    )


def train_sft(
    profile: Profile,
    model: nn.Module,
    tokenizer,
    conversations: Sequence[dict],
    seed: int,
    lr: float,
    steps: int,
    batch: int,
) -> None:
    """SFT on answers that were liked."""
    finetune(model, tokenizer, list(conversations), **_options(profile, seed, steps, lr, batch))


def judgements(profile: Profile, source: str, noise: float, seed: int) -> list[dict]:
    """Pairs, or loose thumbs, or those with labels dealt anew, of which a share is turned round:
    as many answers as a KTO run sees.
    """
    answers = profile.preference.short_steps * profile.preference.batch
    if source == "pairs":
        rows = pairs_to_train(profile, answers // 2, seed)
    else:
        rows = some_thumbs(profile, answers, seed)
    if source == "shuffled thumbs":
        rows = shuffled_labels(rows, seed)
    wrong = flip_judgements(rows, noise, seed)
    return [{key: row[key] for key in row if key != "flipped"} for row in wrong]


# --- trials ---------------------------------------------------------------------------------------
def judgement_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    source: str = "pairs",
    noise: float = 0.0,
    point: str = RIGHT,
    split: str = "test",
    binary_loss: Callable = binary_loss,
    reference_point: Callable = reference_point,
) -> dict[str, Any]:
    """Train once through the judgements, by KTO, DPO, or SFT on the liked answers; measure."""
    model, tokenizer = preference_start(profile, seed)
    rows = judgements(profile, source, noise, seed)
    steps = profile.preference.short_steps
    batch = profile.preference.batch
    torch.manual_seed(seed)
    course: dict[str, Any] = {}
    if method == "DPO":
        train_dpo(profile, model, tokenizer, rows, seed, lr)
    else:
        thumbs = pairs_to_binary(rows) if source == "pairs" else rows
        if method == "KTO":
            seen = train_kto(
                profile,
                model,
                tokenizer,
                thumbs,
                seed,
                lr,
                steps,
                batch,
                point,
                binary_loss=binary_loss,
                reference_point=reference_point,
            )
            course = course_of(seen)
        else:
            own = liked(thumbs)
            train_sft(profile, model, tokenizer, own, seed, lr, steps, batch // 2)
    return {
        **answered(profile, model, tokenizer, split),
        **sampled(profile, model, tokenizer, split),
        **course,
    }


def uneven_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    ratio: float = 1.0,
    target: float | None = None,
    split: str = "test",
    binary_loss: Callable = binary_loss,
    reference_point: Callable = reference_point,
    balanced_weights: Callable = balanced_weights,
) -> dict[str, Any]:
    """Train once through `UPS` thumbs up and `ratio` times as many down. Every run has the same
    steps with the same thumbs up; the batch grows with the thumbs down. `target`: of the weights,
    None for 1 and 1.
    """
    model, tokenizer = preference_start(profile, seed)
    rows = uneven_thumbs(profile, UPS, ratio, seed)
    steps = UPS // UPS_A_STEP
    weights = (1.0, 1.0)
    if target is not None:
        weights = balanced_weights(UPS, round(UPS * ratio), target)
    torch.manual_seed(seed)
    share = 1.0
    if method == "KTO":
        batch = len(rows) // steps
        seen = train_kto(
            profile,
            model,
            tokenizer,
            rows,
            seed,
            lr,
            steps,
            batch,
            weights=weights,
            binary_loss=binary_loss,
            reference_point=reference_point,
        )
        share = float(np.nanmean(seen.share_up))
    else:
        train_sft(profile, model, tokenizer, liked(rows), seed, lr, steps, UPS_A_STEP)
    return {**answered(profile, model, tokenizer, split), "share_up": share}


@functools.cache
def _drifted(profile: Profile, seed: int) -> tuple[nn.Module, Any]:
    model, tokenizer = preference_start(profile, seed)
    steps = profile.preference.short_steps
    batch = profile.preference.batch
    rows = some_thumbs(profile, steps * batch, seed)
    logs = [{"messages": [*row["prompt"], *row["completion"]]} for row in rows]
    lr = DRIFT * profile.preference.lr
    train_sft(profile, model, tokenizer, logs, seed, lr, steps, batch)
    return model, tokenizer


def drifted(profile: Profile, seed: int) -> tuple[nn.Module, Any]:
    """A policy that has gone on learning from all its logged answers, whatever their thumbs, while
    the reference stayed: far from it, and no politer. A copy.
    """
    model, tokenizer = _drifted(profile, seed)
    return copy.deepcopy(model), tokenizer


@functools.cache
def drifted_wins(profile: Profile, seed: int) -> float:
    """Win rate of the drifted policy over the start."""
    return answered(profile, *_drifted(profile, seed), "test")["wins"]


def point_trial(
    profile: Profile,
    seed: int,
    point: str,
    beta: float,
    lr: float,
    binary_loss: Callable = binary_loss,
    reference_point: Callable = reference_point,
) -> dict[str, Any]:
    """KTO with one of the reference points on loose thumbs, other ones than those on which the
    policy has drifted from its reference before the first step.
    """
    model, tokenizer = drifted(profile, seed)
    steps = POINT_STEPS
    batch = profile.preference.batch
    past = profile.preference.short_steps * batch
    rows = other_thumbs(profile, past, steps * batch, seed)
    before = batches_before(
        model, tokenizer, rows, batch, seed, profile.max_length, beta, reference_point
    )
    torch.manual_seed(seed)
    seen = train_kto(
        profile,
        model,
        tokenizer,
        rows,
        seed,
        lr,
        steps,
        batch,
        point=point,
        beta=beta,
        binary_loss=binary_loss,
        reference_point=reference_point,
    )
    ups, downs = seen.means_by_label()
    return {
        **answered(profile, model, tokenizer, "test"),
        **before,
        "wins_before": drifted_wins(profile, seed),
        "mismatched": seen.mismatched,
        "ups": by_parts(ups),
        "downs": by_parts(downs),
        "batches": [seen.batch(round(look * (steps - 1))) for look in LOOKS],
    }
