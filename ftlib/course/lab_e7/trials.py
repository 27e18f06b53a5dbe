"""The trials of lab E7: two processes against one, right and with a fault. Each takes the student's
functions as keyword parameters, with ftlib's own as the default; what they compute is handed to the
processes, or made of what these return.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ftlib.core.profiles import Profile
from ftlib.course.lab_e7.combine_gradients import combine_gradients
from ftlib.course.lab_e7.pair import COUNT, both
from ftlib.course.lab_e7.rows_of_rank import rows_of_rank
from ftlib.course.lab_e7.settings import Settings, at_scale, settings_of
from ftlib.course.lab_e7.steps import (
    MEANS,
    Task,
    encoded,
    new_model,
    own_gradient,
    train,
    train_one_of_two,
    trained,
    vector,
)

SPLIT = "train"
LEAST = 1e-18  # of a gap whose logarithm is taken: far below rounding in float64
RIGHT = "right"
AVERAGED_MEANS = "mean of means"
SAME_ROWS = "same rows"
NOT_AVERAGED = "not averaged"
ONE = "one process"


def lr_of(profile: Profile, method: str) -> float:
    return profile.lr_full if method == "full" else profile.lr_lora


def task_of(profile: Profile, method: str, shard: str, seed: int, dtype: str = "float32") -> Task:
    """A run of few steps, to be compared with one process."""
    settings = settings_of(profile)
    lr = lr_of(profile, method)
    return Task(method, shard, dtype, settings.rank, lr, settings.eps, seed)


# --- rows -----------------------------------------------------------------------------------------
def parts_of_steps(
    profile: Profile, seed: int, steps: int, rows_of_rank: Callable = rows_of_rank
) -> list[list[list[int]]]:
    """[step][rank]: the numbers of the rows that each process reads at each step."""
    count = len(encoded(profile, SPLIT))
    each = settings_of(profile).rows_each
    by_rank = [rows_of_rank(count, rank, COUNT, seed, 0) for rank in range(COUNT)]
    parts = []
    for step in range(steps):
        begin = step * each
        parts.append([numbers[begin : begin + each] for numbers in by_rank])
    return parts


def together(parts: Sequence[Sequence[int]]) -> list[int]:
    """The rows of all processes in the order in which one process would read them."""
    mixed: list[int] = []
    for numbers in zip(*parts, strict=True):
        mixed.extend(numbers)
    return mixed


# --- comparing ------------------------------------------------------------------------------------
def relative_gap(found: Tensor, wanted: Tensor) -> float:
    """‖found - wanted‖ / ‖wanted‖."""
    return float((found - wanted).norm() / wanted.norm())


def decades(gap: float) -> float:
    """log₁₀ of a gap, which may be 0."""
    return math.log10(max(gap, LEAST))


def equality_trial(
    profile: Profile, seed: int, method: str, shard: str, dtype: str, average: str
) -> dict[str, Any]:
    """A few steps in two processes and, on the same rows, in one: how far apart the first gradient,
    the losses and the trained weights are, in decades; weights as a share of how far they have
    moved.
    """
    profile = at_scale(profile)
    settings = settings_of(profile)
    task = task_of(profile, method, shard, seed, dtype)
    parts = parts_of_steps(profile, seed, settings.steps)
    one = replace(task, shard="")
    begin = vector(trained(new_model(profile, one)))
    alone = train(profile, one, [together(rows) for rows in parts], SPLIT)
    shared = both(train_one_of_two, profile, replace(task, average=average), parts, SPLIT)[0]
    apart = [abs(a - b) / b for a, b in zip(shared.losses, alone.losses, strict=True)]
    moved = float((alone.weights - begin).norm())
    return {
        "gradient": decades(relative_gap(shared.gradient, alone.gradient)),
        "loss": decades(max(apart)),
        "weights": decades(float((shared.weights - alone.weights).norm()) / moved),
        "first_loss": alone.losses[0],
        "last_loss": alone.losses[-1],
    }


# --- faults ---------------------------------------------------------------------------------------
def _held_out(profile: Profile, settings: Settings) -> list[int]:
    """Numbers of rows spread over the whole split, which may be sorted by what they ask."""
    count = len(encoded(profile, "validation"))
    return list(range(0, count, max(1, count // settings.held_out)))[: settings.held_out]


def _fault_task(profile: Profile, fault: str, seed: int) -> Task:
    """A whole LoRA run from B = 0, by Adam's usual eps; each process for itself where nothing is
    averaged.
    """
    task = replace(task_of(profile, "lora", "ddp", seed), b_std=0.0, eps=1e-8)
    if fault == NOT_AVERAGED:
        return replace(task, shard="", average=MEANS)
    if fault == AVERAGED_MEANS:
        return replace(task, average=MEANS)
    return task


def first_gradient(
    profile: Profile,
    fault: str,
    task: Task,
    parts: Sequence[Sequence[int]],
    combine_gradients: Callable = combine_gradients,
) -> Tensor:
    """The gradient of the first step as the fault makes it, put together here from what each
    process returns.
    """
    found = both(own_gradient, profile, replace(task, shard=""), parts, SPLIT)
    gradients = torch.stack([one["gradient"] for one in found])
    tokens = torch.tensor([one["tokens"] for one in found])
    if fault == AVERAGED_MEANS:
        return gradients.mean(0)
    if fault == NOT_AVERAGED:
        return gradients[0]
    return combine_gradients(gradients, tokens)


def fault_trial(
    profile: Profile,
    seed: int,
    fault: str,
    rows_of_rank: Callable = rows_of_rank,
    combine_gradients: Callable = combine_gradients,
) -> dict[str, Any]:
    """Train with LoRA in two processes with one fault, or in one process; the first gradient's
    distance from that of one process (of its length), the loss on held-out rows, and how many
    different rows were read, as a share of what two processes should read.
    """
    profile = at_scale(profile)
    settings = settings_of(profile)
    task = _fault_task(profile, fault, seed)
    parts = parts_of_steps(profile, seed, settings.fault_steps, rows_of_rank)
    wanted = _one_gradient(profile, task, together(parts[0]))
    if fault == ONE:
        rows = [together(step) for step in parts]
        one = train(profile, replace(task, shard=""), rows, SPLIT, _held_out(profile, settings))
        return _fault_result(one.losses, one.held_out, 0.0, parts)
    if fault == SAME_ROWS:
        parts = [[step[0]] * COUNT for step in parts]
    found = first_gradient(profile, fault, task, parts[0], combine_gradients)
    course = both(train_one_of_two, profile, task, parts, SPLIT, _held_out(profile, settings))[0]
    return _fault_result(course.losses, course.held_out, relative_gap(found, wanted), parts)


def _one_gradient(profile: Profile, task: Task, numbers: list[int]) -> Tensor:
    return own_gradient(0, profile, replace(task, shard=""), [numbers], SPLIT)["gradient"]


def _fault_result(losses: list[float], held_out: float, gap: float, parts) -> dict[str, Any]:
    read = set()
    for step in parts:
        read |= set(together(step))
    wanted = sum(len(numbers) for numbers in parts[0]) * len(parts)
    return {
        "gap": gap,
        "held_out": held_out,
        "read": len(read) / wanted,
        "last_loss": sum(losses[-5:]) / len(losses[-5:]),
    }
