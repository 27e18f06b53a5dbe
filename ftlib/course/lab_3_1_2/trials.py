"""The trials of lab 3.1.2: train one model, measure it. Each takes the student's functions as
keyword parameters, with ftlib's own as the default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from ftlib.adapters.targets import target_names
from ftlib.batches.collate import SFTCollator
from ftlib.batches.encode import encode_rows
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_2.decompose import decompose
from ftlib.course.lab_3_1_2.dora_forward import dora_forward
from ftlib.course.lab_3_1_2.layer import DenseDoRA, MyDoRA, MyLoRA, adapt, adapters
from ftlib.course.lab_3_1_2.moves import (
    changes,
    correlation,
    lengths_reset,
    lengths_scrambled,
    linear_weights,
    relative_lengths,
    rows_before_division,
    turn,
    turned,
    with_weights,
)
from ftlib.course.lab_3_1_2.weight_change import weight_change
from ftlib.course.records.kit import (
    held_out_loss,
    right_words,
    rows_of,
    study_base,
    train_study,
)

HELD_BACK = 40  # training rows that only the choice of rates sees
LENGTH = 0.6  # of the profile's steps: there are many runs
LOOKS = (0.25, 0.5, 0.75, 1.0)  # shares of the steps at which the paper's figure 2 looks
QUERY = "q_proj"  # the matrix of the paper's figure 2


# --- rows and models ------------------------------------------------------------------------------
def train_rows(profile: Profile) -> list[dict]:
    """The rows that every run trains on."""
    return list(rows_of(profile, profile.study.train)[:-HELD_BACK])


def validation_rows(profile: Profile) -> list[dict]:
    """The rows on which rates are chosen."""
    return list(rows_of(profile, profile.study.train)[-HELD_BACK:])


def test_rows(profile: Profile) -> list[dict]:
    """The rows on which methods are compared."""
    return list(rows_of(profile, profile.study.test)[: profile.eval_examples])


def as_batch(profile: Profile, tokenizer, rows: Sequence[dict]) -> dict[str, Tensor]:
    """The rows as one padded batch."""
    encoded = encode_rows(tokenizer, list(rows), profile.max_length)
    return SFTCollator(tokenizer.pad_token_id)(encoded)


def steps_of(profile: Profile) -> int:
    return round(LENGTH * profile.study.steps)


def prepared(
    profile: Profile,
    seed: int,
    method: str,
    r: int,
    alpha: float,
    speed: float = 1.0,
    decompose: Callable = decompose,
    dora_forward: Callable = dora_forward,
):
    """(model, tokenizer) ready to train: "full", "LoRA", "DoRA", "direction only" (m frozen),
    "m only" (A and B frozen), "norm with gradient". `speed`: of m.
    """
    model, tokenizer = study_base(profile)
    if method == "full":
        return model.requires_grad_(True), tokenizer
    if method == "LoRA":
        return adapt(model, MyLoRA, r, alpha, seed), tokenizer
    kind = DenseDoRA if method == "norm with gradient" else MyDoRA
    own = {
        "speed": 0.0 if method == "direction only" else speed,
        "decompose": decompose,
        "forward": dora_forward,
    }
    adapt(model, kind, r, alpha, seed, **own)
    for layer in adapters(model).values():
        if method == "m only":
            layer.lora_A.requires_grad_(False)
            layer.lora_B.requires_grad_(False)
        if method == "direction only":
            layer.learnt_m.requires_grad_(False)
    return model, tokenizer


class Course:
    """Calls `look(model)` after the given numbers of steps; `seen` has what it returned. A forward
    pass in training is a step's beginning.
    """

    def __init__(self, model: nn.Module, places: list[int], look: Callable[[nn.Module], Any]):
        self.places = set(places)
        self.look = look
        self.seen: list[Any] = []
        self.steps = 0
        self.hook = model.register_forward_pre_hook(self._before)

    def _before(self, model: nn.Module, _) -> None:
        if model.training:
            if self.steps in self.places:
                self.seen.append(self.look(model))
            self.steps += 1

    def end(self, model: nn.Module) -> list[Any]:
        """Looks a last time and lets the model go; all that was seen."""
        self.hook.remove()
        self.seen.append(self.look(model))
        return self.seen


# --- sweeps ---------------------------------------------------------------------------------------
def tune_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    r: int,
    alpha: float,
    speed: float = 1.0,
) -> dict[str, Any]:
    """Train, and measure on the validation rows."""
    model, tokenizer = prepared(profile, seed, method, r, alpha, speed)
    run = train_study(
        profile, model, tokenizer, train_rows(profile), seed, lr, steps=steps_of(profile)
    )
    rows = validation_rows(profile)
    return {
        "validation_loss": held_out_loss(model, tokenizer, rows, profile.max_length),
        "training_loss": run.final_loss,
    }


# --- comparisons ----------------------------------------------------------------------------------
def compare_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    r: int,
    alpha: float,
    decompose: Callable = decompose,
    dora_forward: Callable = dora_forward,
    weight_change: Callable = weight_change,
) -> dict[str, Any]:
    """Train, and measure on the test rows: what was learnt, with which lengths, and how far every
    weight has moved in length and in direction.
    """
    model, tokenizer = prepared(
        profile, seed, method, r, alpha, decompose=decompose, dora_forward=dora_forward
    )
    base, _ = study_base(profile)
    names = target_names(base, "all-linear")
    queries = [name for name in names if name.endswith(QUERY)]
    before = linear_weights(base, names)

    def look(model: nn.Module) -> dict[str, Tensor]:
        return linear_weights(model, queries)

    steps = steps_of(profile)
    course = Course(model, [round(share * steps) for share in LOOKS[:-1]], look)
    train_study(profile, model, tokenizer, train_rows(profile), seed, lr, steps=steps)
    seen = course.end(model)
    after = linear_weights(model, names)
    long_rows = relative_lengths(before, rows_before_division(model, names))
    other = turned(before, after, seed)
    path = [changes(before, weights, weight_change) for weights in seen]
    path_turned = [changes(before, turned(before, weights, seed)) for weights in seen]
    moved = changes(before, after, weight_change)
    moved_turned = changes(before, other)
    rows = test_rows(profile)
    found = {
        "loss": held_out_loss(model, tokenizer, rows, profile.max_length),
        "words": float(np.mean(right_words(model, tokenizer, rows))),
        "longer": relative_lengths(before, after),
        "rows_longer": long_rows,
        "turn": turn(before, after),
        "path": path,
        "moved": moved,
        "r_query": correlation(path),
        "r_query_turned": correlation(path_turned),
        "r_last": correlation(moved),
        "r_last_turned": correlation(moved_turned),
    }
    for name, weights in (
        ("reset_loss", lengths_reset(before, after)),
        ("scrambled_loss", lengths_scrambled(before, after, seed)),
    ):
        with_weights(model, weights)
        found[name] = held_out_loss(model, tokenizer, rows, profile.max_length)
    return found


# --- DoRA taken apart, and ranks ------------------------------------------------------------------
def parts_trial(
    profile: Profile,
    seed: int,
    lr: float,
    r: int,
    alpha: float,
    method: str = "DoRA",
    first: float = 0.0,
    last: float = 1.0,
    speed: float = 1.0,
) -> dict[str, Any]:
    """Train DoRA, m only from the share `first` of the steps to the share `last`, and measure on
    the test rows.
    """
    model, tokenizer = prepared(profile, seed, method, r, alpha, speed)
    steps = steps_of(profile)
    switch = MSwitch(model, round(first * steps), round(last * steps))
    train_study(profile, model, tokenizer, train_rows(profile), seed, lr, steps=steps)
    switch.hook.remove()
    base, _ = study_base(profile)
    names = target_names(base, "all-linear")
    before = linear_weights(base, names)
    after = linear_weights(model, names)
    rows = test_rows(profile)
    loss = held_out_loss(model, tokenizer, rows, profile.max_length)
    with_weights(model, lengths_reset(before, after))
    return {
        "loss": loss,
        "reset_loss": held_out_loss(model, tokenizer, rows, profile.max_length),
        "longer": float(np.mean(relative_lengths(before, after))),
        "turn": turn(before, after),
    }


class MSwitch:
    """Lets m train in the steps from `first` to before `last`; else it stays as it is."""

    def __init__(self, model: nn.Module, first: int, last: int):
        self.on = range(first, last)
        self.steps = 0
        self.hook = model.register_forward_pre_hook(self._before)

    def _before(self, model: nn.Module, _) -> None:
        if model.training:
            for layer in adapters(model).values():
                layer.trains_m = layer.speed != 0 and self.steps in self.on
            self.steps += 1


def rank_trial(
    profile: Profile, seed: int, method: str, lr: float, r: int, alpha: float
) -> dict[str, Any]:
    """Train, and measure on the test rows."""
    model, tokenizer = prepared(profile, seed, method, r, alpha)
    train_study(profile, model, tokenizer, train_rows(profile), seed, lr, steps=steps_of(profile))
    return {"loss": held_out_loss(model, tokenizer, test_rows(profile), profile.max_length)}
