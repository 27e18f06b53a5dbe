"""The trials of lab E6: one run with one default switched back, beside ftlib's run on the common
ground from the same start over the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ftlib.core.profiles import Profile
from ftlib.course.lab_e6.adamw_step import adamw_step
from ftlib.course.lab_e6.by_hand import sft_by_hand
from ftlib.course.lab_e6.clip_factor import clip_factor
from ftlib.course.lab_e6.first_apart import first_apart
from ftlib.course.lab_e6.linear_factor import linear_factor
from ftlib.course.lab_e6.ours import dpo_ours, dpo_test, sft_ours, sft_test_loss
from ftlib.course.lab_e6.settings import TOLERANCE, common_of
from ftlib.course.lab_e6.step_loss import step_loss
from ftlib.course.lab_e6.theirs import dpo_theirs, sft_theirs
from ftlib.course.lab_e6.to_peft import to_peft


def gaps_between(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """|difference| of the losses of every step, nats."""
    return [abs(one - other) for one, other in zip(ours, theirs, strict=True)]


def compared(
    ours: Sequence[float], theirs: Sequence[float], first_apart: Callable = first_apart
) -> dict[str, Any]:
    """How far apart two curves are: every gap, the largest, and the step at which they part; one
    more than the last step where they do not.
    """
    gaps = gaps_between(ours, theirs)
    parted = first_apart(ours, theirs, TOLERANCE)
    return {
        "gaps": gaps,
        "apart": max(gaps),
        "parted": parted or len(gaps) + 1,
        "losses": list(theirs),
    }


def mean_of_means(nll: Tensor, scored: Tensor) -> Tensor:
    """The mean of the micro-batches' means: what `step_loss` is not."""
    kept = torch.where(scored, nll, 0.0)
    return (kept.sum((1, 2)) / scored.sum((1, 2))).mean()


def sft_trial(
    profile: Profile,
    seed: int,
    arguments: dict[str, Any] | None = None,
    adapter: dict[str, Any] | None = None,
    own_draw: bool = False,
    every_token: bool = False,
    by_hand: dict[str, Any] | None = None,
    to_peft: Callable = to_peft,
    first_apart: Callable = first_apart,
    step_loss: Callable = step_loss,
    linear_factor: Callable = linear_factor,
    clip_factor: Callable = clip_factor,
    adamw_step: Callable = adamw_step,
) -> dict[str, Any]:
    """SFT by TRL with these arguments in the place of the common ones; or, with `by_hand`, written
    out, where `micro_means` takes the mean of the micro-batches' means.
    """
    ours = sft_ours(profile, seed)
    alpha = (adapter or {}).get("lora_alpha", common_of(profile).lora_alpha)
    if by_hand is None:
        theirs = sft_theirs(
            profile, seed, arguments, adapter, own_draw, every_token, to_peft=to_peft
        )
    else:
        options = dict(by_hand)
        if options.pop("micro_means", False):
            step_loss = mean_of_means
        theirs = sft_by_hand(
            profile,
            seed,
            step_loss=step_loss,
            linear_factor=linear_factor,
            clip_factor=clip_factor,
            adamw_step=adamw_step,
            **options,
        )
    return {
        **compared(ours.losses, theirs.losses, first_apart),
        "test_loss": sft_test_loss(profile, theirs.adapter, alpha),
    }


def dpo_trial(
    profile: Profile,
    seed: int,
    arguments: dict[str, Any] | None = None,
    base_as_reference: bool = False,
    first_apart: Callable = first_apart,
) -> dict[str, Any]:
    """DPO by TRL with these arguments in the place of the common ones."""
    ours = dpo_ours(profile, seed)
    theirs = dpo_theirs(profile, seed, arguments, base_as_reference)
    return {
        **compared(ours.losses, theirs.losses, first_apart),
        **dpo_test(profile, theirs.adapter, seed),
    }
