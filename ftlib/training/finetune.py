"""Supervised fine-tuning: loss on the answer only, live, resumable.

A run with an `output_dir` checkpoints the adapter (not the base), resumes by itself after a kill,
refuses to resume with other settings or data, and ends with `adapter/` and `manifest.json`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.batches.collate import PackedCollator, SFTCollator
from ftlib.batches.control_tokens import ControlHandling, handling_of
from ftlib.batches.encode import encode_both, encode_rows
from ftlib.batches.packing import pack
from ftlib.batches.stops import learnt_stops, name_turn_end
from ftlib.batches.template import check_tokenizer
from ftlib.batches.vocabulary import check_ids, warn_of_frozen_rows
from ftlib.core.checks import as_rows
from ftlib.training.errors import RunError
from ftlib.training.folder import log, open_folder
from ftlib.training.identity import run_settings, settings_of
from ftlib.training.neftune import neftune
from ftlib.training.options import TrainOptions, check_trainable, recompute_activations
from ftlib.training.row_checks import (
    as_in_training,
    check_later_tokens,
    check_packing,
    token_rows,
)
from ftlib.training.run import Run, run_callbacks, run_training
from ftlib.training.trainer import SFTTrainer
from ftlib.training.watch import Watch, WatchCallback

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


def finetune(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[dict],
    *,
    steps: int,
    learning_rate: float,
    batch_size: int = 32,
    seed: int = 0,
    eval_rows: Iterable[dict] | None = None,
    eval_steps: int | None = None,
    output_dir: str | os.PathLike | None = None,
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
    control_tokens: str = "refuse",
    precision: str | None = None,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    watch: Watch | None = None,
    show: bool = True,
) -> Run:
    """Train what requires grad on the answers in `rows` for `steps` optimizer steps; returns a
    `Run`. Under `accelerate launch` or torchrun, `batch_size` is that of each process.

    `rows` are conversations (`ftlib.data.rows.check_row`) or what `encode_rows` made of them;
    batches hold rows of like length, AdamW with `schedule` after a `warmup` share of the steps.
    With `output_dir` the run checkpoints every `save_steps`, resumes after an interruption to the
    same result, and leaves `adapter/` and a manifest. `neftune_alpha` above 0 noises the embeddings
    (`ftlib.training.neftune`). `checkpointing` recomputes activations instead of keeping them;
    None: for models of 7 billion parameters and more. `optimizer`: "adamw" (fused), "paged_adamw"
    or "paged_adamw_8bit" (bitsandbytes; plain without CUDA). `packing` puts several conversations
    into each row of up to `max_length` tokens, none seeing another (`ftlib.batches.packing`); a
    step then holds `batch_size` packed rows. A model that does not keep them apart, as those that
    carry a state, is refused, and so is one that sees the tokens that it is to predict: both are
    tried on a few rows before training begins (`ftlib.losses.isolation`). `control_tokens`: what
    becomes of a text that spells one, such as ``<|end|>``: "refuse", "text" or "allow"
    (`ftlib.batches.template.encode`). `precision`: "fp32", or
    "bf16", which takes products of fp32 weights in bf16 (autocast; the weights, their gradients and
    the optimizer stay fp32); None: the profile's, whatever the processor has. A model whose weights
    have another dtype computes in that dtype. `penalty(model)` -> () is added to the loss once a
    step, such as `ftlib.EWC`; a manifest knows it by its name and its `settings`, if it has them.
    `watch`, such as `ftlib.ForgettingWatch`, measures the model every so many steps and may stop
    the run (`ftlib.training.watch`). Raises RunError or DataError.
    """
    options = TrainOptions(
        steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        schedule=schedule,
        warmup=warmup,
        weight_decay=weight_decay,
        accumulate=accumulate,
        optimizer=optimizer,
        precision=precision,
        max_length=max_length,
        control_tokens=control_tokens,
        checkpointing=checkpointing,
        save_steps=save_steps,
        eval_steps=eval_steps,
        log_steps=log_steps,
        output_dir=Path(output_dir) if output_dir else None,
        resume=resume,
        show=show,
    )
    check_trainable(model)
    extras = _Extras(packing, neftune_alpha, penalty, watch)
    rows = as_rows("rows", rows, RunError)
    eval_rows = as_rows("eval_rows", eval_rows or [], RunError)
    return _run(model, tokenizer, rows, eval_rows, options, extras)


@dataclass(frozen=True)
class _Extras:
    """What `finetune` has beside the options of all training. RunError for what does not go."""

    packing: bool
    neftune_alpha: float
    penalty: Callable[[nn.Module], Tensor] | None
    watch: Watch | None

    def __post_init__(self) -> None:
        if self.penalty is not None and not callable(self.penalty):
            raise RunError(
                f"penalty={self.penalty!r}: pass a function of the model, such as ftlib.EWC"
            )
        if self.watch is not None and not callable(getattr(self.watch, "measure", None)):
            raise RunError(
                f"watch={self.watch!r}: pass an ftlib.ForgettingWatch, or what has its parts"
            )
        if self.packing and self.neftune_alpha:
            raise RunError(
                f"packing=True and neftune_alpha={self.neftune_alpha}: the noise goes by a "
                "conversation's own length, which a packed row does not have; choose one of them"
            )

    def identity(self) -> dict:
        """What is recorded of a run, and compared when it goes on."""
        recorded = {
            "neftune_alpha": self.neftune_alpha,
            "penalty": settings_of(self.penalty),
            "watch": settings_of(self.watch),
        }
        if self.packing:
            recorded["packing"] = True
        return recorded


def _run(model, tokenizer, rows, eval_rows, options: TrainOptions, extras: _Extras) -> Run:
    """Encode the rows, try the model on some, open the run's folder, and train."""
    stops = learnt_stops(model, check_tokenizer(tokenizer))
    handling = handling_of(tokenizer, options.control_tokens, stops)
    train_set, eval_set = _encode(
        tokenizer, rows, eval_rows, options.max_length, extras.packing, handling
    )
    check_ids(model, tokenizer, [row["input_ids"] for row in [*train_set, *(eval_set or [])]])
    warn_of_frozen_rows(model, tokenizer)
    name_turn_end(model, tokenizer)
    _try_rows(model, train_set, tokenizer.pad_token_id, options.precision, extras.packing)
    args = options.trainer_arguments(model, evaluates=bool(eval_set))
    recompute_activations(model, options.checkpointing)
    settings = {}
    if options.output_dir:
        identity = {**options.identity(), **extras.identity()}
        encoded = [train_set, eval_set]
        settings = run_settings(model, tokenizer, rows, eval_rows, encoded, **identity)
    collator = PackedCollator if extras.packing else SFTCollator
    callbacks = run_callbacks(args, options.show)
    if extras.watch is not None:
        callbacks.append(WatchCallback(extras.watch, tokenizer))
    with open_folder(options.output_dir, settings, options.resume, args) as folder:
        trainer = SFTTrainer(
            model=model,
            args=args,
            train_dataset=train_set,
            eval_dataset=eval_set,
            data_collator=collator(tokenizer.pad_token_id),
            callbacks=callbacks,
            penalty=extras.penalty,
        )
        with neftune(model, extras.neftune_alpha):
            return run_training(trainer, folder, tokenizer)


def _try_rows(model, train_set: list[dict], pad: int, precision: str | None, packing: bool) -> None:
    """RunError for a model that sees what it is to predict, or does not keep packed rows apart."""
    seen = token_rows(train_set)
    with as_in_training(model, precision):
        check_later_tokens(model, seen, pad)
        if packing:
            check_packing(model, seen, pad)


def _encode(
    tokenizer, rows, eval_rows, max_length: int, packing: bool, handling: ControlHandling
) -> tuple[list[dict], list[dict] | None]:
    """Rows to train on and to evaluate on, as token ids, packed if asked for."""
    encode = functools.partial(
        encode_rows,
        tokenizer,
        max_length=max_length,
        stops=handling.stops,
        control_tokens=handling,
    )
    train_set, eval_set = encode_both(encode, rows, eval_rows)
    if not packing:
        return train_set, eval_set
    packed = pack(train_set, max_length)
    log.info("%s", packed)
    if eval_set:
        eval_set = pack(eval_set, max_length).rows
    return packed.rows, eval_set
