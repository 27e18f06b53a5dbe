"""A rehearsal of a profile: the same models, data and code, with a few steps and rows, to see
whether a lab runs to its end on this machine before its hours are spent.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

# What a rehearsal has at most of each setting, by the name that parts of a profile share.
AT_MOST: dict[str, Any] = {
    "steps": 10,  # a tenth of them is a step still
    "short_steps": 6,
    "drift_steps": 6,
    "orpo_steps": 8,
    "imitation_steps": 8,
    "demo_rows": 4,
    "demo_steps": 5,
    "few_steps": 3,
    "eval_examples": 8,
    "prompts": 8,
    "asked": 8,
    "rows": 200,
    "count": 64,
    "max_new_tokens": 24,
    "answer_tokens": 24,
    "base_texts": 8,
    "control_rows": 8,
    "batch": 4,
    "batch_size": 4,
}
SEEDS = 2


def is_rehearsal() -> bool:
    """Whether FTLIB_REHEARSE=1 asks for a rehearsal."""
    return os.environ.get("FTLIB_REHEARSE") == "1"


def refuse_in_rehearsal(what: str) -> None:
    """ValueError in a rehearsal, whose results mean nothing, for what would keep them."""
    if is_rehearsal():
        raise ValueError(f"{what} in a rehearsal: it has no results to keep; unset FTLIB_REHEARSE")


def rehearsed(profile):
    """The profile with as few steps, rows and seeds as its code runs with."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(profile):
        value = getattr(profile, field.name)
        if dataclasses.is_dataclass(value):
            changed[field.name] = _at_most(value)
    return dataclasses.replace(_at_most(profile), seeds=profile.seeds[:SEEDS], **changed)


def _at_most(part):
    lower = {}
    for field in dataclasses.fields(part):
        if field.name in AT_MOST:
            lower[field.name] = min(getattr(part, field.name), AT_MOST[field.name])
    return dataclasses.replace(part, **lower)
