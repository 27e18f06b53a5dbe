"""The trials of lab E3: train one adapter, measure it. They take the student's functions as keyword
parameters, with ftlib's own as the default.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ftlib.adapters import bottleneck, ia3, prefix, reft
from ftlib.adapters.lora import add_lora
from ftlib.adapters.trainable import count_parameters
from ftlib.batches.collate import SFTCollator
from ftlib.batches.template import IGNORE
from ftlib.core.modes import evaluation_mode
from ftlib.core.profiles import Profile
from ftlib.course.lab_e3.bottleneck_forward import bottleneck_forward
from ftlib.course.lab_e3.edited_positions import edited_positions
from ftlib.course.lab_e3.layer import (
    FACTOR,
    Course,
    apart,
    edits_of,
    with_own_bottleneck,
    with_own_reft,
)
from ftlib.course.lab_e3.loreft_forward import loreft_forward
from ftlib.course.lab_e3.orthonormal_rows import orthonormal_rows
from ftlib.course.records.kit import held_out_loss, rows_of, study_base, train_study
from ftlib.data.load import load_base_text
from ftlib.evaluation.metrics import golden_accuracy
from ftlib.losses.logps import completion_logps

POOL = 1500  # training rows from which a run draws
VALIDATION = 60  # rows on which rates are chosen
ASKED = 40  # golden questions that are asked after a run
TEXTS = 30  # held-out texts of the base's own domain on which forgetting is measured
HALF = 0.5  # of a text that is taken as a prompt
SWEEP_SEED = 500  # added to a sweep's seeds: a comparison's own runs have not chosen its rates
EVERY = 10  # steps between two looks at R
WHOLE_PROMPT = 1000  # first positions: more than any prompt has


# --- rows -----------------------------------------------------------------------------------------
def train_rows(profile: Profile) -> list[dict]:
    """The rows from which a run draws."""
    return list(rows_of(profile, "train")[:POOL])


def validation_rows(profile: Profile) -> list[dict]:
    """The rows on which rates are chosen."""
    most = min(VALIDATION, profile.comparison.rows)
    return list(rows_of(profile, "validation")[:most])


def test_rows(profile: Profile) -> list[dict]:
    """The rows on which methods are compared."""
    return list(rows_of(profile, "golden")[: profile.eval_examples])


# --- models ---------------------------------------------------------------------------------------
def prepared(
    profile: Profile,
    seed: int,
    method: str,
    size: int,
    targets: Sequence[str],
    counts: tuple[int, int] = (4, 4),
    kind_of_rows: str = FACTOR,
    **functions: Callable,
):
    """(model, tokenizer) with what the method trains, and nothing else, requiring grad; the same
    for the same seed. `counts`: first and last positions of LoReFT. `functions`: the student's.
    """
    model, tokenizer = study_base(profile)
    torch.manual_seed(seed)
    if method == "LoRA":
        return add_lora(model, r=size, lora_alpha=2 * size, target_modules=list(targets)), tokenizer
    if method == "(IA)³":
        return ia3.add_ia3(model), tokenizer
    if method == "prefix":
        return prefix.add_prefix(model, size), tokenizer
    if method == "bottleneck":
        bottleneck.add_bottleneck(model, size, sublayers=("mlp",))
        own = {k: v for k, v in functions.items() if k == "bottleneck_forward"}
        return with_own_bottleneck(model, **own), tokenizer
    if method != "LoReFT":
        raise ValueError(f"method={method!r}: LoRA, LoReFT, (IA)³, prefix or bottleneck")
    reft.add_reft(model, size)
    own = {k: v for k, v in functions.items() if k != "bottleneck_forward"}
    return with_own_reft(model, counts, kind_of_rows, **own), tokenizer


# --- measures -------------------------------------------------------------------------------------
def _texts(profile: Profile, tokenizer, share: float) -> list[dict[str, list[int]]]:
    """Texts of the base's own domain as rows: a share of each is a prompt, the rest is scored."""
    rows = []
    for text in load_base_text(profile, min(TEXTS, profile.base_texts)):
        ids = tokenizer(text, truncation=True, max_length=profile.max_length)["input_ids"]
        prompt = round(share * len(ids))
        rows.append({"input_ids": ids, "labels": [IGNORE] * prompt + ids[prompt:]})
    return sorted(rows, key=lambda row: len(row["input_ids"]))


@torch.no_grad()
def text_loss(profile: Profile, model: nn.Module, tokenizer, share: float) -> float:
    """Loss of texts of the base's own domain after the first `share` of each, which is a prompt;
    nats a token.
    """
    collate = SFTCollator(tokenizer.pad_token_id)
    rows = _texts(profile, tokenizer, share)
    total = 0.0
    count = 0
    with evaluation_mode(model):
        for start in range(0, len(rows), profile.batch_size):
            batch = collate(rows[start : start + profile.batch_size])
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            total -= completion_logps(model, **inputs).sum().item()
            count += int((inputs["labels"][:, 1:] != IGNORE).sum())
    return total / count


@functools.cache
def _base_text_loss(profile: Profile, share: float) -> float:
    model, tokenizer = study_base(profile)
    return text_loss(profile, model, tokenizer, share)


def forgotten(profile: Profile, model: nn.Module, tokenizer, share: float) -> float:
    """Rise of `text_loss` over the base's, nats a token."""
    return text_loss(profile, model, tokenizer, share) - _base_text_loss(profile, share)


@functools.cache
def base_loss(profile: Profile) -> float:
    """The test loss of the base, which nothing was trained on."""
    model, tokenizer = study_base(profile)
    return held_out_loss(model, tokenizer, test_rows(profile), profile.max_length)


