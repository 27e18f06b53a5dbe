"""The trials of lab 3.1.4 on form and content: prompts, and sets of rows that hold one without the
other; and a few rows, read over and over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ftlib.core.errors import DataError
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_4.learning_rate import learning_rate
from ftlib.course.lab_3_1_4.pad_batch import pad_batch
from ftlib.course.lab_3_1_4.sft_loss import sft_loss
from ftlib.course.lab_3_1_4.train_loop import train_loop
from ftlib.course.lab_3_1_4.trials import (
    SHOTS,
    ask,
    families_of,
    few_samples,
    fresh_base,
    golden_rows,
    short_steps,
    train,
    train_rows,
    validation_rows,
    with_method,
)
from ftlib.course.records.kit import held_out_loss


# --- rows -----------------------------------------------------------------------------------------
def asked_families(profile: Profile, seed: int) -> list[str]:
    """Half of the golden set's families, drawn by the seed. DataError for rows of one family."""
    every = families_of(golden_rows(profile))
    if len(every) < 2:
        raise DataError(
            f"the golden rows of profile {profile.name} are of one family, {every[0]!r}: form "
            "cannot be told from content by other families' rows; use rows of several"
        )
    order = np.random.default_rng(seed).permutation(len(every))
    return sorted(every[i] for i in order[: (len(every) + 1) // 2])


def of_families(rows: Sequence[dict], families: Sequence[str]) -> list[dict]:
    return [row for row in rows if row["family"] in families]


def other_families(profile: Profile, tested: Sequence[str]) -> list[str]:
    """The families of the golden set that are not asked. Families that the golden set lacks are
    in no arm: open requests state facts that a question of another family asks for.
    """
    return [family for family in families_of(golden_rows(profile)) if family not in tested]


def first_of_each(rows: Sequence[dict], families: Sequence[str], seed: int) -> list[dict]:
    """`SHOTS` rows of each family, drawn by the seed."""
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen: list[dict] = []
    for family in families:
        own = [rows[i] for i in order if rows[i]["family"] == family]
        chosen += own[:SHOTS]
    return chosen


def shuffle_answers(rows: Sequence[dict], seed: int) -> list[dict]:
    """The same prompts, each with another row's answer of its family."""
    random = np.random.default_rng(seed)
    shuffled = list(rows)
    for family in families_of(rows):
        members = random.permutation([i for i, row in enumerate(rows) if row["family"] == family])
        for place, other in zip(members, np.roll(members, 1), strict=True):
            answer = rows[other]["messages"][-1]
            row = rows[place]
            messages = [*row["messages"][:-1], answer]
            shuffled[place] = {**row, "messages": messages, "answer": answer["content"]}
    return shuffled


def training_rows(profile: Profile, seed: int, trained: str) -> list[dict]:
    """The rows of an arm: "all" of the asked families, three a family ("few", those that the prompt
    shows), all with "shuffled" answers, or all of the "others", which are not asked.
    """
    tested = asked_families(profile, seed)
    every = train_rows(profile)
    if trained == "others":
        return of_families(every, other_families(profile, tested))
    if trained == "few":
        return first_of_each(every, tested, seed)
    rows = of_families(every, tested)
    return shuffle_answers(rows, seed) if trained == "shuffled" else rows


def kept_answers(rows: Sequence[dict], others: Sequence[dict]) -> float:
    """The share of `others` whose answer is that of the row in the same place."""
    pairs = zip(rows, others, strict=True)
    return float(np.mean([row["answer"] == other["answer"] for row, other in pairs]))


# --- form and content -----------------------------------------------------------------------------
def prompt_trial(
    profile: Profile, seed: int, tested: list[str], golden: list[dict], shown: str
) -> dict[str, Any]:
    """Ask the untrained base: after no examples, or after three of the question's own family, or
    after three of other families.
    """
    model, tokenizer = fresh_base(profile)
    rows = train_rows(profile)
    own = first_of_each(rows, tested, seed)
    rest = other_families(profile, tested)
    others = first_of_each(rows, rest, seed)[::SHOTS][:SHOTS]

    def shots(row: dict) -> list[dict]:
        if shown == "own":
            return of_families(own, [row["family"]])
        return others if shown == "others" else []

    return few_samples(ask(profile, model, tokenizer, golden, shots))


def form_trial(
    profile: Profile,
    seed: int,
    shown: str = "",
    trained: str = "",
    lr: float = 0.0,
    pad_batch: Callable = pad_batch,
    sft_loss: Callable = sft_loss,
    learning_rate: Callable = learning_rate,
    train_loop: Callable = train_loop,
) -> dict[str, Any]:
    """Prompt the base or train it, and ask the golden questions of half of the families.

    `shown`: "own", "others", "none". `trained`: as `training_rows` takes it.
    """
    tested = asked_families(profile, seed)
    golden = of_families(golden_rows(profile), tested)
    if not trained:
        return prompt_trial(profile, seed, tested, golden, shown)
    model, tokenizer = with_method(profile, "LoRA", seed)
    train(
        profile,
        model,
        tokenizer,
        training_rows(profile, seed, trained),
        seed,
        lr,
        pad_batch=pad_batch,
        sft_loss=sft_loss,
        learning_rate=learning_rate,
        train_loop=train_loop,
    )
    return few_samples(ask(profile, model, tokenizer, golden))


# --- few rows, many times -------------------------------------------------------------------------
FEW = 24
FEW_HELD_OUT = 40  # validation rows that measure; the rest of them choose a checkpoint
FEW_PLACES = (0.1, 0.25, 0.5, 0.75, 1.0)


def few_places(profile: Profile) -> list[int]:
    """The steps at which the run on few rows is looked at."""
    steps = short_steps(profile)
    return sorted({max(1, round(share * steps)) for share in FEW_PLACES})


def few_trial(
    profile: Profile,
    seed: int,
    lr: float,
    rows: int = FEW,
    pad_batch: Callable = pad_batch,
    sft_loss: Callable = sft_loss,
    learning_rate: Callable = learning_rate,
    train_loop: Callable = train_loop,
) -> dict[str, Any]:
    """Train on a few rows over and over, and look at the validation rows on the way: their loss,
    and how many are answered right. Other validation rows give the loss by which a checkpoint is
    chosen: the lowest of several noisy values is too low a value of the rows that chose it.
    """
    model, tokenizer = with_method(profile, "LoRA", seed)
    validation = validation_rows(profile)
    held_out = validation[:FEW_HELD_OUT]
    choosing = validation[FEW_HELD_OUT:]
    every = of_families(train_rows(profile), families_of(validation))
    order = np.random.default_rng(seed).permutation(len(every))
    own = [every[i] for i in order[:rows]]

    def look() -> dict[str, float]:
        parts = {"own_loss": own, "held_out_loss": held_out, "choosing_loss": choosing}
        seen = {}
        for name, part in parts.items():
            seen[name] = held_out_loss(model, tokenizer, part, profile.max_length)
        seen["held_out_right"] = float(np.mean(ask(profile, model, tokenizer, held_out)["right"]))
        return seen

    def constant(step: int, steps: int, peak: float, warmup: int) -> float:
        return learning_rate(min(step, warmup), steps, peak, warmup)

    _, seen = train(
        profile,
        model,
        tokenizer,
        own,
        seed,
        lr,
        FEW_PLACES,
        look,
        micro=4,
        pad_batch=pad_batch,
        sft_loss=sft_loss,
        learning_rate=constant,
        train_loop=train_loop,
    )
    return {name: [found[name] for found in seen] for name in seen[0]}
