"""The experiments of lab 3.1.1: how LoRA's rate, alpha and rank are chosen, and LoRA against full
fine-tuning at each one's best.
"""

from __future__ import annotations

from typing import Any

import torch

from ftlib.adapters.lora import add_lora
from ftlib.core.profiles import Profile
from ftlib.course.records.experiment import Experiment, Metric
from ftlib.course.records.kit import (
    forgotten,
    held_out_loss,
    model_folder,
    rows_of,
    study_base,
    train_study,
)

HELD_BACK = 40  # training rows that only the choice of a rate sees
FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)  # of the profile's rate


# --- one trial ------------------------------------------------------------------------------------
def _adapted(profile: Profile, method: str, r: int, alpha: float, seed: int):
    """(model, tokenizer) ready to train."""
    model, tokenizer = study_base(profile)
    if method == "full":
        return model.requires_grad_(True), tokenizer
    torch.manual_seed(seed)
    return add_lora(model, r=r, lora_alpha=alpha), tokenizer


def tune_trial(
    profile: Profile, seed: int, method: str, lr: float, r: int = 0, alpha: float = 0
) -> dict[str, Any]:
    """Train without the rows held back, and measure on them."""
    rows = rows_of(profile, profile.study.train)
    model, tokenizer = _adapted(profile, method, r, alpha, seed)
    run = train_study(profile, model, tokenizer, rows[:-HELD_BACK], seed, lr)
    loss = held_out_loss(model, tokenizer, rows[-HELD_BACK:], profile.max_length)
    return {
        "validation_loss": loss,
        "training_loss": run.final_loss,
        "forgotten": forgotten(profile, model, tokenizer),
    }


def _tune_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    arms: dict[str, dict[str, Any]] = {}
    for factor in FACTORS:
        lr = profile.study.lr_full * factor
        arms[f"full {lr:.2g}"] = {"method": "full", "lr": lr}
    for factor in FACTORS:
        lr = profile.study.lr_lora * factor
        settings = {"method": "LoRA", "lr": lr, "r": profile.rank, "alpha": 2 * profile.rank}
        arms[f"LoRA {lr:.2g}"] = settings
    return arms


def _inputs(profile: Profile) -> dict[str, Any]:
    return {
        "train": rows_of(profile, profile.study.train),
        "test": rows_of(profile, profile.study.test),
        "base": model_folder(profile.study.model),
    }


EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Validation loss over the learning rate, LoRA and full fine-tuning",
        trial=tune_trial,
        arms=_tune_arms,
        metrics=(
            Metric("validation_loss", "loss on rows held back", "nats a token", True),
            Metric("training_loss", "training loss", "nats a token", True),
            Metric("forgotten", "forgotten", "nats a token", True),
        ),
        inputs=_inputs,
        seeds=3,
        live=(),
    ),
)
