"""Lab 3.1.2, DoRA, exercise 4: the gradient of m."""

from __future__ import annotations

from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_2.tensors import positive, randn


def magnitude_gradient(y: Tensor, dy: Tensor, bias: Tensor | None, m: Tensor) -> Tensor:
    """∂L/∂m (out,) from the layer's output alone: ``Σ_t dy⊙(y − b)/m``. y, dy (N, out)."""
    scaled = y if bias is None else y - bias
    return (dy * scaled).sum(0) / m


def _magnitude_cases(g):
    for n, n_out, bias in [(5, 4, True), (8, 8, False), (1, 6, True), (12, 3, True)]:
        yield (
            randn(g, n, n_out),
            randn(g, n, n_out),
            randn(g, n_out) if bias else None,
            positive(g, n_out),
        )


MAGNITUDE_GRADIENT = Exercise(
    name="magnitude_gradient",
    title="The gradient of m",
    minutes=10,
    difficulty=2,
    reference=magnitude_gradient,
    cases=_magnitude_cases,
    hints=(
        "For one token, y_i = m_i·u_i + b_i with u_i = (V_i·x)/‖V_i‖. What is ∂y_i/∂m_i?",
        "∂y_i/∂m_i = u_i, and u_i need not be kept: it is (y_i − b_i)/m_i.",
        "One m_i serves all tokens, so its gradient is the sum over tokens of dy_i·u_i.",
        "return (dy * (y if bias is None else y - bias)).sum(0) / m",
    ),
    wrong=(
        Wrong(
            "bias left in",
            lambda y, dy, b, m: (dy * y).sum(0) / m,
            "The bias is still in y: m does not scale it, so take it off first.",
        ),
        Wrong(
            "mean",
            lambda y, dy, b, m: magnitude_gradient(y, dy, b, m) / len(y),
            "You took the mean over tokens: dy carries the loss's own averaging, so sum.",
        ),
        Wrong(
            "not divided",
            lambda y, dy, b, m: magnitude_gradient(y, dy, b, m) * m,
            "The division by m is missing: y − b is m·u, the derivative is u.",
        ),
        Wrong(
            "per token",
            lambda y, dy, b, m: dy * (y if b is None else y - b) / m,
            "That is one gradient for each token: m is shared by all of them, so sum over the "
            "tokens.",
        ),
        Wrong(
            "over outputs",
            lambda y, dy, b, m: (dy * (y if b is None else y - b) / m).sum(1),
            "You summed over the outputs: each output has its own m, sum over the tokens.",
        ),
        Wrong(
            "dy only",
            lambda y, dy, b, m: dy.sum(0) / m,
            "That is the bias's gradient divided by m: ∂y/∂m is (y − b)/m.",
        ),
    ),
)
