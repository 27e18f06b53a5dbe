"""Preference training on `transformers.Trainer`: DPO, SimPO, ORPO and KTO, with one model in memory
and no full logits.

`prefer` is to preferences what `finetune` is to answers: checkpoints, resuming, manifest and `Run`
are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from ftlib.adapters.lora import lora_layers
from ftlib.batches.collate import KTOCollator, PairCollator
from ftlib.batches.preference import encode_binary, encode_pairs, mismatch, row_length, sequences_of
from ftlib.training.folder import RunError, open_folder, run_settings, steps_of
from ftlib.training.options import (
    check_precision,
    check_start,
    recompute_activations,
    training_arguments,
    uses_autocast,
)
from ftlib.training.preference_trainer import LOSSES, PreferenceTrainer, why_unshared
from ftlib.training.reference import describe, load_reference, locked, save_reference, sequence_key
from ftlib.training.run import Run, finish_run, run_callbacks, run_training
from ftlib.training.samplers import LengthGroupedSampler

log = logging.getLogger("ftlib")
OPTIONS = {
    "dpo": {"beta": 0.1, "label_smoothing": 0.0},
    "simpo": {"beta": 2.0, "gamma_beta_ratio": 0.5},
    "orpo": {"beta": 0.1},
    "kto": {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
}
HAVE_REFERENCE = ("dpo", "kto")


def _loss_options(loss: str, given: dict) -> dict:
    """The loss's options, its defaults where none was given."""
    if loss not in OPTIONS:
        raise RunError(f"loss={loss!r}: use one of {', '.join(OPTIONS)}")
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name not in OPTIONS[loss]:
            raise RunError(
                f"{name}={value!r}: loss={loss!r} takes no such option, only "
                f"{', '.join(OPTIONS[loss])}"
            )
    options, one = OPTIONS[loss] | given, torch.full((1,), -1.0)
    tensors = {"simpo": 2, "orpo": 3}.get(loss, 4)
    LOSSES[loss](
        *[one] * tensors, *([one > 0] if loss == "kto" else []), **options
    )  # refuses a value now, not in the first step
    return options


def _check_reference(model, loss: str, reference) -> str | Path | None:
    if loss not in HAVE_REFERENCE:
        if reference is not None:
            raise RunError(f"reference={reference!r}: loss={loss!r} has no reference; leave it out")
        return None
    if reference == "adapter_off" and not lora_layers(model):
        raise RunError(
            "reference='adapter_off': the model has no LoRA adapter; use reference='cached', or "
            "call add_lora first"
        )
    if isinstance(reference, str) and reference not in ("cached", "adapter_off"):
        raise RunError(
            f"reference={reference!r}: use 'cached', 'adapter_off', or a pathlib.Path where the "
            "cache shall lie"
        )
    return "cached" if reference is None else reference


def _kto_order(items: list[dict], batch_size: int, seed: int) -> list[dict]:
    """Rows of like length side by side in batches that stay together; the last batch is topped up
    with rows of the first.
    """
    if len(items) < batch_size:
        raise RunError(
            f"batch_size={batch_size} is more than the {len(items)} rows: lower it, or bring more "
            "rows"
        )
    order = list(LengthGroupedSampler([row_length(item) for item in items], batch_size, seed))
    order += order[: -len(order) % batch_size]
    return mismatch([items[i] for i in order], batch_size)


def _encode(
    tokenizer, rows, eval_rows, loss: str, args, max_length: int
) -> tuple[list[dict], list[dict] | None]:
    """Rows to train on and to evaluate on, in the form that the loss takes."""
    if loss != "kto":
        return encode_pairs(tokenizer, rows, max_length), encode_pairs(
            tokenizer, eval_rows, max_length
        ) if eval_rows else None
    if args.train_batch_size < 2:
        raise RunError(
            f"batch_size={args.train_batch_size}: KTO estimates its reference point from the "
            "other rows of a batch; "
            "use 2 or more"
        )
    train_set = _kto_order(
        encode_binary(tokenizer, rows, max_length), args.train_batch_size, args.seed
    )
    return train_set, mismatch(
        encode_binary(tokenizer, eval_rows, max_length), args.eval_batch_size
    ) if eval_rows else None


def _collator(model, tokenizer, loss: str, share_prefix: bool):
    if loss == "kto":
        return KTOCollator(tokenizer.pad_token_id)
    reason = why_unshared(model) if share_prefix else None
    if reason:
        log.info("prompts are run twice, for chosen and for rejected: %s", reason)
    return PairCollator(tokenizer.pad_token_id, share_prefix and not reason)


def _say_balance(items: list[dict], desirable_weight: float, undesirable_weight: float) -> None:
    good = sum(item["label"] for item in items)
    if 0 < good < len(items) and undesirable_weight:
        ratio = desirable_weight * good / (undesirable_weight * (len(items) - good))
        if not 1 <= ratio <= 4 / 3:
            log.info(
                "%d desirable and %d undesirable rows: weights times numbers are in the ratio "
                "%.2f; "
                "the KTO paper (arXiv 2402.01306) advises 1 to 4/3: set desirable_weight or "
                "undesirable_weight",
                good,
                len(items) - good,
                ratio,
            )


def _keys(item: dict) -> list[bytes]:
    return [sequence_key(**sequence) for sequence in sequences_of(item)]


