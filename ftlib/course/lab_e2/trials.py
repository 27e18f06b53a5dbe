"""The trials of lab E2: train by one method at one strength, and measure what was learnt and what
was forgotten. They take the student's functions as keyword parameters, with ftlib's own as the
default.
"""

from __future__ import annotations

import functools
import inspect
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.adapters.interpolate import trained_parameters, trained_weights
from ftlib.adapters.lora import add_lora
from ftlib.batches.collate import SFTCollator
from ftlib.batches.encode import encode_rows, text_rows
from ftlib.batches.template import IGNORE
from ftlib.core.modes import evaluation_mode
from ftlib.core.profiles import Profile
from ftlib.course.lab_e2.ewc_penalty import ewc_penalty
from ftlib.course.lab_e2.fisher_diagonal import fisher_diagonal
from ftlib.course.lab_e2.interpolate_states import interpolate_states
from ftlib.course.lab_e2.replay_count import replay_count
from ftlib.course.records.kit import held_out_loss, rows_of, study_base, train_study
from ftlib.data.load import load_base_text
from ftlib.evaluation.knowledge import knowledge_hits
from ftlib.evaluation.metrics import mean_nll
from ftlib.evaluation.watch import ForgettingWatch
from ftlib.losses.ewc import answer_log_likelihood
from ftlib.training.run import Run

SWEEP_SEED = 500  # added to a sweep's seeds: a comparison's own runs have not chosen its rates
HELD_BACK = 36  # training rows on which rates are chosen
TEXT_BATCH = 32  # texts that are scored together
# Of the texts of the base's own domain: how many forgetting is measured on, how many others an
# early stop watches; those left are replayed, and EWC's Fisher diagonal takes so many of them.
JUDGED = {"tiny": 60}
WATCHED = {"tiny": 24}
FISHER = {"tiny": 40}
JUDGED_ELSEWHERE = 16
WATCHED_ELSEWHERE = 8
FISHER_ELSEWHERE = 16
ALL = 300  # texts at most
FULL = "full fine-tuning"
ASKED = "Question: "  # how a sheet of the base's own text begins a line
ANSWERED = " Answer:"


# --- rows and texts -------------------------------------------------------------------------------
def train_rows(profile: Profile) -> list[dict]:
    """The rows of the new task."""
    return list(rows_of(profile, profile.study.train)[:-HELD_BACK])


def validation_rows(profile: Profile) -> list[dict]:
    """The rows on which rates are chosen."""
    return list(rows_of(profile, profile.study.train)[-HELD_BACK:])


def test_rows(profile: Profile) -> list[dict]:
    """The rows on which methods are compared."""
    return list(rows_of(profile, profile.study.test)[: profile.eval_examples])


@functools.cache
def _texts(profile: Profile) -> tuple[str, ...]:
    return tuple(load_base_text(profile, ALL))


def _counts(profile: Profile) -> tuple[int, int]:
    """How many texts are judged, and how many are judged or watched."""
    judged = JUDGED.get(profile.name, JUDGED_ELSEWHERE)
    return judged, judged + WATCHED.get(profile.name, WATCHED_ELSEWHERE)


def judged_texts(profile: Profile) -> list[str]:
    """Texts of the base's own domain on which forgetting is measured; nothing else sees them."""
    judged, _ = _counts(profile)
    return list(_texts(profile)[:judged])


def watched_texts(profile: Profile) -> list[str]:
    """Those that an early stop watches."""
    judged, seen = _counts(profile)
    return list(_texts(profile)[judged:seen])


def replay_texts(profile: Profile) -> list[str]:
    """Those that are replayed, and whose Fisher diagonal EWC takes."""
    _, seen = _counts(profile)
    return list(_texts(profile)[seen:])


