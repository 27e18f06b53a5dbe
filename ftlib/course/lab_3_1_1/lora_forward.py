"""Lab 3.1.1, LoRA, exercise 1: the forward pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ftlib.adapters.functional import lora_forward as _lora_forward
from ftlib.course.allocation import holds_product
from ftlib.course.exercise import Exercise, Verdict, Wrong
from ftlib.course.exercise_data import UNMEASURED
from ftlib.course.lab_3_1_1.tensors import randn


def _forward_cases(g):
    for rows, n_in, n_out, r, scaling, bias in [
        ((3,), 6, 5, 2, 2.0, True),
        ((2, 4), 8, 8, 4, 0.5, False),
        ((5,), 7, 7, 3, 4.0, True),
        ((), 4, 9, 1, 16.0, True),
        ((2,), 6, 6, 6, 0.25, True),
    ]:
        yield (
            randn(g, *rows, n_in),
            randn(g, n_out, n_in),
            randn(g, n_out) if bias else None,
            randn(g, r, n_in),
            randn(g, n_out, r),
            scaling,
        )


def _branch(x, A, B):
    return F.linear(F.linear(x, A), B)


def _inside_scaling(x, W, b, A, B, s):
    return s * (F.linear(x, W, b) + _branch(x, A, B))


def _makes_dense(function) -> str | Verdict | None:
    g = torch.Generator().manual_seed(1)
    x = randn(g, 2, 89)
    W = randn(g, 97, 89)
    A = randn(g, 2, 89)
    B = randn(g, 97, 2)
    made = holds_product(function, (x, W, None, A, B, 2.0), factors=(3, 4))
    if made is None:
        return UNMEASURED
    if made:
        return (
            "The values are right, but you built an out × in tensor of A and B (such as BA or "
            "W + BA): at 4096 × 4096 in fp32 that is 64 MiB "
            "for every layer and call. Multiply by A first, then by B."
        )
    return None


LORA_FORWARD = Exercise(
    name="lora_forward",
    title="The forward pass",
    minutes=10,
    difficulty=2,
    reference=_lora_forward,
    cases=_forward_cases,
    gradient_of=("x", "A", "B"),
    property=_makes_dense,
    praise="equal to the reference, and no out × in tensor was made,",
    hints=(
        "There are two roads from x to y, and they meet in a sum. Write the frozen one first: "
        "`F.linear(x, weight, bias)`.",
        "`F.linear(x, M)` computes x Mᵀ, so a matrix stored as (out, in) needs no transpose. A is "
        "(r, in): what shape does "
        "`F.linear(x, A)` have?",
        "The low-rank road is two calls: down to r numbers with A, up again with B. Multiply that "
        "by `scaling`, and only that.",
        "return F.linear(x, weight, bias) + F.linear(F.linear(x, A), B) * scaling",
    ),
    wrong=(
        Wrong(
            "no scaling",
            lambda x, W, b, A, B, s: F.linear(x, W, b) + _branch(x, A, B),
            "`scaling` is not used: alpha would have no effect, and every rank would have another "
            "step size.",
        ),
        Wrong(
            "divided by r again",
            lambda x, W, b, A, B, s: F.linear(x, W, b) + _branch(x, A, B) * s / A.shape[0],
            "Your update is r times too small: `scaling` is alpha/r already, and you divided by r "
            "twice.",
        ),
        Wrong(
            "scaling on everything",
            _inside_scaling,
            "You scaled the frozen road too: `scaling` multiplies B(Ax) only, or the base model "
            "changes at step 0.",
        ),
        Wrong(
            "bias lost",
            lambda x, W, b, A, B, s: F.linear(x, W) + _branch(x, A, B) * s,
            "The bias is lost: pass it to the frozen layer's `F.linear(x, weight, bias)`.",
        ),
        Wrong(
            "bias scaled",
            lambda x, W, b, A, B, s: F.linear(x, W) + F.linear(F.linear(x, A), B, b) * s,
            "The bias went into the low-rank road, so it is scaled: it belongs to Wx.",
        ),
        Wrong(
            "update only",
            lambda x, W, b, A, B, s: _branch(x, A, B) * s,
            "You return the update alone: Wx + b is missing, so the model would start from "
            "nothing instead of from the base.",
        ),
        Wrong(
            "minus",
            lambda x, W, b, A, B, s: F.linear(x, W, b) - _branch(x, A, B) * s,
            "The update is taken away instead of added: training would still work, but merging W "
            "+ s·BA would then be wrong.",
        ),
    ),
)
