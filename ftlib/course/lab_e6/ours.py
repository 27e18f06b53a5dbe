"""ftlib's side: the two runs on the common ground, and what both sides are measured by."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ftlib.adapters.lora_layer import lora_layers
from ftlib.core.profiles import Profile
from ftlib.course.lab_e6.settings import common_of
from ftlib.course.lab_e6.start import (
    dpo_pairs,
    dpo_start,
    held_out_pairs,
    held_out_rows,
    sft_rows,
    sft_start,
)
from ftlib.course.records.kit import held_out_loss
from ftlib.evaluation.preference import score_pairs
from ftlib.losses.preference import dpo_loss
from ftlib.training.finetune import finetune
from ftlib.training.prefer import prefer
from ftlib.training.run import Run

Adapter = dict[str, Tensor]
TEST_BATCH = 8  # pairs that are scored together


@dataclass(frozen=True)
class Trained:
    """What one side has left: the loss of each optimizer step in nats, its learning rate, and the
    trained matrices by the names that ftlib's model has for them ("…q_proj.lora_A").
    """

    losses: list[float]
    rates: list[float]
    adapter: Adapter
    log: list[dict[str, Any]]


def adapter_of(model: nn.Module) -> Adapter:
    """Copies of A and B of every layer, by name."""
    found = {}
    for name, layer in lora_layers(model).items():
        found[f"{name}.lora_A"] = layer.lora_A.detach().clone()
        found[f"{name}.lora_B"] = layer.lora_B.detach().clone()
    return found


def put_adapter(model: nn.Module, adapter: Adapter) -> nn.Module:
    """Write A and B into a model's layers; those that are not named act as nothing (B = 0)."""
    with torch.no_grad():
        for name, layer in lora_layers(model).items():
            if f"{name}.lora_A" in adapter:
                layer.lora_A.copy_(adapter[f"{name}.lora_A"])
                layer.lora_B.copy_(adapter[f"{name}.lora_B"])
            else:
                layer.lora_B.zero_()
    return model


def of_run(run: Run, model: nn.Module) -> Trained:
    losses = [entry["loss"] for entry in run.history]
    rates = [entry["learning_rate"] for entry in run.history]
    return Trained(losses, rates, adapter_of(model), run.history)


# --- runs -----------------------------------------------------------------------------------------
def common_options(profile: Profile, steps: int, rate: float, seed: int) -> dict[str, Any]:
    """What `finetune` and `prefer` are both told on the common ground."""
    return {
        "steps": steps,
        "learning_rate": rate,
        "schedule": "linear",
        "warmup": common_of(profile).warmup,
        "seed": seed,
        "max_length": profile.max_length,
        "precision": "fp32",
        "log_steps": 1,
        "show": False,
    }


@functools.cache
def sft_ours(profile: Profile, seed: int) -> Trained:
    """`ftlib.finetune` on the common ground; once a process for each seed."""
    common = common_of(profile)
    model, tokenizer = sft_start(profile, seed)
    options = common_options(profile, common.steps, common.rate, seed)
    run = finetune(
        model,
        tokenizer,
        sft_rows(profile, seed),
        batch_size=common.batch,
        accumulate=common.accumulate,
        **options,
    )
    return of_run(run, model)


@functools.cache
def dpo_ours(profile: Profile, seed: int) -> Trained:
    """`ftlib.prefer` with DPO on the common ground; the reference is the start, its adapter
    included ("cached").
    """
    common = common_of(profile)
    model, tokenizer = dpo_start(profile, seed)
    options = common_options(profile, common.dpo_steps, common.dpo_rate, seed)
    run = prefer(
        model,
        tokenizer,
        dpo_pairs(profile, seed),
        loss="dpo",
        beta=common.beta,
        reference="cached",
        batch_size=common.dpo_batch,
        accumulate=common.dpo_accumulate,
        **options,
    )
    return of_run(run, model)


# --- measures -------------------------------------------------------------------------------------
def sft_test_loss(profile: Profile, adapter: Adapter, lora_alpha: float) -> float:
    """Nats an answer token on the held-out rows, by ftlib for whatever has trained the adapter."""
    model, tokenizer = sft_start(profile, 0, lora_alpha=lora_alpha)
    put_adapter(model, adapter)
    return held_out_loss(model, tokenizer, held_out_rows(profile), profile.max_length)


def _pair_logps(model: nn.Module, tokenizer, pairs: Sequence[dict]) -> Tensor:
    """(pairs, 2) summed log-probabilities of chosen and rejected."""
    return torch.from_numpy(score_pairs(model, tokenizer, pairs, TEST_BATCH).logps)


@functools.cache
def _start_logps(profile: Profile, seed: int) -> Tensor:
    model, tokenizer = dpo_start(profile, seed)
    return _pair_logps(model, tokenizer, held_out_pairs(profile))


def dpo_test(profile: Profile, adapter: Adapter, seed: int) -> dict[str, float]:
    """DPO's loss and the share of held-out pairs ranked rightly, against the start as reference,
    whatever reference the run has had.
    """
    model, tokenizer = dpo_start(profile, seed)
    put_adapter(model, adapter)
    policy = _pair_logps(model, tokenizer, held_out_pairs(profile))
    start = _start_logps(profile, seed)
    losses, chosen, rejected = dpo_loss(
        policy[:, 0], policy[:, 1], start[:, 0], start[:, 1], beta=common_of(profile).beta
    )
    right = (chosen > rejected).float().mean()
    return {"test_loss": losses.mean().item(), "right": right.item()}


def untrained_loss(profile: Profile) -> float:
    """Nats an answer token on the held-out rows before SFT: with B = 0 an adapter does nothing."""
    return sft_test_loss(profile, {}, common_of(profile).lora_alpha)
