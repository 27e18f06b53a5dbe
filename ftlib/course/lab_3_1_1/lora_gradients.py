"""Lab 3.1.1, LoRA, exercise 4: the gradients."""

from __future__ import annotations

from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_1.tensors import randn


def lora_gradients(
    x: Tensor, dy: Tensor, A: Tensor, B: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """(∂L/∂A, ∂L/∂B) of y = Wx + s·B(Ax), from x (N, in) and dy = ∂L/∂y (N, out)."""
    return scaling * (dy @ B).T @ x, scaling * dy.T @ (x @ A.T)


def _gradient_cases(g):
    for n, n_in, n_out, r, s in [
        (3, 6, 5, 2, 2.0),
        (7, 8, 8, 4, 0.5),
        (2, 5, 5, 5, 4.0),
        (4, 4, 4, 4, 3.0),
    ]:
        yield randn(g, n, n_in), randn(g, n, n_out), randn(g, r, n_in), randn(g, n_out, r), s


def _gradients_wrong(
    a=lambda x, dy, A, B, s: s * (dy @ B).T @ x, b=lambda x, dy, A, B, s: s * dy.T @ (x @ A.T)
):
    return lambda x, dy, A, B, s: (a(x, dy, A, B, s), b(x, dy, A, B, s))


LORA_GRADIENTS = Exercise(
    name="lora_gradients",
    title="Which factor moves first",
    minutes=15,
    difficulty=3,
    reference=lora_gradients,
    cases=_gradient_cases,
    tolerance=1e-4,
    hints=(
        "For a plain layer y = xMᵀ the gradient is ∂L/∂M = dyᵀ x. Here two such layers follow "
        "each other.",
        "Call h = xAᵀ, (N, r). Then y = s·hBᵀ + …, so ∂L/∂B = s·dyᵀ h, and ∂L/∂h = s·dy B.",
        "Now A is the plain layer with input x and output gradient ∂L/∂h: ∂L/∂A = (∂L/∂h)ᵀ x, of "
        "shape (r, in).",
        "return scaling * (dy @ B).T @ x, scaling * dy.T @ (x @ A.T)",
    ),
    wrong=(
        Wrong(
            "no scaling",
            lambda x, dy, A, B, s: ((dy @ B).T @ x, dy.T @ (x @ A.T)),
            "The chain rule passes through `scaling` as well: both gradients lack the factor s.",
        ),
        Wrong(
            "scaling in one",
            _gradients_wrong(a=lambda x, dy, A, B, s: (dy @ B).T @ x),
            "∂L/∂A lacks the factor s: the gradient reaches A through s·B.",
        ),
        Wrong(
            "scaling in the other",
            _gradients_wrong(b=lambda x, dy, A, B, s: dy.T @ (x @ A.T)),
            "∂L/∂B lacks the factor s: y holds s·Bh, not Bh.",
        ),
        Wrong(
            "swapped",
            lambda x, dy, A, B, s: lora_gradients(x, dy, A, B, s)[::-1],
            "The two are swapped: return (∂L/∂A, ∂L/∂B), in this order.",
        ),
        Wrong(
            "mean",
            lambda x, dy, A, B, s: tuple(t / len(x) for t in lora_gradients(x, dy, A, B, s)),
            "You took the mean over the N tokens: dy carries the loss's own averaging already, so "
            "sum.",
        ),
        Wrong(
            "transposed",
            lambda x, dy, A, B, s: tuple(t.T for t in lora_gradients(x, dy, A, B, s)),
            "Both gradients are transposed: a gradient has its parameter's shape, (r, in) and "
            "(out, r).",
        ),
    ),
)
