"""Where both sides begin: the same base, the same adapter, the same rows in the same order.

ftlib draws its own order, rows of like length in one step. TRL is given the rows in that order, and
told to take them as they come.
"""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ftlib.adapters.io import load_adapter
from ftlib.adapters.lora import add_lora
from ftlib.batches.encode import encode_rows
from ftlib.batches.preference import encode_pairs, row_length
from ftlib.core.profiles import Profile
from ftlib.course.lab_e6.settings import Common, common_of
from ftlib.course.records.kit import rows_of, study_base
from ftlib.course.start import sft_adapter
from ftlib.models.load import load_model
from ftlib.training.samplers import LengthGroupedSampler

TRAIN = "train"
TEST = "golden"


# --- models ---------------------------------------------------------------------------------------
@functools.cache
def _chat_model(profile: Profile):
    return load_model(profile=profile, dtype=torch.float32)


def chat_base(profile: Profile):
    """(model, tokenizer) of the profile without any adapter: the model a new copy in fp32."""
    model, tokenizer = _chat_model(profile)
    return copy.deepcopy(model), tokenizer


def sft_start(profile: Profile, seed: int, **adapter: Any) -> tuple[nn.Module, Any]:
    """(model, tokenizer) before SFT: the study's base with a fresh adapter, the same for the same
    seed. `adapter`: arguments of `add_lora` in the place of the common ones.
    """
    common = common_of(profile)
    model, tokenizer = study_base(profile)
    torch.manual_seed(seed)
    chosen = {"r": common.r, "lora_alpha": common.lora_alpha, **adapter}
    return add_lora(model, **chosen), tokenizer


def dpo_start(profile: Profile, seed: int) -> tuple[nn.Module, Any]:
    """(model, tokenizer) before DPO: the model with the adapter that SFT has left, not merged, so
    that training goes on with it; a fresh one where there is none for the profile's model.
    """
    model, tokenizer = chat_base(profile)
    folder = sft_adapter(profile, train=False)
    if folder is None:
        common = common_of(profile)
        torch.manual_seed(seed)
        return add_lora(model, r=common.r, lora_alpha=common.lora_alpha), tokenizer
    return load_adapter(model, folder), tokenizer


# --- rows -----------------------------------------------------------------------------------------
def _drawn(profile: Profile, split: str, count: int, seed: int) -> list[dict]:
    rows = list(rows_of(profile, split))
    random.Random(seed).shuffle(rows)
    return rows[:count]


def sft_rows(profile: Profile, seed: int) -> list[dict]:
    """As many conversations as one run takes, another draw for each seed."""
    common = common_of(profile)
    return _drawn(profile, TRAIN, common.steps * common.rows_a_step, seed)


def dpo_pairs(profile: Profile, seed: int) -> list[dict]:
    """As many pairs as one run takes, another draw for each seed."""
    common = common_of(profile)
    rows = _drawn(profile, "preferences", common.dpo_steps * common.pairs_a_step, seed)
    return [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows]


def held_out_rows(profile: Profile) -> list[dict]:
    return list(rows_of(profile, TEST))[: common_of(profile).test_rows]


def held_out_pairs(profile: Profile) -> list[dict]:
    rows = list(rows_of(profile, "preferences_test"))[: common_of(profile).test_pairs]
    return [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows]


# --- order ----------------------------------------------------------------------------------------
def _order(lengths: list[int], rows_a_step: int, seed: int) -> list[int]:
    return list(LengthGroupedSampler(lengths, rows_a_step, seed))


def sft_order(
    tokenizer, rows: Sequence[dict], common: Common, seed: int, max_length: int
) -> list[int]:
    """The places of the rows in the order in which `ftlib.finetune` takes them in its first epoch.
    ValueError where rows are left out as too long, since places would then not match.
    """
    encoded = encode_rows(tokenizer, list(rows), max_length)
    _check_complete(len(encoded), len(rows), max_length)
    return _order([len(row["input_ids"]) for row in encoded], common.rows_a_step, seed)


def dpo_order(
    tokenizer, pairs: Sequence[dict], common: Common, seed: int, max_length: int
) -> list[int]:
    """The same of `ftlib.prefer`."""
    encoded = encode_pairs(tokenizer, list(pairs), max_length)
    _check_complete(len(encoded), len(pairs), max_length)
    return _order([row_length(pair) for pair in encoded], common.pairs_a_step, seed)


def _check_complete(kept: int, given: int, max_length: int) -> None:
    if kept != given:
        raise ValueError(
            f"max_length={max_length} leaves out {given - kept} of {given} rows, and the two sides "
            "would train on others: raise it, or take shorter rows"
        )
