"""The trials of lab E1: a reward model from judgements, a policy trained against it, and DPO on the
same judgements. They take the student's functions as keyword parameters, ftlib's own by default.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.adapters.lora import disable_adapter, merge_and_unload
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_7.measures import OTHER_DRAWS
from ftlib.course.lab_3_1_7.starts import (
    TEST,
    TRAIN,
    drawn,
    imitated_start,
    imitation_start,
    reference_folder,
)
from ftlib.course.lab_3_1_7.trials import watching
from ftlib.course.lab_e1.calibration_error import calibration_error
from ftlib.course.lab_e1.clipped_loss import ppo_policy_loss
from ftlib.course.lab_e1.gae import gae
from ftlib.course.lab_e1.kl_shaped_rewards import kl_shaped_rewards
from ftlib.course.lab_e1.leave_one_out import leave_one_out
from ftlib.course.lab_e1.reward_loss import reward_loss
from ftlib.course.lab_e1.settings import settings_of
from ftlib.course.records.kit import rows_of
from ftlib.course.reports import report_faults
from ftlib.data.feedback import flip_judgements
from ftlib.evaluation.generate import generate_answers
from ftlib.evaluation.preference import sampled_logps
from ftlib.training.policy_trainer import PolicyMaths
from ftlib.training.prefer import prefer
from ftlib.training.reward_model import reward_scores, train_reward_model
from ftlib.training.rl import reinforce
from ftlib.training.run import Run

FUNCTIONS = ("reward_loss", "kl_shaped_rewards", "gae", "leave_one_out", "ppo_policy_loss")
GROUP = 4  # answers to a prompt where answers are compared with each other
CHANCE = 0.5  # of judgements turned round in the control: nothing is left in them
SHOWN = 2  # answers that are kept to be read
AT_ONCE = 64  # rows scored side by side
SWEEP_SEED = 500  # added to a sweep's seeds: a comparison's own runs have not chosen its rates
PARTS = ("wrong", "missing", "unwanted")
ON_THE_WAY = ("proxy", "true", "kl", "entropy", *PARTS)  # of rollouts, on their own prompts


# --- rows -----------------------------------------------------------------------------------------
def judgements(profile: Profile, seed: int, count: int, turned: float = 0.0) -> list[dict]:
    """Pairs that somebody has judged, drawn by the seed; a share of them turned round."""
    pairs = drawn(rows_of(profile, TRAIN), count, seed)
    return flip_judgements(pairs, turned, seed) if turned else pairs


def prompts_of(profile: Profile, seed: int, rollouts: int) -> list[dict]:
    """As many prompts as these rollouts ask, each once, about the people of the judgements."""
    return drawn(rows_of(profile, TRAIN), rollouts * settings_of(profile).answers, seed)


def asked_rows(profile: Profile, split: str) -> list[dict]:
    """Held-out rows, about people whom no judgement names."""
    return list(rows_of(profile, split)[: settings_of(profile).asked])


def pair_rows(pairs: Sequence[dict], side: str) -> list[dict]:
    """One side's answers as rows to be scored."""
    return [{"prompt": pair["prompt"], "completion": pair[side]} for pair in pairs]


# --- true rewards ---------------------------------------------------------------------------------
def true_rewards(rows: list[dict], answers: list[str]) -> list[float]:
    """What the world's own judge says: minus the faults of each answer."""
    pairs = zip(answers, rows, strict=True)
    return [-float(report_faults(text, row).total) for text, row in pairs]


def fault_counter(part: str) -> Callable[[list[dict], list[str]], list[float]]:
    """Counts one sort of faults, of `PARTS`, in every answer."""

    def count(rows: list[dict], answers: list[str]) -> list[float]:
        pairs = zip(answers, rows, strict=True)
        return [float(getattr(report_faults(text, row), part)) for text, row in pairs]

    return count


# --- the reward model -----------------------------------------------------------------------------
@dataclass(frozen=True)
class RewardModel:
    """A trained model with its head; called as `reinforce` calls a reward."""

    model: nn.Module
    head: nn.Linear
    tokenizer: Any
    run: Run
    seconds: float

    def __call__(self, rows: list[dict], answers: list[str]) -> list[float]:
        asked = []
        for row, text in zip(rows, answers, strict=True):
            said = [{"role": "assistant", "content": text}]
            asked.append({"prompt": row["prompt"], "completion": said})
        return self.scores(asked).tolist()

    def scores(self, rows: list[dict]) -> Tensor:
        """(rows,) scores of {"prompt", "completion"}."""
        return reward_scores(self.model, self.head, self.tokenizer, rows, AT_ONCE)

    def gaps(self, pairs: Sequence[dict]) -> Tensor:
        """(pairs,) r_chosen − r_rejected."""
        chosen = self.scores(pair_rows(pairs, "chosen"))
        return chosen - self.scores(pair_rows(pairs, "rejected"))


