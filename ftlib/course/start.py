"""Where the labs after 3.1.4 start: the adapter that lab 4 trained, or one in its place."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, overload

import torch

from ftlib.core.paths import DATA, EMBEDDED, stand_in
from ftlib.core.profiles import Profile
from ftlib.export.trained import find_adapter
from ftlib.models.load import load_model

log = logging.getLogger("ftlib")


@overload
def sft_adapter(
    profile: Profile, run: str | Path = ..., output: str | Path = ..., train: Literal[True] = ...
) -> Path: ...


@overload
def sft_adapter(
    profile: Profile, run: str | Path = ..., output: str | Path = ..., *, train: Literal[False]
) -> Path | None: ...


def sft_adapter(
    profile: Profile,
    run: str | Path = "runs/lab-3.1.4",
    output: str | Path = "runs/sft-start",
    train: bool = True,
) -> Path | None:
    """The folder of an SFT adapter for the profile's model.

    Lab 4's, if `run` holds one for this model; else the shipped one for the embedded model; else
    one that is trained now for `short_steps` into `output`, and found there the next time. With
    `train=False` only the first two, or None: what was trained in lab 4's place is not lab 4's.
    A relative folder is looked for here and one folder up: the labs keep their runs beside
    themselves, and the extensions lie one folder deeper.
    """
    model = stand_in(profile.model, given=False)
    for place in (run, output) if train else (run,):
        for folder in (Path(place), Path("..", place)):
            adapter = _adapter_in(folder, model)
            if adapter is not None:
                return adapter
    if model == EMBEDDED:
        return DATA / "sft-adapter"
    return _train(profile, Path(output)) if train else None


def _adapter_in(folder: Path, model: str) -> Path | None:
    """The run's adapter, if it has one and it is for this model."""
    if not (folder / "adapter").is_dir():
        return None
    adapter, base = find_adapter(folder)
    if base == model:
        return adapter
    log.info("%s is for %s, not for %s: left alone", adapter, base, model)
    return None


def after_sft(profile: Profile, seed: int = 0):
    """(model, tokenizer) where preference training begins: the SFT adapter merged into the weights,
    a fresh LoRA over them, the same for the same seed. With the adapter off it is the reference.
    The model itself, where lab 4 has left no adapter for it: on the Hub it is instruction-tuned
    already.
    """
    from ftlib.adapters.io import load_adapter
    from ftlib.adapters.lora import add_lora, merge_and_unload

    model, tokenizer = load_model(profile=profile)
    if adapter := sft_adapter(profile, train=False):
        merge_and_unload(load_adapter(model, adapter))
    torch.manual_seed(seed)
    return add_lora(model, r=profile.rank, lora_alpha=2 * profile.rank), tokenizer


def _train(profile: Profile, output: Path) -> Path:
    from ftlib.adapters.lora import add_lora
    from ftlib.data.load import load_rows
    from ftlib.training.finetune import finetune

    model, tokenizer = load_model(profile=profile)
    add_lora(model, r=profile.rank)
    finetune(
        model,
        tokenizer,
        load_rows("train", profile),
        steps=profile.short_steps,
        learning_rate=profile.lr_lora,
        batch_size=profile.batch_size,
        max_length=profile.max_length,
        checkpointing=profile.gradient_checkpointing,
        output_dir=output,
    )
    return output / "adapter"