def _not_known(items: list[dict], known: dict[bytes, float]) -> list[dict]:
    """What is to be computed: pairs of which a side is not known, whose prompt can be run once;
    KTO's sequences one by one, since its mismatched ones change with the seed and its own do not.
    """
    if "chosen_ids" in items[0]:
        return [item for item in items if not known.keys() >= set(_keys(item))]
    missing = {}
    for item in items:
        for sequence in sequences_of(item):
            key = sequence_key(**sequence)
            if key not in known:
                missing[key] = sequence
    return list(missing.values())


def _compute_reference(
    trainer: PreferenceTrainer, todo: list[dict], show: bool
) -> tuple[dict[bytes, float], torch.dtype]:
    """Log-probabilities of these pairs or sequences by key, and their dtype."""
    logps = trainer.reference_logps(todo, show)
    computed = {}
    for item, values in zip(todo, logps.tolist(), strict=True):
        keys = _keys(item) if "chosen_ids" in item else [sequence_key(**item)]
        computed.update(zip(keys, values, strict=True))
    return computed, logps.dtype


def _add_reference(
    trainer: PreferenceTrainer,
    precision: str,
    folder: Path | None,
    shared: bool,
    resumed: bool,
    show: bool,
) -> None:
    """Put the starting policy's log-probabilities into the rows: from the folder, or computed and
    left there. A folder that is `shared` between runs is locked meanwhile.
    """
    parts = {"train": trainer.train_dataset}
    if trainer.eval_dataset:
        parts["eval"] = trainer.eval_dataset
    items = [item for part in parts.values() for item in part]
    with trainer.args.main_process_first(), locked(folder if shared else None):
        policy = describe(trainer.model, precision) if folder else {}
        known = load_reference(folder, policy, resumed, parts) if folder else {}
        todo = _not_known(items, known)
        if todo and resumed:
            raise RunError(
                f"{folder} holds no reference of {len(todo)} of the rows, and the run had begun: "
                "delete the run's folder and start again"
            )
        if todo:
            computed, dtype = _compute_reference(trainer, todo, show)
            known.update(computed)
            if folder and trainer.args.process_index == 0:
                save_reference(folder, policy, known, dtype)
    for item in items:
        item["ref_logps"] = [known[key] for key in _keys(item)]


def prefer(
    model,
    tokenizer,
    rows,
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
    eval_rows=None,
    eval_steps: int | None = None,
    output_dir=None,
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
    undesirable_weight 1). `loss_function` stands in for the one of that name in
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
    ORPO), `lengths/…` in tokens, `nll_loss` (ORPO), and `kl`, in nats a completion: for DPO the
    mean of log π - log π_ref over the chosen completions of the data, which the policy did not
    draw, so it is no estimate of KL(π‖π_ref); for KTO z0. Raises RunError, DataError, LossError
    (all ValueError).
    """
    check_start(model, steps, batch_size, learning_rate)
    options = _loss_options(
        loss,
        {
            "beta": beta,
            "label_smoothing": label_smoothing,
            "gamma_beta_ratio": gamma_beta_ratio,
            "desirable_weight": desirable_weight,
            "undesirable_weight": undesirable_weight,
        },
    )
    precision = check_precision(precision)
    reference = _check_reference(model, loss, reference)
    output_dir = Path(output_dir) if output_dir else None
    common = dict(
        steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        schedule=schedule,
        warmup=warmup,
        weight_decay=weight_decay,
        accumulate=accumulate,
        optimizer=optimizer,
    )
    args = training_arguments(
        output_dir,
        **common,
        save_steps=save_steps,
        log_steps=log_steps,
        autocast=uses_autocast(model, precision),
        eval_steps=(eval_steps or max(1, steps // 8)) if eval_rows else None,
    )
    train_set, eval_set = _encode(tokenizer, rows, eval_rows, loss, args, max_length)
    if loss == "kto":
        _say_balance(train_set, options["desirable_weight"], options["undesirable_weight"])
    collator = _collator(model, tokenizer, loss, share_prefix)
    recompute_activations(model, checkpointing)
    checkpoint, settings = None, None
    if output_dir:
        settings = run_settings(
            model,
            rows,
            eval_rows,
            **common,
            max_length=max_length,
            precision=precision,
            loss=loss,
            **options,
            loss_function=loss_function and getattr(loss_function, "__name__", str(loss_function)),
            reference="cached" if isinstance(reference, Path) else reference,
            share_prefix=getattr(collator, "share_prefix", False),
        )
        checkpoint = open_folder(output_dir, settings, resume, args)
    trainer = PreferenceTrainer(
        model,
        loss,
        options,
        reference == "adapter_off",
        loss_function,
        args=args,
        train_dataset=train_set,
        eval_dataset=eval_set,
        data_collator=collator,
        callbacks=run_callbacks(args, show),
    )
    if reference not in (None, "adapter_off") and steps_of(checkpoint) < steps:
        folder = (
            reference if isinstance(reference, Path) else output_dir and output_dir / "reference"
        )
        _add_reference(
            trainer,
            precision,
            folder,
            isinstance(reference, Path),
            checkpoint is not None,
            show and args.process_index == 0,
        )
    run = run_training(trainer, checkpoint, output_dir)
    if output_dir:
        finish_run(run, model, output_dir, settings, args.process_index == 0)
    return run
