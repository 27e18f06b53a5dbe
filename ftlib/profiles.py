"""What a lab runs at each scale, in one place: `tiny` (embedded, offline, CPU), `small`, `spark`.

`FTLIB_PROFILE` chooses; without it, `tiny` where there is no GPU and `small` where there is one. `FTLIB_MODEL` (a
folder or Hub id) stands in for the profile's model, `FTLIB_ROWS` (a folder of JSONL files) for its data.
"""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ftlib.loading import DATA, EMBEDDED


@dataclass(frozen=True)
class Profile:
    """Model, data and training settings of one scale. Lengths in tokens, learning rates for AdamW."""
    name: str
    model: str
    dataset: str              # "embedded", or a Hub dataset that datasets.load_rows knows
    dtype: str                # of the frozen base weights
    batch_size: int
    max_length: int
    steps: int                # of a full SFT run
    short_steps: int          # of one run in a comparison
    seeds: tuple[int, ...]
    lr_lora: float
    lr_full: float
    lr_prefix: float          # prefix tuning and bottleneck adapters (ftlib.baselines): tried in tiny alone, elsewhere a
    lr_bottleneck: float      # place to start from
    rank: int
    max_new_tokens: int
    eval_examples: int        # held-out rows that a lab scores
    download_gb: float        # model weights fetched on first use
    full_finetuning: bool     # does full fine-tuning fit this scale's machine?
    gradient_checkpointing: bool = False
    # Studies of many short runs, full fine-tuning among them (lab 1): a model and rows small enough for that.
    study_model: str = EMBEDDED
    study_train: str = "olm_train"
    study_test: str = "olm_test"
    study_steps: int = 100
    study_batch: int = 4
    study_lr_lora: float = 4e-3
    study_lr_full: float = 1e-3
    study_gb: float = 0.0
    ranks: tuple[int, ...] = (1, 4, 16, 64)
    # Lab 5: a base in 4 bits, quantised on loading or stored so.
    qlora_model: str = EMBEDDED
    qlora_gb: float = 0.0
    qlora_steps: int = 120
    qlora_batch: int = 8
    qlora_length: int = 256
    qlora_lr: float = 1.5e-3
    # Lab 6: a raw set to prepare, and many short runs on few rows.
    raw_dataset: str = "embedded"
    raw_rows: int = 400
    data_sizes: tuple[int, ...] = (25, 100, 300)
    data_steps: int = 40
    data_batch: int = 8
    # Lab 10: golden prompts that every exported file answers, and the quantisations made of f16, from large to small.
    export_prompts: int = 24
    quantizations: tuple[str, ...] = ("Q8_0", "Q6_K", "Q4_K_M", "Q3_K_M", "Q2_K")
    # Lab 9: thumbs and pairs ("embedded" or a Hub dataset), the adapter to start from ("": a fresh one), and where rows carry no
    # facts to judge by, the Ollama model that judges.
    kto_feedback: str = "embedded"
    kto_pairs: str = "embedded"
    kto_adapter: str = str(DATA / "sft-adapter")
    kto_judge: str = ""
    kto_steps: int = 32
    kto_short_steps: int = 20         # of a run with few thumbs
    kto_batch: int = 8
    kto_lr: float = 2e-4
    kto_eval: int = 48                # held-out prompts answered after each run
    # Lab 8: a model that answers, where DPO and SimPO start (its adapter from SFT, or none), and the base that ORPO starts from.
    aligned_model: str = EMBEDDED
    aligned_adapter: Path | None = DATA / "sft-adapter"
    orpo_model: str = EMBEDDED
    aligned_gb: float = 0.0
    simpo_steps: int = 40
    simpo_lr: float = 2e-4
    orpo_steps: int = 70
    orpo_lr: float = 1.5e-3
    pair_batch: int = 8
    pair_examples: int = 64   # held-out prompts that are answered and judged
    # Lab 7: an SFT adapter in data/ to start from ("" where the model is instruction-tuned already), and pairs of a Hub dataset.
    start_adapter: str = "sft-adapter"
    preferences: str = "embedded"
    preference_pairs: int = 320
    preference_steps: int = 45
    preference_batch: int = 8
    preference_lr: float = 1e-3
    preference_prompts: int = 48
    # That lab 4 trains side by side at this scale; prefix tuning needs the KV cache, which gradient checkpointing drops.
    methods: tuple[str, ...] = ("LoRA", "DoRA", "prefix tuning", "bottleneck adapters", "full fine-tuning")
    untrained_tokens: tuple[str, ...] = ("<|reserved_0|>", "<|reserved_1|>", "<|reserved_2|>")  # never seen in pretraining

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)


