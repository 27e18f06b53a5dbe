"""The trainer of a policy: the dataset are prompts, and the loss of a step draws the answers, has
them scored and compares them. So checkpoints, resuming, schedule and manifest are `finetune`'s.

`epochs` steps in a row learn from one set of answers, a rollout. Checkpoints lie between rollouts,
and a rollout's random numbers depend on the seed and its number alone: a resumed run goes on as if
it had never stopped. Log-probabilities are taken without dropout, so that the ratio of a policy to
itself is 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Sampler

from ftlib.adapters.embeddings import changed_embeddings
from ftlib.adapters.lora import disable_adapter
from ftlib.adapters.lora_layer import lora_layers
from ftlib.batches.collate import SFTCollator, sequence
from ftlib.batches.template import IGNORE
from ftlib.core.checks import check_number, check_positive_integer
from ftlib.core.modes import evaluation_mode
from ftlib.losses.logps import completion_logps
from ftlib.losses.rewards import (
    generalized_advantages,
    group_advantages,
    kl_penalty,
    kl_shaped_rewards,
    leave_one_out_advantages,
    ppo_policy_loss,
    ppo_value_loss,
    whiten,
)
from ftlib.training.errors import RunError
from ftlib.training.identity import name_of
from ftlib.training.measured import MeasuredTrainer, scalars
from ftlib.training.samplers import RolloutSampler, generator_of
from ftlib.training.sampling import answer_texts, sample_ids

METHODS = ("ppo", "rloo", "grpo")
METRICS = ("reward", "kl", "entropy", "length", "distinct", "ratio_clipped", "value_loss")
VALUE_WEIGHT = 0.1  # of the value's loss beside the policy's, as in TRL's PPO


@dataclass(frozen=True)
class PolicyMaths:
    """The functions that turn scores into a loss, with the signatures of ftlib's own."""

    shaped_rewards: Callable = kl_shaped_rewards
    advantages: Callable = generalized_advantages
    leave_one_out: Callable = leave_one_out_advantages
    policy_loss: Callable = ppo_policy_loss


OWN_MATHS = PolicyMaths()


@dataclass(frozen=True)
class Objective:
    """What a policy is trained towards; `reinforce` says what each means."""

    reward: Callable
    method: str = "ppo"
    kl_coef: float = 0.05
    group_size: int = 4
    epochs: int = 4
    clip_range: float = 0.2
    gamma: float = 1.0
    lam: float = 0.95
    max_new_tokens: int = 40
    maths: PolicyMaths = OWN_MATHS

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise RunError(f"method={self.method!r}: use one of {', '.join(METHODS)}")
        for name in ("group_size", "epochs", "max_new_tokens"):
            check_positive_integer(name, getattr(self, name), RunError)
        if self.method != "ppo" and self.group_size < 2:
            raise RunError(
                f"group_size={self.group_size}: {self.method} compares 2 or more answers a prompt"
            )
        check_number("kl_coef", self.kl_coef, 0, error=RunError)
        check_number("clip_range", self.clip_range, 0, error=RunError)
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise RunError(f"{name}={getattr(self, name)!r}: must be a number from 0 to 1")

    def settings(self) -> dict:
        """What is recorded of it with a run: a function is known by its name alone, and ftlib's own
        maths go without saying.
        """
        recorded = {**vars(self), "kind": "reinforce", "reward": name_of(self.reward)}
        del recorded["maths"]
        for name, function in vars(self.maths).items():
            if function is not getattr(OWN_MATHS, name):
                recorded[name] = name_of(function)
        return recorded


def collate_indices(items: list[dict]) -> dict[str, Tensor]:
    """Prompts as their places in the dataset: their answers are yet to be drawn."""
    return {"index": torch.tensor([item["index"] for item in items])}


def has_reference(model) -> bool:
    """Whether the model with its adapter off is the one that training started from."""
    trains_embedding = any(weight.requires_grad for weight in changed_embeddings(model).values())
    return bool(lora_layers(model)) and not trains_embedding


