"""Before training begins: does this model score a conversation by itself alone?"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ftlib.losses.isolation import Shift, found_once, later_shift, packing_shift
from ftlib.training.folder import RunError
from ftlib.training.options import uses_autocast
from ftlib.training.preference_trainer import sharing_shift, why_unshared

SAMPLE = 64  # rows whose tokens are enough to probe with


def as_in_training(model, precision: str | None) -> torch.autocast:
    """A context in which the model computes as `SFTTrainer` has it compute: some attention has no
    kernels for fp32.
    """
    enabled = uses_autocast(model, precision)
    return torch.autocast(model.device.type, torch.bfloat16, enabled=enabled)


def token_rows(items: list[dict]) -> list[list[int]]:
    """The token ids of the first encoded rows, of conversations, pairs or thumbs alike."""
    rows = []
    for item in items[:SAMPLE]:
        for name, ids in item.items():
            if name.endswith("_ids") and name != "position_ids":
                rows.append(ids)
    return rows


def _name_of(model) -> str:
    return f"{type(model).__name__} ({model.config.model_type})"


def _changes_by(shift: Shift) -> str:
    return f"change by {shift.nats:.2g} nats per token (rounding: {shift.rounding:.1g})"


def check_later_tokens(model, rows: Iterable[list[int]], pad_token_id: int) -> None:
    """RunError where a token's log-probability depends on what comes after it: text, as in an
    encoder, which sees the answer that it is to learn; or padding. `rows`: token ids of some
    conversations.
    """
    shift = later_shift(model, rows, pad_token_id)
    if shift.is_fault:
        raise RunError(
            f"{_name_of(model)} is no causal language model as it is: its log-probabilities "
            f"{_changes_by(shift)} with the text or the padding after them. Where its config has "
            "is_decoder, load it with is_decoder=True; else use another model"
        )


def check_packing(model, rows: Iterable[list[int]], pad_token_id: int) -> None:
    """RunError where conversations in a packed row do not stay apart. `rows`: token ids of some
    that are to be packed.
    """
    try:
        shift = packing_shift(model, rows, pad_token_id)
    except TypeError as error:  # a forward pass without position_ids
        raise RunError(
            f"packing=True: {_name_of(model)} does not take packed rows ({error}); use "
            "packing=False"
        ) from error
    if shift.is_fault:
        raise RunError(
            f"packing=True: {_name_of(model)} does not keep packed conversations apart: their "
            f"log-probabilities {_changes_by(shift)} with the other conversations in the row; use "
            "packing=False"
        )


def why_inexact(model, rows: Iterable[list[int]], pad_token_id: int) -> str | None:
    """Why the prompt of a pair cannot be run once for both completions, as the model itself shows;
    None where that is exact. `rows`: token ids of some prompts and completions.
    """
    try:
        shift = sharing_shift(model, rows, pad_token_id)
    except (RuntimeError, TypeError, AssertionError, IndexError) as error:
        return f"{_name_of(model)} does not run with a mask of four dimensions ({error})"
    if not shift.is_fault:
        return None
    return (
        f"{_name_of(model)} does not keep two completions of one row apart: their "
        f"log-probabilities {_changes_by(shift)}"
    )


def why_apart(model, rows: Iterable[list[int]], pad_token_id: int) -> str | None:
    """Why a pair's prompt must be run twice, for chosen and for rejected; None where once is exact.

    `rows`: token ids of some prompts and completions, with which the model is tried, once
    (`found_once`).
    """
    return why_unshared(model) or _found_inexact(model, rows, pad_token_id)


@found_once
def _found_inexact(model, rows: Iterable[list[int]], pad_token_id: int) -> str | None:
    return why_inexact(model, rows, pad_token_id)
