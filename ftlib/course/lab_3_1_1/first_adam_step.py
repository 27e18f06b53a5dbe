"""Lab 3.1.1, LoRA, exercise 5: how far the first step goes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_1.lora_gradients import lora_gradients
from ftlib.course.lab_3_1_1.tensors import randn


def first_adam_step(
    x: Tensor, dy: Tensor, A: Tensor, B: Tensor, scaling: float, lr: float
) -> Tensor:
    """The change of y = Wx + s·B(Ax) at the tokens x (N, in) by Adam's first step on A and B, from
    dy = ∂L/∂y (N, out): (N, out).

    Adam's first step is -lr·m̂/√v̂ = -lr·g/|g|: every entry moves by lr against its gradient's sign,
    and one without a gradient stays.
    """
    grad_a, grad_b = lora_gradients(x, dy, A, B, scaling)
    return _change(x, A, B, A - lr * grad_a.sign(), B - lr * grad_b.sign(), scaling)


def _branch(x, A, B):
    return F.linear(F.linear(x, A), B)


def _change(x, A, B, new_a, new_b, scaling):
    return scaling * (_branch(x, new_a, new_b) - _branch(x, A, B))


def _step_cases(g):
    for n, n_in, n_out, r, s, lr in [
        (3, 6, 5, 2, 2.0, 0.1),
        (1, 8, 8, 4, 0.5, 0.3),
        (4, 5, 7, 3, 4.0, 0.05),
    ]:
        x, dy = randn(g, n, n_in), randn(g, n, n_out)
        A, B = randn(g, r, n_in), randn(g, n_out, r)
        yield x, dy, A, torch.zeros_like(B), s, lr
        yield x, dy, torch.zeros_like(A), B, s, lr
        yield x, dy, A, B, s, lr


def _by_sgd(x, dy, A, B, s, lr):
    grad_a, grad_b = lora_gradients(x, dy, A, B, s)
    return _change(x, A, B, A - lr * grad_a, B - lr * grad_b, s)


def _normalised(x, dy, A, B, s, lr):
    steps = []
    for gradient in lora_gradients(x, dy, A, B, s):
        steps.append(lr * gradient / gradient.norm().clamp_min(1e-12))
    return _change(x, A, B, A - steps[0], B - steps[1], s)


def _only_b(x, dy, A, B, s, lr):
    _, grad_b = lora_gradients(x, dy, A, B, s)
    return _change(x, A, B, A, B - lr * grad_b.sign(), s)


def _uphill(x, dy, A, B, s, lr):
    grad_a, grad_b = lora_gradients(x, dy, A, B, s)
    return _change(x, A, B, A + lr * grad_a.sign(), B + lr * grad_b.sign(), s)


def _one_after_the_other(x, dy, A, B, s, lr):
    _, grad_b = lora_gradients(x, dy, A, B, s)
    new_b = B - lr * grad_b.sign()
    grad_a, _ = lora_gradients(x, dy, A, new_b, s)
    return _change(x, A, B, A - lr * grad_a.sign(), new_b, s)


def _linearised(x, dy, A, B, s, lr):
    grad_a, grad_b = lora_gradients(x, dy, A, B, s)
    return -s * lr * (_branch(x, grad_a.sign(), B) + _branch(x, A, grad_b.sign()))


def _unscaled(x, dy, A, B, s, lr):
    return first_adam_step(x, dy, A, B, s, lr) / s


def _whole_branch(x, dy, A, B, s, lr):
    return first_adam_step(x, dy, A, B, s, lr) + s * _branch(x, A, B)


FIRST_ADAM_STEP = Exercise(
    name="first_adam_step",
    title="How far the first step goes",
    minutes=15,
    difficulty=3,
    reference=first_adam_step,
    cases=_step_cases,
    tolerance=1e-4,
    hints=(
        "Adam's first step: m̂ = g and v̂ = g², so m̂/√v̂ is the sign of the gradient. "
        "Which of your functions gives the gradients?",
        "`grad_a, grad_b = lora_gradients(x, dy, A, B, scaling)`, both at the old A and B; then "
        "`new_a = A - lr * grad_a.sign()`, and B in the same way.",
        "What y changes by is what the low-rank road gives afterwards less what it gave before: "
        "s·(B'(A'x) − B(Ax)). Wx cancels.",
        "return scaling * (F.linear(F.linear(x, new_a), new_b) - F.linear(F.linear(x, A), B))",
    ),
    wrong=(
        Wrong(
            "SGD",
            _by_sgd,
            "You moved by lr times the gradient, which is SGD: Adam's first step is lr times the "
            "gradient's *sign*, whatever its size.",
        ),
        Wrong(
            "divided by the norm",
            _normalised,
            "You divided each gradient by its norm: Adam divides entry by entry, so every entry "
            "moves by lr.",
        ),
        Wrong(
            "only B",
            _only_b,
            "Only B moved: with B = 0 that is right, but in general A moves in the same step.",
        ),
        Wrong(
            "uphill",
            _uphill,
            "The step goes up the loss: a step is *minus* lr times the sign.",
        ),
        Wrong(
            "one after the other",
            _one_after_the_other,
            "A's gradient was taken at the new B: an optimizer takes both gradients before either "
            "factor moves.",
        ),
        Wrong(
            "linearised",
            _linearised,
            "The product of both steps, ΔB ΔA x, is missing: take the new road less the old one.",
        ),
        Wrong(
            "no scaling",
            _unscaled,
            "The change lacks the factor `scaling`: y holds s·B(Ax).",
        ),
        Wrong(
            "the whole branch",
            _whole_branch,
            "That is the low-rank road after the step: the change is what it gives now less what "
            "it gave before.",
        ),
    ),
)
