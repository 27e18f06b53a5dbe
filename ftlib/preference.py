"""Preference training on `transformers.Trainer`: DPO, SimPO, ORPO and KTO, with one model in memory and no full logits.

`prefer` is to preferences what `finetune` is to answers: checkpoints, resuming, manifest and `Run` are the same.
"""
from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Sampler
from tqdm import tqdm

from ftlib.baselines import parts_of
from ftlib.baselines.prefix import Prefix
from ftlib.datasets import IGNORE
from ftlib.logps import _last_hidden, _tiled_head, _wide, token_logps
from ftlib.lora import disable_adapter, lora_layers
from ftlib.losses import dpo_loss, kto_loss, orpo_loss, simpo_loss
from ftlib.preference_data import CHOSEN, REJECTED, KTOCollator, PairCollator, encode_binary, encode_pairs, mismatch, row_length, shared_mask
from ftlib.reference import describe, load_reference, save_reference
from ftlib.train import LengthGroupedSampler, Run, RunError, SFTTrainer, _arguments, _callbacks, _check_start, _finish, _open_dir, _recompute, _run, _settings, _steps_of

log = logging.getLogger("ftlib")
OPTIONS = {"dpo": {"beta": 0.1, "label_smoothing": 0.0}, "simpo": {"beta": 2.0, "gamma_beta_ratio": 0.5}, "orpo": {"beta": 0.1},
           "kto": {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}}
REFERENCES = {"dpo": ("cached", "adapter_off"), "kto": ("cached", "adapter_off"), "simpo": (), "orpo": ()}
REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected", "lengths/chosen", "lengths/rejected")
METRICS = {"dpo": (*REWARDS, "rewards/accuracies", "kl"), "simpo": (*REWARDS, "rewards/accuracies"),
           "orpo": (*REWARDS, "rewards/accuracies", "nll_loss"), "kto": (*REWARDS, "kl")}


# --- log-probabilities of a batch ---------------------------------------------------------------------------------------
def why_unshared(model) -> str | None:
    """Why a prompt cannot be run once for both completions of a pair with this model; None where that is exact."""
    config, forward = model.config.get_text_config(decoder=True), inspect.signature(model.base_model.forward).parameters
    attention, kinds = config._attn_implementation, set(getattr(config, "layer_types", None) or ())
    if attention not in ("sdpa", "eager"):
        return f"attention {attention!r} takes no mask of four dimensions"
    if kinds - {"full_attention"} or not kinds and getattr(config, "sliding_window", None):
        return "not every layer attends to everything before"
    if "position_ids" not in forward or getattr(config, "alibi", False) or getattr(model, "_is_stateful", False):
        return "positions cannot be given to this model"
    return "the model has a trained prefix" if parts_of(model, Prefix) else None


def _batch_logps(model, labels: Tensor, **inputs) -> Tensor:
    """`token_logps` of a batch, (B, T), by one call of the model, so that adapters, hooks and wrappers act."""
    inner = getattr(model, "module", model)  # of DistributedDataParallel
    weight = _tiled_head(inner)
    if weight is not None:
        none = torch.empty(0, dtype=torch.long, device=labels.device)
        with _last_hidden(inner.base_model) as seen:
            model(**inputs, use_cache=False, logits_to_keep=none)
        return token_logps(seen[0], weight, labels)
    logits, targets = _wide(model(**inputs, use_cache=False).logits[:, :-1]), labels[:, 1:]
    logps = (logits.gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1) - logits.logsumexp(-1)) * (targets != IGNORE)
    return torch.nn.functional.pad(logps, (0, 1))


def _attention_mask(model, segments: Tensor) -> Tensor:
    mask, inner = shared_mask(segments), getattr(model, "module", model)
    if inner.config.get_text_config(decoder=True)._attn_implementation == "sdpa":
        return mask
    lowest = torch.finfo(inner.dtype).min  # eager attention adds its mask to the scores
    return torch.zeros_like(mask, dtype=inner.dtype).masked_fill(~mask, lowest)


