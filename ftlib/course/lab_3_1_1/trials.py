"""The trials of lab 3.1.1: train one model, measure it. Each takes the student's functions as
keyword parameters, with ftlib's own as the default.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.batches.collate import SFTCollator
from ftlib.batches.encode import encode_rows
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_1.layer import (
    TARGETS,
    adapt,
    lora_forward,
    lora_init,
    lora_scaling,
)
from ftlib.course.lab_3_1_1.updates import (
    effective_rank,
    inputs_of,
    linear_weights,
    mean_intruders,
    mean_rank,
    random_updates,
    total_norm,
    updates,
    watching,
    with_updates,
)
from ftlib.course.records.kit import (
    held_out_loss,
    right_words,
    rows_of,
    study_base,
    train_study,
)
from ftlib.data.load import load_base_text
from ftlib.evaluation.metrics import forgetting, perplexity

TEXTS = 40  # held-out texts of the base's own domain on which forgetting is measured
HELD_BACK = 40  # training rows that only the choice of settings sees
START_SHARE = 5  # a run from one of the starts has a fifth of the steps
WATCHED = 1  # the block whose updates are looked at
SHOWN = 64  # singular values that are kept
LOOKS = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # shares of the steps at which they are looked at
CUTS = (1, 4, 16, 64)  # ranks to which a trained update is cut


# --- rows and models ------------------------------------------------------------------------------
def train_rows(profile: Profile) -> list[dict]:
    """The rows that every run trains on."""
    return list(rows_of(profile, profile.study.train)[:-HELD_BACK])


def validation_rows(profile: Profile) -> list[dict]:
    """The rows on which settings are chosen."""
    return list(rows_of(profile, profile.study.train)[-HELD_BACK:])


def test_rows(profile: Profile) -> list[dict]:
    """The rows on which methods are compared."""
    return list(rows_of(profile, profile.study.test)[: profile.eval_examples])


def with_answer(row: dict, answer: str) -> dict:
    """The row with another answer to its question."""
    said = {**row["messages"][-1], "content": answer}
    return {**row, "messages": [*row["messages"][:-1], said], "answer": answer}


def shuffled(rows: Sequence[dict], seed: int) -> list[dict]:
    """The same questions and the same answers, each question with the answer of another one."""
    order = np.random.default_rng(seed).permutation(len(rows))
    answers = {}
    for place, other in zip(order, np.roll(order, 1), strict=True):
        answers[place] = rows[other]["messages"][-1]["content"]
    return [with_answer(row, answers[i]) for i, row in enumerate(rows)]


def prepared(
    profile: Profile,
    seed: int,
    method: str,
    r: int = 0,
    alpha: float = 0,
    targets: str = "all linear",
    **options: Any,
):
    """(model, tokenizer) ready to train: "full" trains every weight, "LoRA" an adapter."""
    model, tokenizer = study_base(profile)
    if method == "full":
        return model.requires_grad_(True), tokenizer
    return adapt(model, r, alpha, TARGETS[targets], seed=seed, **options), tokenizer


def as_batch(profile: Profile, tokenizer, rows: Sequence[dict]) -> dict[str, Tensor]:
    """The rows as one padded batch."""
    encoded = encode_rows(tokenizer, list(rows), profile.max_length)
    return SFTCollator(tokenizer.pad_token_id)(encoded)


@functools.cache
def _base_perplexity(profile: Profile) -> float:
    model, tokenizer = study_base(profile)
    return perplexity(model, tokenizer, load_base_text(profile, min(TEXTS, profile.base_texts)))


def forgotten(profile: Profile, model: nn.Module, tokenizer) -> float:
    """Rise of the loss on held-out text of the base's own domain, nats a token."""
    after = perplexity(model, tokenizer, load_base_text(profile, min(TEXTS, profile.base_texts)))
    return forgetting(_base_perplexity(profile), after)


