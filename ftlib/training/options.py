"""What a run is asked for: precision, optimizer, schedule; checked before anything starts."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

import torch
from transformers import TrainingArguments

from ftlib.adapters.active import unsaved_parameters
from ftlib.adapters.lora_layer import lora_layers
from ftlib.adapters.trainable import count_parameters
from ftlib.batches.control_tokens import REFUSE, check_choice
from ftlib.core.checks import check_above_zero, check_number, check_positive_integer
from ftlib.core.profiles import get_profile
from ftlib.models.skeleton import check_has_values
from ftlib.models.wrapped import PARALLEL
from ftlib.training.errors import RunError
from ftlib.training.folder import log

PRECISIONS = ("fp32", "bf16")
OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
# Trainer's schedules that need to be told nothing but the number of steps.
SCHEDULES = (
    "cosine",
    "linear",
    "constant",
    "constant_with_warmup",
    "cosine_with_restarts",
    "polynomial",
    "inverse_sqrt",
)
# Parameters from which activations are recomputed rather than kept, unless `checkpointing` says
# otherwise.
LARGE = 7e9
COUNTS = ("steps", "batch_size", "accumulate", "max_length", "save_steps", "log_steps")
# What makes a run the run that it is: one that goes on with another value is another run.
IDENTITY = (
    "steps",
    "learning_rate",
    "batch_size",
    "seed",
    "schedule",
    "warmup",
    "weight_decay",
    "accumulate",
    "max_length",
    "optimizer",
    "precision",
)


@dataclass(kw_only=True)
class TrainOptions:
    """The options that all training has, `finetune`'s and `prefer`'s alike; those say what each
    means. RunError for a value that no run can have.
    """

    steps: int
    learning_rate: float
    batch_size: int
    seed: int = 0
    schedule: str = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.0
    accumulate: int = 1
    optimizer: str = "adamw"
    precision: str | None = None
    max_length: int = 1024
    control_tokens: str = REFUSE
    checkpointing: bool | None = None
    save_steps: int = 50
    eval_steps: int | None = None
    log_steps: int = 5
    output_dir: Path | None = None
    resume: bool = True
    show: bool = True

    def __post_init__(self) -> None:
        for name in COUNTS:
            value = check_positive_integer(name, getattr(self, name), RunError)
            setattr(self, name, value)
        if self.eval_steps is not None:
            self.eval_steps = check_positive_integer("eval_steps", self.eval_steps, RunError)
        self.learning_rate = check_above_zero("learning_rate", self.learning_rate, RunError)
        self.weight_decay = check_number("weight_decay", self.weight_decay, 0, error=RunError)
        self.seed = check_seed(self.seed)
        self.warmup = check_warmup(self.warmup, self.steps)
        check_optimizer(self.optimizer)
        if self.schedule not in SCHEDULES:
            raise RunError(f"schedule={self.schedule!r}: use one of {', '.join(SCHEDULES)}")
        check_choice(self.control_tokens, RunError)
        self.precision = check_precision(self.precision)

    def identity(self) -> dict:
        """What is recorded of a run, and compared when it goes on."""
        recorded = {name: getattr(self, name) for name in IDENTITY}
        # Where control tokens are refused none were there, and it makes no other run of one.
        if self.control_tokens != REFUSE:
            recorded["control_tokens"] = self.control_tokens
        return recorded

    def trainer_arguments(self, model, evaluates: bool) -> TrainingArguments:
        """The same in the words of `transformers.Trainer`."""
        has_gpu = torch.cuda.is_available()
        eval_steps = None
        if evaluates:
            eval_steps = self.eval_steps or max(1, self.steps // 8)
        return TrainingArguments(
            output_dir=str(self.output_dir or tempfile.gettempdir()),
            max_steps=self.steps,
            per_device_train_batch_size=self.batch_size,
            gradient_accumulation_steps=self.accumulate,
            per_device_eval_batch_size=self.batch_size * 2,
            learning_rate=self.learning_rate,
            lr_scheduler_type=self.schedule,
            warmup_steps=round(self.warmup * self.steps),
            weight_decay=self.weight_decay,
            optim=optimizer_name(self.optimizer),
            seed=self.seed,
            bf16=uses_autocast(model, self.precision),
            use_cpu=not has_gpu,
            logging_steps=self.log_steps,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            save_strategy="steps" if self.output_dir else "no",
            save_steps=self.save_steps,
            save_total_limit=2,
            eval_strategy="steps" if eval_steps else "no",
            eval_steps=eval_steps,
            include_num_input_tokens_seen="non_padding",
            dataloader_pin_memory=has_gpu,
        )


def check_warmup(warmup: float, steps: int) -> float:
    """The share, as Python's number. RunError unless `warmup` is a share of the steps; a number of
    steps is told what to pass.
    """
    is_count = isinstance(warmup, Real) and not isinstance(warmup, bool) and warmup >= 1
    if is_count and warmup < steps:
        raise RunError(
            f"warmup={warmup!r} is a share of the steps, from 0 up to 1: for {warmup:g} of "
            f"{steps} steps pass warmup={warmup / steps:.3g}"
        )
    return check_number("warmup", warmup, 0, 1, RunError)


def check_seed(seed: int) -> int:
    """The seed as an int. RunError unless it is what PyTorch and NumPy both take: a whole number of
    32 bits.
    """
    is_integer = isinstance(seed, Integral) and not isinstance(seed, bool)
    if not is_integer or not 0 <= seed < 2**32:
        raise RunError(f"seed={seed!r}: must be a whole number from 0 up to 2**32")
    return int(seed)


def check_precision(precision: str | None) -> str:
    """The precision asked for; None takes the profile's. RunError for another name, or for bf16 on
    a GPU without it.
    """
    if precision is None:
        precision = get_profile().precision
    if precision not in PRECISIONS:
        raise RunError(
            f"precision={precision!r}: use one of {', '.join(PRECISIONS)}, or None for the "
            "profile's"
        )
    has_gpu = torch.cuda.is_available()
    if precision == "bf16" and has_gpu and not torch.cuda.is_bf16_supported(False):
        raise RunError(
            f"precision='bf16': {torch.cuda.get_device_name()} has no bf16 units; use "
            "precision='fp32'"
        )
    return precision


def uses_autocast(model, precision: str | None) -> bool:
    """Whether products of fp32 weights are taken in bf16. Weights of another dtype, be it bf16 or
    float64, compute in their own.
    """
    return precision == "bf16" and model.dtype == torch.float32


def check_optimizer(name: str) -> None:
    if name not in OPTIMIZERS:
        raise RunError(f"optimizer={name!r}: use one of {', '.join(OPTIMIZERS)}")


def optimizer_name(name: str) -> str:
    """Trainer's name of an optimizer; paged ones, whose states may move to the CPU's memory, are
    plain where there is no CUDA.
    """
    check_optimizer(name)
    if name != "adamw" and not torch.cuda.is_available():
        log.info("%s needs CUDA: training with plain AdamW", name)
        name = "adamw"
    return OPTIMIZERS[name]


def check_trainable(model) -> None:
    """RunError for a model of which nothing would train, or not rightly, or would not be saved."""
    if isinstance(model, PARALLEL):
        raise RunError(
            f"model is a {type(model).__name__}: pass the model inside it (model.module); the run "
            "spreads it over the processes that torchrun or `accelerate launch` start"
        )
    trained, _ = count_parameters(model)
    if not trained:
        raise RunError(
            "no parameter of the model requires grad: call add_lora, or model.requires_grad_(True)"
        )
    lost = unsaved_parameters(model)
    if lost:
        raise RunError(
            f"{len(lost)} parameters beside the adapter require grad, the first {lost[0]!r}, but "
            "an adapter's folder does not hold them: call requires_grad_(False) on them, or train "
            "the whole model without an adapter"
        )
    check_has_values(model, "training", RunError)
    _check_adapter_acts(model)
    _check_dtypes(model)


def _check_adapter_acts(model) -> None:
    """RunError where an adapter would get no gradient."""
    for name, layer in lora_layers(model).items():
        if layer.merged:
            raise RunError(
                f"the adapter of {name} is merged into the weights and would not train: "
                "unmerge_adapter to train it on, or merge_and_unload and add_lora for another"
            )
        if not layer.enabled:
            raise RunError(
                f"the adapter of {name} is switched off and would not train: leave disable_adapter"
            )


def _check_dtypes(model) -> None:
    """RunError for float16 weights that train; a warning for bfloat16 ones, and for a frozen model
    in float16.

    Training in float16 needs fp32 master weights and a scaled loss, which ftlib's runs do not have.
    An adapter's own weights are fp32, and its gradients mostly lie in float16's range.
    """
    parameters = list(model.named_parameters())
    trained = [(name, p) for name, p in parameters if p.requires_grad]
    for name, p in trained:
        if p.dtype == torch.float16:
            raise RunError(
                f"{name} trains in torch.float16, in which AdamW overflows and small updates "
                "vanish: load the model with dtype=torch.float32 (and precision='bf16' for speed)"
            )
    if model.dtype == torch.float16:
        log.warning(
            "the model computes in torch.float16: gradients below 6e-8 vanish, since ftlib scales "
            "no loss; load it with dtype=torch.bfloat16 or torch.float32 where the loss stalls"
        )
    narrow = sum(p.numel() for _, p in trained if p.dtype == torch.bfloat16)
    if narrow:
        log.warning(
            "%s weights train in torch.bfloat16, which rounds away updates below a 256th of a "
            "weight: load the model with dtype=torch.float32 (and precision='bf16' for speed)",
            f"{narrow:,}",
        )


def recompute_activations(model, checkpointing: bool | None) -> None:
    """Recompute activations where asked for; None: where the model is large."""
    if checkpointing is None:
        checkpointing = model.num_parameters() >= LARGE
    if not checkpointing:
        return
    enable = getattr(model, "activation_checkpointing_enable", None)
    if enable is None:  # its name in older versions of transformers
        enable = model.gradient_checkpointing_enable
    # Non-reentrant: gradients reach the adapters although the embedding output needs none.
    enable({"use_reentrant": False})