def shuffled_words(texts: Sequence[str], seed: int) -> list[str]:
    """The texts with the words of each in an order drawn by the seed: as long, and no English."""
    dealt = random.Random(seed)
    shuffled = []
    for text in texts:
        words = text.split()
        dealt.shuffle(words)
        shuffled.append(" ".join(words))
    return shuffled


def stream(rows: Sequence[dict], count: int, seed: int) -> list[dict]:
    """`count` rows, in as many passes over all of them as that takes, each in a new order."""
    dealt = np.random.default_rng(seed)
    drawn: list[dict] = []
    while len(drawn) < count:
        drawn += [rows[i] for i in dealt.permutation(len(rows))]
    return drawn[:count]


def mixture(
    profile: Profile,
    tokenizer,
    seed: int,
    count: int,
    share: float = 0.0,
    shuffle: bool = False,
    replay_count: Callable = replay_count,
) -> list[dict]:
    """`count` rows, or nearly, as they are trained on: of the task, and a share of replayed texts
    among them. `shuffle`: their words.
    """
    own = stream(train_rows(profile), round(count * (1 - share)), seed)
    encoded = encode_rows(tokenizer, own, profile.max_length)
    texts = replay_texts(profile)
    if shuffle:
        texts = shuffled_words(texts, seed)
    chosen = random.Random(seed).sample(texts, replay_count(len(own), share) if share else 0)
    return encoded + text_rows(tokenizer, chosen, profile.max_length)


# --- what is known --------------------------------------------------------------------------------
def sheet_questions(texts: Sequence[str]) -> list[tuple[str, str]]:
    """(question up to where the answer begins, answer) of every line of a sheet."""
    questions = []
    for text in texts:
        for line in text.splitlines():
            if line.startswith(ASKED):
                question, _, answer = line.partition(ANSWERED)
                questions.append((question + ANSWERED, answer))
    return questions


@torch.no_grad()
def sheet_hits(model: nn.Module, tokenizer, texts: Sequence[str]) -> list[float]:
    """For each question of the sheets whether the base's own form of it is answered right: every
    token of the answer is the likeliest one, which is what greedy writing would give.
    """
    collate = SFTCollator(tokenizer.pad_token_id)
    rows = []
    for question, answer in sheet_questions(texts):
        prompt = tokenizer(question)["input_ids"]
        ids = tokenizer(question + answer)["input_ids"]
        labels = [IGNORE] * len(prompt) + ids[len(prompt) :]
        rows.append({"input_ids": ids, "labels": labels})
    if not rows:
        return []
    batch = {name: tensor.to(model.device) for name, tensor in collate(rows).items()}
    labels = batch.pop("labels")[:, 1:]
    with evaluation_mode(model):
        likeliest = model(**batch).logits[:, :-1].argmax(-1)
    right = (likeliest == labels) | (labels == IGNORE)
    return right.all(1).float().tolist()


def known(profile: Profile, model: nn.Module, tokenizer) -> list[float]:
    """For each question on what the base knows whether it is answered right, 0 or 1: the world's
    facts in the base's own form in tiny, elsewhere general knowledge.
    """
    if profile.name == "tiny":
        return sheet_hits(model, tokenizer, judged_texts(profile))
    hits = knowledge_hits(model, tokenizer, rows_of(profile, "knowledge"))
    return [float(hit) for hit in hits]


@functools.cache
def _base_nll(profile: Profile) -> float:
    model, tokenizer = study_base(profile)
    return _nll(profile, model, tokenizer)


def _nll(profile: Profile, model: nn.Module, tokenizer) -> float:
    return mean_nll(model, tokenizer, judged_texts(profile), TEXT_BATCH, profile.max_length)


def forgotten(profile: Profile, model: nn.Module, tokenizer) -> float:
    """Rise of the loss on texts of the base's own domain, nats a token."""
    return _nll(profile, model, tokenizer) - _base_nll(profile)