@functools.cache
def reward_model(
    profile: Profile,
    seed: int,
    pairs: int,
    turned: float = 0.0,
    reward_loss: Callable = reward_loss,
) -> RewardModel:
    """The SFT model with an adapter and a head, trained for as many steps as one pass over the
    lab's judgements has, on so many different ones; the adapter merged.
    """
    settings = settings_of(profile)
    model, tokenizer = imitation_start(profile, seed)
    start = time.perf_counter()
    head, run = train_reward_model(
        model,
        tokenizer,
        judgements(profile, seed, pairs, turned),
        steps=settings.judgements // settings.reward_batch,
        learning_rate=settings.reward_lr,
        batch_size=settings.reward_batch,
        max_length=profile.max_length,
        seed=seed,
        loss_function=reward_loss,
        log_steps=1,
        show=False,
    )
    seconds = time.perf_counter() - start
    merge_and_unload(model)
    return RewardModel(model.requires_grad_(False), head, tokenizer, run, seconds)


def reward_model_trial(
    profile: Profile,
    seed: int,
    pairs: int,
    turned: float = 0.0,
    reward_loss: Callable = reward_loss,
    calibration_error: Callable = calibration_error,
) -> dict[str, Any]:
    """Train a reward model, and hold it against judgements on people whom it has not seen."""
    found = reward_model(profile, seed, pairs, turned, reward_loss)
    gaps = found.gaps(rows_of(profile, TEST)).double()
    likely = torch.sigmoid(gaps)
    right = (gaps > 0).double() + 0.5 * (gaps == 0).double()
    accuracy = float(right.mean())
    confidence = float(torch.maximum(likely, 1 - likely).mean())
    return {
        "accuracy": accuracy,
        "confidence": confidence,
        "too sure": confidence - accuracy,
        "calibration error": float(calibration_error(gaps)),
        "gaps": [round(gap, 3) for gap in gaps.tolist()],
    }


# --- how a policy answers -------------------------------------------------------------------------
@functools.cache
def start_answers(profile: Profile, seed: int, split: str) -> tuple[str, ...]:
    """What the SFT model itself answers to the held-out prompts, at temperature 1."""
    model, tokenizer = imitated_start(profile)
    prompts = [row["prompt"] for row in asked_rows(profile, split)]
    length = settings_of(profile).answer_tokens
    own_seed = seed + OTHER_DRAWS
    return tuple(
        generate_answers(model, tokenizer, prompts, length, temperature=1.0, seed=own_seed)
    )


def measured(
    profile: Profile, model, tokenizer, seed: int, judge: RewardModel, split: str = TEST
) -> dict[str, Any]:
    """One sampled answer to each held-out prompt: proxy and true reward above those of the start's
    own answers, KL to it (nats an answer), and what the faults are.
    """
    rows = asked_rows(profile, split)
    answers, policy, start = sampled_logps(
        model,
        tokenizer,
        [row["prompt"] for row in rows],
        disable_adapter,
        seed=seed,
        max_new_tokens=settings_of(profile).answer_tokens,
        batch_size=AT_ONCE,
    )
    before = list(start_answers(profile, seed, split))
    found: dict[str, Any] = {
        "proxy": float(np.mean(judge(rows, answers))),
        "proxy of start": float(np.mean(judge(rows, before))),
        "true": float(np.mean(true_rewards(rows, answers))),
        "true of start": float(np.mean(true_rewards(rows, before))),
        "kl": float((policy - start).mean()),
        "distinct": len(set(answers)) / len(answers),
        "samples": answers[:SHOWN],
    }
    for name in ("proxy", "true"):
        found[f"{name} gain"] = found[name] - found[f"{name} of start"]
    found["hacked"] = float(found["proxy gain"] > 0 > found["true gain"])
    for part in PARTS:
        found[part] = float(np.mean(fault_counter(part)(rows, answers)))
    return found


# --- reinforcement learning -----------------------------------------------------------------------
def maths_of(
    kl_shaped_rewards: Callable = kl_shaped_rewards,
    gae: Callable = gae,
    leave_one_out: Callable = leave_one_out,
    ppo_policy_loss: Callable = ppo_policy_loss,
) -> PolicyMaths:
    """The student's functions where `reinforce` has ftlib's; returns are advantages plus values."""

    def advantages(rewards, values, mask, gamma, lam):
        found = gae(rewards, values, mask, gamma, lam)
        returns = torch.where(mask, found + values, 0.0)
        return found, returns

    return PolicyMaths(kl_shaped_rewards, advantages, leave_one_out, ppo_policy_loss)


