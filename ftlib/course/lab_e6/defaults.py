"""What each side does when nothing is said: a table whose values are read from the installed
libraries, so that it changes when they do.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_e6.settings import common_of
from ftlib.losses.preference import dpo_loss
from ftlib.training.finetune import finetune
from ftlib.training.prefer import prefer

SAME = "the same"


@dataclass(frozen=True)
class Default:
    """One argument or habit: what ftlib has, what TRL or PEFT has, and what both are set to. `arm`:
    the run that switches it back, if there is one.
    """

    what: str
    ours: str
    theirs: str
    common: str
    arm: str = ""

    def row(self) -> dict[str, str]:
        """For `plots.table`."""
        return {
            "what": self.what,
            "ftlib": self.ours,
            "TRL + PEFT": self.theirs,
            "both are set to": self.common,
            "run": self.arm,
        }


# --- reading --------------------------------------------------------------------------------------
def defaults_of(function: Callable) -> dict[str, Any]:
    """The defaults of a function's parameters, by name."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def fields_of(config: type) -> dict[str, Any]:
    """The defaults of a dataclass, by name; those that are made anew are made."""
    found = {}
    for field in dataclasses.fields(config):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def _targets_of_llama() -> str:
    from peft.utils import constants

    return ", ".join(constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING["llama"])


# --- the tables -----------------------------------------------------------------------------------
def adapter_defaults(profile: Profile) -> list[Default]:
    """`ftlib.add_lora` beside `peft.LoraConfig`."""
    from peft import LoraConfig, get_peft_model
    from trl import ModelConfig

    from ftlib.adapters.lora import add_lora

    ours = defaults_of(add_lora)
    theirs = fields_of(LoraConfig)
    line = fields_of(ModelConfig)
    common = common_of(profile)
    wide = defaults_of(get_peft_model)["autocast_adapter_dtype"]
    return [
        Default("rank r", str(ours["r"]), str(theirs["r"]), str(common.r)),
        Default(
            "lora_alpha",
            str(ours["lora_alpha"]),
            str(theirs["lora_alpha"]),
            f"{common.lora_alpha:g}",
            "alpha 8",
        ),
        Default(
            "layers",
            str(ours["target_modules"]),
            f"{theirs['target_modules']}: of a Llama {_targets_of_llama()}",
            "all-linear",
            "q and v alone",
        ),
        Default(
            "dropout",
            str(ours["lora_dropout"]),
            f"{theirs['lora_dropout']}; TRL's command line {line['lora_dropout']}",
            "0",
            "dropout 0.05",
        ),
        Default(
            "start",
            "A random, B = 0",
            "A random, B = 0: another draw",
            "ftlib's A",
            "own draw of A",
        ),
        Default(
            "dtype of A and B",
            "fp32",
            f"{'fp32' if wide else 'the dtype of the base'}; over a 4-bit base bf16, by TRL",
            "fp32",
        ),
    ]


def _rate_rows(ours: Mapping[str, Any], theirs: Mapping[str, Any], profile: Profile):
    common = common_of(profile)
    yield Default(
        "learning rate",
        "must be given",
        f"{theirs['learning_rate']:g}",
        f"{common.rate:g}",
        "rate 2e-5",
    )
    yield Default(
        "schedule",
        str(ours["schedule"]),
        str(getattr(theirs["lr_scheduler_type"], "value", theirs["lr_scheduler_type"])),
        "linear",
        "cosine",
    )
    yield Default(
        "warmup",
        f"{ours['warmup']:.0%} of the steps",
        f"{theirs['warmup_steps']} steps",
        f"{common.warmup_steps(common.steps)} of {common.steps} steps",
        "no warmup",
    )
    yield Default(
        "how long",
        "steps must be given",
        f"{theirs['num_train_epochs']:g} epochs",
        f"{common.steps} steps",
    )


def _optimizer_rows(ours: Mapping[str, Any], theirs: Mapping[str, Any]):
    betas = f"{theirs['adam_beta1']}, {theirs['adam_beta2']}, {theirs['adam_epsilon']:g}"
    yield Default("optimizer", "AdamW, fused", str(theirs["optim"]), SAME)
    yield Default("β₁, β₂, ε", betas, betas, SAME)
    yield Default(
        "weight decay",
        str(ours["weight_decay"]),
        str(theirs["weight_decay"]),
        SAME,
        "weight decay 0.01",
    )
    norm = str(theirs["max_grad_norm"])
    yield Default("clipping by the norm of all gradients", norm, norm, SAME, "no clipping")


