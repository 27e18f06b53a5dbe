"""The trials of lab 3.1.4: one model is trained or asked, and measured. Each takes the student's
functions as keyword parameters, with ftlib's own as the default.
"""

from __future__ import annotations

import copy
import functools
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ftlib.adapters import bottleneck, prefix
from ftlib.adapters.lora import add_lora
from ftlib.batches.encode import encode_rows
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_4.learning_rate import learning_rate
from ftlib.course.lab_3_1_4.loop import MICRO, answer_tokens, fit, loss_by, shuffled_batches
from ftlib.course.lab_3_1_4.pad_batch import pad_batch
from ftlib.course.lab_3_1_4.sft_loss import sft_loss
from ftlib.course.lab_3_1_4.train_loop import train_loop
from ftlib.course.records.kit import held_out_loss, rows_of
from ftlib.data.load import load_base_text
from ftlib.evaluation.generate import answer_texts, few_shot_messages, generate_ids
from ftlib.evaluation.judges import normalise
from ftlib.evaluation.metrics import forgetting, perplexity
from ftlib.models.load import load_model
from ftlib.training.memory_meter import peak_bytes

POOL = 1500  # training rows from which a short run draws
SHOTS = 3  # solved examples of a family that a prompt shows
TEXTS = 16  # held-out texts of the base's own domain on which forgetting is measured
VALIDATION = 60  # rows on which settings are chosen
ASKED = 50  # golden questions that are asked after a run
PLACES = (0.1, 0.25, 0.5, 1.0)  # shares of the steps after which a run is looked at
SWEEP_SEED = 500  # added to a sweep's seeds: a comparison's own runs have not chosen its rates
FULL = "full fine-tuning"
PREFIX = "prefix tuning"
BOTTLENECK = "bottleneck adapters"


# --- rows -----------------------------------------------------------------------------------------
def train_rows(profile: Profile) -> list[dict]:
    """The rows from which the short runs draw."""
    return list(rows_of(profile, "train")[:POOL])


def validation_rows(profile: Profile) -> list[dict]:
    """The rows on which settings are chosen."""
    most = min(VALIDATION, profile.comparison.rows)
    return list(rows_of(profile, "validation")[:most])


def golden_rows(profile: Profile) -> list[dict]:
    """The rows on which methods are compared."""
    return list(rows_of(profile, "golden")[: profile.eval_examples])


def families_of(rows: Sequence[dict]) -> list[str]:
    """The families of the rows, in alphabetical order."""
    return sorted({row["family"] for row in rows})


def answer_shares(profile: Profile, tokenizer, rows: Sequence[dict]) -> dict[str, float]:
    """{family: share of the rows' answer tokens}: how much each weighs in a mean over tokens."""
    encoded = encode_rows(tokenizer, list(rows), profile.max_length)
    counts: dict[str, int] = {}
    for row, ids in zip(rows, encoded, strict=True):
        family = row["family"]
        counts[family] = counts.get(family, 0) + answer_tokens([ids])
    total = sum(counts.values())
    return {family: count / total for family, count in counts.items()}


# --- models ---------------------------------------------------------------------------------------
@functools.cache
def _base(profile: Profile, quantization: str | None = None):
    return load_model(profile=profile, quantization=quantization)


def quantization_of(method: str) -> str | None:
    """In which format the method's frozen base is held; None for the profile's own."""
    return "nf4" if method == "QLoRA" else None


def fresh_base(profile: Profile):
    """(model, tokenizer): the profile's base, a new copy."""
    model, tokenizer = _base(profile)
    return copy.deepcopy(model), copy.deepcopy(tokenizer)


def with_method(profile: Profile, method: str, seed: int):
    """(model, tokenizer) with what the method trains, and nothing else, requiring grad; the same
    for the same seed.
    """
    if quantization_of(method):
        model, tokenizer = load_model(profile=profile, quantization=quantization_of(method))
    else:
        model, tokenizer = fresh_base(profile)
    torch.manual_seed(seed)
    if method == FULL:
        return model.float().requires_grad_(True), tokenizer
    if method == PREFIX:
        return prefix.add_prefix(model), tokenizer
    if method == BOTTLENECK:
        return bottleneck.add_bottleneck(model, size=4 * profile.rank), tokenizer
    use_dora = method == "DoRA"
    add_lora(model, r=profile.rank, lora_alpha=2 * profile.rank, use_dora=use_dora)
    return model, tokenizer


