"""Lab E3, ReFT and its relatives, exercise 6: a bottleneck adapter."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_e3.tensors import randn


def bottleneck_forward(
    h: Tensor, down: Tensor, down_bias: Tensor, up: Tensor, up_bias: Tensor
) -> Tensor:
    """``h + W_up·gelu(W_down·h + b_down) + b_up``: h (..., d), down (m, d), down_bias (m,), up
    (d, m), up_bias (d,) -> (..., d).
    """
    low = F.gelu(F.linear(h, down, down_bias))  # (..., m)
    return h + F.linear(low, up, up_bias)


def _cases(g):
    for rows, d, m in [((4,), 6, 2), ((2, 3), 5, 3), ((3,), 4, 4), ((), 7, 1)]:
        yield randn(g, *rows, d), randn(g, m, d), randn(g, m), randn(g, d, m), randn(g, d)


def _bottleneck(f=F.gelu, base=True, after=False, biases=(1, 1)):
    """A bottleneck with one thing done wrongly."""

    def forward(h, down, down_bias, up, up_bias):
        low = F.linear(h, down, biases[0] * down_bias)
        out = F.linear(low if after else f(low), up, biases[1] * up_bias)
        out = f(out) if after else out
        return h + out if base else out

    return forward


def _gelu_by_tanh(x):
    return F.gelu(x, approximate="tanh")


BOTTLENECK = Exercise(
    name="bottleneck_forward",
    title="A bottleneck adapter",
    minutes=6,
    difficulty=1,
    reference=bottleneck_forward,
    cases=_cases,
    gradient_of=("h", "down", "down_bias", "up", "up_bias"),
    tolerance=1e-5,
    hints=(
        "d numbers down to m, a GELU, m numbers up to d, and h itself beside it.",
        "`F.linear(h, down, down_bias)` is W_down·h + b_down for every h.",
        "The GELU is between the two: without it the adapter is LoRA's BA with biases.",
        "return h + F.linear(F.gelu(F.linear(h, down, down_bias)), up, up_bias)",
    ),
    wrong=(
        Wrong(
            "no skip",
            _bottleneck(base=False),
            "h itself is missing: with W_up = 0 the adapter must pass h on, or it would not start "
            "as the base model.",
        ),
        Wrong(
            "no activation",
            _bottleneck(f=lambda x: x),
            "There is nothing between the two matrices: then they are one matrix of rank m, "
            "LoRA's BA, and could be merged.",
        ),
        Wrong(
            "activation last",
            _bottleneck(after=True),
            "The GELU comes after W_up: it belongs between the two matrices, on m numbers.",
        ),
        Wrong("relu", _bottleneck(f=F.relu), "That is a ReLU: use a GELU."),
        Wrong(
            "GELU by tanh",
            _bottleneck(f=_gelu_by_tanh),
            "That is the tanh approximation of GELU: use the exact one, `F.gelu(x)`.",
        ),
        Wrong(
            "no lower bias",
            _bottleneck(biases=(0, 1)),
            "b_down is missing, inside the activation.",
        ),
        Wrong("no upper bias", _bottleneck(biases=(1, 0)), "b_up is missing, after W_up."),
    ),
)
