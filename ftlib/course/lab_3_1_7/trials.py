"""The trials of lab 3.1.7: train a policy from the lab's start, and measure how it answers and how
far it went. Each takes the student's functions as keyword parameters, ftlib's own by default.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from ftlib.adapters.lora import add_lora, disable_adapter, merge_and_unload
from ftlib.batches.collate import PairCollator
from ftlib.batches.preference import encode_pairs
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_7.implicit_reward import implicit_reward
from ftlib.course.lab_3_1_7.kl_estimate import kl_estimate
from ftlib.course.lab_3_1_7.losses import loss_function
from ftlib.course.lab_3_1_7.preference_loss import preference_loss
from ftlib.course.lab_3_1_7.swapped_win_rate import swapped_win_rate
from ftlib.course.records.kit import preference_start, rows_of
from ftlib.course.reports import fault_rate, report_faults
from ftlib.course.world import describe_answers, preference_judge
from ftlib.data.pairs import flip_judgements, pairs_to_rows
from ftlib.evaluation.generate import generate_answers
from ftlib.evaluation.preference import sampled_logps
from ftlib.losses.logps import sequence_logps
from ftlib.training.finetune import finetune
from ftlib.training.prefer import prefer
from ftlib.training.run import Run

MARGIN_PAIRS = 16  # training pairs whose margin is measured at the end
DRAWS = 8  # answers that the start draws to each prompt at one seed, for what can be reached
PROBES = 32  # fixed answers whose log-probability is watched
START_SEED = 0  # of the SFT from which every policy of the lab begins
RUN_SHARE = 0.5  # a run has half of the profile's steps, each of half its pairs
LOOKS = (0.25, 0.5, 1.0)  # shares of a run's steps at which a policy is measured
SHOWN = 2  # answers that are kept to be read
RANKED_PAIRS = 24  # held-out pairs whose ranking is looked at
AT_ONCE = 96  # answers drawn side by side
OTHER_DRAWS = 7919  # added to a seed: the start's answers are not drawn with the policy's numbers
TRAIN, VALIDATION, TEST = "faults_train", "faults_validation", "faults_test"


def training_pairs(profile: Profile, name: str) -> list[dict]:
    """As many of these pairs as the profile trains on."""
    return list(rows_of(profile, name)[: profile.preference.count])


# --- where everything starts ----------------------------------------------------------------------
@functools.cache
def _imitating(profile: Profile):
    """(model, tokenizer) after SFT on chosen answers, merged: the reference of the lab."""
    model, tokenizer = preference_start(profile, START_SEED)
    train_sft(
        profile,
        model,
        tokenizer,
        training_pairs(profile, TRAIN),
        START_SEED,
        profile.lr_lora,
        profile.preference.imitation_steps,
        batch_size=pairs_a_step(profile),
    )
    merge_and_unload(model)
    return model, tokenizer


def imitation_start(profile: Profile, seed: int):
    """(model, tokenizer): the SFT model with a fresh adapter over it, the same for the same seed.
    With the adapter off it is the reference.
    """
    model, tokenizer = _imitating(profile)
    model = copy.deepcopy(model)
    torch.manual_seed(seed)
    return add_lora(model, r=profile.rank, lora_alpha=2 * profile.rank), tokenizer


@functools.cache
def reference_folder(profile: Profile, name: str) -> Path:
    """Where the reference's log-probabilities of the runs of one start are kept: B = 0 in every
    one, so that all seeds have the same reference.
    """
    return Path(tempfile.mkdtemp(prefix="dpo-reference-")) / name


# --- training -------------------------------------------------------------------------------------
def train_sft(
    profile: Profile, model, tokenizer, pairs, seed: int, lr: float, steps: int, batch_size: int
) -> Run:
    """SFT on the chosen answers."""
    return finetune(
        model,
        tokenizer,
        pairs_to_rows(pairs),
        steps=steps,
        learning_rate=lr,
        batch_size=batch_size,
        max_length=profile.max_length,
        seed=seed,
        show=False,
    )


def pairs_a_step(profile: Profile) -> int:
    """Half the profile's batch: the lab makes many short runs."""
    return max(2, profile.preference.batch // 2)


def run_steps(profile: Profile, length: float) -> int:
    """Optimizer steps of a run of this length."""
    return round(RUN_SHARE * length * profile.preference.steps)


def drawn(rows: Sequence[dict], count: int, seed: int) -> list[dict]:
    """That many of the rows, or all of them, in an order that the seed draws: what a run sees, each
    once.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows[place] for place in order[:count]]


@contextlib.contextmanager
def watching(places: Sequence[int], look: Callable[[], dict]) -> Iterator[list[dict]]:
    """Call `look` after these optimizer steps of what runs inside; yields the list of what it
    returned.
    """
    found: list[dict] = []
    done = 0

    def after_step(optimizer, args, kwargs) -> None:
        nonlocal done
        done += 1
        if done in places:
            found.append(look())

    handle = register_optimizer_step_post_hook(after_step)
    try:
        yield found
    finally:
        handle.remove()


# --- measuring ------------------------------------------------------------------------------------
def asked_rows(profile: Profile, split: str, samples: int = 1) -> list[dict]:
    """Held-out rows, each `samples` times, the same one side by side."""
    rows = rows_of(profile, split)[: profile.preference.prompts]
    return [row for row in rows for _ in range(samples)]


@dataclass
class Yardstick:
    """Held-out rows, the start's answers to them, and how answers are compared."""

    profile: Profile
    rows: list[dict]
    before: list[str]
    kl_estimate: Callable
    swapped_win_rate: Callable

    def measure(self, model, tokenizer, seed: int) -> dict[str, Any]:
        """One sampled answer a row: win rate over the start, KL to it, what was said."""
        profile = self.profile
        prompts = [row["prompt"] for row in self.rows]
        length = profile.preference.answer_tokens
        answers, policy, start = sampled_logps(
            model,
            tokenizer,
            prompts,
            disable_adapter,
            seed=seed,
            max_new_tokens=length,
            batch_size=AT_ONCE,
        )
        forward = self.verdicts(answers, self.before)
        backward = self.verdicts(self.before, answers)
        found: dict[str, Any] = {
            "win": self.swapped_win_rate(forward, backward),
            "kl": self.kl_estimate(torch.from_numpy(policy), torch.from_numpy(start)),
            "words": describe_answers(self.rows, answers)["words"],
            "samples": answers[:SHOWN],
        }
        if all("truth" in row for row in self.rows):
            found["faults"] = fault_rate(answers, self.rows)
        return found

    def verdicts(self, first: list[str], second: list[str]) -> torch.Tensor:
        """The judge on each row, (rows,): 1 the first is better, 0 the second, 0.5 tie."""
        profile = self.profile
        judge = preference_judge(self.rows, profile.preference.judge)
        scores = []
        for row, one, two in zip(self.rows, first, second, strict=True):
            scores.append(judge(row["prompt"][-1]["content"], one, two))
        return torch.tensor(scores)


@functools.cache
def start_answers(profile: Profile, seed: int, split: str, samples: int) -> list[str]:
    """What the start itself answers, at temperature 1."""
    model, tokenizer = _imitating(profile)
    prompts = [row["prompt"] for row in asked_rows(profile, split, samples)]
    length = profile.preference.answer_tokens
    return generate_answers(
        model, tokenizer, prompts, length, temperature=1.0, seed=seed + OTHER_DRAWS
    )


@torch.no_grad()
def pair_logps(profile: Profile, model, tokenizer, pairs) -> np.ndarray:
    """log π of both answers of every pair, (pairs, 2), nats."""
    collator = PairCollator(tokenizer.pad_token_id, share_prefix=False)
    batch = collator(encode_pairs(tokenizer, list(pairs), profile.max_length))
    inputs = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
    logps = sequence_logps(model, **inputs, labels=batch["labels"].to(model.device))
    return logps.double().cpu().numpy().reshape(2, -1).T


def start_logps(profile: Profile, model, tokenizer, pairs) -> np.ndarray:
    """log π_ref of both answers of every pair, (pairs, 2), nats."""
    with disable_adapter(model):
        return pair_logps(profile, model, tokenizer, pairs)


def ratios(profile: Profile, model, tokenizer, pairs) -> np.ndarray:
    """log π − log π_ref of both answers of every pair, (pairs, 2), nats."""
    now = pair_logps(profile, model, tokenizer, pairs)
    return now - start_logps(profile, model, tokenizer, pairs)


def margin(profile: Profile, model, tokenizer, pairs) -> float:
    """Mean over pairs of the chosen answer's log-ratio minus the rejected one's, nats."""
    of_pairs = ratios(profile, model, tokenizer, pairs)
    return float((of_pairs[:, 0] - of_pairs[:, 1]).mean())


def pair_lengths(profile: Profile, tokenizer, pairs) -> np.ndarray:
    """Tokens of both answers of every pair, (pairs, 2)."""
    lengths = []
    for pair in encode_pairs(tokenizer, list(pairs), profile.max_length):
        lengths.append((len(pair["chosen_ids"]), len(pair["rejected_ids"])))
    return np.array(lengths)


def ranked(profile: Profile, model, tokenizer, pairs) -> dict[str, float]:
    """Of held-out pairs the share that is ranked right: by log π − log π_ref, which is what DPO
    trains; by its mean a token; by log π itself; and by the reference's log π.
    """
    now = pair_logps(profile, model, tokenizer, pairs)
    then = start_logps(profile, model, tokenizer, pairs)
    lengths = pair_lengths(profile, tokenizer, pairs)
    return {
        "right by ratio": _share_right(now - then),
        "right by mean ratio": _share_right((now - then) / lengths),
        "right by log p": _share_right(now),
        "reference right by log p": _share_right(then),
    }


def _share_right(scores: np.ndarray) -> float:
    return float((scores[:, 0] > scores[:, 1]).mean())


# --- trials ---------------------------------------------------------------------------------------
def preference_trial(
    profile: Profile,
    seed: int,
    loss: str,
    lr: float,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    pairs: str = TRAIN,
    swapped: float = 0.0,
    length: float = 1.0,
    looks: tuple[float, ...] = LOOKS,
    split: str = TEST,
    samples: int = 1,
    is_swept: bool = False,
    implicit_reward: Callable = implicit_reward,
    preference_loss: Callable = preference_loss,
    kl_estimate: Callable = kl_estimate,
    swapped_win_rate: Callable = swapped_win_rate,
) -> dict[str, Any]:
    """Train from the start and measure on the way and at the end.

    `loss`: "DPO", "IPO" or "SFT", on the chosen answers alone. `swapped`: share of the labels that
    are turned round. `length`: times the lab's usual steps. `is_swept`: wins and KL alone are
    wanted.
    """
    model, tokenizer = imitation_start(profile, seed)
    steps = run_steps(profile, length)
    rows = drawn(training_pairs(profile, pairs), steps * pairs_a_step(profile), seed)
    rows = flip_judgements(rows, swapped, seed)
    asked = asked_rows(profile, split, samples)
    before = start_answers(profile, seed, split, samples)
    yardstick = Yardstick(profile, asked, before, kl_estimate, swapped_win_rate)
    places = sorted({max(1, round(share * steps)) for share in looks})

    def look() -> dict[str, Any]:
        return yardstick.measure(model, tokenizer, seed)

    with watching(places, look) as seen:
        if loss == "SFT":
            run = train_sft(profile, model, tokenizer, rows, seed, lr, steps, pairs_a_step(profile))
        else:
            run = prefer(
                model,
                tokenizer,
                rows,
                steps=steps,
                learning_rate=lr,
                beta=beta,
                label_smoothing=label_smoothing,
                batch_size=pairs_a_step(profile),
                loss_function=loss_function(loss, implicit_reward, preference_loss),
                max_length=profile.max_length,
                seed=seed,
                reference=reference_folder(profile, "reports"),
                show=False,
            )
    result: dict[str, Any] = dict(seen[-1])
    if is_swept:
        del result["samples"]
        return result
    held_out = rows_of(profile, split)[:RANKED_PAIRS]
    own = training_pairs(profile, pairs)[:MARGIN_PAIRS]  # with the labels as they should be
    result |= ranked(profile, model, tokenizer, held_out)
    result["margin"] = margin(profile, model, tokenizer, own)
    result["steps"] = places
    result["loss by step"] = [entry["loss"] for entry in run.history if "loss" in entry]
    for name in ("win", "kl"):
        result[f"{name} by step"] = [entry[name] for entry in seen]
    return result


def distance_trial(
    profile: Profile,
    seed: int,
    level: int,
    lr: float,
    beta: float = 0.1,
    length: float = 1.0,
    implicit_reward: Callable = implicit_reward,
    preference_loss: Callable = preference_loss,
) -> dict[str, Any]:
    """Train on pairs of one distance, and watch log π − log π_ref of answers that are the same for
    every distance: a right report, the same with a false town, and the right one in other words.
    """
    model, tokenizer = imitation_start(profile, seed)
    steps = run_steps(profile, length)
    of_level = [row for row in rows_of(profile, "distance_train") if row["level"] == level]
    rows = drawn(of_level, steps * pairs_a_step(profile), seed)
    prefer(
        model,
        tokenizer,
        rows,
        steps=steps,
        learning_rate=lr,
        beta=beta,
        batch_size=pairs_a_step(profile),
        loss_function=loss_function("DPO", implicit_reward, preference_loss),
        max_length=profile.max_length,
        seed=seed,
        reference=reference_folder(profile, "reports"),
        show=False,
    )
    probe = list(rows_of(profile, "distance_probe")[:PROBES])
    chosen, rejected = ratios(profile, model, tokenizer, probe).mean(0)
    result = {
        "chosen": float(chosen),
        "rejected": float(rejected),
        "probe margin": float(chosen - rejected),
        "own margin": margin(profile, model, tokenizer, rows[:MARGIN_PAIRS]),
    }
    if all("paraphrase" in row for row in probe):
        others = [{**row, "rejected": row["paraphrase"]} for row in probe]
        result["paraphrase"] = float(ratios(profile, model, tokenizer, others)[:, 1].mean())
    return result


def length_trial(
    profile: Profile,
    seed: int,
    pairs: str,
    lr: float,
    beta: float = 0.1,
    length: float = 1.0,
    implicit_reward: Callable = implicit_reward,
    preference_loss: Callable = preference_loss,
) -> dict[str, Any]:
    """Train the course's SFT model on pairs about manners, and count the words of its answers."""
    model, tokenizer = preference_start(profile, seed)
    held_out = rows_of(profile, "preferences_test")
    stride = max(1, len(held_out) // profile.preference.prompts)
    asked = list(held_out[::stride])
    prompts = [row["prompt"] for row in asked]
    steps = run_steps(profile, length)
    rows = drawn(training_pairs(profile, pairs), steps * pairs_a_step(profile), seed)
    prefer(
        model,
        tokenizer,
        rows,
        steps=steps,
        learning_rate=lr,
        beta=beta,
        batch_size=pairs_a_step(profile),
        loss_function=loss_function("DPO", implicit_reward, preference_loss),
        max_length=profile.max_length,
        seed=seed,
        reference=reference_folder(profile, "manners"),
        show=False,
    )
    answers, policy, start = sampled_logps(
        model,
        tokenizer,
        prompts,
        disable_adapter,
        max_new_tokens=profile.max_new_tokens,
        batch_size=AT_ONCE,
        seed=seed,
    )
    return {**describe_answers(asked, answers), "kl": float((policy - start).mean())}


def draws_trial(profile: Profile, seed: int) -> dict[str, Any]:
    """Faults of answers that the start itself draws, `DRAWS` to each held-out prompt, side by side.
    Where faults cannot be counted: 1 where the judge prefers another draw, 0.5 a tie, else 0.
    """
    asked = asked_rows(profile, TEST, DRAWS)
    answers = start_answers(profile, seed, TEST, DRAWS)
    if all("truth" in row for row in asked):
        pairs = zip(answers, asked, strict=True)
        return {"faults": [report_faults(text, row).total for text, row in pairs]}
    others = start_answers(profile, seed + OTHER_DRAWS, TEST, DRAWS)
    yardstick = Yardstick(profile, asked, others, kl_estimate, swapped_win_rate)
    return {"faults": (1 - yardstick.verdicts(answers, others)).tolist()}