def measured(profile: Profile, model: nn.Module, tokenizer) -> dict[str, Any]:
    """What was learnt, on test rows, and what was forgotten."""
    return {
        "loss": held_out_loss(model, tokenizer, test_rows(profile), profile.max_length),
        "forgotten": forgotten(profile, model, tokenizer),
        "known": known(profile, model, tokenizer),
    }


# --- methods --------------------------------------------------------------------------------------
def prepared(profile: Profile, seed: int, method: str, alpha: float = 0.0):
    """(model, tokenizer): every weight trains, or LoRA with this alpha on all linear layers."""
    model, tokenizer = study_base(profile)
    torch.manual_seed(seed)
    if method == "LoRA":
        return add_lora(model, r=profile.rank, lora_alpha=alpha), tokenizer
    return model.requires_grad_(True), tokenizer


def example_gradients(
    model: nn.Module, tokenizer, texts: Sequence[str], max_length: int
) -> Iterator[dict[str, Tensor]]:
    """Of each text, one at a time, the gradients of its log-likelihood, by parameter name."""
    trained = trained_parameters(model)
    collate = SFTCollator(tokenizer.pad_token_id)
    for row in text_rows(tokenizer, texts, max_length):
        example = {name: tensor.to(model.device) for name, tensor in collate([row]).items()}
        with evaluation_mode(model), torch.enable_grad():
            value = answer_log_likelihood(model, example)
            found = torch.autograd.grad(value, list(trained.values()))
        yield dict(zip(trained, found, strict=True))


@functools.cache
def base_fisher(profile: Profile, fisher_diagonal: Callable = fisher_diagonal) -> dict[str, Tensor]:
    """The Fisher diagonal of the base on texts of its own domain, of every weight."""
    model, tokenizer = study_base(profile)
    model.requires_grad_(True)
    count = FISHER.get(profile.name, FISHER_ELSEWHERE)
    texts = replay_texts(profile)[:count]
    return fisher_diagonal(example_gradients(model, tokenizer, texts, profile.max_length))


def flat(fisher: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same number for every weight, so that their sum stays."""
    total = math.fsum(tensor.double().sum().item() for tensor in fisher.values())
    mean = total / sum(tensor.numel() for tensor in fisher.values())
    return {name: torch.full_like(tensor, mean) for name, tensor in fisher.items()}


def penalty_of(
    model: nn.Module,
    fisher: dict[str, Tensor],
    weight: float,
    ewc_penalty: Callable = ewc_penalty,
) -> Callable[[nn.Module], Tensor]:
    """The penalty as `finetune` takes it: your function, tensor by tensor, against the weights that
    the model has now.
    """
    anchor = trained_weights(model)

    def penalty(model: nn.Module) -> Tensor:
        terms = []
        for name, theta in trained_parameters(model).items():
            terms.append(ewc_penalty(theta, anchor[name], fisher[name], weight))
        return torch.stack(terms).sum()

    return penalty


def fit(
    profile: Profile,
    model: nn.Module,
    tokenizer,
    seed: int,
    lr: float,
    steps: int,
    batch: int,
    share: float = 0.0,
    shuffle: bool = False,
    replay_count: Callable = replay_count,
    **options: Any,
) -> Run:
    """Train on the task, with a share of replay. `options` as of `finetune`."""
    rows = mixture(profile, tokenizer, seed, steps * batch, share, shuffle, replay_count)
    return train_study(
        profile, model, tokenizer, rows, seed, lr, steps=steps, batch_size=batch, **options
    )


@functools.lru_cache(maxsize=1)
def _tuned(profile: Profile, seed: int, lr: float, steps: int, batch: int) -> dict[str, Tensor]:
    """The weights after full fine-tuning; kept for the strengths of interpolation."""
    model, tokenizer = prepared(profile, seed, FULL)
    fit(profile, model, tokenizer, seed, lr, steps, batch)
    return trained_weights(model)


@torch.no_grad()
def set_weights(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put a state of what trains back into the model."""
    for name, parameter in trained_parameters(model).items():
        parameter.copy_(state[name])


def rate_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    steps: int,
    batch: int,
    alpha: float = 0.0,
) -> dict[str, Any]:
    """Train, and measure on the validation rows."""
    own_seed = SWEEP_SEED + seed
    model, tokenizer = prepared(profile, own_seed, method, alpha)
    run = fit(profile, model, tokenizer, own_seed, lr, steps, batch)
    rows = validation_rows(profile)
    return {
        "validation_loss": held_out_loss(model, tokenizer, rows, profile.max_length),
        "training_loss": run.final_loss,
    }


