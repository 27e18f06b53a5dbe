"""What a seed is in lab 3.1.10's experiments: a sample of prompts, and a draw of rounding errors.

Nothing is trained here, so a seed does not stand for a training run. It stands for a sample of
held-out prompts, no prompt being in two of them, and for an order in which the model's numbers are
written down (`reorder`): the same function, rounded anew. An interval over seeds says how far the
result would move with other prompts of the same kind and another draw of the rounding, for this one
model.
"""

from __future__ import annotations

import copy
import functools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftlib.adapters.io import load_adapter
from ftlib.core.paths import DATA, EMBEDDED, stand_in
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_10.reorder import reorder
from ftlib.course.records.experiment import SEEDS
from ftlib.course.records.kit import rows_of
from ftlib.course.start import sft_adapter
from ftlib.evaluation import judges
from ftlib.models.load import load_model

ORDER = 3110  # of the draw that parts the held-out rows into samples


@dataclass(frozen=True)
class Sample:
    """Held-out rows; of each the ids of its prompt (`asked`), of prompt and golden answer
    (`texts`), and where in the text the answer begins (`starts`).
    """

    rows: list[dict]
    asked: list[list[int]]
    texts: list[list[int]]
    starts: list[int]

    @property
    def chats(self) -> list[list[dict]]:
        """The conversations without their answers."""
        return [row["messages"][:-1] for row in self.rows]


def adapter_folder(profile: Profile) -> Path:
    """The adapter of the records: the shipped one for the embedded model, whatever lab 3.1.4 has
    left here; for another model the one that lab 3.1.4 trained.
    """
    if stand_in(profile.model, given=False) == EMBEDDED:
        return DATA / "sft-adapter"
    folder = sft_adapter(profile)
    assert folder is not None  # trained where there was none
    return folder


def adapter_inputs(profile: Profile) -> dict[str, Any]:
    """What the adapter of the records depends on: the shipped file, or where lab 3.1.4 trains one
    here the rows it learns. Two machines train it from those to the last digits but one, and a
    record that asked for the same file would fit the machine alone that made it.
    """
    if stand_in(profile.model, given=False) == EMBEDDED:
        return {"adapter": adapter_folder(profile)}
    return {"train": rows_of(profile, "train")}


@functools.cache
def _as_trained(profile: Profile):
    model, tokenizer = load_model(profile.model, profile=profile, dtype=torch.float32)
    load_adapter(model, adapter_folder(profile), trainable=False)
    return model.eval(), tokenizer


@functools.lru_cache(maxsize=1)
def _reordered(profile: Profile, seed: int) -> nn.Module:
    model, _ = _as_trained(profile)
    return reorder(copy.deepcopy(model), seed)


def lab_tokenizer(profile: Profile):
    """The tokenizer that goes with the model."""
    return _as_trained(profile)[1]


def lab_model(profile: Profile, seed: int) -> nn.Module:
    """The model in fp32 with its adapter attached, its numbers in the seed's order; shared: leave
    it as it is.
    """
    return _reordered(profile, seed)


def own_model(profile: Profile, seed: int) -> nn.Module:
    """The same, a copy that a trial may change."""
    return copy.deepcopy(_reordered(profile, seed))


def held_out_rows(profile: Profile) -> tuple[dict, ...]:
    """All rows that no training has seen: golden and validation."""
    return rows_of(profile, "golden") + rows_of(profile, "validation")


def sample_rows(profile: Profile, seed: int) -> list[dict]:
    """The seed's own rows. Seeds from `SEEDS` on, the live one among them, share the last part."""
    rows = list(held_out_rows(profile))
    random.Random(ORDER).shuffle(rows)
    parts = SEEDS + 1
    size = min(profile.export.prompts, len(rows) // parts)
    place = min(seed, SEEDS)
    return rows[place * size : (place + 1) * size]


def encode_sample(tokenizer, rows: list[dict]) -> Sample:
    """Rows as token ids, by the tokenizer's own chat template."""

    def encode(messages: list[dict], opened: bool) -> list[int]:
        encoded = tokenizer.apply_chat_template(
            messages, return_dict=True, add_generation_prompt=opened
        )
        return encoded["input_ids"]

    asked = [encode(row["messages"][:-1], opened=True) for row in rows]
    texts = [encode(row["messages"], opened=False) for row in rows]
    return Sample(rows, asked, texts, [len(ids) for ids in asked])


def sample_of(profile: Profile, seed: int) -> Sample:
    """The seed's sample of held-out prompts."""
    return encode_sample(lab_tokenizer(profile), sample_rows(profile, seed))


def is_right(text: str, row: dict) -> bool:
    """Is an answer the golden one, and nothing else?"""
    return judges.normalise(text) == judges.normalise(row["messages"][-1]["content"])