def pair_logps(model, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Of a `PairCollator` batch: log π(completion | prompt), summed over its tokens (nats), and how many tokens, each (B, 2): chosen, rejected."""
    labels, segments = batch["labels"], batch.get("segments")
    if segments is None:
        logps = _batch_logps(model, labels, input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return logps.sum(1).view(2, -1).T, (labels[:, 1:] != IGNORE).sum(1).view(2, -1).T
    logps = _batch_logps(model, labels, input_ids=batch["input_ids"], position_ids=batch["position_ids"],
                         attention_mask=_attention_mask(model, segments))
    # A segment's first label is ignored, so a score stands in the segment that it belongs to.
    inside = torch.stack([segments == CHOSEN, segments == REJECTED], dim=1)
    return (logps[:, None] * inside).sum(-1), ((labels != IGNORE)[:, None] & inside).sum(-1)


def kto_logps(model, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Of a `KTOCollator` batch: summed log-probabilities (nats) of each prompt's own completion, and without gradient of the
    mismatched one, and their numbers of tokens, each (B, 2)."""
    out = []
    for prefix in ("", "kl_"):
        with torch.set_grad_enabled(torch.is_grad_enabled() and not prefix):
            logps = _batch_logps(model, batch[f"{prefix}labels"], **{k: batch[prefix + k] for k in ("input_ids", "attention_mask")})
        out.append((logps.sum(1), (batch[f"{prefix}labels"][:, 1:] != IGNORE).sum(1)))
    (own, own_count), (other, other_count) = out
    return torch.stack([own, other], 1), torch.stack([own_count, other_count], 1)


# --- the trainer --------------------------------------------------------------------------------------------------------
class BlockSampler(Sampler):
    """Blocks of `size` consecutive rows in an order of seed and epoch: KTO's mismatched pairs stay within their batch."""

    def __init__(self, count: int, size: int, seed: int):
        self.count, self.size, self.seed, self.epoch = count, size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self):
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        order = torch.randperm(self.count // self.size, generator=generator).tolist()
        return (i for block in order for i in range(block * self.size, (block + 1) * self.size))


class PreferenceTrainer(SFTTrainer):
    """`SFTTrainer` with a preference loss. `options` are the loss's; `adapter_off`: the reference is the base, run in every step.

    A batch without `ref_logps` and without `adapter_off` has no reference. Data order depends on the rows and the seed alone.
    """

    def __init__(self, model, loss: str, options: dict, adapter_off: bool = False, **trainer):
        super().__init__(model, **trainer)
        self.model_accepts_loss_kwargs = False  # the loss is a mean over rows: Trainer divides it by the accumulated batches
        self.loss, self.options, self.adapter_off, self.metric_names = loss, options, adapter_off, METRICS[loss]
        self.two_logps = kto_logps if loss == "kto" else pair_logps
        self.sums: dict[str, Tensor] = {}

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        rows, batch_size = self.train_dataset if train_dataset is None else train_dataset, self.args.train_batch_size
        if self.loss == "kto":
            return BlockSampler(len(rows), batch_size, self.args.seed)
        return LengthGroupedSampler([row_length(row) for row in rows], batch_size * self.args.gradient_accumulation_steps * self.args.world_size,
                                    self.args.seed)

    def frozen_logps(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, 2) summed log-probabilities of the model as it is, without gradient and without dropout."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                return self.two_logps(self.model, batch)[0]
        finally:
            self.model.train(training)

    def _reference(self, batch: dict[str, Tensor], like: Tensor) -> Tensor:
        if not self.adapter_off:
            return batch["ref_logps"].to(like.dtype)
        with disable_adapter(self.model):
            return self.frozen_logps(batch)

    def row_losses(self, model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of every row, (B,), and by name the rows' values of which metrics are means."""
        return (self._kto if self.loss == "kto" else self._pairs)(model, batch)

    def _pairs(self, model, batch) -> tuple[Tensor, dict[str, Tensor]]:
        logps, counts = self.two_logps(model, batch)
        extra = {}
        if self.loss == "dpo":
            ratios = logps.detach() - (reference := self._reference(batch, logps))
            losses, *rewards = dpo_loss(*logps.unbind(1), *reference.unbind(1), **self.options)
            extra["kl"] = ratios[:, 0]
        else:
            logps = logps / counts
            chosen, rejected = logps.unbind(1)
            more = () if self.loss == "simpo" else (-chosen,)
            losses, *rewards = (orpo_loss if more else simpo_loss)(chosen, rejected, *more, **self.options)
            extra |= {"nll_loss": -chosen.detach()} if more else {}
        chosen, rejected = rewards
        return losses, {"rewards/chosen": chosen, "rewards/rejected": rejected, "rewards/accuracies": chosen > rejected,
                        "rewards/margins": chosen - rejected, "logps/chosen": logps[:, 0].detach(), "logps/rejected": logps[:, 1].detach(),
                        "lengths/chosen": counts[:, 0], "lengths/rejected": counts[:, 1], **extra}

    def _kto(self, model, batch) -> tuple[Tensor, dict[str, Tensor]]:
        logps, counts = self.two_logps(model, batch)
        reference, desirable = self._reference(batch, logps), batch["desirable"]
        losses, rewards = kto_loss(logps[:, 0], reference[:, 0], logps[:, 1], reference[:, 1], desirable, **self.options)
        values = {"kl": (logps[:, 1] - reference[:, 1]).detach().mean().clamp(min=0)[None]}
        for side, rows in (("chosen", desirable), ("rejected", ~desirable)):
            values |= {f"rewards/{side}": rewards[rows], f"logps/{side}": logps[rows, 0].detach(), f"lengths/{side}": counts[rows, 0]}
        return losses, values

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> Tensor:
        losses, values = self.row_losses(model, inputs)
        _add(self.sums, values)
        return losses.mean()

    def _means(self, sums: dict[str, Tensor], names: tuple[str, ...]) -> dict[str, float]:
        """Means over all processes of what was summed; a name without a value, such as KTO's rewards of a side that was not seen, is left out."""
        none = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        totals = self.accelerator.reduce(torch.stack([sums.get(name, none) for name in names]), "sum").tolist()
        means = {name: total / count for name, (total, count) in zip(names, totals) if count}
        if {"rewards/chosen", "rewards/rejected"} <= means.keys():
            means.setdefault("rewards/margins", means["rewards/chosen"] - means["rewards/rejected"])
        return means

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs, self.sums = logs | self._means(self.sums, self.metric_names), {}
        super().log(logs, start_time)

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Means over the rows of the whole set: of the loss and of every metric."""
        sums: dict[str, Tensor] = {}
        self.model.eval()
        for batch in self.get_eval_dataloader(eval_dataset):
            batch = self._prepare_inputs(batch)
            with self.compute_loss_context_manager():
                losses, values = self.row_losses(self.model, batch)
            _add(sums, {"loss": losses, **values})
        metrics = {f"{metric_key_prefix}_{name}": mean for name, mean in self._means(sums, ("loss", *self.metric_names)).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def reference_logps(self, items: list[dict], show: bool) -> Tensor:
        """(rows, 2) of the model as it is; batches hold rows of like length."""
        order = sorted(range(len(items)), key=lambda i: row_length(items[i]), reverse=True)
        size, parts = self.args.per_device_eval_batch_size, []
        for start in tqdm(range(0, len(items), size), desc="reference", unit="batch", disable=not show, leave=False):
            batch = self._prepare_inputs(self.data_collator([items[i] for i in order[start: start + size]]))
            with self.compute_loss_context_manager():
                parts.append(self.frozen_logps(batch).cpu())
        logps = torch.cat(parts)
        return torch.empty_like(logps).index_copy_(0, torch.tensor(order), logps)


def _add(sums: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Add each vector's sum and length to what was there."""
    for name, rows in values.items():
        total = rows.detach().double().sum()
        sums[name] = sums.get(name, 0) + torch.stack([total, torch.full_like(total, rows.numel())])


# --- what `prefer` puts together ----------------------------------------------------------------------------------------
def _loss_options(loss: str, given: dict) -> dict:
    """The loss's options, its defaults where none was given."""
    if loss not in OPTIONS:
        raise RunError(f"loss={loss!r}: use one of {', '.join(OPTIONS)}")
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name not in OPTIONS[loss]:
            raise RunError(f"{name}={value!r}: loss={loss!r} takes no such option, only {', '.join(OPTIONS[loss])}")
    options, one = OPTIONS[loss] | given, torch.full((1,), -1.0)
    check: dict[str, Callable] = {"dpo": lambda: dpo_loss(one, one, one, one, **options), "simpo": lambda: simpo_loss(one, one, **options),
                                  "orpo": lambda: orpo_loss(one, one, one, **options), "kto": lambda: kto_loss(one, one, one, one, one > 0, **options)}
    check[loss]()  # refuses a value now rather than in the first step
    return options


def _check_reference(model, loss: str, reference) -> str | Path | None:
    if not REFERENCES[loss]:
        if reference is not None:
            raise RunError(f"reference={reference!r}: loss={loss!r} has no reference; leave it out")
        return None
    if reference == "adapter_off" and not lora_layers(model):
        raise RunError("reference='adapter_off': the model has no LoRA adapter; use reference='cached', or call add_lora first")
    if isinstance(reference, str) and reference not in REFERENCES[loss]:
        raise RunError(f"reference={reference!r}: use 'cached', 'adapter_off', or a pathlib.Path where the cache shall lie")
    return "cached" if reference is None else reference


def _kto_order(items: list[dict], batch_size: int, seed: int) -> list[dict]:
    """Rows of like length side by side in batches that stay together; the last batch is topped up with rows of the first."""
    if len(items) < batch_size:
        raise RunError(f"batch_size={batch_size} is more than the {len(items)} rows: lower it, or bring more rows")
    order = list(LengthGroupedSampler([row_length(item) for item in items], batch_size, seed))
    order += order[: -len(order) % batch_size]
    return mismatch([items[i] for i in order], batch_size)


def _encode(tokenizer, rows, eval_rows, loss: str, args, max_length: int) -> tuple[list[dict], list[dict] | None]:
    """Rows to train on and to evaluate on, in the form that the loss takes."""
    if loss != "kto":
        return encode_pairs(tokenizer, rows, max_length), encode_pairs(tokenizer, eval_rows, max_length) if eval_rows else None
    if args.train_batch_size < 2:
        raise RunError(f"batch_size={args.train_batch_size}: KTO estimates its reference point from the other rows of a batch; use 2 or more")
    train_set = _kto_order(encode_binary(tokenizer, rows, max_length), args.train_batch_size, args.seed)
    return train_set, mismatch(encode_binary(tokenizer, eval_rows, max_length), args.eval_batch_size) if eval_rows else None


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
            log.info("%d desirable and %d undesirable rows: weights times numbers are in the ratio %.2f; the KTO paper advises 1 to 4/3 (eq. 8): "
                     "set desirable_weight or undesirable_weight", good, len(items) - good, ratio)


def _add_reference(trainer: PreferenceTrainer, described: Callable, folder: Path | None, resumed: bool, show: bool) -> None:
    """Put the starting policy's log-probabilities into the rows: from the folder, or computed and left there."""
    items = {"train": trainer.train_dataset} | ({"eval": trainer.eval_dataset} if trainer.eval_dataset else {})
    described = folder and described(items)
    with trainer.args.main_process_first():
        logps = load_reference(folder, described, resumed) if folder else None
        if logps is None:
            if resumed:
                raise RunError(f"{folder} holds no reference, and the run had begun: delete the run's folder and start again")
            logps = {name: trainer.reference_logps(part, show) for name, part in items.items()}
            if folder and trainer.args.process_index == 0:
                save_reference(folder, described, logps)
    for name, part in items.items():
        for item, values in zip(part, logps[name].tolist(), strict=True):
            item["ref_logps"] = values


def prefer(model, tokenizer, rows, *, steps: int, learning_rate: float, loss: str = "dpo", beta: float | None = None,
           label_smoothing: float | None = None, gamma_beta_ratio: float | None = None, desirable_weight: float | None = None,
           undesirable_weight: float | None = None, reference: str | Path | None = None, share_prefix: bool = True, batch_size: int = 16,
           seed: int = 0, eval_rows=None, eval_steps: int | None = None, output_dir=None, resume: bool = True, save_steps: int = 50,
           schedule: str = "cosine", warmup: float = 0.1, weight_decay: float = 0.0, accumulate: int = 1, checkpointing: bool | None = None,
           max_length: int = 1024, log_steps: int = 5, optimizer: str = "adamw", show: bool = True) -> Run:
    """Train what requires grad on preferences for `steps` optimizer steps; returns a `Run`. What is not said here is as in `finetune`.

    `rows`: {"prompt", "chosen", "rejected"}, messages or strings (`ftlib.preference_data`); for KTO {"prompt", "completion", "label"},
    or pairs, each of which gives a desirable and an undesirable row. Rows too long for `max_length` are left out and counted.
    `loss` and its options, defaults those of `ftlib.losses`: "dpo" (beta 0.1, label_smoothing 0), "simpo" (beta 2, gamma_beta_ratio 0.5),
    "orpo" (beta 0.1), "kto" (beta 0.1, desirable_weight 1, undesirable_weight 1).

    `reference` of DPO and KTO is one model's other state, never a second model. "cached", the default: the model as it is at the call,
    an adapter from SFT included; its log-probabilities are computed once, without dropout, and kept in `output_dir`/reference. A Path
    keeps them there instead, for several runs over the same rows and start (KTO: and seed). "adapter_off": the base model, run in every step.

    `share_prefix` runs the prompt once for chosen and rejected where that is exact, else says why not: p + 2c tokens in place of
    2(p + c). The two completions then also share the dropout of their prompt.
    ORPO's fine-tuning term is the mean over each chosen answer's tokens; TRL's is over those of prompt and answer, and of the whole batch.
    KTO: batches are drawn once, the last topped up from the first, and come in another order every epoch. Mismatched pairs are
    prompts with the completions rotated by one within the batch, z0 their mean log-ratio in the batch of each process, at least 0.

    `Run.history` holds, as means over the rows since the last entry, `rewards/chosen`, `rewards/rejected`, `rewards/margins`,
    `rewards/accuracies` (pairs), `logps/…` (sums for DPO and KTO, means a token for SimPO and ORPO), `lengths/…` in tokens, `nll_loss`
    (ORPO), and `kl`: for DPO the mean of log π - log π_ref over the chosen completions of the data, for KTO z0, nats a completion. The
    first is no estimate of KL(π‖π_ref), as the policy did not draw the completions. The same with `eval_` in `Run.eval_history`.
    Raises RunError, DataError, LossError (all ValueError).
    """
    _check_start(model, steps, batch_size, learning_rate)
    options = _loss_options(loss, {"beta": beta, "label_smoothing": label_smoothing, "gamma_beta_ratio": gamma_beta_ratio,
                                   "desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight})
    reference, output_dir = _check_reference(model, loss, reference), Path(output_dir) if output_dir else None
    args = _arguments(output_dir, steps=steps, learning_rate=learning_rate, batch_size=batch_size, seed=seed, schedule=schedule, warmup=warmup,
                      weight_decay=weight_decay, accumulate=accumulate, save_steps=save_steps,
                      eval_steps=(eval_steps or max(1, steps // 8)) if eval_rows else None, log_steps=log_steps, optimizer=optimizer)
    train_set, eval_set = _encode(tokenizer, rows, eval_rows, loss, args, max_length)
    if loss == "kto":
        _say_balance(train_set, options["desirable_weight"], options["undesirable_weight"])
    collator = _collator(model, tokenizer, loss, share_prefix)
    _recompute(model, checkpointing)
    checkpoint, settings = None, None
    if output_dir:
        settings = _settings(model, rows, eval_rows, steps=steps, learning_rate=learning_rate, batch_size=batch_size, seed=seed, schedule=schedule,
                             warmup=warmup, weight_decay=weight_decay, accumulate=accumulate, max_length=max_length, optimizer=optimizer, loss=loss,
                             **options, reference="cached" if isinstance(reference, Path) else reference,
                             share_prefix=getattr(collator, "share_prefix", False))
        checkpoint = _open_dir(output_dir, settings, resume, args)
    trainer = PreferenceTrainer(model, loss, options, reference == "adapter_off", args=args, train_dataset=train_set, eval_dataset=eval_set,
                                data_collator=collator, callbacks=_callbacks(args, show))
    if reference not in (None, "adapter_off") and _steps_of(checkpoint) < steps:
        folder = reference if isinstance(reference, Path) else output_dir and output_dir / "reference"
        _add_reference(trainer, lambda items: describe(model, tokenizer, rows, eval_rows, items, max_length), folder, checkpoint is not None,
                       show and args.process_index == 0)
    run = _run(trainer, checkpoint, output_dir)
    if output_dir:
        _finish(run, model, output_dir, settings, args.process_index == 0)
    return run