# --- measures -------------------------------------------------------------------------------------
@functools.cache
def base_perplexity(profile: Profile, quantization: str | None = None) -> float:
    model, tokenizer = _base(profile, quantization)
    return perplexity(model, tokenizer, load_base_text(profile, min(TEXTS, profile.base_texts)))


def forgotten(profile: Profile, model: nn.Module, tokenizer, method: str) -> float:
    """Rise of the loss on held-out text of the base's own domain, nats a token, over the base from
    which the method starts: for QLoRA the one in four bits, whose rounding is not training's doing.
    """
    after = perplexity(model, tokenizer, load_base_text(profile, min(TEXTS, profile.base_texts)))
    return forgetting(base_perplexity(profile, quantization_of(method)), after)


def first_line(text: str) -> str:
    """An answer up to its first line break: a base goes on with whatever may follow."""
    return text.strip().partition("\n")[0]


def skeleton(text: str) -> str:
    """The shape of an answer: runs of letters and of digits as one sign each, so that "21, 40, 45"
    is "9, 9, 9" and "b-u-c" is "a-a-a".
    """
    shape = re.sub(r"[A-Z]+(?![a-z])", "A", text)
    shape = re.sub(r"[A-Z][a-z]+", "Aa", shape)
    shape = re.sub(r"(?<![A-Za-z])[a-z]+", "a", shape)
    return re.sub(r"\d+", "9", shape)


@functools.cache
def known_shapes(profile: Profile) -> dict[str, frozenset[str]]:
    """The shapes that training answers of each family have."""
    shapes: dict[str, set[str]] = {}
    for row in train_rows(profile):
        shapes.setdefault(row["family"], set()).add(skeleton(normalise(row["answer"])))
    return {family: frozenset(own) for family, own in shapes.items()}


SAMPLES = 6  # answers that an entry of the record keeps


def few_samples(asked: dict[str, Any]) -> dict[str, Any]:
    """What `ask` found, with the first answers alone."""
    return {**asked, "answers": asked["answers"][:SAMPLES]}


def ask(
    profile: Profile,
    model: nn.Module,
    tokenizer,
    rows: Sequence[dict],
    shots: Callable[[dict], list[dict]] | None = None,
) -> dict[str, Any]:
    """Greedy answers to the rows' questions. By row: `right` up to the first line break,
    `right_uncut` as a whole, `form` (the shape of a training answer of its family), `stopped` (it
    ended by itself); and all `answers`.
    """
    prompts = []
    for row in rows:
        solved = shots(row) if shots else []
        prompts.append(few_shot_messages(solved, row["messages"][:-1]))
    most = profile.max_new_tokens
    _, ids = generate_ids(model, tokenizer, prompts, most, len(prompts), 0.0, 0)
    texts = answer_texts(model, tokenizer, ids)
    shapes = known_shapes(profile)
    found: dict[str, Any] = {"right": [], "right_uncut": [], "form": [], "stopped": []}
    for row, text, tokens in zip(rows, texts, ids, strict=True):
        line = normalise(first_line(text))
        wanted = normalise(row["answer"])
        found["right"].append(float(line == wanted))
        found["right_uncut"].append(float(normalise(text) == wanted))
        found["form"].append(float(skeleton(line) in shapes.get(row["family"], ())))
        found["stopped"].append(float(len(tokens) < most))
    return {**found, "answers": texts}


# --- training -------------------------------------------------------------------------------------
def short_steps(profile: Profile) -> int:
    """The steps of a run in a comparison."""
    return profile.comparison.steps


def short_batch(profile: Profile) -> int:
    """The rows of a step in a comparison."""
    return profile.comparison.batch


