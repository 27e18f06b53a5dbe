"""The libraries' side: the same two runs by TRL and PEFT, with every argument named that the common
ground needs. TRL and PEFT are imported when a run begins, since they take seconds.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ftlib.adapters.lora_layer import lora_layers
from ftlib.batches.encode import encode_rows
from ftlib.batches.preference import encode_pairs
from ftlib.core.profiles import Profile
from ftlib.course.lab_e6.ours import Adapter, Trained
from ftlib.course.lab_e6.settings import common_of
from ftlib.course.lab_e6.start import (
    chat_base,
    dpo_order,
    dpo_pairs,
    dpo_start,
    sft_order,
    sft_rows,
    sft_start,
)
from ftlib.course.lab_e6.to_peft import to_peft
from ftlib.course.records.kit import study_base

PREFIX = "base_model.model."  # of a module's path inside a PeftModel
LOGGED = ("step", "loss", "learning_rate", "grad_norm")


# --- arguments ------------------------------------------------------------------------------------
def trl_arguments(profile: Profile, steps: int, rate: float, seed: int) -> dict[str, Any]:
    """What `SFTConfig` and `DPOConfig` are both told on the common ground."""
    return {
        "max_steps": steps,
        "learning_rate": rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": common_of(profile).warmup_steps(steps),
        "seed": seed,
        "max_length": profile.max_length,
        "bf16": False,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def sft_arguments(profile: Profile, seed: int) -> dict[str, Any]:
    """The arguments of `SFTConfig`, but for `output_dir`."""
    common = common_of(profile)
    return {
        **trl_arguments(profile, common.steps, common.rate, seed),
        "per_device_train_batch_size": common.batch,
        "gradient_accumulation_steps": common.accumulate,
    }


def dpo_arguments(profile: Profile, seed: int) -> dict[str, Any]:
    """The arguments of `DPOConfig`, but for `output_dir`."""
    common = common_of(profile)
    return {
        **trl_arguments(profile, common.dpo_steps, common.dpo_rate, seed),
        "per_device_train_batch_size": common.dpo_batch,
        "gradient_accumulation_steps": common.dpo_accumulate,
        "beta": common.beta,
    }


def common_adapter(profile: Profile) -> dict[str, Any]:
    """The common adapter in the words of exercise `to_peft`: `scale` stands before BA."""
    common = common_of(profile)
    return {
        "rank": common.r,
        "scale": common.lora_alpha / common.r,
        "rank_stabilized": False,
        "layers": "all",
        "dropout": 0.0,
    }


# --- adapters -------------------------------------------------------------------------------------
def peft_twin(base: nn.Module, model: nn.Module, arguments: dict[str, Any], own: bool = False):
    """`base` with PEFT's adapter of these arguments, whose A and B are those of the ftlib `model`;
    with `own` PEFT's own draw of A.
    """
    from peft import LoraConfig, get_peft_model

    peft = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **arguments))
    if own:
        return peft
    layers = lora_layers(model)
    with torch.no_grad():
        for name, module in _adapted(peft):
            module.lora_A["default"].weight.copy_(layers[name].lora_A)
            module.lora_B["default"].weight.copy_(layers[name].lora_B)
    return peft


def _adapted(peft) -> Iterator[tuple[str, Any]]:
    """(path in the base, module) of every layer that PEFT has put an adapter on."""
    for name, module in peft.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            yield name.removeprefix(PREFIX), module


def adapter_of_peft(peft) -> Adapter:
    """Copies of A and B by ftlib's names."""
    found = {}
    for name, module in _adapted(peft):
        found[f"{name}.lora_A"] = module.lora_A["default"].weight.detach().clone()
        found[f"{name}.lora_B"] = module.lora_B["default"].weight.detach().clone()
    return found