def _batch_rows(ours: Mapping[str, Any], theirs: Mapping[str, Any], profile: Profile):
    common = common_of(profile)
    yield Default(
        "rows per step",
        f"{ours['batch_size']} × {ours['accumulate']}",
        f"{theirs['per_device_train_batch_size']} × {theirs['gradient_accumulation_steps']}",
        f"{common.batch} × {common.accumulate}",
        "batch 8",
    )
    yield Default(
        "order",
        "rows of similar length in a step",
        str(theirs["train_sampling_strategy"]),
        "ftlib's order; sequential in TRL",
        "random order",
    )
    yield Default("padding", "right, masked by length", "right, masked by length", SAME)
    yield Default(
        "precision",
        "the profile's",
        "bf16, unless told otherwise" if theirs["bf16"] is None else str(theirs["bf16"]),
        "fp32",
        "bf16",
    )
    yield Default(
        "activation checkpointing",
        "from 7B parameters on",
        "always" if theirs["gradient_checkpointing"] else "never",
        "never",
        "checkpointing",
    )
    yield Default("seed", str(ours["seed"]), str(theirs["seed"]), "the run's")
    yield Default("tracker", "none", str(theirs["report_to"]), "none")


def sft_defaults(profile: Profile) -> list[Default]:
    """`ftlib.finetune` beside `trl.SFTConfig` and `SFTTrainer`."""
    from trl import SFTConfig

    ours = defaults_of(finetune)
    theirs = fields_of(SFTConfig)
    return [
        *_rate_rows(ours, theirs, profile),
        *_optimizer_rows(ours, theirs),
        *_batch_rows(ours, theirs, profile),
        Default(
            "what is scored",
            "the answers",
            "messages: every token; prompt + completion: the completion",
            "the answers: prompt + completion",
            "every token",
        ),
        Default(
            "mean over",
            "the tokens of the whole step",
            "the tokens of the whole step",
            SAME,
            "mean of means",
        ),
        Default(
            "end of an answer",
            "the token that ends the turn, learnt",
            "the same, learnt; and what the template adds after it",
            "ftlib's tokens, if a template adds more",
        ),
        Default(
            "longer rows",
            f"left out and counted, above {ours['max_length']} tokens",
            f"cut at {theirs['max_length']} tokens ({theirs['truncation_mode']})",
            f"none: {profile.max_length} tokens, and no row has more",
        ),
        Default(
            "packing",
            str(ours["packing"]),
            f"{theirs['packing']}; if asked for, {theirs['packing_strategy']}",
            SAME,
        ),
    ]


def dpo_defaults(profile: Profile) -> list[Default]:
    """`ftlib.prefer` beside `trl.DPOConfig` and `DPOTrainer`: what differs from SFT's table."""
    from trl import DPOConfig

    ours = defaults_of(prefer)
    losses = defaults_of(dpo_loss)
    theirs = fields_of(DPOConfig)
    common = common_of(profile)
    return [
        Default(
            "learning rate",
            "must be given",
            f"{theirs['learning_rate']:g}",
            f"{common.dpo_rate:g}",
            "rate 1e-6",
        ),
        Default(
            "warmup",
            f"{ours['warmup']:.0%} of the steps",
            f"{theirs['warmup_steps']} steps",
            f"{common.warmup_steps(common.dpo_steps)} of {common.dpo_steps} steps",
            "no warmup",
        ),
        Default("β", f"{losses['beta']:g}", f"{theirs['beta']:g}", f"{common.beta:g}"),
        Default(
            "label smoothing",
            f"{losses['label_smoothing']:g}",
            f"{theirs['label_smoothing']:g}; read by other losses than {theirs['loss_type'][0]}",
            "0",
        ),
        Default(
            "reference",
            "the model at the start, its adapter included",
            "a PeftModel: a copy of its adapter; peft_config: the model without one",
            "the start, its adapter included",
            "base as reference",
        ),
        Default(
            "the reference's log-probabilities",
            "computed once",
            "once" if theirs["precompute_ref_log_probs"] else "in every step",
            "left as it is: no number changes",
            "reference ahead",
        ),
        Default(
            "log-probabilities",
            "sums",
            f"sums ({theirs['loss_type'][0]})",
            "sums",
            "means a token",
        ),
        Default(
            "dropout", "as the model has it", "off" if theirs["disable_dropout"] else "on", "0"
        ),
        Default("a pair's prompt", "run once", "run twice", "left as it is: no number changes"),
    ]
