"""What a profile consists of: a part for each lab or two, and what all labs share."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ftlib.core.paths import EMBEDDED


@dataclass(frozen=True)
class Study:
    """Labs 1, 2, 5 and 6: many short runs on a model small enough for full fine-tuning."""

    model: str = EMBEDDED
    train: str = "olm_train"
    test: str = "olm_test"
    steps: int = 100
    batch: int = 4
    lr_lora: float = 4e-3
    lr_full: float = 1e-3
    gb: float = 0.0  # of weights fetched on first use
    ranks: tuple[int, ...] = (1, 4, 16, 64)
    control_rows: int = 40  # on whose tokens a random update moves outputs as far as a trained one
    demo_rows: int = 32  # of the batch whose gradients and logits are looked at (lab 1)
    demo_steps: int = 50  # of a run that shows one thing on one seed (lab 1)
    few_steps: int = 10  # by which two runs are seen to be one (lab 1)


@dataclass(frozen=True)
class OpenAnswers:
    """Lab 3: few rows with open answers, read many times, and who judges held-out answers."""

    dataset: str = "embedded"  # or a Hub dataset that `ftlib.data.hub` knows
    judge: str = ""  # a model of a local server, where rows carry no facts
    rows: int = 88
    steps: int = 250
    batch: int = 8
    lr_lora: float = 4e-3
    lr_full: float = 5e-4
    length: int = 256
    max_new_tokens: int = 72


@dataclass(frozen=True)
class Comparison:
    """Labs 4 and 5: many short runs on the profile's own rows."""

    steps: int = 40
    batch: int = 8
    rows: int = 10_000  # at most, on which a rate is chosen, and on which runs are compared


@dataclass(frozen=True)
class QLoRA:
    """Lab 5: a base in 4 bits, quantised on loading or stored so."""

    model: str = EMBEDDED
    gb: float = 0.0
    steps: int = 120
    batch: int = 8
    length: int = 256
    lr: float = 1.5e-3


@dataclass(frozen=True)
class Preparation:
    """Lab 6: a raw set to prepare, and many short runs on few rows."""

    dataset: str = "embedded"
    rows: int = 400
    sizes: tuple[int, ...] = (32, 128, 512)
    steps: int = 40
    batch: int = 8


@dataclass(frozen=True)
class Preference:
    """Labs 7 to 9: where pairs and thumbs come from, who judges, and short runs."""

    pairs: str = "embedded"  # or a Hub dataset that `ftlib.data.hub` knows
    feedback: str = "embedded"  # likewise
    judge: str = ""  # a model of a local server, where rows carry no facts
    base: str = EMBEDDED  # that ORPO starts from
    gb: float = 0.0  # of the model and the base together
    count: int = 384  # pairs to train on
    prompts: int = 48  # held-out prompts answered and judged after each run
    batch: int = 8
    steps: int = 48
    short_steps: int = 20  # of a run with few thumbs
    lr: float = 8e-4
    orpo_steps: int = 50
    orpo_lr: float = 2e-3
    imitation_steps: int = 150  # of SFT on chosen answers, before or in place of preferences
    answer_tokens: int = 72  # that a held-out answer may have, in splits other than preferences


@dataclass(frozen=True)
class Export:
    """Lab 10: exported files, each of which answers golden prompts."""

    prompts: int = 24
    asked: int = 24  # golden prompts of the notebook's own cells, in several runtimes
    speed_runs: int = 5  # of each file, for tokens per second
    speed_tokens: int = 48  # generated in each
    # Made of f16, from large to small.
    quantizations: tuple[str, ...] = ("Q8_0", "Q6_K", "Q4_K_M", "Q3_K_M", "Q2_K")


@dataclass(frozen=True)
class Profile:
    """Model, data and training settings of one scale.

    Lengths are in tokens, learning rates for AdamW.
    """

    name: str
    model: str
    dataset: str  # "embedded", "english", or a Hub dataset that ftlib.hub knows
    dtype: str  # of the frozen base weights
    # That fp32 weights train in: "fp32", or "bf16" by autocast; never by what the processor has.
    precision: str
    batch_size: int
    max_length: int
    steps: int  # of a full SFT run
    short_steps: int  # of one run in a comparison
    seeds: tuple[int, ...]
    lr_lora: float
    lr_full: float
    # Prefix tuning and bottleneck adapters: tried in tiny alone, elsewhere a place to start from.
    lr_prefix: float
    lr_bottleneck: float
    rank: int
    max_new_tokens: int
    eval_examples: int  # held-out rows that a lab scores
    download_gb: float  # model weights fetched on first use
    full_finetuning: bool  # does full fine-tuning fit this scale's machine?
    gradient_checkpointing: bool = False
    cell_seconds: int = 300  # that a cell may take where all of a lab is executed
    first_steps: int = 0  # of the run that lab 4 trains live; 0: a quarter of short_steps
    base_texts: int = 100  # at most, of the base's own domain, that forgetting is measured on
    run_gb: float = 1.0  # of memory that one run of a comparison takes on a CPU (an estimate)
    # Whether an experiment without a record runs its arms in the notebook; else it shows tiny's.
    runs_unrecorded: bool = True
    # Of the policy that lab 9 looks at before its experiments: as many as `preference.short_steps`,
    # or fewer where a step takes seconds.
    drift_steps: int = 20
    most_live_arms: int = 0  # of an experiment, that run in the notebook; 0: all that it names
    timed_turns: int = 5  # in which ways of training take turns, a step each, to be timed
    timed_rows: int = 64  # at most, of such a step
    demo_steps: int = 6  # at most, of a run in a cell that shows how something works
    live_rows: int = 1000  # at most, whose loss a cell takes beside the recorded runs
    judged_draws: int = 4  # answers a prompt that lab 7 has a judge with a fault compare
    curvature_rows: int = 2  # on which lab 3 takes second derivatives, in fp64
    curvature_draws: tuple[int, int] = (6, 24)  # of a direction: for a value, for its spread
    # That lab 4 trains side by side; prefix tuning needs the KV cache, which gradient checkpointing
    # drops.
    methods: tuple[str, ...] = (
        "LoRA",
        "DoRA",
        "prefix tuning",
        "bottleneck adapters",
        "full fine-tuning",
    )
    # Never seen in pretraining.
    untrained_tokens: tuple[str, ...] = ("<|reserved_0|>", "<|reserved_1|>", "<|reserved_2|>")
    study: Study = Study()
    open: OpenAnswers = OpenAnswers()
    comparison: Comparison = Comparison()
    qlora: QLoRA = QLoRA()
    preparation: Preparation = Preparation()
    preference: Preference = Preference()
    export: Export = Export()

    @property
    def live_seeds(self) -> tuple[int, ...]:
        """Of an experiment without a record, in the notebook: none where runs take minutes."""
        return self.seeds if self.runs_unrecorded else ()

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)
