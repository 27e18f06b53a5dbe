"""The trials of lab 3.1.5: an adapter trained over a rounded base, and where it can be merged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ftlib.adapters.lora import add_lora
from ftlib.adapters.lora_layer import lora_layers
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_5.bases import (
    BLOCK,
    Levels,
    Quantize,
    linear_layers,
    round_base,
    rounded_weight,
)
from ftlib.course.lab_3_1_5.normal_levels import normal_levels
from ftlib.course.lab_3_1_5.quantize_blocks import quantize_blocks
from ftlib.course.records.kit import (
    held_out_loss,
    rows_of,
    study_base,
    train_study,
)
from ftlib.training.run import Run

VALIDATED = 100  # rows by which a rate is chosen
WORST = 99.0  # nats that are reported of a run that diverged

Weights = dict[str, Tensor]  # of every linear layer by its path, (out, in)


@dataclass(frozen=True)
class Task:
    """The profile's own data, which asks for what the base knows, and a short run on it.

    `golden`: the golden set; `test`: that and the validation rows by which no rate was chosen.
    """

    train: list[dict]
    validation: list[dict]
    golden: list[dict]
    test: list[dict]
    steps: int
    batch: int


def task_of(profile: Profile) -> Task:
    """Rows and settings of every run; a run has twice as many rows to draw from as it presents."""
    steps = profile.comparison.steps
    batch = profile.comparison.batch
    most = profile.comparison.rows
    train = list(rows_of(profile, "train"))
    every = max(1, len(train) // (2 * steps * batch))
    validation = list(rows_of(profile, "validation"))
    golden = list(rows_of(profile, "golden")[:most])
    test = (golden + validation[VALIDATED:])[:most]
    return Task(train[::every], validation[:VALIDATED][:most], golden, test, steps, batch)


# --- training over a base -------------------------------------------------------------------------
def _finite(loss: float) -> float:
    return min(loss, WORST) if math.isfinite(loss) else WORST


def _loss(profile: Profile, model: nn.Module, tokenizer, rows: list[dict]) -> float:
    return _finite(held_out_loss(model, tokenizer, rows, profile.max_length))


def _train(profile: Profile, model: nn.Module, tokenizer, task: Task, seed: int, lr: float) -> Run:
    """The usual adapter on all linear layers, alpha = 2r, trained on the task."""
    torch.manual_seed(seed)
    add_lora(model, r=profile.rank, lora_alpha=2 * profile.rank)
    size = {"steps": task.steps, "batch_size": task.batch}
    return train_study(profile, model, tokenizer, task.train, seed, lr, **size)


def tune_trial(profile: Profile, seed: int, kind: str, lr: float) -> dict[str, Any]:
    """Train over a base of this kind, and measure on validation rows."""
    task = task_of(profile)
    model, tokenizer = study_base(profile)
    round_base(model, kind, seed)
    run = _train(profile, model, tokenizer, task, seed, lr)
    return {
        "validation_loss": _loss(profile, model, tokenizer, task.validation),
        "training_loss": _finite(cast(float, run.final_loss)),
    }


def base_trial(
    profile: Profile,
    seed: int,
    kind: str,
    lr: float,
    block: int = BLOCK,
    normal_levels: Levels = normal_levels,
    quantize_blocks: Quantize = quantize_blocks,
) -> dict[str, Any]:
    """Round the base with the student's functions, train an adapter over it, and test.

    `block`: weights that share a scale, of types with levels. `weight_error`: ‖Ŵ − W‖/‖W‖ of all
    linear layers.
    """
    task = task_of(profile)
    model, tokenizer = study_base(profile)
    functions = {"normal_levels": normal_levels, "quantize_blocks": quantize_blocks}
    error = round_base(model, kind, seed, block=block, **functions)
    run = _train(profile, model, tokenizer, task, seed, lr)
    return {
        "loss": _loss(profile, model, tokenizer, task.test),
        "weight_error": error,
        "training_loss": _finite(cast(float, run.final_loss)),
    }


# --- merging --------------------------------------------------------------------------------------
def dense_weights(model: nn.Module) -> Weights:
    """A copy of every linear layer's weight."""
    return {path: layer.weight.detach().clone() for path, layer in linear_layers(model).items()}


