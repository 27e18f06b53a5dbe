"""How lab 3.1.7 measures a policy: wins and KL on held-out prompts, and log-probabilities of given
answers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ftlib.adapters.lora import disable_adapter
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_7.starts import imitated_start
from ftlib.course.records.kit import rows_of
from ftlib.course.reports import fault_rate
from ftlib.course.world import describe_answers, preference_judge
from ftlib.evaluation.generate import generate_answers
from ftlib.evaluation.preference import PairScores, sampled_logps, score_pairs

SHOWN = 2  # answers that are kept to be read
AT_ONCE = 96  # answers drawn side by side
OTHER_DRAWS = 7919  # added to a seed: the start's answers are not drawn with the policy's numbers


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
    model, tokenizer = imitated_start(profile)
    prompts = [row["prompt"] for row in asked_rows(profile, split, samples)]
    length = profile.preference.answer_tokens
    return generate_answers(
        model, tokenizer, prompts, length, temperature=1.0, seed=seed + OTHER_DRAWS
    )


def start_scores(model, tokenizer, pairs) -> PairScores:
    """What the reference, the model without its adapter, gives both answers of every pair."""
    with disable_adapter(model):
        return score_pairs(model, tokenizer, pairs)


def ratios(model, tokenizer, pairs) -> np.ndarray:
    """log π − log π_ref of both answers of every pair, (pairs, 2), nats."""
    now = score_pairs(model, tokenizer, pairs)
    return now.logps - start_scores(model, tokenizer, pairs).logps


def margin(model, tokenizer, pairs) -> float:
    """Mean over pairs of the chosen answer's log-ratio minus the rejected one's, nats."""
    of_pairs = ratios(model, tokenizer, pairs)
    return float((of_pairs[:, 0] - of_pairs[:, 1]).mean())


def ranked(model, tokenizer, pairs) -> dict[str, float]:
    """Of held-out pairs the share that is ranked right: by log π − log π_ref, which is what DPO
    trains; by its mean a token; by log π itself; and by the reference's log π.
    """
    now, lengths = score_pairs(model, tokenizer, pairs)
    then = start_scores(model, tokenizer, pairs).logps
    return {
        "right by ratio": _share_right(now - then),
        "right by mean ratio": _share_right((now - then) / lengths),
        "right by log p": _share_right(now),
        "reference right by log p": _share_right(then),
    }


def _share_right(scores: np.ndarray) -> float:
    return float((scores[:, 0] > scores[:, 1]).mean())