# --- sweeps ---------------------------------------------------------------------------------------
def tune_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    r: int = 0,
    alpha: float = 0,
    targets: str = "all linear",
    start: str = "A random, B zero",
    use_rslora: bool = False,
    length: float = 1.0,
    lora_forward: Callable = lora_forward,
    lora_scaling: Callable = lora_scaling,
    lora_init: Callable = lora_init,
) -> dict[str, Any]:
    """Train, and measure on the validation rows. `length`: of the profile's steps."""
    model, tokenizer = prepared(
        profile,
        seed,
        method,
        r,
        alpha,
        targets,
        start=start,
        use_rslora=use_rslora,
        lora_forward=lora_forward,
        lora_scaling=lora_scaling,
        lora_init=lora_init,
    )
    steps = round(length * profile.study.steps)
    run = train_study(profile, model, tokenizer, train_rows(profile), seed, lr, steps=steps)
    base, _ = study_base(profile)
    return {
        "validation_loss": held_out_loss(
            model, tokenizer, validation_rows(profile), profile.max_length
        ),
        "training_loss": run.final_loss,
        "forgotten": forgotten(profile, model, tokenizer),
        "norm": total_norm(updates(model, base)),
    }


def capacity_trial(profile: Profile, seed: int, rows: int, r: int, alpha: float, lr: float) -> dict:
    """Train on a few of the rows, and measure on those and on the validation rows."""
    every = train_rows(profile)
    chosen = np.random.default_rng(seed).permutation(len(every))[:rows]
    own = [every[i] for i in chosen]
    model, tokenizer = prepared(profile, seed, "LoRA", r, alpha)
    train_study(profile, model, tokenizer, own, seed, lr)
    held_out = validation_rows(profile)
    return {
        "own_loss": held_out_loss(model, tokenizer, own, profile.max_length),
        "validation_loss": held_out_loss(model, tokenizer, held_out, profile.max_length),
    }


# --- starts ---------------------------------------------------------------------------------------
def start_trial(
    profile: Profile,
    seed: int,
    start: str,
    r: int,
    alpha: float,
    lr: float,
    lora_forward: Callable = lora_forward,
    lora_scaling: Callable = lora_scaling,
    lora_init: Callable = lora_init,
) -> dict[str, Any]:
    """A short run from one of the starts, with the base's own text measured before and after."""
    model, tokenizer = prepared(
        profile,
        seed,
        "LoRA",
        r,
        alpha,
        start=start,
        lora_forward=lora_forward,
        lora_scaling=lora_scaling,
        lora_init=lora_init,
    )
    damage = forgotten(profile, model, tokenizer)
    steps = profile.study.steps // START_SHARE
    run = train_study(
        profile, model, tokenizer, train_rows(profile), seed, lr, steps=steps, log_steps=1
    )
    held_out = validation_rows(profile)
    return {
        "damage": damage,
        "curve": [entry["loss"] for entry in run.history],
        "validation_loss": held_out_loss(model, tokenizer, held_out, profile.max_length),
    }


# --- comparisons ----------------------------------------------------------------------------------
def compare_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    r: int = 0,
    alpha: float = 0,
    start: str = "A random, B zero",
    is_shuffled: bool = False,
    length: float = 1.0,
    lora_forward: Callable = lora_forward,
    lora_scaling: Callable = lora_scaling,
    lora_init: Callable = lora_init,
    effective_rank: Callable = effective_rank,
) -> dict[str, Any]:
    """Train, and measure on the test rows: what was learnt and forgotten, what ΔW is like, and what
    a random one of the same output does.
    """
    model, tokenizer = prepared(
        profile,
        seed,
        method,
        r,
        alpha,
        start=start,
        lora_forward=lora_forward,
        lora_scaling=lora_scaling,
        lora_init=lora_init,
    )
    base, _ = study_base(profile)
    rows = train_rows(profile)
    if is_shuffled:
        rows = shuffled(rows, seed)
    steps = round(length * profile.study.steps)
    places = sorted({max(1, round(share * steps)) for share in LOOKS})

    def look() -> tuple[float, float]:
        moved = of_block(updates(model, base))
        return total_norm(moved), mean_rank(moved, effective_rank)

    with watching(places, look) as seen:
        run = train_study(profile, model, tokenizer, rows, seed, lr, steps=steps)
    cuts = cut_losses(profile, model, tokenizer) if method == "full" else []
    return {
        **learnt(profile, model, tokenizer),
        "training_loss": run.final_loss,
        **anatomy(model, base, effective_rank),
        **random_control(profile, model, base, tokenizer, r, seed),
        "cut_losses": cuts,
        "steps": places,
        "norm_by_step": [norm for norm, _ in seen],
        "rank_by_step": [rank for _, rank in seen],
    }