def right_answers(profile: Profile, model: nn.Module, tokenizer) -> list[float]:
    """Whether a greedy answer is right, 0 or 1, for each of the questions that are asked."""
    rows = test_rows(profile)[:ASKED]
    asked = golden_accuracy(model, tokenizer, rows, profile.max_new_tokens)
    return [float(right) for right in asked.correct]


# --- rates ----------------------------------------------------------------------------------------
def tune_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    size: int,
    targets: Sequence[str],
    steps: int,
    batch: int,
    counts: Sequence[int] = (4, 4),
    kind_of_rows: str = FACTOR,
) -> dict[str, Any]:
    """Train, and measure on the validation rows."""
    own_seed = SWEEP_SEED + seed
    first, last = counts
    model, tokenizer = prepared(
        profile, own_seed, method, size, targets, (first, last), kind_of_rows
    )
    course = Course(model, [], apart) if method == "LoReFT" else None
    rows = train_rows(profile)
    run = train_study(profile, model, tokenizer, rows, own_seed, lr, steps=steps, batch_size=batch)
    if course is not None:
        course.end(model)
    held_out = validation_rows(profile)
    return {
        "validation_loss": held_out_loss(model, tokenizer, held_out, profile.max_length),
        "training_loss": run.final_loss,
    }


# --- the methods ----------------------------------------------------------------------------------
def method_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    size: int,
    targets: Sequence[str],
    steps: int,
    batch: int,
    loreft_forward: Callable = loreft_forward,
    orthonormal_rows: Callable = orthonormal_rows,
    edited_positions: Callable = edited_positions,
    bottleneck_forward: Callable = bottleneck_forward,
) -> dict[str, Any]:
    """Train, and measure on the test rows what was learnt, and on the base's own texts what was
    forgotten: where a text is scored whole, and where its first half is a prompt.
    """
    model, tokenizer = prepared(
        profile,
        seed,
        method,
        size,
        targets,
        loreft_forward=loreft_forward,
        orthonormal_rows=orthonormal_rows,
        edited_positions=edited_positions,
        bottleneck_forward=bottleneck_forward,
    )
    trainable, _ = count_parameters(model)
    rows = train_rows(profile)
    train_study(profile, model, tokenizer, rows, seed, lr, steps=steps, batch_size=batch)
    return {
        "loss": held_out_loss(model, tokenizer, test_rows(profile), profile.max_length),
        "right": right_answers(profile, model, tokenizer),
        "forgotten": forgotten(profile, model, tokenizer, HALF),
        "forgotten_whole": forgotten(profile, model, tokenizer, 0.0),
        "trainable": trainable,
    }


# --- R's rows -------------------------------------------------------------------------------------
def random_turn(d: int, seed: int, like: Tensor) -> Tensor:
    """A random orthogonal matrix (d, d)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(drawn)[0].to(like)


def _turned_loss(profile: Profile, model: nn.Module, tokenizer, seed: int) -> float:
    """The test loss with every edit as large as it was and in another direction."""
    for i, edit in enumerate(edits_of(model)):
        d = edit.weight.shape[1]
        edit.turn = random_turn(d, 1000 * seed + i, edit.weight)
    loss = held_out_loss(model, tokenizer, test_rows(profile), profile.max_length)
    for edit in edits_of(model):
        edit.turn = None
    return loss


def _noted_loss(profile: Profile, model: nn.Module, tokenizer) -> tuple[float, float]:
    """The test loss, and how far the edits missed what was wanted, a mean over layers and rows."""
    for edit in edits_of(model):
        edit.noted = []
    loss = held_out_loss(model, tokenizer, test_rows(profile), profile.max_length)
    means = []
    for edit in edits_of(model):
        noted = edit.noted or []
        means.append(math.fsum(noted) / len(noted))
        edit.noted = None
    return loss, math.fsum(means) / len(means)


def row_trial(
    profile: Profile,
    seed: int,
    kind_of_rows: str,
    lr: float,
    size: int,
    steps: int,
    batch: int,
) -> dict[str, Any]:
    """Train LoReFT with an R of this kind, and look on the way at how far it is from orthonormal;
    then measure what its edits do.
    """
    model, tokenizer = prepared(profile, seed, "LoReFT", size, (), kind_of_rows=kind_of_rows)
    course = Course(model, list(range(0, steps, EVERY)), apart)
    rows = train_rows(profile)
    train_study(profile, model, tokenizer, rows, seed, lr, steps=steps, batch_size=batch)
    seen = course.end(model)
    loss, missed = _noted_loss(profile, model, tokenizer)
    return {
        "loss": loss,
        "turned_loss": _turned_loss(profile, model, tokenizer, seed),
        "base_loss": base_loss(profile),
        "missed": missed,
        "apart": seen,
        "apart_last": seen[-1],
    }


# --- positions ------------------------------------------------------------------------------------
def position_trial(
    profile: Profile,
    seed: int,
    counts: Sequence[int],
    lr: float,
    size: int,
    steps: int,
    batch: int,
) -> dict[str, Any]:
    """Train LoReFT on so many first and last positions, and measure on the test rows."""
    first, last = counts
    model, tokenizer = prepared(profile, seed, "LoReFT", size, (), (first, last))
    rows = train_rows(profile)
    train_study(profile, model, tokenizer, rows, seed, lr, steps=steps, batch_size=batch)
    return {
        "loss": held_out_loss(model, tokenizer, test_rows(profile), profile.max_length),
        "forgotten": forgotten(profile, model, tokenizer, HALF),
    }
