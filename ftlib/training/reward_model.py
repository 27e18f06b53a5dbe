"""A reward model: which of two answers is preferred, as one number an answer (Ziegler et al. 2019,
arXiv 1909.08593; Ouyang et al. 2022, arXiv 2203.02155).

The model is a language model with a linear head on the hidden state of the answer's last token, the
one that ends the turn, where all of the answer has been read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftlib.batches.collate import PairCollator, SFTCollator
from ftlib.batches.control_tokens import ControlHandling, handling_of
from ftlib.batches.encode import encode_both
from ftlib.batches.preference import encode_pairs, row_length, token_lists
from ftlib.batches.stops import learnt_stops
from ftlib.batches.template import IGNORE, check_tokenizer, encode, prompt_ids
from ftlib.core.checks import as_rows, check_number, check_positive_integer
from ftlib.core.errors import DataError
from ftlib.core.modes import evaluation_mode
from ftlib.data.rows import check_prompt, check_row, completion_text
from ftlib.losses.rewards import reward_loss
from ftlib.training.errors import RunError
from ftlib.training.identity import name_of
from ftlib.training.measured import (
    MeasuredTrainer,
    hidden_states,
    make_ready,
    run_with,
    scalar_head,
    scalars,
    train_options,
)
from ftlib.training.options import check_trainable
from ftlib.training.run import Run
from ftlib.training.samplers import LengthGroupedSampler

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

METRICS = ("accuracy", "margin", "rewards/chosen", "rewards/rejected")


def train_reward_model(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Iterable[dict],
    *,
    steps: int,
    learning_rate: float,
    margin: float = 0.0,
    batch_size: int = 16,
    seed: int = 0,
    eval_rows: Iterable[dict] | None = None,
    loss_function: Callable = reward_loss,
    **options: Any,
) -> tuple[nn.Linear, Run]:
    """Train what requires grad, and a new head, to score the chosen answer above the rejected one:
    `ftlib.reward_loss`, the mean over the pairs. Returns (head, run); the model and its adapter are
    trained in place, and the head belongs to them.

    `pairs`: {"prompt", "chosen", "rejected"} as in `prefer`; `options`: `finetune`'s that
    `TrainOptions` has (output_dir, eval_steps, schedule, control_tokens, …). A run with
    `output_dir` checkpoints, resumes to the same result, and leaves adapter, manifest and
    `scalar_head.safetensors`, which `load_head` reads. `Run.history` has, as means over the rows,
    "accuracy" (chosen scored higher, a tie one half), "margin" (r_c - r_r), "rewards/chosen" and
    "rewards/rejected"; `Run.eval_history` the same with `eval_`. The head starts at zero: the first
    loss is ln 2 but for the margin. Rewards are known up to a constant: only differences are
    learnt. `loss_function` replaces `reward_loss`: (chosen, rejected, margin) -> (B,). In one
    process. RunError, DataError.
    """
    given = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size, "seed": seed}
    chosen = train_options({**given, **options}, warmup=0.1)
    check_trainable(model)
    check_number("margin", margin, 0, error=RunError)
    rows = list(as_rows("pairs", pairs, RunError))
    eval_rows = list(as_rows("eval_rows", eval_rows or [], RunError))
    stops = learnt_stops(model, check_tokenizer(tokenizer))
    handling = handling_of(tokenizer, chosen.control_tokens, stops)
    encode_rows = functools.partial(
        encode_pairs,
        tokenizer,
        max_length=chosen.max_length,
        stops=stops,
        control_tokens=handling,
    )
    train_set, eval_set = encode_both(encode_rows, rows, eval_rows)
    make_ready(model, tokenizer, token_lists([*train_set, *(eval_set or [])]), chosen)
    head = scalar_head(model)
    trainer_of = functools.partial(
        RewardTrainer,
        head=head,
        margin=margin,
        loss_function=loss_function,
        data_collator=PairCollator(tokenizer.pad_token_id, share_prefix=False),
    )
    identity = {"kind": "reward model", "margin": margin}
    if loss_function is not reward_loss:
        identity["loss_function"] = name_of(loss_function)
    both = (rows, eval_rows)
    run = run_with(trainer_of, model, tokenizer, chosen, both, (train_set, eval_set), identity)
    return head, run


def last_token_rewards(model, head, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """(B,) rewards at each row's last real token; input_ids, attention_mask (B, T)."""
    hidden = hidden_states(model, input_ids, attention_mask)
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    last = (positions * attention_mask).argmax(1)  # (B,)
    rows = torch.arange(len(last), device=last.device)
    return scalars(head, hidden[rows, last])


