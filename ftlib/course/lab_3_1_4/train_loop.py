"""Lab 3.1.4, fine-tuning 8B, exercise 9: the training loop."""

from __future__ import annotations

import torch
from torch import nn

from ftlib.course.exercise import Exercise, Wrong


def train_loop(optimizer, batch_loss, batches: list, rates: list[float], max_norm: float) -> list:
    """One optimizer step for each batch and its rate; what trains is what the optimizer holds.

    A batch is a list of micro-batches (rows, number of answer tokens); `batch_loss(rows)` is the
    mean loss per answer token, a scalar. The whole batch's gradient is cut to a norm of `max_norm`.
    Returns each whole batch's loss, taken before its step.
    """
    parameters = [q for group in optimizer.param_groups for q in group["params"]]
    losses = []
    for micro_batches, rate in zip(batches, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        tokens = sum(count for _, count in micro_batches)
        whole = 0.0
        for rows, count in micro_batches:
            part = batch_loss(rows) * (count / tokens)
            part.backward()
            whole += part.item()
        nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(whole)
    return losses


# --- wrong answers --------------------------------------------------------------------------------
def _loop(
    optimizer,
    batch_loss,
    batches,
    rates,
    max_norm,
    weight=None,
    zeroed=True,
    sets_rate=True,
    clip="whole",
    steps_each=False,
):
    """The loop with one thing done otherwise."""
    parameters = [q for group in optimizer.param_groups for q in group["params"]]
    losses = []
    for micro_batches, rate in zip(batches, rates, strict=True):
        if sets_rate:
            optimizer.param_groups[0]["lr"] = rate
        tokens = sum(count for _, count in micro_batches)
        whole = 0.0
        for rows, count in micro_batches:
            loss = batch_loss(rows)
            whole += loss.item() * count / tokens
            factor = count / tokens if weight is None else weight(len(micro_batches))
            (loss * factor).backward()
            if clip == "each":
                nn.utils.clip_grad_norm_(parameters, max_norm)
            if steps_each:
                optimizer.step()
                optimizer.zero_grad()
        if clip == "whole":
            nn.utils.clip_grad_norm_(parameters, max_norm)
        if clip == "values":
            nn.utils.clip_grad_value_(parameters, max_norm)
        if not steps_each:
            optimizer.step()
        if zeroed:
            optimizer.zero_grad()
        losses.append(whole)
    return losses


def _one_over_k(k: int) -> float:
    return 1 / k


def _one(k: int) -> float:
    return 1.0


def _loop_equal(*args):
    return _loop(*args, weight=_one_over_k)


def _loop_sum(*args):
    return _loop(*args, weight=_one)


def _loop_keeps_gradients(*args):
    return _loop(*args, zeroed=False)


def _loop_keeps_rate(*args):
    return _loop(*args, sets_rate=False)


def _loop_unclipped(*args):
    return _loop(*args, clip="")


def _loop_clips_each(*args):
    return _loop(*args, clip="each")


def _loop_clips_values(*args):
    return _loop(*args, clip="values")


def _loop_steps_each(*args):
    return _loop(*args, steps_each=True)


def _loop_never_steps(optimizer, batch_loss, batches, rates, max_norm):
    losses = []
    for micro_batches in batches:
        tokens = sum(count for _, count in micro_batches)
        parts = [batch_loss(rows).item() * count / tokens for rows, count in micro_batches]
        losses.append(sum(parts))
    return losses


# --- cases ----------------------------------------------------------------------------------------
class _Line:
    """A small regression whose loss is the mean over a micro-batch's numbers."""

    def __init__(self, weight: torch.Tensor):
        self.weight = weight.requires_grad_()

    def __call__(self, rows):
        xs, ys = rows
        return ((xs @ self.weight - ys) ** 2).mean()


def _loop_cases(g):
    for max_norm in (0.5, 2.0):
        line = _Line(torch.randn(3, generator=g))
        # Plain descent: Adam would hide what a factor does to the gradient.
        optimizer = torch.optim.SGD([line.weight], lr=0.3)
        batches = []
        for sizes in ((2, 6), (5, 1), (1, 3, 4), (4, 4)):
            batch = []
            for size in sizes:
                xs = torch.randn(size, 3, generator=g)
                ys = torch.randn(size, generator=g)
                batch.append(((xs, ys), size))
            batches.append(batch)
        yield optimizer, line, batches, [0.05, 0.1, 0.07, 0.02], max_norm


TRAIN_LOOP = Exercise(
    "train_loop",
    "The training loop",
    20,
    3,
    train_loop,
    _loop_cases,
    (
        Wrong(
            "equal micro-batches",
            _loop_equal,
            "You weigh the micro-batches equally, 1/k each: weigh them by their answer tokens, as "
            "in exercise 5.",
        ),
        Wrong(
            "sum of means",
            _loop_sum,
            "You add up the micro-batches' mean losses: the gradient is about k times too large. "
            "Each counts with its share of the answer tokens.",
        ),
        Wrong(
            "gradients never cleared",
            _loop_keeps_gradients,
            "The gradients of a step are still there in the next one: `backward` adds to what it "
            "finds. Call `optimizer.zero_grad()` after the step.",
        ),
        Wrong(
            "rate never set",
            _loop_keeps_rate,
            "The rates are not used: the optimizer goes on with the one that it was made with. "
            'Set `group["lr"]` of each of `optimizer.param_groups` before the step.',
        ),
        Wrong(
            "not clipped",
            _loop_unclipped,
            "The gradient is not clipped: one odd batch can throw the weights far away. "
            "`torch.nn.utils.clip_grad_norm_(parameters, max_norm)`, before the step.",
        ),
        Wrong(
            "clipped in each micro-batch",
            _loop_clips_each,
            "You clip after every micro-batch, so the result depends on how the batch was split. "
            "Clip once, when the whole batch's gradient is there.",
        ),
        Wrong(
            "clipped by value",
            _loop_clips_values,
            "You clip every number by itself, which turns the gradient to another direction. Clip "
            "its norm.",
        ),
        Wrong(
            "a step for each micro-batch",
            _loop_steps_each,
            "You step after every micro-batch: that is a smaller batch, not accumulation.",
        ),
        Wrong(
            "never steps",
            _loop_never_steps,
            "Nothing is trained: without `backward()` and `optimizer.step()` the losses are those "
            "of the untrained model.",
        ),
    ),
    (
        "For each batch: set the rate, then for each micro-batch the loss and `backward()`, then "
        "clip, step, clear.",
        "`backward()` adds its gradients to those that are there; so a micro-batch's loss is "
        "first multiplied by its answer tokens over those of the whole batch.",
        'The parameters are in the optimizer: `group["params"]` of each of '
        "`optimizer.param_groups`, and the rate is `group['lr']`.",
        "Return numbers (`.item()`), not tensors: a kept tensor holds its whole graph in memory.",
    ),
    praise="accumulates, clips and steps as the reference does, batch for batch,",
    points=3,
)
