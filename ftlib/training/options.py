"""What a run is asked for: precision, optimizer, schedule; checked before anything starts."""

from __future__ import annotations

import tempfile

import torch
from transformers import TrainingArguments

from ftlib.adapters.lora import count_parameters
from ftlib.core.profiles import get_profile
from ftlib.training.folder import RunError, log

PRECISIONS = ("fp32", "bf16")


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
    if (
        precision == "bf16"
        and torch.cuda.is_available()
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise RunError(
            f"precision='bf16': {torch.cuda.get_device_name()} has no bf16 units; use "
            "precision='fp32'"
        )
    return precision


def uses_autocast(model, precision: str) -> bool:
    """Whether products of fp32 weights are taken in bf16. Weights of another dtype, be it bf16 or
    float64, compute in their own.
    """
    return precision == "bf16" and model.dtype == torch.float32


OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
LARGE = 7e9  # parameters from which activations are recomputed rather than kept, unless `checkpointing` says otherwise


def optimizer_name(name: str) -> str:
    """Trainer's name of an optimizer; paged ones, whose states may move to the CPU's memory, are
    plain where there is no CUDA.
    """
    if name not in OPTIMIZERS:
        raise RunError(f"optimizer={name!r}: use one of {', '.join(OPTIMIZERS)}")
    if name != "adamw" and not torch.cuda.is_available():
        log.info("%s needs CUDA: training with plain AdamW", name)
        name = "adamw"
    return OPTIMIZERS[name]


def training_arguments(
    output_dir,
    *,
    steps,
    learning_rate,
    batch_size,
    seed,
    schedule,
    warmup,
    weight_decay,
    accumulate,
    save_steps,
    eval_steps,
    log_steps,
    optimizer,
    autocast,
) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(output_dir or tempfile.gettempdir()),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulate,
        per_device_eval_batch_size=batch_size * 2,
        learning_rate=learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=round(warmup * steps),
        weight_decay=weight_decay,
        optim=optimizer_name(optimizer),
        seed=seed,
        bf16=autocast,
        use_cpu=not cuda,
        logging_steps=log_steps,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        save_strategy="steps" if output_dir else "no",
        save_steps=save_steps,
        save_total_limit=2,
        eval_strategy="steps" if eval_steps else "no",
        eval_steps=eval_steps,
        include_num_input_tokens_seen="non_padding",
        dataloader_pin_memory=cuda,
    )


def check_start(model, steps: int, batch_size: int, learning_rate: float) -> None:
    if steps < 1 or batch_size < 1 or not learning_rate > 0:
        raise RunError(
            f"steps={steps}, batch_size={batch_size}, learning_rate={learning_rate}: all must be "
            "above 0"
        )
    if not count_parameters(model)[0]:
        raise RunError(
            "no parameter of the model requires grad: call add_lora, or model.requires_grad_(True)"
        )


def recompute_activations(model, checkpointing: bool | None) -> None:
    """Recompute activations where asked for, or where the model is large."""
    if checkpointing if checkpointing is not None else model.num_parameters() >= LARGE:
        # Non-reentrant: gradients reach the adapters although the embedding output needs none.
        enable = (
            getattr(model, "activation_checkpointing_enable", None)
            or model.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})