PROFILES = {
    "tiny": Profile(
        name="tiny", model=EMBEDDED, dataset="embedded", dtype="float32", batch_size=16, max_length=256, steps=550,
        short_steps=160, seeds=(0, 1, 2), lr_lora=1.5e-3, lr_full=5e-4, lr_prefix=0.1, lr_bottleneck=3e-3, rank=16,
        max_new_tokens=40, eval_examples=100, download_gb=0.0, full_finetuning=True),
    "small": Profile(
        name="small", model="Qwen/Qwen3-0.6B", dataset="b-mc2/sql-create-context", dtype="bfloat16", batch_size=16,
        max_length=512, steps=600, short_steps=150, seeds=(0, 1, 2), lr_lora=2e-4, lr_full=2e-5, lr_prefix=1e-2, lr_bottleneck=5e-4,
        rank=16, max_new_tokens=96, eval_examples=100, download_gb=1.5, full_finetuning=True,
        study_model="Qwen/Qwen3-0.6B", study_train="train", study_test="golden", study_steps=150, study_batch=16,
        study_lr_lora=2e-4, study_lr_full=2e-5, study_gb=1.5, ranks=(1, 4, 16, 64),
        qlora_model="Qwen/Qwen3-0.6B", qlora_gb=1.5, qlora_steps=100, qlora_batch=8, qlora_length=512, qlora_lr=2e-4,
        raw_dataset="tatsu-lab/alpaca", raw_rows=5000, data_sizes=(50, 200, 800), data_steps=100, data_batch=16,
        kto_feedback="trl-lib/kto-mix-14k", kto_pairs="trl-lib/ultrafeedback_binarized", kto_adapter="", kto_judge="qwen3:8b",
        kto_steps=100, kto_short_steps=60, kto_batch=16, kto_lr=2e-5, kto_eval=50,
        aligned_model="Qwen/Qwen3-0.6B", aligned_adapter=None, orpo_model="Qwen/Qwen3-0.6B-Base", aligned_gb=3.0, simpo_steps=60,
        simpo_lr=2e-5, orpo_steps=150, orpo_lr=1e-4, pair_batch=16,
        start_adapter="", preferences="trl-lib/ultrafeedback_binarized", preference_pairs=2000, preference_steps=200, preference_batch=8,
        preference_lr=2e-5, preference_prompts=64,
        untrained_tokens=("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")),
    "spark": Profile(
        name="spark", model="meta-llama/Llama-3.1-8B-Instruct", dataset="b-mc2/sql-create-context", dtype="bfloat16",
        batch_size=16, max_length=1024, steps=1000, short_steps=200, seeds=(0, 1, 2), lr_lora=2e-4, lr_full=1e-5,
        lr_prefix=1e-2, lr_bottleneck=5e-4, rank=16, max_new_tokens=96, eval_examples=100, download_gb=16.1, full_finetuning=False,
        gradient_checkpointing=True,
        study_model="meta-llama/Llama-3.2-1B-Instruct", study_train="train", study_test="golden", study_steps=200, study_batch=16,
        study_lr_lora=2e-4, study_lr_full=2e-5, study_gb=2.5, ranks=(1, 4, 16, 64),
        qlora_model="unsloth/Meta-Llama-3.1-70B-bnb-4bit", qlora_gb=39.5, qlora_steps=20, qlora_batch=1, qlora_length=1024, qlora_lr=1e-4,
        raw_dataset="tatsu-lab/alpaca", raw_rows=52_002, data_sizes=(50, 200, 800), data_steps=150, data_batch=16,
        kto_feedback="trl-lib/kto-mix-14k", kto_pairs="trl-lib/ultrafeedback_binarized", kto_adapter="", kto_judge="qwen3:32b",
        kto_steps=150, kto_short_steps=80, kto_batch=16, kto_lr=1e-5, kto_eval=50,
        aligned_model="Qwen/Qwen3-8B", aligned_adapter=None, orpo_model="Qwen/Qwen3-8B-Base", aligned_gb=33.0, simpo_steps=60,
        simpo_lr=2e-5, orpo_steps=150, orpo_lr=1e-4, pair_batch=16,
        start_adapter="", preferences="trl-lib/ultrafeedback_binarized", preference_pairs=4000, preference_steps=300, preference_batch=8,
        preference_lr=5e-6, preference_prompts=64,
        methods=("LoRA", "DoRA", "bottleneck adapters"),
        untrained_tokens=("<|reserved_special_token_10|>", "<|reserved_special_token_11|>", "<|reserved_special_token_12|>")),
}


def get_profile(name: str | Profile | None = None) -> Profile:
    """The profile by name, from `FTLIB_PROFILE`, or the default for this machine. ValueError if unknown."""
    if isinstance(name, Profile):
        return name
    chosen = name or os.environ.get("FTLIB_PROFILE") or ("small" if torch.cuda.is_available() else "tiny")
    if chosen not in PROFILES:
        raise ValueError(f"profile {chosen!r} is unknown: set FTLIB_PROFILE to one of {', '.join(PROFILES)}")
    return PROFILES[chosen]
