"""Where every policy of lab 3.1.7 begins, and how it is trained from there."""

from __future__ import annotations

import copy
import functools
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ftlib.adapters.lora import add_lora, merge_and_unload
from ftlib.core.profiles import Profile
from ftlib.course.records.kit import model_folder, preference_start, rows_of
from ftlib.data.feedback import pairs_to_rows
from ftlib.training.errors import RunError
from ftlib.training.finetune import finetune
from ftlib.training.run import Run

log = logging.getLogger("ftlib")
KEPT = "runs/lab-3.1.7"  # beside the labs
START_SEED = 0  # of the SFT from which every policy of the lab begins
RUN_SHARE = 0.5  # a run has half of the profile's steps, each of half its pairs
TRAIN = "faults_train"
VALIDATION = "faults_validation"
TEST = "faults_test"


def training_pairs(profile: Profile, name: str) -> list[dict]:
    """As many of these pairs as the profile trains on."""
    return list(rows_of(profile, name)[: profile.preference.count])


def train_sft(
    profile: Profile,
    model,
    tokenizer,
    pairs,
    seed: int,
    lr: float,
    steps: int,
    batch_size: int,
    output_dir: Path | None = None,
) -> Run:
    """SFT on the chosen answers; kept in `output_dir`, and taken from there where it is done."""
    return finetune(
        model,
        tokenizer,
        pairs_to_rows(pairs),
        steps=steps,
        learning_rate=lr,
        batch_size=batch_size,
        max_length=profile.max_length,
        seed=seed,
        output_dir=output_dir,
        show=False,
    )


def pairs_a_step(profile: Profile) -> int:
    """Half the profile's batch: the lab makes many short runs."""
    return max(2, profile.preference.batch // 2)


def run_steps(profile: Profile, length: float) -> int:
    """Optimizer steps of a run of this length."""
    return round(RUN_SHARE * length * profile.preference.steps)


def drawn(rows: Sequence[dict], count: int, seed: int) -> list[dict]:
    """That many of the rows, or all of them, in an order that the seed draws: what a run sees, each
    once.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows[place] for place in order[:count]]


# Where this process keeps the start of a profile, as `keep_start` was told.
_kept: dict[Profile, Path] = {}


def keep_start(profile: Profile, folder: str | Path = KEPT) -> Path:
    """Have this process keep the lab's start in the folder, or one folder up where one lies there
    (the extensions lie one folder deeper): whoever opens the lab again need not wait for it.
    Returns the start's own folder, one for each model.
    """
    own = Path(folder) / f"start-{Path(model_folder(profile.model)).name}"
    above = Path("..", own)
    _kept[profile] = above if above.is_dir() and not own.is_dir() else own
    return _kept[profile]


@functools.cache
def imitated_start(profile: Profile):
    """(model, tokenizer) after SFT on chosen answers, merged: the reference of the lab."""
    model, tokenizer = preference_start(profile, START_SEED)
    train = functools.partial(
        train_sft,
        profile,
        model,
        tokenizer,
        training_pairs(profile, TRAIN),
        START_SEED,
        profile.lr_lora,
        profile.preference.imitation_steps,
        batch_size=pairs_a_step(profile),
    )
    try:
        train(output_dir=_kept.get(profile))
    except RunError as error:  # another run lies there, or another process trains it now
        log.info("trained in memory alone: %s", error)
        train()
    merge_and_unload(model)
    return model, tokenizer


def imitation_start(profile: Profile, seed: int):
    """(model, tokenizer): the SFT model with a fresh adapter over it, the same for the same seed.
    With the adapter off it is the reference.
    """
    model, tokenizer = imitated_start(profile)
    model = copy.deepcopy(model)
    torch.manual_seed(seed)
    return add_lora(model, r=profile.rank, lora_alpha=2 * profile.rank), tokenizer


@functools.cache
def _references(profile: Profile) -> tempfile.TemporaryDirectory:
    """Removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="dpo-reference-")


def reference_folder(profile: Profile, name: str) -> Path:
    """Where the reference's log-probabilities of the runs of one start are kept: B = 0 in every
    one, so that all seeds have the same reference.
    """
    return Path(_references(profile).name) / name