def length_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    length: float,
    r: int = 0,
    alpha: float = 0,
) -> dict[str, Any]:
    """Train for longer, and measure on the test rows."""
    model, tokenizer = prepared(profile, seed, method, r, alpha)
    steps = round(length * profile.study.steps)
    train_study(profile, model, tokenizer, train_rows(profile), seed, lr, steps=steps)
    base, _ = study_base(profile)
    return {**learnt(profile, model, tokenizer), "norm": total_norm(updates(model, base))}


def scaling_trial(
    profile: Profile,
    seed: int,
    r: int,
    alpha: float,
    lr: float,
    use_rslora: bool,
    lora_scaling: Callable = lora_scaling,
) -> dict[str, Any]:
    """Train LoRA or rsLoRA, and measure on the test rows."""
    model, tokenizer = prepared(
        profile, seed, "LoRA", r, alpha, use_rslora=use_rslora, lora_scaling=lora_scaling
    )
    train_study(profile, model, tokenizer, train_rows(profile), seed, lr)
    return {
        "loss": held_out_loss(model, tokenizer, test_rows(profile), profile.max_length),
        "forgotten": forgotten(profile, model, tokenizer),
    }


# --- measures -------------------------------------------------------------------------------------
def learnt(profile: Profile, model: nn.Module, tokenizer) -> dict[str, float]:
    """Held-out loss and right words on the test rows, and what was forgotten."""
    rows = test_rows(profile)
    return {
        "loss": held_out_loss(model, tokenizer, rows, profile.max_length),
        "words": float(np.mean(right_words(model, tokenizer, rows))),
        "forgotten": forgotten(profile, model, tokenizer),
    }


def of_block(matrices: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the block that is looked at."""
    block = f"layers.{WATCHED}."
    return {name: matrix for name, matrix in matrices.items() if block in name}


def anatomy(model: nn.Module, base: nn.Module, rank_of: Callable) -> dict[str, Any]:
    """Size of ΔW; of one block its rank and intruder dimensions; of one matrix the first singular
    values.
    """
    moved = updates(model, base)
    watched = of_block(moved)
    first = next(iter(watched.values()))
    return {
        "norm": total_norm(moved),
        "rank": mean_rank(watched, rank_of),
        "intruders": mean_intruders(of_block(linear_weights(model)), linear_weights(base)),
        "spectrum": torch.linalg.svdvals(first)[:SHOWN].tolist(),
    }


def cut_losses(profile: Profile, model: nn.Module, tokenizer) -> list[float]:
    """Test loss of a fully fine-tuned model when every linear layer's ΔW is cut to each rank of
    `CUTS`, the best approximation of that rank (Eckart and Young 1936); what else was trained
    stays.
    """
    base, _ = study_base(profile)
    before = linear_weights(base)
    after = linear_weights(model)
    svds = {
        name: torch.linalg.svd(after[name] - before[name], full_matrices=False) for name in after
    }
    other = copy.deepcopy(model)
    losses = []
    for k in CUTS:
        for name, (U, S, Vh) in svds.items():
            weight = before[name] + (U[:, :k] * S[:k]) @ Vh[:k]
            other.get_submodule(name).weight.data.copy_(weight)
        losses.append(held_out_loss(other, tokenizer, test_rows(profile), profile.max_length))
    return losses


def random_control(
    profile: Profile, model: nn.Module, base: nn.Module, tokenizer, r: int, seed: int
) -> dict[str, float]:
    """Loss and forgetting of the base with random ΔW in the place of the trained ones, of the same
    rank, each moving its layer's output as far on the task's texts.
    """
    moved = updates(model, base)
    batch = as_batch(profile, tokenizer, train_rows(profile)[: profile.study.control_rows])
    seen = inputs_of(base, batch, list(moved))
    other, _ = study_base(profile)
    with_updates(other, random_updates(moved, seen, r or None, seed))
    rows = test_rows(profile)
    return {
        "random_loss": held_out_loss(other, tokenizer, rows, profile.max_length),
        "random_forgotten": forgotten(profile, other, tokenizer),
    }
