"""Lab E6, exercise: one step of AdamW."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong

BETAS = (0.9, 0.999)
EPS = 1e-8
SMALL = 1e-8  # of gradients beside which ε is seen


def adamw_step(
    parameter: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    step: int,
    rate: float,
    weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(parameter, first, second) after step `step`, counted from 1, of AdamW (Loshchilov and Hutter
    2019, arXiv 1711.05101) with β = (0.9, 0.999), ε = 1e-8; all of one shape, none changed in
    place. m and v are the moments before the step:

    θ ← θ − η·λ·θ;  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;
    θ ← θ − η·(m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε)
    """
    beta1, beta2 = BETAS
    first = beta1 * first + (1 - beta1) * gradient
    second = beta2 * second + (1 - beta2) * gradient.square()
    decayed = parameter * (1 - rate * weight_decay)
    mean = first / (1 - beta1**step)
    spread = (second / (1 - beta2**step)).sqrt()
    return decayed - rate * mean / (spread + EPS), first, second


def _cases(g):
    settings = ((1, 0.1, 0.0, 1.0), (1, 0.1, 0.5, 1.0), (3, 0.02, 0.1, 1.0), (50, 0.1, 0.01, 1.0))
    for step, rate, decay, size in (*settings, (1, 0.1, 0.0, SMALL)):
        shape = (3, 4)
        parameter = torch.randn(shape, generator=g, dtype=torch.float64)
        gradient = size * torch.randn(shape, generator=g, dtype=torch.float64)
        first = 0.1 * torch.randn(shape, generator=g, dtype=torch.float64)
        second = 0.01 * torch.rand(shape, generator=g, dtype=torch.float64)
        if step == 1:
            first.zero_()
            second.zero_()
        yield parameter, gradient, first, second, step, rate, decay


def _like(
    decay=lambda p, rate, weight: p * (1 - rate * weight),
    corrected=True,
    root=True,
    in_gradient=False,
    square=lambda g, mean: g.square(),
    eps=EPS,
    inside=0.0,
):
    """AdamW with one part of it otherwise."""

    def adamw(parameter, gradient, first, second, step, rate, weight_decay):
        if in_gradient:
            gradient = gradient + weight_decay * parameter
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * square(gradient, first)
        mean = first / (1 - 0.9**step) if corrected else first
        spread = second / (1 - 0.999**step) if corrected else second
        spread = (spread + inside).sqrt() if root else spread
        return decay(parameter, rate, weight_decay) - rate * mean / (spread + eps), first, second

    return adamw


def _no_decay(parameter, rate, weight_decay):
    return parameter


def _after_decay(p, g, m, v, t, rate, weight):
    moved, first, second = adamw_step(p, g, m, v, t, rate, 0.0)
    return moved * (1 - rate * weight), first, second


ADAMW = Exercise(
    name="adamw_step",
    title="AdamW",
    minutes=12,
    difficulty=3,
    reference=adamw_step,
    cases=_cases,
    points=3,
    hints=(
        "Four lines: the two moments, the decayed parameter, the step. Return new tensors.",
        "Both moments start at 0 and are too small at first: divide by 1 − β**step. The decay "
        "shrinks the parameter directly and does not go through the moments.",
        "decayed = parameter * (1 - rate * weight_decay); "
        "update = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8); "
        "return decayed - rate * update, first, second",
    ),
    wrong=(
        Wrong(
            "L2",
            _like(decay=_no_decay, in_gradient=True),
            "You added λθ to the gradient: that is Adam with an L2 penalty. It is then divided by "
            "√v, so parameters with large gradients decay less; AdamW keeps the decay separate.",
        ),
        Wrong(
            "decay without the rate",
            _like(decay=lambda p, rate, weight: p * (1 - weight)),
            "The decay is not multiplied by the learning rate: PyTorch's AdamW shrinks by η·λ.",
        ),
        Wrong(
            "no decay",
            _like(decay=_no_decay),
            "`weight_decay` is not used.",
        ),
        Wrong(
            "decay after the step",
            _after_decay,
            "You decay the parameter after the step, and so the step itself: decay the parameter "
            "before the step.",
        ),
        Wrong(
            "not corrected",
            _like(corrected=False),
            "The bias correction is missing: both moments start at 0, so divide them by 1 − βᵗ.",
        ),
        Wrong(
            "no root",
            _like(root=False),
            "The root is missing: the step is m/√v, or its size would depend on the gradient's.",
        ),
        Wrong(
            "no epsilon",
            _like(eps=0.0),
            "ε is missing: where a gradient is about as small as ε, or 0, your step is as large as "
            "any other, or not a number.",
        ),
        Wrong(
            "epsilon inside",
            _like(eps=0.0, inside=EPS),
            "Your ε is under the root: add it to √v̂. Inside, it counts as its root, ten thousand "
            "times as much.",
        ),
        Wrong(
            "square of the mean",
            _like(square=lambda g, mean: mean.square()),
            "v is the mean of the squared gradients, not the square of their mean.",
        ),
    ),
)
