"""Lab 3.1.4, fine-tuning 8B, exercise 8: the schedule of the learning rate."""

from __future__ import annotations

import math

from ftlib.course.exercise import Exercise, Wrong


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """The rate of step 0, 1, …, steps − 1: from 0 up to `peak` in a straight line over `warmup`
    steps, then down to 0 along half a cosine, as transformers' "cosine".
    """
    if step < warmup:
        return peak * step / warmup
    done = (step - warmup) / (steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def _without_warmup(step, steps, peak, warmup):
    return learning_rate(step, steps, peak, 0)


def _over_all_steps(step, steps, peak, warmup):
    if step < warmup:
        return peak * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * step / steps))


def _whole_cosine(step, steps, peak, warmup):
    if step < warmup:
        return peak * step / warmup
    done = (step - warmup) / (steps - warmup)
    return peak * math.cos(math.pi * done)


def _straight(step, steps, peak, warmup):
    if step < warmup:
        return peak * step / warmup
    return peak * (steps - step) / (steps - warmup)


def _quarter(step, steps, peak, warmup):
    if step < warmup:
        return peak * step / warmup
    done = (step - warmup) / (steps - warmup)
    return peak * math.cos(math.pi * done / 2)


def _constant(step, steps, peak, warmup):
    return peak * step / warmup if step < warmup else peak


def _rates_cases(g):
    for steps, peak, warmup in ((40, 2e-4, 4), (25, 1.0, 5), (12, 0.5, 0)):
        for step in (0, 1, 3, steps // 2, steps - 1):
            yield step, steps, peak, warmup


LEARNING_RATE = Exercise(
    "learning_rate",
    "Warm-up and cosine",
    8,
    1,
    learning_rate,
    _rates_cases,
    (
        Wrong(
            "no warm-up",
            _without_warmup,
            "There is no warm-up in yours: Adam's first steps have full size in every number, "
            "before it knows the gradients. Over the first `warmup` steps the rate is "
            "peak · step / warmup.",
        ),
        Wrong(
            "cosine over all steps",
            _over_all_steps,
            "Your cosine begins at step 0, so the rate jumps down where the warm-up ends. Measure "
            "the share that is done from `warmup` on: (step − warmup) / (steps − warmup).",
        ),
        Wrong(
            "cosine below zero",
            _whole_cosine,
            "Your rate becomes negative in the second half, and the optimizer climbs: the cosine "
            "runs from 1 to −1; shift it, (1 + cos) / 2.",
        ),
        Wrong(
            "straight line down",
            _straight,
            'After the warm-up yours falls in a straight line: that is "linear". The cosine stays '
            "high at first and lands flat.",
        ),
        Wrong(
            "a quarter of a turn",
            _quarter,
            "You take a quarter of a turn, cos(π/2 · done): it falls steepest at the end. Half a "
            "turn, (1 + cos(π · done)) / 2, lands flat.",
        ),
        Wrong(
            "constant after the warm-up",
            _constant,
            "After the warm-up your rate stays at its peak: the noise of single batches is then "
            "as large at the end as at the beginning.",
        ),
    ),
    (
        "Two cases: step < warmup, and the rest.",
        "For the rest: which share of the steps after the warm-up is done? It runs from 0 to 1.",
        "(1 + cos(π · done)) / 2 falls from 1 to 0, flat at both ends.",
    ),
    points=1,
    tolerance=1e-7,
)
