"""Reinforcement learning from a reward: PPO, RLOO and GRPO on the trainer that SFT has
(`ftlib.training.policy_trainer`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from ftlib.adapters.lora_layer import lora_layers
from ftlib.batches.control_tokens import ControlHandling, handling_of
from ftlib.batches.stops import learnt_stops
from ftlib.batches.template import check_tokenizer, prompt_ids
from ftlib.core.checks import as_rows
from ftlib.data.rows import check_object
from ftlib.training.errors import RunError
from ftlib.training.measured import make_ready, run_with, scalar_head, train_options
from ftlib.training.options import TrainOptions, check_trainable
from ftlib.training.policy_trainer import (
    OWN_MATHS,
    Objective,
    PolicyMaths,
    PolicyTrainer,
    collate_indices,
    has_reference,
)
from ftlib.training.reward_model import prompt_messages
from ftlib.training.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def reinforce(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Iterable[dict],
    reward: Callable[[list[dict], list[str]], Sequence[float]],
    *,
    steps: int,
    learning_rate: float,
    method: str = "ppo",
    kl_coef: float = 0.05,
    batch_size: int = 32,
    group_size: int = 4,
    epochs: int = 4,
    clip_range: float = 0.2,
    gamma: float = 1.0,
    lam: float = 0.95,
    max_new_tokens: int = 40,
    watch: dict[str, Callable] | None = None,
    maths: PolicyMaths = OWN_MATHS,
    seed: int = 0,
    **options: Any,
) -> Run:
    """Train what requires grad so that its own answers get more `reward`, not far from where it
    started; returns a `Run`.

    `prompts`: rows with "prompt", text or messages; other keys are the reward's. ``reward(rows,
    answers)`` gives one number an answer, of texts without their stop token, which may be empty: a
    rule, or `reward_scores` of a reward model. `batch_size` answers, `group_size` to each prompt,
    are drawn at temperature 1, of up to `max_new_tokens` tokens, and learnt from in `epochs` steps.

    - "ppo" (arXiv 1707.06347; Ziegler et al. 1909.08593): `kl_shaped_rewards`, advantages by
      `generalized_advantages` over a linear value head, whitened. The head reads the policy's
      hidden states and does not move them. `ppo_policy_loss` a token.
    - "rloo" (Ahmadian et al. 2402.14740): score minus kl_coef times the answer's log-ratio,
      `leave_one_out_advantages`, the ratio that of whole answers.
    - "grpo" (Shao et al. 2402.03300): `group_advantages` of the scores, a ratio a token, kl_coef
      times `kl_penalty` in the loss; the mean over all tokens of the batch.

    The reference is the model with its LoRA adapter off: after SFT call `merge_and_unload` and
    `add_lora` again, so that it is the SFT model. With kl_coef=0 a model without an adapter trains
    too, and no "kl" is recorded.

    `Run.history`, as means since the last entry: "reward", "kl" (the mean of log π - log π_ref of
    the answers, nats per answer: an unbiased estimate of KL(π‖π_ref) at the time of drawing),
    "entropy" (the mean of -log π of the drawn tokens, nats per token, an estimate too), "length" in
    tokens, "distinct" (share of different answers within the batch), "ratio_clipped" (share of
    ratios outside 1 ± clip_range), "value_loss" (PPO), and by name what the functions in `watch`,
    called as the reward is, give on the same answers: what is not trained on may be seen to fall.

    `maths`: your own functions in the place of `kl_shaped_rewards`, `generalized_advantages`,
    `leave_one_out_advantages` or `ppo_policy_loss`; a manifest has their names.

    `options`: those of `TrainOptions`, but for accumulate and checkpointing; `control_tokens` is
    "text" unless given, as in `generate_answers`. `save_steps` is rounded up to whole rollouts. In
    one process. RunError, DataError, LossError.
    """
    given = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size, "seed": seed}
    objective = Objective(
        reward, method, kl_coef, group_size, epochs, clip_range, gamma, lam, max_new_tokens, maths
    )
    chosen = _options({**given, **options}, objective)
    check_trainable(model)
    _check_reference(model, kl_coef)
    rows = as_rows("prompts", prompts, RunError)
    stops = learnt_stops(model, check_tokenizer(tokenizer))
    handling = handling_of(tokenizer, chosen.control_tokens, stops)
    items = _encode(tokenizer, rows, chosen.max_length - max_new_tokens, handling)
    _check_enough(items, batch_size, group_size)
    make_ready(model, tokenizer, [item["prompt_ids"] for item in items], chosen)
    trainer_of = functools.partial(
        PolicyTrainer,
        objective=objective,
        tokenizer=tokenizer,
        watch=watch or {},
        head=scalar_head(model) if method == "ppo" else None,
        data_collator=collate_indices,
    )
    return run_with(
        trainer_of, model, tokenizer, chosen, (rows, []), (items, None), objective.settings()
    )


def _check_enough(items: list[dict], batch_size: int, group_size: int) -> None:
    """RunError where there are fewer prompts than one rollout takes."""
    at_a_time = batch_size // group_size
    if len(items) < at_a_time:
        raise RunError(
            f"batch_size={batch_size} at group_size={group_size} asks "
            f"{at_a_time} prompts at a time, there are {len(items)}: lower it"
        )


def _options(given: dict, objective: Objective) -> TrainOptions:
    """The run's options, checked against what a rollout is."""
    options = train_options(given, warmup=0.1, checkpointing=False, control_tokens="text")
    if options.accumulate != 1 or options.checkpointing:
        raise RunError(
            f"accumulate={options.accumulate}, checkpointing={options.checkpointing}: a rollout is "
            "learnt from as one batch, in evaluation mode; lower batch_size instead"
        )
    if options.batch_size % objective.group_size:
        raise RunError(
            f"batch_size={options.batch_size} is no multiple of group_size={objective.group_size}: "
            "it counts answers, group_size of them to each prompt"
        )
    rollouts = math.ceil(options.save_steps / objective.epochs)
    options.save_steps = rollouts * objective.epochs
    return options


def _check_reference(model, kl_coef: float) -> None:
    """RunError where switching the adapter off would not give the model of the start."""
    if not kl_coef or has_reference(model):
        return
    if not lora_layers(model):
        raise RunError(
            f"kl_coef={kl_coef}: the reference is the model with its LoRA adapter off, and it has "
            "none; call add_lora, or use kl_coef=0"
        )
    raise RunError(
        f"kl_coef={kl_coef}: the embedding trains too, and switching the adapter off does not "
        "bring back the one of the start; use kl_coef=0, or leave the embedding frozen"
    )


def _encode(tokenizer, rows: list[dict], longest: int, handling: ControlHandling) -> list[dict]:
    """The rows with the token ids of their prompts. RunError for one that leaves no room."""
    items = []
    for i, row in enumerate(rows):
        check_object(row, f"row {i}")
        ids = prompt_ids(tokenizer, prompt_messages(row, f"row {i}"), handling)
        if len(ids) > longest:
            raise RunError(
                f"row {i}: a prompt of {len(ids)} tokens leaves no room for max_new_tokens within "
                "max_length: raise max_length, or leave the row out"
            )
        items.append({"index": i, "row": row, "prompt_ids": ids})
    if not items:
        raise RunError("no prompts to train on")
    return items
