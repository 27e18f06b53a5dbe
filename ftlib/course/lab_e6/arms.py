"""Which default each run of lab E6 switches back, on one side of a comparison that is otherwise
equal; every name says what the run has in the place of the common ground.
"""

from __future__ import annotations

from typing import Any

ALIKE = "all set alike"
BY_HAND = "written out"
CHECKPOINTS = "checkpointing"
OWN_DRAW = "own draw of A"
ORDER = "random order"
BF16 = "bf16"
CLIP = "no clipping"
DECAY = "weight decay 0.01"
COSINE = "cosine"
NO_WARMUP = "no warmup"
DROPOUT = "dropout 0.05"
MEANS = "mean of means"
FEWER = "batch 8"
ALPHA = "alpha 8"
TWO_LAYERS = "q and v alone"
EVERY_TOKEN = "every token"
RATE = "rate 2e-5"
BUT_RATE = "all but the rate"
EVERYTHING = "nothing set"

# Of SFTConfig, in words of its own; every value is checked against the installed TRL.
TRL_RATE = {"learning_rate": 2e-5}
TRL_REST = {
    "warmup_steps": 0,
    "gradient_accumulation_steps": 1,
    "train_sampling_strategy": "random",
    "gradient_checkpointing": True,
    "bf16": True,
}
# Of LoraConfig.
PEFT_ADAPTER = {"lora_alpha": 8, "target_modules": None}
NOTHING_ELSE = {"adapter": PEFT_ADAPTER, "own_draw": True, "every_token": True}

SFT: dict[str, dict[str, Any]] = {
    ALIKE: {},
    BY_HAND: {"by_hand": {}},
    CHECKPOINTS: {"arguments": {"gradient_checkpointing": True}},
    OWN_DRAW: {"own_draw": True},
    ORDER: {"arguments": {"train_sampling_strategy": "random"}},
    BF16: {"arguments": {"bf16": True}},
    DROPOUT: {"adapter": {"lora_dropout": 0.05}},
    DECAY: {"by_hand": {"weight_decay": 0.01}},
    CLIP: {"by_hand": {"max_norm": None}},
    MEANS: {"by_hand": {"micro_means": True}},
    COSINE: {"arguments": {"lr_scheduler_type": "cosine"}},
    NO_WARMUP: {"arguments": {"warmup_steps": 0}},
    FEWER: {"arguments": {"gradient_accumulation_steps": 1}},
    ALPHA: {"adapter": {"lora_alpha": 8}},
    TWO_LAYERS: {"adapter": {"target_modules": None}},
    EVERY_TOKEN: {"every_token": True},
    RATE: {"arguments": TRL_RATE},
    BUT_RATE: {"arguments": TRL_REST, **NOTHING_ELSE},
    EVERYTHING: {"arguments": {**TRL_RATE, **TRL_REST}, **NOTHING_ELSE},
}

BASE_REFERENCE = "base as reference"
MEAN_LOGPS = "means a token"
AHEAD = "reference ahead"
DPO_RATE = "rate 1e-6"

DPO: dict[str, dict[str, Any]] = {
    ALIKE: {},
    AHEAD: {"arguments": {"precompute_ref_log_probs": True}},
    BF16: {"arguments": {"bf16": True}},
    BASE_REFERENCE: {"base_as_reference": True},
    MEAN_LOGPS: {"arguments": {"loss_type": ["sigmoid_norm"]}},
    DPO_RATE: {"arguments": {"learning_rate": 1e-6}},
}
