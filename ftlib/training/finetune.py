"""Supervised fine-tuning: loss on the answer only, live, resumable.

A run with an `output_dir` checkpoints the adapter (not the base), resumes by itself after a kill,
refuses to resume with other settings or data, and ends with `adapter/` and `manifest.json`.
"""

from __future__ import annotations

from pathlib import Path

from ftlib.batches.collate import PackedCollator, SFTCollator
from ftlib.batches.encode import encode_rows
from ftlib.batches.packing import pack
from ftlib.training.folder import RunError, log, open_folder, run_settings
from ftlib.training.neftune import neftune
from ftlib.training.options import (
    check_precision,
    check_start,
    recompute_activations,
    training_arguments,
    uses_autocast,
)
from ftlib.training.run import Run, finish_run, run_callbacks, run_training
from ftlib.training.trainer import SFTTrainer


def finetune(
    model,
    tokenizer,
    rows,
    *,
    steps: int,
    learning_rate: float,
    batch_size: int = 32,
    seed: int = 0,
    eval_rows=None,
    eval_steps: int | None = None,
    output_dir=None,
    resume: bool = True,
    save_steps: int = 50,
    schedule: str = "cosine",
    warmup: float = 0.05,
    weight_decay: float = 0.0,
    accumulate: int = 1,
    checkpointing: bool | None = None,
    max_length: int = 1024,
    log_steps: int = 5,
    neftune_alpha: float = 0.0,
    optimizer: str = "adamw",
    packing: bool = False,
    precision: str | None = None,
    show: bool = True,
) -> Run:
    """Train what requires grad on the answers in `rows` for `steps` optimizer steps; returns a
    `Run`. Under `accelerate launch` or torchrun, `batch_size` is that of each process.

    `rows` are conversations (`datasets.check_row`) or what `encode_rows` made of them; batches hold
    rows of like length, AdamW with `schedule` after a `warmup` share of the steps. With
    `output_dir` the run checkpoints every `save_steps`, resumes after an interruption to the same
    result, and leaves `adapter/` and a manifest. `neftune_alpha` above 0 noises the embeddings
    (`ftlib.neftune`). `checkpointing` recomputes activations instead of keeping them; None: for
    models of 7 billion parameters and more. `optimizer`: "adamw" (fused), "paged_adamw" or
    "paged_adamw_8bit" (bitsandbytes; plain without CUDA). `packing` puts several conversations into
    each row of up to `max_length` tokens, none seeing another (`ftlib.batches.packing`); a step
    then holds `batch_size` packed rows. `precision`: "fp32", or "bf16", which takes products of
    fp32 weights in bf16 (autocast; the weights, their gradients and the optimizer stay fp32); None:
    the profile's, whatever the processor has. A model whose weights have another dtype computes in
    that dtype. Raises RunError or DataError.
    """
    check_start(model, steps, batch_size, learning_rate)
    if packing and neftune_alpha:
        raise RunError(
            f"packing=True and neftune_alpha={neftune_alpha}: "
            "the noise goes by a conversation's own length, which a packed row does not have; "
            "choose one of them"
        )
    precision = check_precision(precision)
    output_dir = Path(output_dir) if output_dir else None
    train_set = encode_rows(tokenizer, rows, max_length)
    eval_set = encode_rows(tokenizer, eval_rows, max_length) if eval_rows else None
    if packing:
        packed, eval_set = pack(train_set, max_length), eval_set and pack(eval_set, max_length).rows
        train_set = packed.rows
        log.info("%s", packed)
    args = training_arguments(
        output_dir,
        steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        schedule=schedule,
        warmup=warmup,
        weight_decay=weight_decay,
        accumulate=accumulate,
        save_steps=save_steps,
        eval_steps=(eval_steps or max(1, steps // 8)) if eval_set else None,
        log_steps=log_steps,
        optimizer=optimizer,
        autocast=uses_autocast(model, precision),
    )
    recompute_activations(model, checkpointing)
    checkpoint, settings = None, None
    if output_dir:
        settings = run_settings(
            model,
            rows,
            eval_rows,
            steps=steps,
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
            schedule=schedule,
            warmup=warmup,
            weight_decay=weight_decay,
            accumulate=accumulate,
            max_length=max_length,
            neftune_alpha=neftune_alpha,
            optimizer=optimizer,
            precision=precision,
            **({"packing": True} if packing else {}),
        )
        checkpoint = open_folder(output_dir, settings, resume, args)
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=train_set,
        eval_dataset=eval_set,
        data_collator=(PackedCollator if packing else SFTCollator)(tokenizer.pad_token_id),
        callbacks=run_callbacks(args, show),
    )
    with neftune(model, neftune_alpha):
        run = run_training(trainer, checkpoint, output_dir)
    if output_dir:
        finish_run(run, model, output_dir, settings, args.process_index == 0)
    return run
