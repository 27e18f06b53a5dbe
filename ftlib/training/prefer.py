"""Preference training on `transformers.Trainer`: DPO, SimPO, ORPO and KTO, with one model in memory
and no full logits.

`prefer` is to preferences what `finetune` is to answers: checkpoints, resuming, manifest and `Run`
are the same.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.adapters.embeddings import changed_embeddings
from ftlib.adapters.lora_layer import lora_layers
from ftlib.batches.collate import KTOCollator, PairCollator
from ftlib.batches.control_tokens import ControlHandling, handling_of
from ftlib.batches.encode import encode_both
from ftlib.batches.preference import encode_binary, encode_pairs, mismatch, row_length, token_lists
from ftlib.batches.stops import learnt_stops, name_turn_end
from ftlib.batches.template import check_tokenizer
from ftlib.batches.vocabulary import check_ids, warn_of_frozen_rows
from ftlib.core.checks import as_rows
from ftlib.training.errors import RunError
from ftlib.training.folder import open_folder
from ftlib.training.identity import name_of, run_settings
from ftlib.training.loss_spec import LossSpec, loss_spec
from ftlib.training.options import TrainOptions, check_trainable, recompute_activations
from ftlib.training.preference_trainer import PreferenceTrainer
from ftlib.training.reference_logps import add_reference
from ftlib.training.row_checks import (
    as_in_training,
    check_later_tokens,
    token_rows,
    why_apart,
)
from ftlib.training.run import Run, run_callbacks, run_training
from ftlib.training.samplers import LengthGroupedSampler

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


log = logging.getLogger("ftlib")


def prefer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[dict],
    *,
    steps: int,
    learning_rate: float,
    loss: str = "dpo",
    beta: float | None = None,
    label_smoothing: float | None = None,
    gamma_beta_ratio: float | None = None,
    desirable_weight: float | None = None,
    undesirable_weight: float | None = None,
    loss_function: Callable | None = None,
    reference: str | Path | None = None,
    share_prefix: bool = True,
    batch_size: int = 16,
    seed: int = 0,
    eval_rows: Iterable[dict] | None = None,
    eval_steps: int | None = None,
    output_dir: str | os.PathLike | None = None,
    resume: bool = True,
    save_steps: int = 50,
    schedule: str = "cosine",
    warmup: float = 0.1,
    weight_decay: float = 0.0,
    accumulate: int = 1,
    checkpointing: bool | None = None,
    max_length: int = 1024,
    log_steps: int = 5,
    optimizer: str = "adamw",
    control_tokens: str = "refuse",
    precision: str | None = None,
    show: bool = True,
) -> Run:
    """Train what requires grad on preferences for `steps` optimizer steps; returns a `Run`. The
    rest is as in `finetune`.

    `rows`: {"prompt", "chosen", "rejected"}, messages or strings (`ftlib.batches.preference`); for
    KTO {"prompt", "completion", "label"}, or pairs, each of which gives a desirable and an
    undesirable row. Rows too long for `max_length` are left out and counted. `loss` and its
    options, defaults those of `ftlib.losses.preference`: "dpo" (beta 0.1, label_smoothing 0),
    "simpo" (beta 2, gamma_beta_ratio 0.5), "orpo" (beta 0.1), "kto" (beta 0.1, desirable_weight 1,
    undesirable_weight 1). `loss_function` replaces the one of that name in
    `ftlib.losses.preference`: it is called with the same arguments, options by keyword, and returns
    the same. A manifest then knows it by its name alone.

    `reference` of DPO and KTO is another state of the one model. "cached", the default: the model
    as it is at the call, an adapter from SFT included; its log-probabilities are computed once,
    without dropout, and kept in `output_dir`/reference. A Path keeps them there instead, for
    several runs from the same start, one after the other or side by side: what one has computed the
    next finds. The start is the same where the base's name and weights, the precision and what the
    adapter does are; a LoRA layer whose B is zero does nothing, whatever its A. Another start is
    refused by name (`ftlib.training.reference`). "adapter_off": the base model, run in every step.

    `share_prefix` runs the prompt once for chosen and rejected where that is exact, else says why
    not: p + 2c tokens in place of 2(p + c). The two completions then also share the dropout of
    their prompt. ORPO's NLL is the mean over each chosen answer's tokens; TRL's is over the tokens
    of prompt and answer, of the whole batch. KTO: batches are drawn once, the last topped up from
    the first, and come in another order every epoch. Mismatched pairs are prompts with the
    completions rotated by one within the batch, z0 their mean log-ratio in the batch of each
    process, at least 0.

    `Run.history` holds, as means over the rows since the last entry (`Run.eval_history`, with
    `eval_`: over all rows), `rewards/chosen`, `rewards/rejected`, `rewards/margins`,
    `rewards/accuracies` (pairs), `logps/…` (sums for DPO and KTO, means a token for SimPO and
    ORPO), `lengths/…` in tokens, `nll_loss` (ORPO), and `kl`, in nats per completion: for DPO the
    mean of log π - log π_ref over the chosen completions of the data, which the policy did not
    draw, so it is no estimate of KL(π‖π_ref); for KTO z0. Raises RunError, DataError, LossError
    (all ValueError).
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
    spec = loss_spec(loss)
    given = {
        "beta": beta,
        "label_smoothing": label_smoothing,
        "gamma_beta_ratio": gamma_beta_ratio,
        "desirable_weight": desirable_weight,
        "undesirable_weight": undesirable_weight,
    }
    objective = Objective(
        spec=spec,
        options=spec.validate(given),
        function=loss_function,
        reference=_check_reference(model, spec, reference),
    )
    rows = as_rows("rows", rows, RunError)
    eval_rows = as_rows("eval_rows", eval_rows or [], RunError)
    return _run(model, tokenizer, rows, eval_rows, options, objective, share_prefix)


