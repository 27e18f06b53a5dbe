"""What trials share: a fresh model, rows, one way to train, and measures on rows held out.

Models, tokenizers and rows are read once a process. A trial gets copies, so that it finds every
time what the trial before it has found.
"""

from __future__ import annotations

import copy
import functools
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import nn

from ftlib.core.paths import resolve, stand_in
from ftlib.core.profiles import Profile
from ftlib.course.start import after_sft
from ftlib.data.load import load_base_text, load_rows
from ftlib.evaluation.metrics import answer_loss, forgetting, golden_accuracy, perplexity
from ftlib.models.load import load_model
from ftlib.training.finetune import finetune
from ftlib.training.run import Run

LOSS_BATCH = 32  # rows whose answers are scored together
BASE_TEXTS = 100  # held-out texts of the base's own domain on which forgetting is measured


# --- models and rows ------------------------------------------------------------------------------
@functools.cache
def _study_base(profile: Profile):
    return load_model(profile.study.model, dtype=torch.float32)


def study_base(profile: Profile):
    """(model, tokenizer) of the profile's study: the model a new copy in fp32, nothing frozen or
    adapted yet.
    """
    model, tokenizer = _study_base(profile)
    return copy.deepcopy(model), tokenizer


@functools.cache
def _after_sft(profile: Profile, seed: int):
    return after_sft(profile, seed)


def preference_start(profile: Profile, seed: int):
    """(model, tokenizer) where preference training begins (`course.start.after_sft`), a new
    copy.
    """
    model, tokenizer = _after_sft(profile, seed)
    return copy.deepcopy(model), tokenizer


@functools.cache
def rows_of(profile: Profile, split: str) -> tuple[dict, ...]:
    """The profile's rows of a split, read once."""
    return tuple(load_rows(split, profile))


def model_folder(name: str) -> str:
    """The folder of a model, or its id on the Hub: an input whose change makes entries stale."""
    return resolve(stand_in(name, given=False))


# --- training -------------------------------------------------------------------------------------
def train_study(
    profile: Profile, model: nn.Module, tokenizer, rows, seed: int, lr: float, **options: Any
) -> Run:
    """Fine-tune on the profile's study settings, with cosine schedule and loss on the answers; the
    seed orders the rows. `options` as of `finetune`.
    """
    settings: dict[str, Any] = {
        "steps": profile.study.steps,
        "batch_size": profile.study.batch,
        "max_length": profile.max_length,
        "show": False,
    }
    settings |= options
    return finetune(model, tokenizer, list(rows), learning_rate=lr, seed=seed, **settings)


# --- measures -------------------------------------------------------------------------------------
def held_out_loss(model: nn.Module, tokenizer, rows, max_length: int) -> float:
    """Mean loss per answer token over all rows, nats."""
    return answer_loss(model, tokenizer, rows, LOSS_BATCH, max_length)


def right_words(model: nn.Module, tokenizer, rows) -> list[float]:
    """For each row the share of the answer's words that a greedy answer has right, each in its
    place, 0 to 1: it grades what exact match would call wrong.
    """
    rows = list(rows)
    lengths = [len(tokenizer(row["answer"])["input_ids"]) for row in rows]
    answers = golden_accuracy(model, tokenizer, rows, max(lengths) + 2).answers
    shares = []
    for answer, row in zip(answers, rows, strict=True):
        pairs = zip_longest(answer.split(), row["answer"].split())
        right = [given == wanted for given, wanted in pairs]
        shares.append(float(np.mean(right)))
    return shares


def _base_texts(profile: Profile) -> list[str]:
    return load_base_text(profile, min(BASE_TEXTS, profile.base_texts))


@functools.cache
def _base_perplexity(profile: Profile) -> float:
    model, tokenizer = _study_base(profile)
    return perplexity(model, tokenizer, _base_texts(profile))


def forgotten(profile: Profile, model: nn.Module, tokenizer) -> float:
    """Rise of the study base's loss on held-out text of its own domain, nats per token."""
    after = perplexity(model, tokenizer, _base_texts(profile))
    return forgetting(_base_perplexity(profile), after)
