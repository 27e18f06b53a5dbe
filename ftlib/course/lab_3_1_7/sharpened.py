"""Policies drawn at low temperatures, where being surer of what one says brings little: the start
itself, and what was trained from it.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_7.kl_estimate import kl_estimate
from ftlib.course.lab_3_1_7.measures import OTHER_DRAWS, Yardstick, asked_rows
from ftlib.course.lab_3_1_7.starts import (
    TEST,
    TRAIN,
    drawn,
    imitated_start,
    imitation_start,
    pairs_a_step,
    reference_folder,
    run_steps,
    train_sft,
    training_pairs,
)
from ftlib.course.lab_3_1_7.swapped_win_rate import swapped_win_rate
from ftlib.course.reports import fault_rate
from ftlib.evaluation.generate import generate_answers
from ftlib.training.prefer import prefer


def trained_policy(profile: Profile, seed: int, loss: str, lr: float, beta: float):
    """(model, tokenizer): the start, or what "DPO" or "SFT" on the chosen answers made of it, as
    the lab's other runs train it.
    """
    if loss == "none":
        return imitated_start(profile)
    model, tokenizer = imitation_start(profile, seed)
    steps = run_steps(profile, 1.0)
    size = pairs_a_step(profile)
    pairs = drawn(training_pairs(profile, TRAIN), steps * size, seed)
    if loss == "SFT":
        train_sft(profile, model, tokenizer, pairs, seed, lr, steps, size)
        return model, tokenizer
    prefer(
        model,
        tokenizer,
        pairs,
        loss="dpo",
        beta=beta,
        steps=steps,
        learning_rate=lr,
        batch_size=size,
        max_length=profile.max_length,
        seed=seed,
        reference=reference_folder(profile, "reports"),
        show=False,
    )
    return model, tokenizer


def sharpened_trial(
    profile: Profile,
    seed: int,
    temperature: float,
    loss: str = "none",
    lr: float = 0.0,
    beta: float = 0.1,
) -> dict[str, Any]:
    """Win rates of a policy's answers at this temperature over those that the start draws at 1 and
    at the same temperature, with the judge and prompts of the other runs.
    """
    model, tokenizer = trained_policy(profile, seed, loss, lr, beta)
    start, _ = imitated_start(profile)
    rows = asked_rows(profile, TEST)
    prompts = [row["prompt"] for row in rows]

    def answers_of(policy, temperature: float, seed: int) -> list[str]:
        length = profile.preference.answer_tokens
        return generate_answers(
            policy, tokenizer, prompts, length, temperature=temperature, seed=seed
        )

    answers = answers_of(model, temperature, seed)
    found: dict[str, Any] = {}
    for name, of_start in (("win", 1.0), ("win alike", temperature)):
        before = answers_of(start, of_start, seed + OTHER_DRAWS)
        yardstick = Yardstick(profile, rows, before, kl_estimate, swapped_win_rate)
        forward = yardstick.verdicts(answers, before)
        backward = yardstick.verdicts(before, answers)
        found[name] = float(swapped_win_rate(forward, backward))
    if all("truth" in row for row in rows):
        found["faults"] = fault_rate(answers, rows)
    return found
