"""The trials of lab 3.1.3: train on few open answers under some noise, and look at answers to other
requests. The student's functions are keyword parameters, with ftlib's own as the default.
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
from torch.optim.optimizer import register_optimizer_step_post_hook

from ftlib.adapters.lora import add_lora
from ftlib.batches.encode import encode_rows
from ftlib.batches.stops import model_stops
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_3.answers import describe
from ftlib.course.lab_3_1_3.masked_noise import masked_noise
from ftlib.course.lab_3_1_3.noise import (
    always_on,
    frozen_table,
    gaussian,
    shifted,
    uniform,
    with_noise,
)
from ftlib.course.lab_3_1_3.noise_hook import noise_hook
from ftlib.course.lab_3_1_3.run_with_hook import run_with_hook
from ftlib.course.records.kit import held_out_loss, rows_of
from ftlib.evaluation.generate import answer_texts, generate_ids
from ftlib.models.load import load_model
from ftlib.training.finetune import finetune

SHARE = 5  # each run trains on a fifth of the rows, drawn by its seed
EPOCHS = 10
SWEEP_SEED = 500  # added to a sweep's seeds: a comparison's own runs have not chosen its settings
LOOKS = (0.1, 0.2, 0.4, 0.7, 1.0)  # shares of the steps at which a course is looked at
VALIDATED = 52  # validation rows, in all
TESTED = 104  # test rows whose loss is taken, in all
ASKED = 36  # of these that are answered too
NOISED = 24  # of these that are read under noise too
AT_TEST = 10.0  # alpha of the noise under which every model is tested as well
SHOWN = 3  # answers that are kept
ANSWER_BATCH = 100  # requests that are answered side by side


# --- rows and models ------------------------------------------------------------------------------
def run_rows(profile: Profile, seed: int) -> list[dict]:
    """The rows that a run trains on."""
    rows = rows_of(profile, "open_train")[: profile.open.rows]
    chosen = np.random.default_rng(seed).permutation(len(rows))[: len(rows) // SHARE]
    return [rows[i] for i in chosen]


def run_batch(profile: Profile) -> int:
    return profile.open.batch // 2


def run_steps(profile: Profile, part: float = 1.0) -> int:
    """Optimizer steps of a run: `EPOCHS` passes over its rows, the last batch of a pass being what
    is left; or a part of them.
    """
    steps_a_pass = math.ceil(profile.open.rows // SHARE / run_batch(profile))
    return round(part * EPOCHS * steps_a_pass)


def validation_rows(profile: Profile) -> list[dict]:
    """Other requests, in phrasings of training, on which settings are chosen."""
    return list(rows_of(profile, "open_validation"))[:VALIDATED]


def test_rows(profile: Profile) -> list[dict]:
    """Again others, in phrasings of their own, on which runs are compared."""
    return list(rows_of(profile, "open_test"))[:TESTED]


@functools.cache
def _base(profile: Profile):
    return load_model(profile=profile, dtype=torch.float32)


def fresh_model(profile: Profile, seed: int, dropout: float = 0.0):
    """(model, tokenizer): a copy of the profile's model with a fresh adapter, the same for the same
    seed.
    """
    model, tokenizer = _base(profile)
    torch.manual_seed(seed)
    adapted = add_lora(
        copy.deepcopy(model),
        r=profile.rank,
        lora_alpha=2 * profile.rank,
        lora_dropout=dropout,
    )
    return adapted, tokenizer


def mean_length(profile: Profile, tokenizer, rows: Sequence[dict]) -> float:
    encoded = encode_rows(tokenizer, list(rows), profile.open.length)
    return float(np.mean([len(row["input_ids"]) for row in encoded]))


# --- training -------------------------------------------------------------------------------------
def train(
    profile: Profile,
    model: nn.Module,
    tokenizer,
    rows: Sequence[dict],
    seed: int,
    lr: float,
    part: float = 1.0,
):
    """The run of a trial, with the same settings for all; `part` of its steps, with a schedule that
    ends where they do.
    """
    return finetune(
        model,
        tokenizer,
        list(rows),
        steps=run_steps(profile, part),
        learning_rate=lr,
        batch_size=run_batch(profile),
        seed=seed,
        max_length=profile.open.length,
        log_steps=1,
        show=False,
    )


# --- trials ---------------------------------------------------------------------------------------
def tune_trial(
    profile: Profile, seed: int, lr: float, alpha: float = 0.0, dropout: float = 0.0
) -> dict[str, Any]:
    """Train on a seed that no comparison has, and measure the loss on the validation rows and on
    those trained on.
    """
    own_seed = SWEEP_SEED + seed
    model, tokenizer = fresh_model(profile, own_seed, dropout)
    rows = run_rows(profile, own_seed)

    def run():
        return train(profile, model, tokenizer, rows, own_seed, lr)

    with_noise(model, uniform(alpha), run)
    held_out = validation_rows(profile)
    return {
        "validation_loss": held_out_loss(model, tokenizer, held_out, profile.open.length),
        "own_loss": held_out_loss(model, tokenizer, rows, profile.open.length),
    }


def course_trial(profile: Profile, seed: int, lr: float) -> dict[str, Any]:
    """Train without noise, and look at both losses on the way."""
    model, tokenizer = fresh_model(profile, seed)
    rows = run_rows(profile, seed)
    held_out = validation_rows(profile)
    places = sorted({max(1, round(share * run_steps(profile))) for share in LOOKS})
    own: list[float] = []
    validation: list[float] = []
    done = 0

    def after_step(optimizer, args, kwargs) -> None:
        nonlocal done
        done += 1
        if done in places:
            own.append(held_out_loss(model, tokenizer, rows, profile.open.length))
            validation.append(held_out_loss(model, tokenizer, held_out, profile.open.length))

    handle = register_optimizer_step_post_hook(after_step)
    try:
        train(profile, model, tokenizer, rows, seed, lr)
    finally:
        handle.remove()
    return {"own_by_step": own, "validation_by_step": validation}


def cure_trial(
    profile: Profile,
    seed: int,
    lr: float,
    alpha: float = 0.0,
    kind: str = "uniform",
    dropout: float = 0.0,
    part: float = 1.0,
) -> dict[str, Any]:
    """Train under one kind of noise, with dropout, or for a part of the steps; and measure the loss
    on test rows and on those trained on.

    "frozen": every token's embedding has a fixed shift, in training and at test.
    """
    model, tokenizer = fresh_model(profile, seed, dropout)
    rows = run_rows(profile, seed)

    def run():
        return train(profile, model, tokenizer, rows, seed, lr, part)

    if kind != "frozen":
        draw = gaussian(alpha) if kind == "Gaussian" else uniform(alpha)
        with_noise(model, draw, run)
        found = both_losses(profile, model, tokenizer, rows)
        return {**found, "loss_without_shift": found["loss"]}
    length = mean_length(profile, tokenizer, rows)
    table = model.get_input_embeddings().weight.detach()
    with shifted(model, frozen_table(table, alpha, length, seed)):
        run()
        found = both_losses(profile, model, tokenizer, rows)
    unshifted = both_losses(profile, model, tokenizer, rows)
    return {**found, "loss_without_shift": unshifted["loss"]}


def compare_trial(
    profile: Profile,
    seed: int,
    lr: float,
    alpha: float = 0.0,
    masked_noise: Callable = masked_noise,
    noise_hook: Callable = noise_hook,
    run_with_hook: Callable = run_with_hook,
) -> dict[str, Any]:
    """Train under noise, and measure losses, what noise does to them, and the answers."""
    model, tokenizer = fresh_model(profile, seed)
    rows = run_rows(profile, seed)

    def run():
        return train(profile, model, tokenizer, rows, seed, lr)

    draw = uniform(alpha, masked_noise)
    with_noise(model, draw, run, noise_hook, run_with_hook)
    return measured(profile, model, tokenizer, rows, seed)


# --- measures -------------------------------------------------------------------------------------
def both_losses(profile: Profile, model: nn.Module, tokenizer, rows) -> dict[str, float]:
    """Loss on the test rows and on the rows trained on, noise switched off."""
    return {
        "loss": held_out_loss(model, tokenizer, test_rows(profile), profile.open.length),
        "own_loss": held_out_loss(model, tokenizer, rows, profile.open.length),
    }


def noised_loss(profile: Profile, model: nn.Module, tokenizer, rows, seed: int) -> float:
    """The loss with fresh noise of alpha `AT_TEST` left on, one draw."""
    torch.manual_seed(seed)

    def run() -> float:
        return held_out_loss(model, tokenizer, rows, profile.open.length)

    return with_noise(model, uniform(AT_TEST), run, noise_hook=always_on)


def answered(profile: Profile, model: nn.Module, tokenizer, rows) -> tuple[list[str], list[float]]:
    """(answers to the rows' requests, for each 1.0 where the limit of tokens cut it)."""
    prompts = [row["messages"][:1] for row in rows]
    limit = profile.open.max_new_tokens
    _, found = generate_ids(model, tokenizer, prompts, limit, ANSWER_BATCH, 0.0, 0)
    stops = set(model_stops(model, tokenizer))
    cut = [float(not ids or ids[-1] not in stops) for ids in found]
    return answer_texts(model, tokenizer, found), cut


def measured(profile: Profile, model: nn.Module, tokenizer, rows, seed: int) -> dict[str, Any]:
    """Both losses, and how they rise under noise; what the answers to test requests are like."""
    test = test_rows(profile)
    asked = test[:ASKED]
    answers, cut = answered(profile, model, tokenizer, asked)
    losses = both_losses(profile, model, tokenizer, rows)
    noised = test[:NOISED]
    clean = held_out_loss(model, tokenizer, noised, profile.open.length)
    own_noised = noised_loss(profile, model, tokenizer, rows, seed)
    return {
        **losses,
        "rise": noised_loss(profile, model, tokenizer, noised, seed) - clean,
        "own_rise": own_noised - losses["own_loss"],
        **describe(answers, asked, rows),
        "cut": cut,
        "answers": answers[:SHOWN],
    }