@dataclass
class Rollout:
    """Answers and what is learnt from them. `batch` is `SFTCollator`'s, `mask` says which positions
    score a token of the answer; (B, T) each, but `advantages`, which are (B, 1) where they are
    compared answer by answer.
    """

    batch: dict[str, Tensor]
    mask: Tensor
    logps: Tensor
    ref_logps: Tensor
    advantages: Tensor
    values: Tensor | None = None
    returns: Tensor | None = None


class PolicyTrainer(MeasuredTrainer):
    """PPO, RLOO or GRPO on prompts: {"index", "row", "prompt_ids"}."""

    def __init__(self, model, objective: Objective, tokenizer, watch: dict[str, Callable], **more):
        super().__init__(model, **more)
        self.objective = objective
        self.tokenizer = tokenizer
        self.watch = watch
        self.metric_names = (*METRICS, *watch)
        self.rollout: Rollout | None = None

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        wanted = self.objective
        return RolloutSampler(
            len(self.train_dataset),
            self.args.train_batch_size,
            wanted.group_size,
            wanted.epochs,
            self.args.seed,
        )

    def _track_num_input_tokens(self, inputs) -> None:
        """Nothing yet: a batch has no tokens before its answers are drawn."""

    def floating_point_ops(self, inputs) -> int:
        return 0  # estimated by Trainer from the tokens of a batch

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> Tensor:
        number, epoch = divmod(self.state.global_step, self.objective.epochs)
        if epoch == 0:
            self.rollout = self._roll_out(inputs["index"].tolist(), number)
        assert self.rollout is not None  # checkpoints lie between rollouts
        self.count_tokens(self.rollout.batch)
        return self._loss(self.rollout)

    # --- a rollout --------------------------------------------------------------------------------
    def _roll_out(self, indices: list[int], number: int) -> Rollout:
        """Answers of the policy as it is, their scores and advantages."""
        items = [self.train_dataset[index] for index in indices]
        prompts = [item["prompt_ids"] for item in items]
        answers = sample_ids(
            self.model,
            self.tokenizer,
            prompts,
            max_new_tokens=self.objective.max_new_tokens,
            batch_size=len(prompts),
            temperature=1.0,
            seed=generator_of(self.args.seed, number).initial_seed(),
        )
        texts = answer_texts(self.model, self.tokenizer, answers)
        rows = [item["row"] for item in items]
        scores = self._scores("reward", self.objective.reward, rows, texts)
        for name, function in self.watch.items():
            self.note({name: self._scores(name, function, rows, texts).mean()})
        batch = self._batch(prompts, answers)
        mask = torch.nn.functional.pad(batch["labels"][:, 1:] != IGNORE, (0, 1))  # (B, T)
        with torch.no_grad():
            logps, values = self._logps(batch)
            ref_logps = self._reference(batch, logps)
        self._note_rollout(scores, texts, mask, logps, ref_logps)
        rollout = Rollout(batch, mask, logps, ref_logps, advantages=scores, values=values)
        self._compare(rollout, scores.to(logps.dtype))
        return rollout

    def _batch(self, prompts: list[list[int]], answers: list[list[int]]) -> dict[str, Tensor]:
        rows = [sequence(p, a) for p, a in zip(prompts, answers, strict=True)]
        batch = SFTCollator(self.tokenizer.pad_token_id)(rows)
        return {name: value.to(self.model.device) for name, value in batch.items()}

    def _scores(self, name: str, function: Callable, rows: list[dict], texts: list[str]) -> Tensor:
        """(B,) numbers of a reward function. RunError where they are not one per answer, finite."""
        given: Sequence[float] = function(rows, texts)
        scores = torch.as_tensor(given, dtype=torch.float64, device=self.model.device)
        if scores.shape != (len(texts),) or not scores.isfinite().all():
            raise RunError(
                f"{name} gave {scores.tolist()!s:.80} of shape {tuple(scores.shape)} for "
                f"{len(texts)} answers: one finite number per answer is needed"
            )
        return scores

    def _logps(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """(B, T) log-probabilities of the next tokens, and values of the same positions."""
        with (
            evaluation_mode(self.model),
            self.accelerator.autocast(),
            kept_hidden(self.model) as kept,
        ):
            logps = completion_logps(self.model, **batch)
        values = None
        if self.head is not None:
            values = scalars(self.head, kept[0])
        return logps, values

    def _reference(self, batch: dict[str, Tensor], logps: Tensor) -> Tensor:
        """(B, T) log-probabilities with the adapter off; without a reference the policy's own."""
        if not has_reference(self.model):
            return logps
        with disable_adapter(self.model):
            ref_logps, _ = self._logps(batch)
        return ref_logps

    def _note_rollout(
        self, scores: Tensor, texts: list[str], mask: Tensor, logps: Tensor, ref_logps: Tensor
    ) -> None:
        self.note(
            {
                "reward": scores.mean(),
                "entropy": -logps[mask].mean(),
                "length": mask.sum(1).double().mean(),
                "distinct": len(set(texts)) / len(texts),
            }
        )
        if has_reference(self.model):
            self.note({"kl": (logps - ref_logps).sum(1).mean()})

    def _compare(self, rollout: Rollout, scores: Tensor) -> None:
        """Put the method's advantages, and PPO's returns, into the rollout."""
        wanted = self.objective
        mask = rollout.mask
        if wanted.method == "grpo":
            of_answers = group_advantages(scores, wanted.group_size)
            rollout.advantages = of_answers[:, None].expand_as(mask)
        elif wanted.method == "rloo":
            log_ratio = (rollout.logps - rollout.ref_logps).sum(1)
            shaped = scores - wanted.kl_coef * log_ratio
            of_answers = wanted.maths.leave_one_out(shaped, wanted.group_size)
            rollout.advantages = of_answers[:, None]
        else:
            rewards = wanted.maths.shaped_rewards(
                scores, rollout.logps, rollout.ref_logps, mask, wanted.kl_coef
            )
            advantages, rollout.returns = wanted.maths.advantages(
                rewards, rollout.values, mask, wanted.gamma, wanted.lam
            )
            rollout.advantages = whiten(advantages, mask)

    # --- the loss ---------------------------------------------------------------------------------
    def _loss(self, rollout: Rollout) -> Tensor:
        wanted = self.objective
        logps, values = self._logps(rollout.batch)
        policy_loss = wanted.maths.policy_loss
        mask = rollout.mask
        old = rollout.logps
        if wanted.method == "rloo":  # whole answers: one position a row
            whole = logps.sum(1, keepdim=True)
            old_whole = old.sum(1, keepdim=True)
            ones = torch.ones_like(whole)
            self._note_clipped(whole - old_whole, ones.bool())
            return policy_loss(whole, old_whole, rollout.advantages, ones, wanted.clip_range)
        self._note_clipped(logps - old, mask)
        loss = policy_loss(logps, old, rollout.advantages, mask, wanted.clip_range)
        if wanted.method == "grpo":
            return loss + wanted.kl_coef * kl_penalty(logps, rollout.ref_logps, mask)
        value_loss = ppo_value_loss(
            values, rollout.values, rollout.returns, mask, wanted.clip_range
        )
        self.note({"value_loss": value_loss})
        return loss + VALUE_WEIGHT * value_loss

    def _note_clipped(self, log_ratios: Tensor, mask: Tensor) -> None:
        away = (log_ratios.detach()[mask].exp() - 1).abs() > self.objective.clip_range
        self.note({"ratio_clipped": away.double().mean()})


@contextlib.contextmanager
def kept_hidden(model) -> Iterator[list[Tensor]]:
    """Within the block, the hidden states (B, T, H) that the model's head was given, without their
    gradient: a value that reads them does not move them.
    """
    kept: list[Tensor] = []

    def keep(module, args):
        kept.append(args[0].detach())

    hook = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield kept
    finally:
        hook.remove()