class RewardTrainer(MeasuredTrainer):
    """Bradley and Terry's loss of a batch of pairs; its metrics."""

    metric_names = METRICS

    def __init__(self, model, margin: float, loss_function: Callable, **trainer):
        super().__init__(model, **trainer)
        self.margin = margin
        self.loss_function = loss_function

    def _get_train_sampler(self, train_dataset=None) -> LengthGroupedSampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        lengths = [row_length(row) for row in rows]
        return LengthGroupedSampler(lengths, self.rows_of_a_step(), self.args.seed)

    def row_losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of every pair, (B,), and by name the pairs' values of the metrics."""
        with self.accelerator.autocast():
            rewards = last_token_rewards(
                self.model, self.head, batch["input_ids"], batch["attention_mask"]
            )
        chosen, rejected = rewards.chunk(2)
        gap = (chosen - rejected).detach()
        values = {
            "accuracy": (gap > 0) + 0.5 * (gap == 0),
            "margin": gap,
            "rewards/chosen": chosen.detach(),
            "rewards/rejected": rejected.detach(),
        }
        return self.loss_function(chosen, rejected, self.margin), values

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> Tensor:
        losses, values = self.row_losses(inputs)
        self.note({name: value.mean() for name, value in values.items()})
        return losses.mean()

    @torch.no_grad()
    def evaluate(
        self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Means over all pairs, of the loss and of every metric."""
        found: dict[str, list[Tensor]] = {}
        with evaluation_mode(self.model):
            for batch, _ in self.eval_batches(eval_dataset):
                losses, values = self.row_losses(batch)
                for name, rows in {"loss": losses, **values}.items():
                    found.setdefault(name, []).append(rows.double())
        metrics = {}
        for name, parts in found.items():
            metrics[f"{metric_key_prefix}_{name}"] = torch.cat(parts).mean().item()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


# --- scoring --------------------------------------------------------------------------------------
def prompt_messages(row: dict, where: str) -> list[dict]:
    """The conversation that a row's "prompt", text or messages, is. DataError where it has none."""
    prompt = row.get("prompt")
    check_prompt(prompt, where)
    if isinstance(prompt, list):
        return prompt
    return [{"role": "user", "content": prompt}]


def _messages(row: dict, where: str) -> tuple[list[dict], str]:
    """The conversation before the answer, and the answer's text."""
    if "completion" not in row:
        *before, answer = check_row(row, where)["messages"]
        return before, answer["content"]
    return prompt_messages(row, where), completion_text(row["completion"])


def scored_ids(
    tokenizer,
    row: dict,
    stops: list[int],
    where: str = "row",
    control_tokens: str | ControlHandling = "text",
) -> list[int]:
    """Token ids of a conversation up to the end of its last answer; an empty answer, which a policy
    may give, is the prompt and the end of the turn. `control_tokens` as in `prompt_ids`.
    """
    handling = handling_of(tokenizer, control_tokens, stops)
    messages, answer = _messages(row, where)
    try:
        if not answer.strip():
            return [*prompt_ids(tokenizer, messages, handling), stops[0]]
        messages = [*messages, {"role": "assistant", "content": answer}]
        encoded = encode(tokenizer, messages, stops=stops, control_tokens=handling)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    end = len(encoded["labels"])
    while encoded["labels"][end - 1] == IGNORE:
        end -= 1
    return encoded["input_ids"][:end]


@torch.no_grad()
def reward_scores(
    model: nn.Module,
    head: nn.Linear,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[dict],
    batch_size: int = 32,
    control_tokens: str = "text",
) -> Tensor:
    """Rewards of answers, (rows,) in fp32 or wider on the CPU, without dropout.

    `rows`: {"prompt", "completion"}, or conversations that end with the answer. Only differences
    between answers to one prompt mean something: ``σ(r_a - r_b)`` is the model's probability that
    a is preferred. Subtract the mean over some answers where a level is needed. `control_tokens` as
    in `generate_answers`. DataError names the
    row that cannot be read.
    """
    check_positive_integer("batch_size", batch_size)
    stops = learnt_stops(model, check_tokenizer(tokenizer))
    rows = as_rows("rows", rows, DataError)
    handling = handling_of(tokenizer, control_tokens, stops)
    ids = []
    for i, row in enumerate(rows):
        ids.append(scored_ids(tokenizer, row, stops, f"row {i}", handling))
    scores = torch.empty(len(ids), dtype=head.weight.dtype)
    with evaluation_mode(model):
        for part, batch in _batches(ids, batch_size, tokenizer.pad_token_id):
            on_device = {name: value.to(model.device) for name, value in batch.items()}
            rewards = last_token_rewards(
                model, head, on_device["input_ids"], on_device["attention_mask"]
            )
            scores[part] = rewards.cpu()
    return scores


def _batches(ids: list[list[int]], size: int, pad: int) -> Iterator[tuple[list[int], dict]]:
    """Indices of rows of like length, and those rows as a padded batch."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        rows = [{"input_ids": ids[i], "labels": ids[i]} for i in part]
        yield part, SFTCollator(pad)(rows)
