"""The trainer that `ftlib.training.prefer.prefer` runs: log-probabilities of both completions, the
loss, the metrics.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler
from tqdm import tqdm

from ftlib.adapters.hooked import parts_of
from ftlib.adapters.lora import disable_adapter
from ftlib.adapters.prefix import Prefix
from ftlib.adapters.reft import Reft
from ftlib.batches.collate import (
    CHOSEN,
    REJECTED,
    PairCollator,
    SequenceCollator,
    shared_mask,
)
from ftlib.batches.preference import row_length
from ftlib.batches.template import IGNORE
from ftlib.core.modes import evaluation_mode
from ftlib.losses.isolation import (
    NEIGHBOUR,
    WATCHED,
    Shift,
    probe_rows,
    shift_between,
    shift_of_shapes,
    worst,
)
from ftlib.losses.logps import completion_logps
from ftlib.training.errors import RunError
from ftlib.training.loss_spec import loss_spec
from ftlib.training.samplers import BlockSampler, LengthGroupedSampler
from ftlib.training.trainer import SFTTrainer


# --- log-probabilities of a batch -----------------------------------------------------------------
def why_unshared(model) -> str | None:
    """Why a prompt cannot be run once for both completions of a pair with this model; None where
    that is exact.
    """
    config = model.config.get_text_config(decoder=True)
    forward = inspect.signature(model.base_model.forward).parameters
    attention = attention_of(model)
    kinds = set(getattr(config, "layer_types", None) or ())
    if attention not in ("sdpa", "eager"):
        return f"attention {attention!r} takes no mask of four dimensions"
    if kinds - {"full_attention"} or (not kinds and getattr(config, "sliding_window", None)):
        return "not every layer attends to everything before"
    if (
        "position_ids" not in forward
        or getattr(config, "alibi", False)
        or getattr(model, "_is_stateful", False)
    ):
        return "positions cannot be given to this model"
    if parts_of(model, Prefix):
        return "the model has a trained prefix"
    return "ReFT needs one row per prompt" if parts_of(model, Reft) else None


def sharing_shift(model, rows: Iterable[list[int]], pad_token_id: int) -> Shift:
    """By how much a completion's log-probability changes where its pair shares the prompt: with
    what the other completion says, and against two rows of their own. In nats a completion; `rows`:
    token ids of some prompts and completions.
    """
    prompt, chosen, rejected, other, longer = probe_rows(
        rows, (NEIGHBOUR, WATCHED, WATCHED, WATCHED, WATCHED + NEIGHBOUR)
    )
    pair = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    shared = PairCollator(pad_token_id)
    apart = PairCollator(pad_token_id, share_prefix=False)
    return worst(_sharing_shifts(model, pair, other, longer, shared, apart))


def _sharing_shifts(
    model, pair: dict, other: list[int], longer: list[int], shared, apart
) -> Iterator[Shift]:
    pairs = [pair, pair, pair]
    changed = [pair, {**pair, "chosen_ids": other}, {**pair, "rejected_ids": other}]
    before = _pair_sums(model, shared(pairs))  # (3, 2)
    after = _pair_sums(model, shared(changed))
    control = (before[0], after[0])
    yield shift_between(before[1, 1], after[1, 1], control, model)
    yield shift_between(before[2, 0], after[2, 0], control, model)

    full = {**pair, "chosen_ids": longer, "rejected_ids": longer}  # fills its rows
    alone = _pair_sums(model, apart([pair]))
    filled = _pair_sums(model, apart([full]))
    beside = _pair_sums(model, apart([full, pair]))
    yield shift_of_shapes(alone[0], before[0], (filled[0], beside[0]), model)


def _pair_sums(model, batch: dict[str, Tensor]) -> Tensor:
    """(B, 2) log-probabilities of a batch's completions, in evaluation mode."""
    on_device = {name: value.to(model.device) for name, value in batch.items()}
    with evaluation_mode(model), torch.no_grad():
        sums, _ = pair_logps(model, on_device)
    return sums


def attention_of(model) -> str:
    """Which attention transformers runs: "sdpa", "eager", … It has no public name for it."""
    return model.config.get_text_config(decoder=True)._attn_implementation  # noqa: SLF001


def _attention_mask(model, segments: Tensor) -> Tensor:
    """(B, 1, T, T), as the model's attention takes it: true where a query sees a key, or, for the
    eager one, which adds its mask to the scores, 0 there and else the least number.
    """
    mask = shared_mask(segments)
    inner = getattr(model, "module", model)
    if attention_of(inner) == "sdpa":
        return mask
    lowest = torch.finfo(inner.dtype).min
    return torch.zeros_like(mask, dtype=inner.dtype).masked_fill(~mask, lowest)


