"""What the runs of lab 3.1.9 are measured by: who wins against the start, what the answers are
like, and how far the policy has gone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn

from ftlib.adapters.lora import disable_adapter
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_9.rows import test_rows, validation_rows
from ftlib.course.records.kit import preference_start
from ftlib.course.world import describe_answers, facts_right, judge_style, preference_judge
from ftlib.evaluation.generate import generate_answers
from ftlib.evaluation.preference import sampled_logps, win_rate

MANNERS = ("rude", "neither", "polite")  # from worse to better

Judge = Callable[[str, str, str], float]


# --- judging --------------------------------------------------------------------------------------
def manner_judge(rows: Sequence[dict]) -> Judge:
    """A judge for `win_rate(a, b, judge, prompts)` by two rules: the politer answer wins, by its
    opener; where both have one manner, the one with the right facts; else it is a tie.

    `ftlib.course.world.style_judge` has a third rule, fewer words. No judgement that is trained on
    here is about length, so that rule would decide many comparisons by what nobody has taught.
    """
    known = {row["prompt"][-1]["content"]: row["facts"] for row in rows}

    def score(prompt: str, text: str) -> tuple[int, bool]:
        return MANNERS.index(judge_style(text)), facts_right(text, known[prompt])

    def judge(prompt: str, first: str, second: str) -> float:
        one = score(prompt, first)
        two = score(prompt, second)
        return 0.5 if one == two else float(one > two)

    return judge


def judge_of(rows: Sequence[dict], model: str = "") -> Judge:
    """By rule where the rows carry facts, without the rule about length; else as
    `ftlib.course.world.preference_judge`.
    """
    if all("facts" in row for row in rows):
        return manner_judge(rows)
    return preference_judge(list(rows), model)


# --- measures -------------------------------------------------------------------------------------
def asked_rows(profile: Profile, split: str) -> tuple[dict, ...]:
    """The rows of "validation" or "test" whose questions are asked."""
    return validation_rows(profile) if split == "validation" else test_rows(profile)


def _prompts(rows: Sequence[dict]) -> list[list[dict]]:
    return [row["prompt"] for row in rows]


@functools.cache
def first_answers(profile: Profile, split: str) -> tuple[str, ...]:
    """What the start answers to a split's questions; a fresh adapter changes nothing of it."""
    model, tokenizer = preference_start(profile, 0)
    prompts = _prompts(asked_rows(profile, split))
    return tuple(generate_answers(model, tokenizer, prompts, profile.max_new_tokens))


def answered(profile: Profile, model: nn.Module, tokenizer, split: str) -> dict[str, Any]:
    """Win rate over the start's own answers, and what the answers are like."""
    rows = asked_rows(profile, split)
    prompts = _prompts(rows)
    answers = generate_answers(model, tokenizer, prompts, profile.max_new_tokens)
    asked = [prompt[-1]["content"] for prompt in prompts]
    judge = judge_of(rows, profile.preference.judge)
    first = list(first_answers(profile, split))
    described = describe_answers(list(rows), answers)
    return {
        "wins": float(win_rate(answers, first, judge, asked)),
        "words": described["words"],
        "polite": described.get("polite", 0.0),
        "right": described.get("facts right", 0.0),
        "answer": answers[0],
    }


def sampled(profile: Profile, model: nn.Module, tokenizer, split: str) -> dict[str, float]:
    """Of one answer each to the questions that `answered` asks, drawn from the policy: KL(π‖π_ref)
    in nats per answer, and the share of polite ones.
    """
    rows = list(asked_rows(profile, split))
    longest = profile.max_new_tokens
    texts, policy, start = sampled_logps(
        model, tokenizer, _prompts(rows), disable_adapter, max_new_tokens=longest
    )
    described = describe_answers(rows, texts)
    return {
        "kl": float(np.mean(policy - start)),
        "polite_sampled": described.get("polite", 0.0),
    }


@functools.cache
def start_measures(profile: Profile, split: str) -> dict[str, Any]:
    """The same of the start itself."""
    model, tokenizer = preference_start(profile, 0)
    return {
        **answered(profile, model, tokenizer, split),
        **sampled(profile, model, tokenizer, split),
    }
