"""The trials of lab 3.1.8: train with one of four losses on the same pairs, and measure answers to
prompts about other people. Each takes the student's functions as keyword parameters, with ftlib's
own as the default.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_8.orpo_loss import orpo_loss
from ftlib.course.lab_3_1_8.runs import (
    TEST,
    VALIDATION,
    base_model,
    held_out_rows,
    imitating,
    own_pairs,
    started,
    train,
)
from ftlib.course.lab_3_1_8.simpo_loss import simpo_loss
from ftlib.course.reports import report_faults
from ftlib.data.feedback import flip_judgements
from ftlib.data.load import load_base_text
from ftlib.evaluation.generate import generate_answers
from ftlib.evaluation.metrics import perplexity
from ftlib.evaluation.preference import score_pairs

TEXTS = 30  # held-out texts of the base's own domain on which forgetting is measured
RANKED_SHARE = 2  # log-probabilities are measured on one in so many test pairs
FROM_START = (
    "start_faults",
    "start_missing",
    "start_unwanted",
    "start_chosen",
    "start_rejected",
    "start_apart",
    "start_forgotten",
)
HALF = 0.5  # of the labels are turned round where they are to say nothing


# --- measures -------------------------------------------------------------------------------------
def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r; 0 where one of the two does not vary."""
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def answered(profile: Profile, model, tokenizer, rows: list[dict]) -> dict[str, Any]:
    """Greedy answers to the rows' prompts: faults by sort, facts right, words."""
    prompts = [row["prompt"] for row in rows]
    answers = generate_answers(model, tokenizer, prompts, profile.preference.answer_tokens)
    counts = [report_faults(answer, row) for answer, row in zip(answers, rows, strict=True)]
    wrong = np.array([count.wrong for count in counts])
    missing = np.array([count.missing for count in counts])
    asked = np.array([len(row["truth"]) for row in rows])
    return {
        "faults": float(np.mean([count.total for count in counts])),
        "wrong": float(wrong.mean()),
        "missing": float(missing.mean()),
        "unwanted": float(np.mean([count.unwanted for count in counts])),
        "right": float(((asked - wrong - missing) / asked).mean()),
        "words": float(np.mean([len(answer.split()) for answer in answers])),
        "answers": answers[:3],
    }


def ranked(model, tokenizer, rows: list[dict]) -> dict[str, Any]:
    """Mean log-probabilities a token of held-out pairs, one number per pair, and how far apart the
    two of a pair are.
    """
    sums, lengths = score_pairs(model, tokenizer, rows)
    means = sums / lengths
    margins = means[:, 0] - means[:, 1]
    return {
        "chosen": float(means[:, 0].mean()),
        "rejected": float(means[:, 1].mean()),
        "accuracy": float((margins > 0).mean()),
        "apart": float(np.abs(margins).mean()),
        "margins": margins.tolist(),
    }


@functools.cache
def _base_perplexity(profile: Profile) -> float:
    model, tokenizer = base_model(profile)
    return perplexity(model, tokenizer, load_base_text(profile, min(TEXTS, profile.base_texts)))


def forgotten(profile: Profile, model, tokenizer) -> float:
    """Rise of the loss on the base's own text over the base's, nats per token."""
    after = perplexity(model, tokenizer, load_base_text(profile, min(TEXTS, profile.base_texts)))
    return float(np.log(after / _base_perplexity(profile)))


@functools.cache
def measured_start(profile: Profile) -> dict[str, Any]:
    """The start after SFT on the test rows, by names that begin with start_."""
    model, tokenizer = imitating(profile)
    rows = held_out_rows(profile, TEST)
    found = {
        **answered(profile, model, tokenizer, rows),
        **ranked(model, tokenizer, rows[: len(rows) // RANKED_SHARE]),
        "forgotten": forgotten(profile, model, tokenizer),
    }
    return {f"start_{name}": value for name, value in found.items()}


def measured(profile: Profile, model, tokenizer) -> dict[str, Any]:
    """Everything that is measured on the test rows, and beside it what claims compare with the
    start after SFT.
    """
    start = measured_start(profile)
    rows = held_out_rows(profile, TEST)
    return {
        **answered(profile, model, tokenizer, rows),
        **ranked(model, tokenizer, rows[: len(rows) // RANKED_SHARE]),
        "forgotten": forgotten(profile, model, tokenizer),
        **{name: start[name] for name in FROM_START},
    }


# --- trials ---------------------------------------------------------------------------------------
def tune_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    start: str,
    beta: float = 0,
    ratio: float = 0,
    lam: float = 0,
) -> dict[str, Any]:
    """Train, and count the faults of answers to the validation prompts."""
    setting = {"beta": beta, "ratio": ratio, "lam": lam}
    model, tokenizer = started(profile, start, seed)
    pairs = own_pairs(profile, start, seed)
    train(profile, model, tokenizer, pairs, seed, method, lr, setting)
    return answered(profile, model, tokenizer, held_out_rows(profile, VALIDATION))


def compare_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    start: str,
    beta: float = 0,
    ratio: float = 0,
    lam: float = 0,
    simpo_loss: Callable = simpo_loss,
    orpo_loss: Callable = orpo_loss,
) -> dict[str, Any]:
    """Train, and measure on the test prompts."""
    setting = {"beta": beta, "ratio": ratio, "lam": lam}
    model, tokenizer = started(profile, start, seed)
    pairs = own_pairs(profile, start, seed)
    train(profile, model, tokenizer, pairs, seed, method, lr, setting, simpo_loss, orpo_loss)
    return measured(profile, model, tokenizer)


def shuffle_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    start: str,
    beta: float,
    ratio: float = 0,
    share: float = HALF,
    simpo_loss: Callable = simpo_loss,
) -> dict[str, Any]:
    """As `compare_trial`, but in a share of the pairs, drawn by the seed, the two answers have
    changed places.
    """
    setting = {"beta": beta, "ratio": ratio}
    model, tokenizer = started(profile, start, seed)
    pairs = flip_judgements(own_pairs(profile, start, seed), share, seed)
    train(profile, model, tokenizer, pairs, seed, method, lr, setting, simpo_loss)
    return measured(profile, model, tokenizer)