def pair_logps(model, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Of a `PairCollator` batch: log π(completion | prompt), summed over its tokens (nats), and how
    many tokens they are.

    Each is (B, 2): chosen, rejected.
    """
    labels = batch["labels"]
    segments = batch.get("segments")
    if segments is None:  # 2B rows, all chosen before all rejected
        logps = completion_logps(model, batch["input_ids"], batch["attention_mask"], labels)
        sums = logps.sum(1)
        counts = (labels[:, 1:] != IGNORE).sum(1)
        return sums.view(2, -1).T, counts.view(2, -1).T
    logps = completion_logps(
        model,
        batch["input_ids"],
        _attention_mask(model, segments),
        labels,
        position_ids=batch["position_ids"],
    )
    # A segment's first label is ignored, so a score is in the segment that it belongs to.
    inside = torch.stack([segments == CHOSEN, segments == REJECTED], dim=1)
    sums = (logps[:, None] * inside).sum(-1)
    counts = ((labels != IGNORE)[:, None] & inside).sum(-1)
    return sums, counts


def single_logps(model, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Of a `SequenceCollator` batch: summed log-probabilities (nats) of the completions and their
    numbers of tokens, each (B, 1).
    """
    labels = batch["labels"]
    logps = completion_logps(model, batch["input_ids"], batch["attention_mask"], labels)
    counts = (labels[:, 1:] != IGNORE).sum(1, keepdim=True)
    return logps.sum(1, keepdim=True), counts


def kto_logps(model, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Of a `KTOCollator` batch: summed log-probabilities (nats) of each prompt's own completion,
    and without gradient of the mismatched one, and their numbers of tokens, each (B, 2).
    """
    own = _kto_sums(model, batch, "")
    with torch.no_grad():
        mismatched = _kto_sums(model, batch, "kl_")
    sums = torch.stack([own[0], mismatched[0]], 1)
    counts = torch.stack([own[1], mismatched[1]], 1)
    return sums, counts


def _kto_sums(model, batch: dict[str, Tensor], prefix: str) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities and numbers of tokens, (B,) each, of one half of the batch."""
    labels = batch[f"{prefix}labels"]
    logps = completion_logps(
        model, batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"], labels
    )
    return logps.sum(1), (labels[:, 1:] != IGNORE).sum(1)


class PreferenceTrainer(SFTTrainer):
    """`SFTTrainer` with a preference loss. `options` are the loss's; `function` replaces the
    one of that name in `ftlib.losses.preference`; `adapter_off`: the reference is the base, run in
    every step.

    A batch without `ref_logps` and without `adapter_off` has no reference. Data order depends on
    the rows and the seed alone.
    """

    def __init__(
        self,
        model,
        loss: str,
        options: dict,
        adapter_off: bool = False,
        function: Callable | None = None,
        **trainer,
    ):
        super().__init__(model, **trainer)
        if self.args.n_gpu > 1:  # Trainer would spread the rows over threads, and pairs with them
            raise RunError(
                f"{self.args.n_gpu} GPUs in one process: start with torchrun or `accelerate "
                "launch`, a process a GPU, or set CUDA_VISIBLE_DEVICES=0"
            )
        # The loss is a mean over rows: Trainer divides it by the accumulated batches.
        self.model_accepts_loss_kwargs = False
        self.spec = loss_spec(loss)
        self.options = options
        self.adapter_off = adapter_off
        self.metric_names = self.spec.metrics
        self.function = function or self.spec.function
        self.two_logps = pair_logps if self.spec.paired else kto_logps
        self.sums: dict[str, Tensor] = {}

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        if not self.spec.paired:
            return BlockSampler(len(rows), self.args.train_batch_size, self.args.seed)
        lengths = [row_length(row) for row in rows]
        return LengthGroupedSampler(lengths, self.rows_of_a_step(), self.args.seed)

    def frozen_logps(self, batch: dict[str, Tensor], logps_of: Callable | None = None) -> Tensor:
        """(B, 2) summed log-probabilities of the model as it is, without gradient and without
        dropout.
        """
        if logps_of is None:
            logps_of = self.two_logps
        with evaluation_mode(self.model), torch.no_grad():
            sums, _ = logps_of(self.model, batch)
        return sums

    def _reference(self, batch: dict[str, Tensor], like: Tensor) -> Tensor:
        if not self.adapter_off:
            return batch["ref_logps"].to(like.dtype)
        with disable_adapter(self.model):
            return self.frozen_logps(batch)

    def row_losses(self, model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of every row, (B,), and by name the rows' values of which metrics are means."""
        if self.spec.paired:
            return self._pairs(model, batch)
        return self._kto(model, batch)

    def _pairs(self, model, batch) -> tuple[Tensor, dict[str, Tensor]]:
        logps, counts = self.two_logps(model, batch)
        if self.spec.averaged:
            logps = logps / counts
        chosen, rejected = logps.unbind(1)
        arguments = [chosen, rejected]
        more = {}
        if self.spec.reference:
            ref_chosen, ref_rejected = self._reference(batch, logps).unbind(1)
            arguments += [ref_chosen, ref_rejected]
            more["kl"] = chosen - ref_chosen
        if self.spec.nll:
            arguments.append(-chosen)
            more["nll_loss"] = -chosen
        losses, good, bad = self.function(*arguments, **self.options)
        return losses, {
            "rewards/chosen": good,
            "rewards/rejected": bad,
            "rewards/margins": good - bad,
            "rewards/accuracies": good > bad,
            "logps/chosen": chosen,
            "logps/rejected": rejected,
            "lengths/chosen": counts[:, 0],
            "lengths/rejected": counts[:, 1],
            **more,
        }

    def _kto(self, model, batch) -> tuple[Tensor, dict[str, Tensor]]:
        logps, counts = self.two_logps(model, batch)
        reference = self._reference(batch, logps)
        desirable = batch["desirable"]
        losses, rewards = self.function(
            logps[:, 0], reference[:, 0], logps[:, 1], reference[:, 1], desirable, **self.options
        )
        values = {"kl": (logps[:, 1] - reference[:, 1]).mean().clamp(min=0)[None]}
        for side, rows in (("chosen", desirable), ("rejected", ~desirable)):
            values |= {
                f"rewards/{side}": rewards[rows],
                f"logps/{side}": logps[rows, 0],
                f"lengths/{side}": counts[rows, 0],
            }
        return losses, values

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> Tensor:
        losses, values = self.row_losses(model, inputs)
        _add(self.sums, values)
        return losses.mean()

    def _means(self, sums: dict[str, Tensor], names: tuple[str, ...]) -> dict[str, float]:
        """Means over all processes of what was summed. A name without a value, as KTO's rewards of
        a side not seen, is left out.
        """
        none = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        totals = self.accelerator.reduce(
            torch.stack([sums.get(name, none) for name in names]), "sum"
        ).tolist()
        means = {}
        for name, (total, count) in zip(names, totals, strict=True):
            if count:
                means[name] = total / count
        if {"rewards/chosen", "rewards/rejected"} <= means.keys():
            means.setdefault("rewards/margins", means["rewards/chosen"] - means["rewards/rejected"])
        return means

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs = logs | self._means(self.sums, self.metric_names)
            self.sums = {}
        super().log(logs, start_time)

    @torch.no_grad()
    def evaluate(
        self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Means over the rows of the whole set: of the loss and of every metric."""
        sums: dict[str, Tensor] = {}
        with evaluation_mode(self.model):
            for batch, counts in self.eval_batches(eval_dataset):
                with self.accelerator.autocast():
                    losses, values = self.row_losses(self.model, batch)
                if counts:
                    _add(sums, {"loss": losses, **values})
        metrics = {
            f"{metric_key_prefix}_{name}": mean
            for name, mean in self._means(sums, ("loss", *self.metric_names)).items()
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def reference_logps(self, items: list[dict], show: bool) -> Tensor:
        """Of the model as it is: (pairs, 2), or (sequences, 1) of single ones; batches hold rows of
        like length.
        """
        collate = self.data_collator
        logps_of = self.two_logps
        if "chosen_ids" not in items[0]:
            collate = SequenceCollator(self.data_collator.pad_token_id)
            logps_of = single_logps
        lengths = [row_length(item) for item in items]
        order = sorted(range(len(items)), key=lengths.__getitem__, reverse=True)
        size = self.args.per_device_eval_batch_size
        starts = range(0, len(items), size)
        parts = []
        for start in tqdm(starts, desc="reference", unit="batch", disable=not show, leave=False):
            rows = [items[i] for i in order[start : start + size]]
            batch = self._prepare_inputs(collate(rows))
            with self.accelerator.autocast():
                parts.append(self.frozen_logps(batch, logps_of).cpu())
        logps = torch.cat(parts)
        return torch.empty_like(logps).index_copy_(0, torch.tensor(order), logps)


def _add(sums: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Add each vector's sum and length to what was there."""
    for name, rows in values.items():
        total = rows.detach().double().sum()
        sums[name] = sums.get(name, 0) + torch.stack([total, torch.full_like(total, rows.numel())])