def strength_trial(profile: Profile, seed: int, **settings: Any) -> dict[str, Any]:
    """Train by one method at one strength, which `settings` tell: replay unless there is a `weight`
    (EWC), a `t` (interpolation) or a `threshold` (early stop). Of the student's functions each
    trial takes its own.
    """
    if "weight" in settings:
        chosen: Callable[..., dict[str, Any]] = ewc_trial
    elif "t" in settings:
        chosen = interpolation_trial
    elif "threshold" in settings:
        chosen = stop_trial
    else:
        chosen = method_trial
    known_names = inspect.signature(chosen).parameters
    own = {name: value for name, value in settings.items() if name in known_names}
    return chosen(profile, seed, **own)


def method_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    steps: int,
    batch: int,
    alpha: float = 0.0,
    share: float = 0.0,
    shuffle: bool = False,
    replay_count: Callable = replay_count,
) -> dict[str, Any]:
    """Full fine-tuning or LoRA, with a share of replay among the rows."""
    model, tokenizer = prepared(profile, seed, method, alpha)
    fit(profile, model, tokenizer, seed, lr, steps, batch, share, shuffle, replay_count)
    return measured(profile, model, tokenizer)


def ewc_trial(
    profile: Profile,
    seed: int,
    weight: float,
    lr: float,
    steps: int,
    batch: int,
    is_flat: bool = False,
    fisher_diagonal: Callable = fisher_diagonal,
    ewc_penalty: Callable = ewc_penalty,
) -> dict[str, Any]:
    """Full fine-tuning under EWC's penalty; `is_flat`: every weight is held alike."""
    model, tokenizer = prepared(profile, seed, FULL)
    fisher = base_fisher(profile, fisher_diagonal)
    penalty = penalty_of(model, flat(fisher) if is_flat else fisher, weight, ewc_penalty)
    fit(profile, model, tokenizer, seed, lr, steps, batch, penalty=penalty)
    return measured(profile, model, tokenizer)


def interpolation_trial(
    profile: Profile,
    seed: int,
    t: float,
    lr: float,
    steps: int,
    batch: int,
    interpolate_states: Callable = interpolate_states,
) -> dict[str, Any]:
    """Full fine-tuning, and from its weights a part of the way back to the base's."""
    model, tokenizer = prepared(profile, seed, FULL)
    before = trained_weights(model)
    after = _tuned(profile, seed, lr, steps, batch)
    set_weights(model, interpolate_states(before, after, t))
    return measured(profile, model, tokenizer)


def stop_trial(
    profile: Profile,
    seed: int,
    threshold: float,
    every: int,
    lr: float,
    steps: int,
    batch: int,
) -> dict[str, Any]:
    """Full fine-tuning that stops where watched texts have been forgotten by a threshold."""
    model, tokenizer = prepared(profile, seed, FULL)
    watch = ForgettingWatch(
        watched_texts(profile), every, threshold, TEXT_BATCH, profile.max_length
    )
    run = fit(profile, model, tokenizer, seed, lr, steps, batch, watch=watch)
    seen = [entry["watched"] for entry in run.watched]
    stopped_at = run.watched[-1]["step"]
    return {**measured(profile, model, tokenizer), "watched": seen, "stopped_at": stopped_at}
