"""What the notebook needs beside its results: copies of its base model; and where a result shows
the runs of another profile, that one's base, its sweep, and settings that fit the notebook's own
model.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
from collections.abc import Sequence
from typing import Any

from torch import nn

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_1.sweeps import rates_of
from ftlib.course.lab_3_1_1.trials import validation_rows
from ftlib.course.records.kit import held_out_loss, study_base
from ftlib.course.records.live import Result, open_experiments


def copy_of(model: nn.Module) -> nn.Module:
    """A copy of a model; first the memory of models that nothing refers to any more is given
    back.
    """
    gc.collect()
    return copy.deepcopy(model)


def base_of(result: Result, base: nn.Module) -> nn.Module:
    """The base model of the runs that a result shows: `base`, the notebook's own, unless they are
    tiny's.
    """
    return study_base(result.profile)[0] if result.shown_in else base


def base_loss(result: Result) -> float:
    """Validation loss of the base model whose runs a result shows."""
    base, tokenizer = study_base(result.profile)
    rows = validation_rows(result.profile)
    return held_out_loss(base, tokenizer, rows, result.profile.max_length)


def with_all(result: Result, methods: Sequence[str]) -> Result:
    """A sweep that has runs of all these methods: the result itself, or tiny's."""
    if all(rates_of(result, method) for method in methods):
        return result
    tiny = open_experiments("3.1.1", "tiny").show(result.experiment.name)
    return dataclasses.replace(tiny, shown_in=result.profile.name)


def settings_here(result: Result, profile: Profile) -> dict[str, Any]:
    """Rank, alpha and rate for LoRA in this notebook: those that the experiment has chosen, or the
    profile's own where the experiment shows another profile's runs.
    """
    if not result.shown_in:
        return result.settings("LoRA")
    return {"r": profile.rank, "alpha": 2 * profile.rank, "lr": profile.study.lr_lora}
