"""The trials of lab 3.1.8: train with one of four losses on the same pairs, and measure answers to
prompts about other people. Each takes the student's functions as keyword parameters, with ftlib's
own as the default.
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
from ftlib.batches.collate import PairCollator
from ftlib.batches.preference import encode_pairs
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_8.orpo_loss import orpo_loss
from ftlib.course.lab_3_1_8.simpo_loss import simpo_loss
from ftlib.course.open_answers import sentences
from ftlib.course.records.kit import preference_start, rows_of
from ftlib.course.reports import report_faults
from ftlib.data.load import load_base_text
from ftlib.data.pairs import flip_judgements, pairs_to_rows
from ftlib.evaluation.generate import generate_answers
from ftlib.evaluation.metrics import perplexity
from ftlib.models.load import load_model
from ftlib.training.finetune import finetune
from ftlib.training.prefer import prefer
from ftlib.training.preference_trainer import pair_logps
from ftlib.training.run import Run

TRAIN, VALIDATION, TEST = "faults_train", "faults_validation", "faults_test"
TEXTS = 30  # held-out texts of the base's own domain on which forgetting is measured
START_SEED = 0  # of the SFT from which SimPO and DPO begin
START_SHARE = 3  # that SFT has a third of the profile's imitation steps
START_RATE = 2.0  # times the profile's rate, for so short an SFT
STEP_SHARE = 0.5  # of the profile's preference steps that a run takes
BASE_STEPS = 2  # times as many from the base: that run has its SFT inside
RANKED_SHARE = 2  # log-probabilities are measured on one in so many test pairs
AT_ONCE = 25  # pairs whose log-probabilities are computed in one batch
HALF = 0.5  # of the labels are turned round where they are to say nothing

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
def _imitating(profile: Profile, is_short: bool = False):
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
def _base(profile: Profile):
    """(model, tokenizer) before any fine-tuning; it stops where the other start does."""
    model, _ = load_model(profile.preference.base, profile=profile)
    _, tokenizer = _imitating(profile)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model, tokenizer


def started(profile: Profile, start: str, seed: int):
    """(model, tokenizer): a copy of the start with a fresh adapter, the same for the same seed."""
    if start == BASE:
        model, tokenizer = _base(profile)
    else:
        model, tokenizer = _imitating(profile, start == SHORT)
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


# --- measures -------------------------------------------------------------------------------------
@torch.no_grad()
def scores(profile: Profile, model, tokenizer, pairs: Sequence[dict]) -> tuple[np.ndarray, ...]:
    """Summed log-probabilities and tokens of chosen and rejected answers, (pairs, 2) each."""
    encoded = encode_pairs(tokenizer, list(pairs), profile.max_length)
    collator = PairCollator(tokenizer.pad_token_id, share_prefix=False)
    was_training = model.training
    model.eval()
    sums = []
    lengths = []
    for i in range(0, len(encoded), AT_ONCE):
        batch = collator(encoded[i : i + AT_ONCE])
        on_device = {name: tensor.to(model.device) for name, tensor in batch.items()}
        logps, tokens = pair_logps(model, on_device)
        sums.append(logps.double().cpu())
        lengths.append(tokens.double().cpu())
    model.train(was_training)
    return torch.cat(sums).numpy(), torch.cat(lengths).numpy()


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


def ranked(profile: Profile, model, tokenizer, rows: list[dict]) -> dict[str, Any]:
    """Mean log-probabilities a token of held-out pairs, one number a pair, and how far apart the
    two of a pair are.
    """
    sums, lengths = scores(profile, model, tokenizer, rows)
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
    model, tokenizer = _base(profile)
    return perplexity(model, tokenizer, load_base_text(profile, TEXTS))


def forgotten(profile: Profile, model, tokenizer) -> float:
    """Rise of the loss on the base's own text over the base's, nats a token."""
    after = perplexity(model, tokenizer, load_base_text(profile, TEXTS))
    return float(np.log(after / _base_perplexity(profile)))


@functools.cache
def measured_start(profile: Profile) -> dict[str, float]:
    """The start after SFT on the test rows, by names that begin with start_."""
    model, tokenizer = _imitating(profile)
    rows = held_out_rows(profile, TEST)
    found = {
        **answered(profile, model, tokenizer, rows),
        **ranked(profile, model, tokenizer, rows[: len(rows) // RANKED_SHARE]),
        "forgotten": forgotten(profile, model, tokenizer),
    }
    return {f"start_{name}": value for name, value in found.items()}


def measured(profile: Profile, model, tokenizer) -> dict[str, Any]:
    """Everything that is measured on the test rows, beside the same of the start after SFT."""
    rows = held_out_rows(profile, TEST)
    return {
        **answered(profile, model, tokenizer, rows),
        **ranked(profile, model, tokenizer, rows[: len(rows) // RANKED_SHARE]),
        "forgotten": forgotten(profile, model, tokenizer),
        **measured_start(profile),
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
    simpo_loss: Callable = simpo_loss,
) -> dict[str, Any]:
    """As `compare_trial`, but in half of the pairs, drawn by the seed, the two answers have changed
    places.
    """
    setting = {"beta": beta, "ratio": ratio}
    model, tokenizer = started(profile, start, seed)
    pairs = flip_judgements(own_pairs(profile, start, seed), HALF, seed)
    train(profile, model, tokenizer, pairs, seed, method, lr, setting, simpo_loss)
    return measured(profile, model, tokenizer)
