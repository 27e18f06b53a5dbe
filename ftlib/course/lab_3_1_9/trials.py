"""The trials of lab 3.1.9: train on judgements, then answer and be judged. Each takes the student's
functions as keyword parameters, with ftlib's own as the default.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ftlib.adapters.lora import disable_adapter
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_9.balanced_weights import balanced_weights
from ftlib.course.lab_3_1_9.binary_loss import binary_loss
from ftlib.course.lab_3_1_9.reference_point import reference_point
from ftlib.course.lab_3_1_9.reference_points import RIGHT, Seen, points_by_name, watched_kto
from ftlib.course.lab_3_1_9.rows import (
    liked,
    pairs_to_train,
    shuffled_labels,
    some_thumbs,
    test_rows,
    uneven_thumbs,
    validation_rows,
)
from ftlib.course.records.kit import preference_start
from ftlib.course.world import describe_answers, preference_judge
from ftlib.data.pairs import flip_judgements, pairs_to_binary
from ftlib.evaluation.generate import generate_answers
from ftlib.evaluation.preference import sampled_logps, win_rate
from ftlib.training.finetune import finetune
from ftlib.training.prefer import prefer

BETA = 0.1
UPS = 20  # thumbs up in an uneven set, at every ratio
UPS_A_STEP = 1
SAMPLED = 24  # prompts, of which one answer each is sampled
DRIFT = 8.0  # times the profile's rate, at which a policy drifts from its reference
POINT_STEPS = 12
ANOTHER_DRAW = 1000  # added to the seed: other thumbs than the policy has drifted on
PARTS = 6  # into which a run's steps are divided where their course is kept
LOOKS = (0.0, 0.5, 1.0)  # shares of the steps at which a batch is kept


# --- measures -------------------------------------------------------------------------------------
def _split(profile: Profile, split: str) -> tuple[dict, ...]:
    return validation_rows(profile) if split == "validation" else test_rows(profile)


def _prompts(rows: Sequence[dict]) -> list[list[dict]]:
    return [row["prompt"] for row in rows]


@functools.cache
def first_answers(profile: Profile, split: str) -> tuple[str, ...]:
    """What the start answers to a split's questions; a fresh adapter changes nothing of it."""
    model, tokenizer = preference_start(profile, 0)
    prompts = _prompts(_split(profile, split))
    return tuple(generate_answers(model, tokenizer, prompts, profile.max_new_tokens))


def answered(profile: Profile, model: nn.Module, tokenizer, split: str) -> dict[str, Any]:
    """Win rate over the start's own answers, and what the answers are like."""
    rows = _split(profile, split)
    prompts = _prompts(rows)
    answers = generate_answers(model, tokenizer, prompts, profile.max_new_tokens)
    asked = [prompt[-1]["content"] for prompt in prompts]
    judge = preference_judge(list(rows), profile.preference.judge)
    first = list(first_answers(profile, split))
    described = describe_answers(list(rows), answers)
    return {
        "wins": float(win_rate(answers, first, judge, asked)),
        "words": described["words"],
        "polite": described.get("polite", 0.0),
        "right": described.get("facts right", 0.0),
        "answer": answers[0],
    }


def sampled(profile: Profile, model: nn.Module, tokenizer, split: str) -> dict[str, float]:
    """Of one answer each to `SAMPLED` prompts, drawn from the policy: KL(π‖π_ref) in nats an
    answer, and the share of polite ones. Greedy answers show the policy's most likely manner,
    sampled ones its shares.
    """
    rows = list(_split(profile, split))[:SAMPLED]
    longest = profile.max_new_tokens
    texts, policy, start = sampled_logps(
        model, tokenizer, _prompts(rows), disable_adapter, max_new_tokens=longest
    )
    described = describe_answers(rows, texts)
    return {
        "kl": float(np.mean(policy - start)),
        "polite_sampled": described.get("polite", 0.0),
    }


def by_parts(values: Sequence[float]) -> list[float]:
    """Means over `PARTS` equal parts of a course."""
    return [float(np.nanmean(part)) for part in np.array_split(values, PARTS)]


# --- training -------------------------------------------------------------------------------------
def _options(profile: Profile, seed: int, steps: int, lr: float, batch: int) -> dict[str, Any]:
    return {
        "steps": steps,
        "learning_rate": lr,
        "batch_size": batch,
        "seed": seed,
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
    course: list[float] = []
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
                binary_loss=binary_loss,
                reference_point=reference_point,
            )
            course = by_parts(seen.z0)
        else:
            own = liked(thumbs)
            train_sft(profile, model, tokenizer, own, seed, lr, steps, batch // 2)
    return {
        **answered(profile, model, tokenizer, split),
        **sampled(profile, model, tokenizer, split),
        "z0_course": course,
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
    place: str,
    point: str,
    beta: float,
    lr: float,
    binary_loss: Callable = binary_loss,
    reference_point: Callable = reference_point,
) -> dict[str, Any]:
    """KTO on loose thumbs with one of the reference points; `place`: "near", where the policy
    begins as its own reference, or "far", where it has drifted from it before the first step.
    """
    model, tokenizer = preference_start(profile, seed)
    wins_before = 0.5  # the start against itself
    if place == "far":
        model, tokenizer = drifted(profile, seed)
        wins_before = drifted_wins(profile, seed)
    steps = POINT_STEPS
    batch = profile.preference.batch
    rows = some_thumbs(profile, steps * batch, seed + ANOTHER_DRAW)
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
        "wins_before": wins_before,
        "share_up": by_parts(seen.share_up),
        "mismatched": seen.mismatched,
        "ups": by_parts(ups),
        "downs": by_parts(downs),
        "batches": [seen.batch(round(look * (steps - 1))) for look in LOOKS],
    }
