"""What the trials of lab 3.1.8 train: the pairs and who is held out, the starts, the losses as the
trainer calls them, and one run.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftlib.adapters.lora import add_lora, merge_and_unload
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_8.orpo_loss import orpo_loss
from ftlib.course.lab_3_1_8.simpo_loss import simpo_loss
from ftlib.course.open_answers import sentences
from ftlib.course.records.kit import preference_start, rows_of
from ftlib.data.feedback import pairs_to_rows
from ftlib.models.load import load_model
from ftlib.training.finetune import finetune
from ftlib.training.prefer import prefer
from ftlib.training.run import Run

TRAIN, VALIDATION, TEST = "faults_train", "faults_validation", "faults_test"
START_SEED = 0  # of the SFT from which SimPO and DPO begin
START_SHARE = 3  # that SFT has a third of the profile's imitation steps
START_RATE = 2.0  # times the profile's rate, for so short an SFT
STEP_SHARE = 0.5  # of the profile's preference steps that a run takes
BASE_STEPS = 2  # times as many from the base: that run has its SFT inside

SIDES = ("chosen", "rejected")
IMITATED, SHORT, BASE = "SFT on chosen", "SFT on shortened chosen", "base"  # the starts


# --- rows -----------------------------------------------------------------------------------------
def train_rows(profile: Profile) -> list[dict]:
    """The pairs from which every run draws its own."""
    return list(rows_of(profile, TRAIN))


def held_out_rows(profile: Profile, split: str) -> list[dict]:
    """Pairs about other people: each prompt asks for one person, and no two for the same."""
    return list(rows_of(profile, split)[: profile.eval_examples])


def drawn(rows: Sequence[dict], count: int, seed: int) -> list[dict]:
    """`count` of the rows, chosen by the seed."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows[i] for i in order[:count]]


def shortened(rows: Sequence[dict], seed: int) -> list[dict]:
    """The pairs, one answer of each cut after its first, second or third sentence. Which answer and
    where are drawn by the seed without regard to the facts: half of the chosen answers are the
    shorter ones.
    """
    rng = np.random.default_rng(seed)
    sides = rng.permutation(np.arange(len(rows)) % 2)
    out = []
    for row, side in zip(rows, sides, strict=True):
        name = SIDES[side]
        said = sentences(row[name][-1]["content"])
        kept = " ".join(said[: rng.integers(1, len(said))])
        out.append({**row, name: [{**row[name][-1], "content": kept}]})
    return out


def pairs_a_step(profile: Profile) -> int:
    """Half the profile's batch, since the lab makes many short runs."""
    return max(2, profile.preference.batch // 2)


def steps_of(profile: Profile, start: str) -> int:
    """Optimizer steps of a run from this start."""
    steps = round(STEP_SHARE * profile.preference.steps)
    return BASE_STEPS * steps if start == BASE else steps


def own_pairs(profile: Profile, start: str, seed: int) -> list[dict]:
    """The pairs of one run, drawn by its seed."""
    return drawn(train_rows(profile), steps_of(profile, start) * pairs_a_step(profile), seed)


# --- starts ---------------------------------------------------------------------------------------
@functools.cache
def imitating(profile: Profile, is_short: bool = False):
    """(model, tokenizer): SFT on the chosen answers, as they are or shortened, merged."""
    model, tokenizer = preference_start(profile, START_SEED)
    rows = train_rows(profile)
    if is_short:
        rows = shortened(rows, START_SEED)
    finetune(
        model,
        tokenizer,
        pairs_to_rows(rows),
        steps=profile.preference.imitation_steps // START_SHARE,
        learning_rate=START_RATE * profile.lr_lora,
        batch_size=profile.preference.batch,
        max_length=profile.max_length,
        seed=START_SEED,
        show=False,
    )
    merge_and_unload(model)
    return model, tokenizer


@functools.cache
def base_model(profile: Profile):
    """(model, tokenizer) before any fine-tuning; it stops where the other start does."""
    model, _ = load_model(profile.preference.base, profile=profile)
    _, tokenizer = preference_start(profile, START_SEED)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model, tokenizer


def started(profile: Profile, start: str, seed: int):
    """(model, tokenizer): a copy of the start with a fresh adapter, the same for the same seed."""
    if start == BASE:
        model, tokenizer = base_model(profile)
    else:
        model, tokenizer = imitating(profile, start == SHORT)
    model = copy.deepcopy(model)
    torch.manual_seed(seed)
    return add_lora(model, r=profile.rank, lora_alpha=2 * profile.rank), tokenizer


# --- losses ---------------------------------------------------------------------------------------
def only_chosen(chosen: Tensor, rejected: Tensor, **options: Any):
    """SFT: the rejected answers are not looked at."""
    return -chosen, chosen.detach(), rejected.detach()


def as_simpo(simpo_loss: Callable, beta: float, ratio: float) -> Callable:
    """SimPO's loss as `prefer` calls it. In DPO's place it gets sums and a reference, which it
    does not look at.
    """

    def loss(chosen: Tensor, rejected: Tensor, *reference: Tensor, **options: Any):
        losses = simpo_loss(chosen, rejected, beta, beta * ratio)
        return losses, chosen.detach(), rejected.detach()

    return loss


def as_orpo(orpo_loss: Callable, lam: float) -> Callable:
    """ORPO's loss as `prefer` calls it."""

    def loss(chosen: Tensor, rejected: Tensor, nll: Tensor, **options: Any):
        return orpo_loss(chosen, rejected, lam), chosen.detach(), rejected.detach()

    return loss


def train(
    profile: Profile,
    model,
    tokenizer,
    pairs: list[dict],
    seed: int,
    method: str,
    lr: float,
    setting: dict[str, float],
    simpo_loss: Callable = simpo_loss,
    orpo_loss: Callable = orpo_loss,
) -> Run:
    """One of the methods, each pair once. `setting`: beta, ratio (γ/β) or lam, as the method needs;
    "SimPO, sums" is SimPO with sums of log-probabilities for means.
    """
    options: dict[str, Any] = {"loss": "simpo"}
    if method == "SFT":
        options["loss_function"] = only_chosen
    elif method == "DPO":
        options = {"loss": "dpo", "beta": setting["beta"]}
    elif method == "ORPO":
        options = {"loss": "orpo", "loss_function": as_orpo(orpo_loss, setting["lam"])}
    else:
        options["loss_function"] = as_simpo(simpo_loss, setting["beta"], setting["ratio"])
        if method == "SimPO, sums":
            options["loss"] = "dpo"
    return prefer(
        model,
        tokenizer,
        pairs,
        steps=len(pairs) // pairs_a_step(profile),
        learning_rate=lr,
        batch_size=pairs_a_step(profile),
        seed=seed,
        max_length=profile.max_length,
        show=False,
        **options,
    )