@dataclass(frozen=True)
class Objective:
    """What preferences are trained with: the loss, its `options`, a `function` in the place of its
    own, and its checked `reference` ("cached", "adapter_off", a folder, or None).
    """

    spec: LossSpec
    options: dict[str, float]
    function: Callable | None
    reference: str | Path | None

    @property
    def shared_folder(self) -> Path | None:
        """Where several runs keep their reference, if they share one."""
        return self.reference if isinstance(self.reference, Path) else None

    def settings(self) -> dict:
        """What is recorded of it with a run."""
        return {
            "loss": self.spec.name,
            **self.options,
            "loss_function": name_of(self.function),
            "reference": "cached" if self.shared_folder else self.reference,
        }


def _run(
    model, tokenizer, rows, eval_rows, options: TrainOptions, objective: Objective, share: bool
) -> Run:
    """Encode the rows, open the run's folder, have the reference ready, and train."""
    spec = objective.spec
    args = options.trainer_arguments(model, evaluates=bool(eval_rows))
    stops = learnt_stops(model, check_tokenizer(tokenizer))
    handling = handling_of(tokenizer, options.control_tokens, stops)
    train_set, eval_set = _encode(
        tokenizer, rows, eval_rows, spec, args, options.max_length, handling
    )
    name_turn_end(model, tokenizer)
    check_ids(model, tokenizer, token_lists([*train_set, *(eval_set or [])]))
    warn_of_frozen_rows(model, tokenizer)
    if not spec.paired:
        _say_balance(train_set, **_weights(objective.options))
    seen = token_rows(train_set)
    with as_in_training(model, options.precision):
        check_later_tokens(model, seen, tokenizer.pad_token_id)
        collator = preference_collator(model, tokenizer, spec, share, seen)
    recompute_activations(model, options.checkpointing)
    settings = {}
    if options.output_dir:
        shares = getattr(collator, "share_prefix", False)
        recorded = {**options.identity(), **objective.settings(), "share_prefix": shares}
        encoded = [train_set, eval_set]
        settings = run_settings(model, tokenizer, rows, eval_rows, encoded, **recorded)
    with open_folder(options.output_dir, settings, options.resume, args) as folder:
        trainer = PreferenceTrainer(
            model,
            spec.name,
            objective.options,
            adapter_off=objective.reference == "adapter_off",
            function=objective.function,
            args=args,
            train_dataset=train_set,
            eval_dataset=eval_set,
            data_collator=collator,
            callbacks=run_callbacks(args, options.show),
        )
        wants_reference = objective.reference not in (None, "adapter_off")
        if wants_reference and folder.done_steps < options.steps:
            show = options.show and args.process_index == 0
            add_reference(trainer, options.precision, folder, objective.shared_folder, show)
        return run_training(trainer, folder, tokenizer)