def train_policy(
    profile: Profile,
    seed: int,
    judge: RewardModel,
    method: str,
    kl_coef: float,
    lr: float,
    rollouts: int,
    maths: PolicyMaths,
):
    """(model, tokenizer, run) of a policy trained from the SFT model against a reward model."""
    settings = settings_of(profile)
    model, tokenizer = imitation_start(profile, seed)
    run = reinforce(
        model,
        tokenizer,
        prompts_of(profile, seed, rollouts),
        judge,
        steps=rollouts * settings.epochs,
        learning_rate=lr,
        method=method,
        kl_coef=kl_coef,
        batch_size=settings.answers,
        group_size=1 if method == "ppo" else GROUP,
        epochs=settings.epochs,
        max_new_tokens=settings.answer_tokens,
        max_length=profile.max_length,
        watch={"true": true_rewards, **{part: fault_counter(part) for part in PARTS}},
        maths=maths,
        seed=seed,
        schedule="constant",
        warmup=0.0,
        log_steps=settings.epochs,
        show=False,
    )
    return model, tokenizer, run


def course_of(run: Run, name: str) -> list[float]:
    """A metric of the rollouts, in their order."""
    return [entry[name] for entry in run.history if name in entry]


def token_passes(profile: Profile, run: Run, method: str) -> int:
    """How many tokens went through a model while a policy was trained: a training step counts as
    three passes (forward, and backward twice as much), everything else as one.

    Of RL every answer is also drawn, scored, and read by the policy and by its reference. DPO's
    reference is read once for each pair.
    """
    if method == "DPO":
        return 4 * run.tokens
    epochs = settings_of(profile).epochs
    return 3 * run.tokens + 4 * run.tokens // epochs


def policy_trial(
    profile: Profile,
    seed: int,
    method: str,
    kl_coef: float,
    lr: float,
    turned: float = 0.0,
    split: str = TEST,
    is_swept: bool = False,
    reward_loss: Callable = reward_loss,
    kl_shaped_rewards: Callable = kl_shaped_rewards,
    gae: Callable = gae,
    leave_one_out: Callable = leave_one_out,
    ppo_policy_loss: Callable = ppo_policy_loss,
) -> dict[str, Any]:
    """Train a policy against a reward model, watching the true reward, and measure it on held-out
    prompts. `turned`: share of the judgements that are turned round. `is_swept`: with a seed of
    the sweep's own.
    """
    seed = seed + SWEEP_SEED if is_swept else seed
    settings = settings_of(profile)
    judge = reward_model(profile, seed, settings.judgements, turned, reward_loss)
    maths = maths_of(kl_shaped_rewards, gae, leave_one_out, ppo_policy_loss)
    model, tokenizer, run = train_policy(
        profile, seed, judge, method, kl_coef, lr, settings.rollouts, maths
    )
    result = measured(profile, model, tokenizer, seed, judge, split)
    if is_swept:
        return result
    for name in ON_THE_WAY:
        result[f"{name} on the way"] = course_of(run, "reward" if name == "proxy" else name)
    result["seconds"] = run.seconds
    result["reward model seconds"] = judge.seconds
    result["passes"] = token_passes(profile, run, method) + 3 * judge.run.tokens
    return result


# --- DPO on the same judgements -------------------------------------------------------------------
def dpo_trial(
    profile: Profile,
    seed: int,
    lr: float,
    beta: float,
    looks: tuple[float, ...] = (1.0,),
    split: str = TEST,
    is_swept: bool = False,
) -> dict[str, Any]:
    """DPO from the SFT model on the judgements that the reward model has; measured on the way."""
    seed = seed + SWEEP_SEED if is_swept else seed
    settings = settings_of(profile)
    judge = reward_model(profile, seed, settings.judgements, 0.0, reward_loss)
    model, tokenizer = imitation_start(profile, seed)
    steps = settings.judgements // settings.dpo_batch
    places = sorted({max(1, round(share * steps)) for share in looks})
    looking: list[float] = []

    def look() -> dict[str, Any]:
        start = time.perf_counter()
        found = measured(profile, model, tokenizer, seed, judge, split)
        looking.append(time.perf_counter() - start)
        return found

    with watching(places[:-1], look) as seen:
        run = prefer(
            model,
            tokenizer,
            judgements(profile, seed, settings.judgements),
            steps=steps,
            learning_rate=lr,
            beta=beta,
            batch_size=settings.dpo_batch,
            max_length=profile.max_length,
            seed=seed,
            reference=reference_folder(profile, "e1"),
            show=False,
        )
    seconds = run.seconds - sum(looking)
    result = look()
    if is_swept:
        return result
    for name in ("proxy", "true", "kl", *PARTS):
        result[f"{name} on the way"] = [*(found[name] for found in seen), result[name]]
    result["seconds"] = seconds
    result["passes"] = token_passes(profile, run, "DPO")
    return result


def method_trial(profile: Profile, seed: int, method: str, **settings: Any) -> dict[str, Any]:
    """`dpo_trial` for "dpo", `policy_trial` for the others."""
    if method == "dpo":
        own = {name: value for name, value in settings.items() if name not in FUNCTIONS}
        return dpo_trial(profile, seed, **own)
    return policy_trial(profile, seed, method, **settings)