def adapter_updates(model: nn.Module) -> Weights:
    """ΔW = (alpha/r)·BA of every adapted layer."""
    updates = {}
    for path, layer in lora_layers(model).items():
        updates[path] = layer.scaling * (layer.lora_B @ layer.lora_A).detach()
    return updates


def plus(weights: Weights, updates: Weights, factor: float = 1.0) -> Weights:
    return {path: weight + factor * updates[path] for path, weight in weights.items()}


def rounded_again(weights: Weights, functions: dict[str, Any]) -> Weights:
    """Every weight in NF4 and back."""
    return {path: rounded_weight(weight, "NF4", **functions) for path, weight in weights.items()}


def share_left(before: Weights, after: Weights, updates: Weights) -> float:
    """How much of the update is left in its own direction: ⟨after − before, ΔW⟩ / ‖ΔW‖², over all
    layers.
    """
    along = 0.0
    size = 0.0
    for path, update in updates.items():
        along += ((after[path] - before[path]) * update).sum().item()
        size += update.square().sum().item()
    return along / size


def relative_change(before: Weights, after: Weights, updates: Weights) -> float:
    """‖after − before‖ / ‖ΔW‖, over all layers."""
    moved = sum((after[path] - before[path]).square().sum().item() for path in updates)
    size = sum(update.square().sum().item() for update in updates.values())
    return (moved / size) ** 0.5


def merge_trial(
    profile: Profile,
    seed: int,
    lr: float,
    normal_levels: Levels = normal_levels,
    quantize_blocks: Quantize = quantize_blocks,
) -> dict[str, Any]:
    """Train over an NF4 base, then put the update into one set of weights after another.

    Losses on the golden set: `beside` the base as in training; `again`: merged into the
    dequantised base and in NF4 again; `original`: merged into the base before it was rounded;
    `once`: that in NF4; `shrunken`: into the dequantised base, but only so much of the update as
    `again` has left of it in its own direction, without any rounding.
    """
    functions = {"normal_levels": normal_levels, "quantize_blocks": quantize_blocks}
    task = task_of(profile)
    model, tokenizer = study_base(profile)
    whole = dense_weights(model)
    round_base(model, "NF4", seed, **functions)
    grid = dense_weights(model)
    untrained = _loss(profile, model, tokenizer, task.golden)
    _train(profile, model, tokenizer, task, seed, lr)
    updates = adapter_updates(model)
    beside = _loss(profile, model, tokenizer, task.golden)
    again = rounded_again(plus(grid, updates), functions)
    once = rounded_again(plus(whole, updates), functions)
    left = share_left(grid, again, updates)
    left_once = share_left(rounded_again(whole, functions), once, updates)
    losses = {"beside": beside, "untrained": untrained}
    places = {
        "again": again,
        "original": plus(whole, updates),
        "once": once,
        "shrunken": plus(grid, updates, left),
    }
    for place, weights in places.items():
        losses[place] = _loss_with(profile, weights, task.golden)
    return {
        **losses,
        "left": left,
        "left_once": left_once,
        "update_over_step": _update_over_step(updates, whole, grid),
        "moved": relative_change(plus(grid, updates), again, updates),
        "gain_kept": (untrained - losses["again"]) / (untrained - beside),
    }


def _update_over_step(updates: Weights, whole: Weights, grid: Weights) -> float:
    """‖ΔW‖ / ‖Ŵ − W‖: the update against the rounding error, which goes with the step."""
    return relative_change(whole, plus(whole, updates), _differences(whole, grid))


def _differences(whole: Weights, grid: Weights) -> Weights:
    return {path: grid[path] - whole[path] for path in whole}


def _loss_with(profile: Profile, weights: Weights, rows: list[dict]) -> float:
    """Loss of the study's model with these weights in its linear layers."""
    model, tokenizer = study_base(profile)
    for path, layer in linear_layers(model).items():
        layer.weight.data.copy_(weights[path])
    return _loss(profile, model, tokenizer, rows)
