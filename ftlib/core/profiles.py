"""What a lab runs at each scale, in one place: `tiny` (embedded, offline, CPU), `pocket` (a real
model that a package brings, offline, CPU), `small`, `spark`.

`FTLIB_PROFILE` chooses; without it, `tiny` where there is no GPU and `small` where there is one.
`FTLIB_MODEL` (a folder or Hub id) replaces the profile's model, `FTLIB_ROWS` (a folder of
JSONL files) for its data.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from ftlib.core.paths import EMBEDDED, POCKET
from ftlib.core.rehearsal import rehearsed


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
    compared: int = 4  # answers a prompt that the start draws for a judge with a fault to compare


@dataclass(frozen=True)
class Export:
    """Lab 10: exported files, each of which answers golden prompts."""

    prompts: int = 24
    asked: int = 24  # golden prompts of the notebook's own cells, in several runtimes
    speed_runs: int = 5  # of each file, for tokens a second
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


_ULTRAFEEDBACK = "trl-lib/ultrafeedback_binarized"
_ALPACA = "tatsu-lab/alpaca"
_THUMBS = "trl-lib/kto-mix-14k"
PROFILES = {
    "tiny": Profile(
        name="tiny",
        model=EMBEDDED,
        dataset="embedded",
        dtype="float32",
        precision="fp32",
        batch_size=16,
        max_length=256,
        steps=550,
        short_steps=160,
        seeds=(0, 1, 2),
        lr_lora=1.5e-3,
        lr_full=5e-4,
        lr_prefix=0.1,
        lr_bottleneck=3e-3,
        rank=16,
        max_new_tokens=40,
        eval_examples=100,
        download_gb=0.0,
        full_finetuning=True,
    ),
    # SmolLM2-135M on a CPU: a real language model and English text, offline. Only the rate of LoRA
    # was tried, on the messages of data/english; the others are where a sweep begins. A run of 24
    # steps, with its measures, takes minutes.
    "pocket": Profile(
        name="pocket",
        model=POCKET,
        dataset="english",
        dtype="float32",  # bf16 is 1.5 times as fast with bf16 units, and 20 times slower without
        precision="fp32",
        batch_size=4,
        max_length=256,
        steps=40,
        short_steps=24,
        seeds=(0, 1, 2),
        lr_lora=1e-3,
        lr_full=1e-4,
        lr_prefix=1e-2,
        lr_bottleneck=1e-3,
        rank=16,
        max_new_tokens=64,
        eval_examples=24,
        download_gb=0.0,
        full_finetuning=True,
        first_steps=14,
        cell_seconds=1200,
        base_texts=24,
        run_gb=4.0,
        runs_unrecorded=False,
        most_live_arms=1,
        timed_turns=3,
        timed_rows=1,
        demo_steps=2,
        live_rows=12,
        curvature_rows=1,
        curvature_draws=(2, 4),
        drift_steps=6,
        untrained_tokens=("<gh_stars>", "<jupyter_script>", "<empty_output>"),
        study=Study(
            POCKET,
            "train",
            "golden",
            steps=24,
            batch=4,
            lr_lora=1e-3,
            lr_full=1e-4,
            control_rows=8,
            demo_rows=4,
            demo_steps=5,
            few_steps=3,
        ),
        open=OpenAnswers(
            "english",
            rows=12,
            steps=30,
            batch=4,
            lr_lora=5e-4,
            lr_full=5e-5,
            length=320,
            max_new_tokens=80,
        ),
        comparison=Comparison(steps=24, batch=4, rows=40),
        qlora=QLoRA(POCKET, steps=12, batch=4, length=256, lr=1e-3),
        preparation=Preparation("english", rows=400, sizes=(24, 48, 96), steps=24, batch=4),
        preference=Preference(
            "english",
            "english",
            base=POCKET,
            count=96,
            prompts=24,
            batch=4,
            steps=24,
            short_steps=12,
            lr=2e-4,
            orpo_steps=24,
            orpo_lr=5e-4,
            imitation_steps=36,
            answer_tokens=80,
            compared=2,
        ),
        export=Export(
            prompts=12,
            asked=6,
            speed_runs=3,
            speed_tokens=24,
            quantizations=("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"),
        ),
    ),
    "small": Profile(
        name="small",
        model="Qwen/Qwen3-0.6B",
        dataset="b-mc2/sql-create-context",
        dtype="bfloat16",
        precision="bf16",
        batch_size=16,
        max_length=512,
        steps=600,
        short_steps=150,
        seeds=(0, 1, 2),
        lr_lora=2e-4,
        lr_full=2e-5,
        lr_prefix=1e-2,
        lr_bottleneck=5e-4,
        rank=16,
        max_new_tokens=96,
        eval_examples=100,
        download_gb=1.5,
        cell_seconds=3600,
        full_finetuning=True,
        drift_steps=60,
        untrained_tokens=("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
        study=Study(
            "Qwen/Qwen3-0.6B",
            "train",
            "golden",
            steps=150,
            batch=16,
            lr_lora=2e-4,
            lr_full=2e-5,
            gb=1.5,
            demo_steps=75,
        ),
        open=OpenAnswers(
            _ALPACA,
            judge="qwen3:8b",
            rows=400,
            steps=500,
            lr_lora=2e-4,
            lr_full=2e-5,
            length=512,
            max_new_tokens=256,
        ),
        comparison=Comparison(steps=37),
        qlora=QLoRA("Qwen/Qwen3-0.6B", gb=1.5, steps=100, batch=8, length=512, lr=2e-4),
        preparation=Preparation(
            "tatsu-lab/alpaca", rows=5000, sizes=(50, 200, 800), steps=100, batch=16
        ),
        preference=Preference(
            _ULTRAFEEDBACK,
            _THUMBS,
            judge="qwen3:8b",
            base="Qwen/Qwen3-0.6B-Base",
            gb=3.0,
            count=2000,
            prompts=64,
            batch=16,
            steps=100,
            short_steps=60,
            lr=2e-5,
            orpo_steps=150,
            orpo_lr=1e-4,
            answer_tokens=256,
            compared=1,
        ),
    ),
    "spark": Profile(
        name="spark",
        model="meta-llama/Llama-3.1-8B-Instruct",
        dataset="b-mc2/sql-create-context",
        dtype="bfloat16",
        precision="bf16",
        batch_size=16,
        max_length=1024,
        steps=1000,
        short_steps=200,
        seeds=(0, 1, 2),
        lr_lora=2e-4,
        lr_full=1e-5,
        lr_prefix=1e-2,
        lr_bottleneck=5e-4,
        rank=16,
        max_new_tokens=96,
        eval_examples=100,
        download_gb=16.1,
        cell_seconds=86_400,
        full_finetuning=False,
        drift_steps=80,
        gradient_checkpointing=True,
        methods=("LoRA", "DoRA", "bottleneck adapters"),
        untrained_tokens=(
            "<|reserved_special_token_10|>",
            "<|reserved_special_token_11|>",
            "<|reserved_special_token_12|>",
        ),
        study=Study(
            "meta-llama/Llama-3.2-1B-Instruct",
            "train",
            "golden",
            steps=200,
            batch=16,
            lr_lora=2e-4,
            lr_full=2e-5,
            gb=2.5,
            demo_steps=100,
        ),
        open=OpenAnswers(
            _ALPACA,
            judge="qwen3:32b",
            rows=1000,
            steps=1250,
            lr_lora=2e-4,
            lr_full=1e-5,
            length=1024,
            max_new_tokens=512,
        ),
        comparison=Comparison(steps=50),
        qlora=QLoRA(
            "unsloth/Meta-Llama-3.1-70B-Instruct-bnb-4bit",
            gb=39.5,
            steps=20,
            batch=1,
            length=1024,
            lr=1e-4,
        ),
        preparation=Preparation(
            "tatsu-lab/alpaca", rows=52_002, sizes=(50, 200, 800), steps=150, batch=16
        ),
        preference=Preference(
            _ULTRAFEEDBACK,
            _THUMBS,
            judge="qwen3:32b",
            base="meta-llama/Llama-3.1-8B",
            gb=32.1,
            count=4000,
            prompts=64,
            batch=16,
            steps=150,
            short_steps=80,
            lr=1e-5,
            orpo_steps=150,
            orpo_lr=1e-4,
            answer_tokens=256,
            compared=1,
        ),
    ),
}


def _default_name() -> str:
    return "small" if torch.cuda.is_available() else "tiny"


def get_profile(name: str | Profile | None = None) -> Profile:
    """The profile by name, else that of `FTLIB_PROFILE`, else the default for this machine; with
    FTLIB_REHEARSE=1 its rehearsal (`core.rehearsal`).

    ValueError if the name is unknown.
    """
    if isinstance(name, Profile):
        return name
    chosen = name or os.environ.get("FTLIB_PROFILE") or _default_name()
    if chosen not in PROFILES:
        raise ValueError(
            f"profile {chosen!r} is unknown: set FTLIB_PROFILE to one of {', '.join(PROFILES)}"
        )
    profile = PROFILES[chosen]
    return rehearsed(profile) if os.environ.get("FTLIB_REHEARSE") == "1" else profile