# --- running --------------------------------------------------------------------------------------
@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars of `datasets`, and without what TRL warns of when it is asked for
    exactly that.
    """
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    loggers = [logging.getLogger(name) for name in ("trl", "transformers", "accelerate")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown:
            datasets.enable_progress_bars()


def _train(build: Callable[[str], Any]) -> Trained:
    """Build a trainer over a folder that is thrown away, train, and read its log."""
    from transformers import PrinterCallback

    with tempfile.TemporaryDirectory() as folder, _quiet():
        trainer = build(folder)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    trainer.model.eval()
    return Trained(
        [entry["loss"] for entry in logged],
        [entry["learning_rate"] for entry in logged],
        adapter_of_peft(trainer.model),
        [{name: entry[name] for name in LOGGED if name in entry} for entry in logged],
    )


def _in_order(rows: Sequence[dict], order: Sequence[int]) -> list[dict]:
    return [rows[i] for i in order]


def _take_our_tokens(trainer, encoded: list[dict]) -> None:
    """Give a trainer ftlib's tokens where it has made others of the same rows. Some templates write
    on after the end of a turn, ChatML a line break, and TRL learns that too.
    """
    from datasets import Dataset

    names = list(encoded[0])
    made = [{name: row[name] for name in names} for row in trainer.train_dataset]
    if made != encoded:
        trainer.train_dataset = Dataset.from_list(encoded)


def prompt_and_completion(rows: Sequence[dict]) -> list[dict]:
    """Conversations as TRL scores their last answer alone: without `prompt` and `completion` it
    scores every token, prompt and template included.
    """
    found = []
    for row in rows:
        messages = row["messages"]
        found.append({"prompt": messages[:-1], "completion": messages[-1:]})
    return found


def messages_alone(rows: Sequence[dict]) -> list[dict]:
    return [{"messages": row["messages"]} for row in rows]


def sft_theirs(
    profile: Profile,
    seed: int,
    arguments: dict[str, Any] | None = None,
    adapter: dict[str, Any] | None = None,
    own_draw: bool = False,
    every_token: bool = False,
    to_peft: Callable = to_peft,
) -> Trained:
    """TRL's `SFTTrainer` over a PEFT model. `arguments` of `SFTConfig` and `adapter` of
    `LoraConfig` stand in the place of the common ones; `every_token` gives conversations as they
    are, and `own_draw` lets PEFT draw A.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    common = common_of(profile)
    model, tokenizer = sft_start(profile, seed)
    base, _ = study_base(profile)
    torch.manual_seed(seed)
    peft = peft_twin(base, model, to_peft(common_adapter(profile)) | (adapter or {}), own_draw)
    rows = sft_rows(profile, seed)
    rows = _in_order(rows, sft_order(tokenizer, rows, common, seed, profile.max_length))
    given = messages_alone(rows) if every_token else prompt_and_completion(rows)
    chosen = sft_arguments(profile, seed) | (arguments or {})

    def build(folder: str) -> SFTTrainer:
        trainer = SFTTrainer(
            model=peft,
            args=SFTConfig(output_dir=folder, **chosen),
            train_dataset=Dataset.from_list(given),
            processing_class=tokenizer,
        )
        if not every_token:
            _take_our_tokens(trainer, encode_rows(tokenizer, rows, profile.max_length))
        return trainer

    return _train(build)


def dpo_theirs(
    profile: Profile,
    seed: int,
    arguments: dict[str, Any] | None = None,
    base_as_reference: bool = False,
) -> Trained:
    """TRL's `DPOTrainer` over a PEFT model that brings the SFT adapter. TRL keeps a frozen copy of
    it, "ref", as its reference. `base_as_reference` empties that copy: then the reference is the
    model before SFT, as it is where an adapter is merely switched off.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    common = common_of(profile)
    model, tokenizer = dpo_start(profile, seed)
    base, _ = chat_base(profile)
    peft = peft_twin(base, model, _arguments_of(model))
    pairs = dpo_pairs(profile, seed)
    pairs = _in_order(pairs, dpo_order(tokenizer, pairs, common, seed, profile.max_length))
    chosen = dpo_arguments(profile, seed) | (arguments or {})

    def build(folder: str) -> DPOTrainer:
        trainer = DPOTrainer(
            model=peft,
            args=DPOConfig(output_dir=folder, **chosen),
            train_dataset=Dataset.from_list(pairs),
            processing_class=tokenizer,
        )
        if not trainer.precompute_ref_logps:  # else they belong to the tokens that it has made
            _take_our_tokens(trainer, encode_pairs(tokenizer, pairs, profile.max_length))
        if base_as_reference:
            _empty_reference(trainer.model)
        return trainer

    return _train(build)


def _arguments_of(model: nn.Module) -> dict[str, Any]:
    """The adapter that an ftlib model has, as arguments of `LoraConfig`."""
    config = model.adapter_config
    targets = config.target_modules
    return {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "use_rslora": config.use_rslora,
        "target_modules": targets if isinstance(targets, str) else list(targets),
        "lora_dropout": config.lora_dropout,
    }


def _empty_reference(peft) -> None:
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if ".lora_B.ref." in name:
                parameter.zero_()
