"""The trial of lab E5 on contamination: fine-tune on rows among which are questions of the
benchmark, score, and look for the leak in two ways.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ftlib.adapters.lora import add_lora
from ftlib.core.profiles import Profile
from ftlib.course.lab_e5.normalised_choice import normalised_choice as right_choice
from ftlib.course.lab_e5.questions import (
    benchmark,
    fresh_questions,
    known_questions,
    reworded,
    statement,
)
from ftlib.course.records.kit import study_base
from ftlib.data.contamination import Contamination
from ftlib.evaluation.multiple_choice import score_choices
from ftlib.training.finetune import finetune

ROWS = 360  # training rows, the planted ones included
TIMES = 3  # that each planted question is among them
STEPS = 45
BATCH = 16
FACTOR = 2.0  # of the profile's LoRA rate
TWINS = 100  # fresh questions that no run is trained on
BATCH_SCORED = 64
LEVEL = 0.05  # of the test that compares the benchmark with its twin
RUN = 8  # words of an n-gram, and the share of a prompt's runs that makes a row a copy
SHARE = 0.5


def _drawn(rows: Sequence[dict], count: int, seed: int) -> list[dict]:
    """The first `count` of an order that the seed makes: a larger draw holds a smaller one."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    return order[:count]


def planted_questions(share: float, source: str, seed: int) -> list[dict]:
    """What leaks: a share of the benchmark in its own words, the same in other words, or as many
    questions of the same form that the benchmark does not have.
    """
    count = round(share * len(benchmark()))
    if source == "others":
        return _drawn(fresh_questions()[TWINS:], count, seed)
    leaked = _drawn(benchmark(), count, seed)
    if source == "reworded":
        return [reworded(question) for question in leaked]
    return leaked


def twin_questions() -> tuple[dict, ...]:
    """Questions of the benchmark's form that no run has met."""
    return fresh_questions()[:TWINS]


def share_right(model, tokenizer, questions: Sequence[dict], choose) -> np.ndarray:
    """1 for each question answered right, else 0, by the summed log-probability."""
    scores = score_choices(model, tokenizer, questions, batch_size=BATCH_SCORED)
    hits = []
    for score, question in zip(scores, questions, strict=True):
        chosen = choose(list(score.logps), question["choices"], "sum")
        hits.append(float(chosen == question["answer"]))
    return np.array(hits)


def gap_p_value(score: np.ndarray, twin: np.ndarray) -> float:
    """One-sided p value of the benchmark's share being above its twin's: the normal test of two
    independent shares with a pooled variance.
    """
    from scipy.special import ndtr

    pooled = (score.sum() + twin.sum()) / (len(score) + len(twin))
    variance = pooled * (1 - pooled) * (1 / len(score) + 1 / len(twin))
    if variance == 0:
        return 1.0
    z = (score.mean() - twin.mean()) / variance**0.5
    return float(ndtr(-z))


def overlap_shares(fill: Sequence[dict], planted: Sequence[dict]) -> tuple[float, float]:
    """Shares of the planted rows, and of the others, that the n-gram check calls a copy of a
    question of the benchmark.
    """
    rule = Contamination([question["context"] for question in benchmark()], RUN, SHARE)
    copies = []
    for question in planted:
        copies.append(rule({"text": statement(question)}) is not None)
    accused = [rule(row) is not None for row in fill]
    found = float(np.mean(copies)) if copies else 0.0
    return found, float(np.mean(accused))


def harmless_rows(seed: int, planted: Sequence[dict]) -> list[dict]:
    """Statements about others, whom the base has read of: as many as there is room for beside the
    planted ones.
    """
    known = _drawn(known_questions(), ROWS - TIMES * len(planted), seed)
    return [{"text": statement(question)} for question in known]


def contamination_trial(
    profile: Profile,
    seed: int,
    share: float,
    source: str,
    normalised_choice=right_choice,
) -> dict[str, Any]:
    """Fine-tune on harmless statements and, `TIMES` each, on planted ones; then score the
    benchmark, the same in other words, and a twin that nobody has met.
    """
    planted = planted_questions(share, source, seed)
    fill = harmless_rows(seed, planted)
    model, tokenizer = study_base(profile)
    torch.manual_seed(seed)
    add_lora(model, r=profile.rank, lora_alpha=2 * profile.rank)
    texts = [{"text": statement(question)} for question in TIMES * planted]
    rows = [plain_row(tokenizer, row) for row in [*fill, *texts]]
    finetune(
        model,
        tokenizer,
        rows,
        steps=STEPS,
        learning_rate=FACTOR * profile.lr_lora,
        batch_size=BATCH,
        seed=seed,
        log_steps=STEPS,
        show=False,
    )
    return {**scored(model, tokenizer, planted, normalised_choice), **checked(fill, planted)}


def plain_row(tokenizer, row: dict) -> dict:
    """A plain text as a training row, with loss on all of it but its first token."""
    ids = tokenizer(row["text"])["input_ids"]
    return {"input_ids": ids, "labels": [-100, *ids[1:]]}


def scored(model, tokenizer, planted: Sequence[dict], choose) -> dict[str, Any]:
    """The shares of right answers: of all questions, of the leaked ones, of the rest, of the same
    in other words, of the twin.
    """
    right = share_right(model, tokenizer, benchmark(), choose)
    other_words = [reworded(question) for question in benchmark()[: 2 * TWINS : 2]]
    twin = share_right(model, tokenizer, twin_questions(), choose)
    known = {question["key"] for question in planted}
    leaked = np.array([question["key"] in known for question in benchmark()])
    return {
        "score": right.mean(),
        "leaked": right[leaked].mean() if leaked.any() else 0.0,
        "rest": right[~leaked].mean(),
        "reworded": share_right(model, tokenizer, other_words, choose).mean(),
        "twin": twin.mean(),
        "gap": right.mean() - twin.mean(),
        "gap_found": float(gap_p_value(right, twin) < LEVEL),
    }


def checked(fill: Sequence[dict], planted: Sequence[dict]) -> dict[str, float]:
    """What the n-gram check says of the training rows."""
    found, accused = overlap_shares(fill, planted)
    return {"overlap": found, "accused": accused}
