"""The trials of lab 3.1.3: train on few open answers under some noise, and look at answers to other
requests. The student's functions are keyword parameters, with ftlib's own as the default.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ftlib.adapters.lora import add_lora
from ftlib.batches.encode import encode_rows
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_3.answers import describe
from ftlib.course.lab_3_1_3.gaussian_noise import gaussian_noise
from ftlib.course.lab_3_1_3.masked_noise import masked_noise
from ftlib.course.lab_3_1_3.noise import (
    always_on,
    frozen_table,
    gaussian,
    hidden,
    middle_block,
    shifted,
    uniform,
    with_noise,
)
from ftlib.course.lab_3_1_3.noise_hook import noise_hook
from ftlib.course.lab_3_1_3.run_with_hook import run_with_hook
from ftlib.course.records.kit import held_out_loss, rows_of
from ftlib.evaluation.generate import generate_answers
from ftlib.models.load import load_model
from ftlib.training.finetune import finetune

SHARE = 5  # each run trains on a fifth of the rows, drawn by its seed
EPOCHS = 10
LOOKS = (0.1, 0.2, 0.4, 0.7, 1.0)  # shares of the steps at which a course is looked at
VALIDATED = 52  # validation rows, in all
LOOKED_AT = 22  # of these at each look of a course
TESTED = 56  # test rows whose loss is taken
ASKED = 36  # of these that are answered too
NOISED = 24  # of these that are read under noise too
AT_TEST = 10.0  # alpha of the noise under which every model is tested as well
SHOWN = 3  # answers that are kept


# --- rows and models ------------------------------------------------------------------------------
def run_rows(profile: Profile, seed: int) -> list[dict]:
    """The rows that a run trains on."""
    rows = rows_of(profile, "open_train")[: profile.open.rows]
    chosen = np.random.default_rng(seed).permutation(len(rows))[: len(rows) // SHARE]
    return [rows[i] for i in chosen]


def run_batch(profile: Profile) -> int:
    return profile.open.batch // 2


def run_steps(profile: Profile) -> int:
    """Optimizer steps of a run: `EPOCHS` times its rows."""
    return EPOCHS * (profile.open.rows // SHARE) // run_batch(profile)


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


def mean_embedding_norm(model: nn.Module) -> float:
    return float(model.get_input_embeddings().weight.detach().float().norm(dim=1).mean())


# --- training -------------------------------------------------------------------------------------
def train(
    profile: Profile,
    model: nn.Module,
    tokenizer,
    rows: Sequence[dict],
    seed: int,
    lr: float,
    weight_decay: float = 0.0,
):
    """The run of a trial, with the same settings for all."""
    return finetune(
        model,
        tokenizer,
        list(rows),
        steps=run_steps(profile),
        learning_rate=lr,
        batch_size=run_batch(profile),
        seed=seed,
        max_length=profile.open.length,
        weight_decay=weight_decay,
        log_steps=1,
        show=False,
    )


def train_under(
    profile: Profile,
    model: nn.Module,
    tokenizer,
    rows: Sequence[dict],
    seed: int,
    lr: float,
    alpha: float,
    kind: str = "uniform",
    weight_decay: float = 0.0,
    functions: dict[str, Callable] | None = None,
):
    """Train with noise of a kind; for "frozen" use `shifted` around this, with alpha 0."""
    given = functions or {}
    place = None
    draws: dict[str, Callable] = {
        "uniform": uniform(alpha, given.get("masked_noise", masked_noise)),
        "Gaussian": gaussian(alpha, given.get("gaussian_noise", gaussian_noise)),
        "hidden": hidden(alpha, mean_embedding_norm(model)),
    }
    if kind == "hidden":
        place = middle_block(model)

    def run():
        return train(profile, model, tokenizer, rows, seed, lr, weight_decay)

    return with_noise(
        model,
        draws[kind],
        run,
        place,
        given.get("noise_hook", noise_hook),
        given.get("run_with_hook", run_with_hook),
    )


# --- trials ---------------------------------------------------------------------------------------
def tune_trial(
    profile: Profile,
    seed: int,
    lr: float,
    alpha: float = 0.0,
    dropout: float = 0.0,
    weight_decay: float = 0.0,
) -> dict[str, Any]:
    """Train, and measure the loss on the validation rows and on those trained on."""
    model, tokenizer = fresh_model(profile, seed, dropout)
    rows = run_rows(profile, seed)
    train_under(profile, model, tokenizer, rows, seed, lr, alpha=alpha, weight_decay=weight_decay)
    held_out = validation_rows(profile)
    return {
        "validation_loss": held_out_loss(model, tokenizer, held_out, profile.open.length),
        "own_loss": held_out_loss(model, tokenizer, rows, profile.open.length),
    }


def course_trial(
    profile: Profile,
    seed: int,
    lr: float,
    alpha: float,
    masked_noise: Callable = masked_noise,
    noise_hook: Callable = noise_hook,
    run_with_hook: Callable = run_with_hook,
) -> dict[str, Any]:
    """Train, and look at both losses on the way, noise switched off."""
    model, tokenizer = fresh_model(profile, seed)
    rows = run_rows(profile, seed)
    held_out = validation_rows(profile)[:LOOKED_AT]
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

    functions = {
        "masked_noise": masked_noise,
        "noise_hook": noise_hook,
        "run_with_hook": run_with_hook,
    }
    handle = register_optimizer_step_post_hook(after_step)
    try:
        train_under(profile, model, tokenizer, rows, seed, lr, alpha, functions=functions)
    finally:
        handle.remove()
    return {
        "own_by_step": own,
        "validation_by_step": validation,
        "lowest": min(validation),
        "end": validation[-1],
    }


def compare_trial(
    profile: Profile,
    seed: int,
    lr: float,
    alpha: float = 0.0,
    kind: str = "uniform",
    dropout: float = 0.0,
    weight_decay: float = 0.0,
    masked_noise: Callable = masked_noise,
    gaussian_noise: Callable = gaussian_noise,
    noise_hook: Callable = noise_hook,
    run_with_hook: Callable = run_with_hook,
) -> dict[str, Any]:
    """Train under one kind of noise or with another regulariser, and measure on the test rows.

    "frozen": every token's embedding has a fixed shift, in training and at test.
    """
    model, tokenizer = fresh_model(profile, seed, dropout)
    rows = run_rows(profile, seed)
    functions = {
        "masked_noise": masked_noise,
        "gaussian_noise": gaussian_noise,
        "noise_hook": noise_hook,
        "run_with_hook": run_with_hook,
    }
    if kind != "frozen":
        train_under(profile, model, tokenizer, rows, seed, lr, alpha, kind, weight_decay, functions)
        return measured(profile, model, tokenizer, rows, seed)
    length = mean_length(profile, tokenizer, rows)
    table = model.get_input_embeddings().weight.detach()
    with shifted(model, frozen_table(table, alpha, length, seed)):
        train(profile, model, tokenizer, rows, seed, lr, weight_decay)
        found = measured(profile, model, tokenizer, rows, seed)
    test = test_rows(profile)
    found["loss_without_shift"] = held_out_loss(model, tokenizer, test, profile.open.length)
    return found


# --- measures -------------------------------------------------------------------------------------
def noised_loss(profile: Profile, model: nn.Module, tokenizer, rows, seed: int) -> float:
    """The loss with fresh noise of alpha `AT_TEST` left on, one draw."""
    torch.manual_seed(seed)

    def run() -> float:
        return held_out_loss(model, tokenizer, rows, profile.open.length)

    return with_noise(model, uniform(AT_TEST), run, noise_hook=always_on)


def measured(profile: Profile, model: nn.Module, tokenizer, rows, seed: int) -> dict[str, Any]:
    """Loss on the rows trained on and on test rows, and how it rises under noise; what the answers
    to test requests are like.
    """
    test = test_rows(profile)
    asked = test[:ASKED]
    prompts = [row["messages"][:1] for row in asked]
    answers = generate_answers(model, tokenizer, prompts, profile.open.max_new_tokens)
    loss = held_out_loss(model, tokenizer, test, profile.open.length)
    own = held_out_loss(model, tokenizer, rows, profile.open.length)
    noised = test[:NOISED]
    clean = held_out_loss(model, tokenizer, noised, profile.open.length)
    return {
        "loss": loss,
        "own_loss": own,
        "rise": noised_loss(profile, model, tokenizer, noised, seed) - clean,
        "own_rise": noised_loss(profile, model, tokenizer, rows, seed) - own,
        "loss_without_shift": loss,
        **describe(answers, asked, rows),
        "answers": answers[:SHOWN],
    }