def train(
    profile: Profile,
    model: nn.Module,
    tokenizer,
    rows: Sequence[dict],
    seed: int,
    lr: float,
    places: Sequence[float] = (1.0,),
    look: Callable[[], Any] | None = None,
    steps: int | None = None,
    batch: int | None = None,
    micro: int = MICRO,
    pad_batch: Callable = pad_batch,
    sft_loss: Callable = sft_loss,
    learning_rate: Callable = learning_rate,
    train_loop: Callable = train_loop,
) -> tuple[list[float], list]:
    """Train on the answers in the rows with the lab's own loop: `fit`'s losses and looks."""
    steps = steps or short_steps(profile)
    batch = batch or short_batch(profile)
    order = np.random.default_rng(seed).permutation(len(rows))[: 2 * steps * batch]
    encoded = encode_rows(tokenizer, [rows[i] for i in order], profile.max_length)
    batches = shuffled_batches(encoded, steps, batch, seed, micro)
    batch_loss = loss_by(model, tokenizer.pad_token_id, profile.precision, pad_batch, sft_loss)
    at = sorted({max(1, round(share * steps)) for share in places})
    return fit(model, batch_loss, batches, lr, at, look, learning_rate, train_loop)


# --- the methods ----------------------------------------------------------------------------------
def rate_trial(profile: Profile, seed: int, method: str, lr: float) -> dict[str, Any]:
    """Train, and measure on the validation rows."""
    own_seed = SWEEP_SEED + seed
    model, tokenizer = with_method(profile, method, own_seed)
    losses, _ = train(profile, model, tokenizer, train_rows(profile), own_seed, lr)
    rows = validation_rows(profile)
    return {
        "validation_loss": held_out_loss(model, tokenizer, rows, profile.max_length),
        "training_loss": float(np.mean(losses[-5:])),
        "forgotten": forgotten(profile, model, tokenizer, method),
    }


def method_trial(
    profile: Profile,
    seed: int,
    method: str,
    lr: float,
    pad_batch: Callable = pad_batch,
    sft_loss: Callable = sft_loss,
    learning_rate: Callable = learning_rate,
    train_loop: Callable = train_loop,
) -> dict[str, Any]:
    """Train, and look on the way at what is learnt of the golden set and what is forgotten."""
    model, tokenizer = with_method(profile, method, seed)
    golden = golden_rows(profile)[:ASKED]

    def look() -> tuple[float, float]:
        loss = held_out_loss(model, tokenizer, golden, profile.max_length)
        return loss, forgotten(profile, model, tokenizer, method)

    losses, seen = train(
        profile,
        model,
        tokenizer,
        train_rows(profile),
        seed,
        lr,
        PLACES,
        look,
        pad_batch=pad_batch,
        sft_loss=sft_loss,
        learning_rate=learning_rate,
        train_loop=train_loop,
    )
    asked = ask(profile, model, tokenizer, golden)
    return {
        "loss": seen[-1][0],
        "forgotten": seen[-1][1],
        "right": asked["right"],
        "loss_by_step": [loss for loss, _ in seen],
        "forgotten_by_step": [rise for _, rise in seen],
        "training_by_step": losses,
    }


COSTED = 200  # rows, of which the longest make the step that is measured
TIMED = 9  # steps, of which the median is given


def cost_trial(profile: Profile, seed: int, method: str) -> dict[str, float]:
    """What one step takes: the numbers that train, the bytes held before it, the most that it makes
    beside them, and the time of a step.
    """
    model, tokenizer = with_method(profile, method, seed)
    encoded = encode_rows(tokenizer, train_rows(profile)[:COSTED], profile.max_length)
    longest = sorted(encoded, key=lambda row: -len(row["input_ids"]))[: short_batch(profile)]
    batch_loss = loss_by(model, tokenizer.pad_token_id, profile.precision)
    trained = [q for q in model.parameters() if q.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0)
    model.train()

    def step() -> None:
        batch_loss(longest).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    seconds = []
    for _ in range(TIMED):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    weights = sum(q.numel() * q.element_size() for q in model.parameters())
    states = [v for state in optimizer.state.values() for v in state.values()]
    return {
        "trainable": sum(q.numel() for q in trained),
        "weights_mb": weights / 1e6,
        "optimizer_mb": sum(v.numel() * v.element_size() for v in states if v.dim()) / 1e6,
        "step_mb": peak_bytes(step) / 1e6,
        "step_ms": 1000 * float(np.median(seconds)),
    }
