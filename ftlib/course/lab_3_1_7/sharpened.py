"""The start itself, drawn at lower temperatures: wins that need no training."""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_7.kl_estimate import kl_estimate
from ftlib.course.lab_3_1_7.measures import Yardstick, asked_rows, start_answers
from ftlib.course.lab_3_1_7.starts import TEST, imitated_start
from ftlib.course.lab_3_1_7.swapped_win_rate import swapped_win_rate
from ftlib.course.reports import fault_rate
from ftlib.evaluation.generate import generate_answers


def sharpened_trial(profile: Profile, seed: int, temperature: float) -> dict[str, Any]:
    """Win rate of the start's answers at this temperature over those that it draws at 1, the same
    judge and prompts as for the trained policies.
    """
    model, tokenizer = imitated_start(profile)
    rows = asked_rows(profile, TEST)
    prompts = [row["prompt"] for row in rows]
    length = profile.preference.answer_tokens
    answers = generate_answers(
        model, tokenizer, prompts, length, temperature=temperature, seed=seed
    )
    before = start_answers(profile, seed, TEST, 1)
    yardstick = Yardstick(profile, rows, before, kl_estimate, swapped_win_rate)
    forward = yardstick.verdicts(answers, before)
    backward = yardstick.verdicts(before, answers)
    found: dict[str, Any] = {"win": float(swapped_win_rate(forward, backward))}
    if all("truth" in row for row in rows):
        found["faults"] = fault_rate(answers, rows)
    return found
