"""The trials of lab 3.1.7: train a policy from the lab's start, and measure how it answers and how
far it went. Each takes the student's functions as keyword parameters, ftlib's own by default.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

from ftlib.adapters.lora import disable_adapter
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_7.implicit_reward import implicit_reward
from ftlib.course.lab_3_1_7.kl_estimate import kl_estimate
from ftlib.course.lab_3_1_7.losses import loss_function
from ftlib.course.lab_3_1_7.measures import (
    AT_ONCE,
    OTHER_DRAWS,
    Yardstick,
    asked_rows,
    margin,
    ranked,
    ratios,
    start_answers,
)
from ftlib.course.lab_3_1_7.preference_loss import preference_loss
from ftlib.course.lab_3_1_7.starts import (
    TEST,
    TRAIN,
    drawn,
    imitation_start,
    pairs_a_step,
    reference_folder,
    run_steps,
    train_sft,
    training_pairs,
)
from ftlib.course.lab_3_1_7.swapped_win_rate import swapped_win_rate
from ftlib.course.records.kit import preference_start, rows_of
from ftlib.course.reports import report_faults
from ftlib.course.world import describe_answers
from ftlib.data.feedback import flip_judgements
from ftlib.evaluation.preference import sampled_logps
from ftlib.training.prefer import prefer

LOOKS = (0.25, 0.5, 1.0)  # shares of a run's steps at which a policy is measured
RANKED_PAIRS = 24  # held-out pairs whose ranking is looked at
MARGIN_PAIRS = 16  # training pairs whose margin is measured at the end
PROBES = 24  # fixed answers whose log-probability is watched
DRAWS = 8  # answers that the start draws to each prompt at one seed, for what can be reached


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
    result |= ranked(model, tokenizer, held_out)
    result["margin"] = margin(model, tokenizer, own)
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
    chosen, rejected = ratios(model, tokenizer, probe).mean(0)
    result = {
        "chosen": float(chosen),
        "rejected": float(rejected),
        "probe margin": float(chosen - rejected),
        "own margin": margin(model, tokenizer, rows[:MARGIN_PAIRS]),
    }
    if all("paraphrase" in row for row in probe):
        others = [{**row, "rejected": row["paraphrase"]} for row in probe]
        result["paraphrase"] = float(ratios(model, tokenizer, others)[:, 1].mean())
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