def _check_reference(model, spec: LossSpec, reference) -> str | Path | None:
    if not spec.reference:
        if reference is not None:
            raise RunError(
                f"reference={reference!r}: loss={spec.name!r} has no reference; leave it out"
            )
        return None
    if reference == "adapter_off" and not lora_layers(model):
        raise RunError(
            "reference='adapter_off': the model has no LoRA adapter; use reference='cached', or "
            "call add_lora first"
        )
    trains_embedding = any(weight.requires_grad for weight in changed_embeddings(model).values())
    if reference == "adapter_off" and trains_embedding:
        raise RunError(
            "reference='adapter_off': the embedding trains too, and switching the adapter off does "
            "not bring back the one of the start; use reference='cached'"
        )
    if isinstance(reference, str) and reference not in ("cached", "adapter_off"):
        raise RunError(
            f"reference={reference!r}: use 'cached', 'adapter_off', or a pathlib.Path where the "
            "cache is to be"
        )
    return "cached" if reference is None else reference


def kto_order(items: list[dict], batch_size: int, seed: int) -> list[dict]:
    """Rows of like length side by side in batches that stay together; the last batch is topped up
    with rows of the first.
    """
    if len(items) < batch_size:
        raise RunError(
            f"batch_size={batch_size} is more than the {len(items)} rows: lower it, or bring more "
            "rows"
        )
    lengths = [row_length(item) for item in items]
    order = list(LengthGroupedSampler(lengths, batch_size, seed))
    missing = -len(order) % batch_size
    order += order[:missing]
    return mismatch([items[i] for i in order], batch_size)


def _encode(
    tokenizer, rows, eval_rows, spec: LossSpec, args, max_length: int, handling: ControlHandling
) -> tuple[list[dict], list[dict] | None]:
    """Rows to train on and to evaluate on, in the form that the loss takes."""
    encode = functools.partial(
        encode_pairs if spec.paired else encode_binary,
        tokenizer,
        max_length=max_length,
        stops=handling.stops,
        control_tokens=handling,
    )
    if spec.paired:
        return encode_both(encode, rows, eval_rows)
    batch_size = args.train_batch_size
    if batch_size < 2:
        raise RunError(
            f"batch_size={batch_size}: KTO estimates its reference point from the other rows of a "
            "batch; use 2 or more"
        )
    train_set, eval_set = encode_both(encode, rows, eval_rows)
    train_set = kto_order(train_set, batch_size, args.seed)
    if eval_set is not None:
        eval_set = mismatch(eval_set, args.eval_batch_size)
    return train_set, eval_set


def preference_collator(
    model, tokenizer, spec: LossSpec, share_prefix: bool, rows: list[list[int]]
):
    """Pairs share their prompt where that is exact, and one line says where it is not. `rows`:
    token ids of some prompts and completions, with which the model is tried.
    """
    if not spec.paired:
        return KTOCollator(tokenizer.pad_token_id)
    if not share_prefix:
        return PairCollator(tokenizer.pad_token_id, share_prefix=False)
    reason = why_apart(model, rows, tokenizer.pad_token_id)
    if reason:
        log.info("prompts are run twice, for chosen and for rejected: %s", reason)
    return PairCollator(tokenizer.pad_token_id, share_prefix=not reason)


def _weights(loss_options: dict) -> dict[str, float]:
    return {name: value for name, value in loss_options.items() if name.endswith("_weight")}


def _say_balance(items: list[dict], desirable_weight: float, undesirable_weight: float) -> None:
    good = sum(item["label"] for item in items)
    bad = len(items) - good
    if not good or not bad or not undesirable_weight:
        return
    ratio = desirable_weight * good / (undesirable_weight * bad)
    if not 1 <= ratio <= 4 / 3:
        log.info(
            "%d desirable and %d undesirable rows: weights times numbers are in the ratio %.2f; "
            "the KTO paper (arXiv 2402.01306) advises 1 to 4/3: set desirable_weight or "
            "undesirable_weight",
            good,
            bad,
            ratio,
        )
