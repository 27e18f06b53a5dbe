"""Lab 3.1.2, DoRA, exercise 3: the forward pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ftlib.adapters.functional import dora_norm, lora_forward
from ftlib.course.allocation import holds_product
from ftlib.course.exercise import Exercise, Verdict, Wrong
from ftlib.course.exercise_data import UNMEASURED
from ftlib.course.lab_3_1_2.tensors import positive, randn


def dora_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, m: Tensor, scaling: float
) -> Tensor:
    """DoRA's forward pass ``m/‖V‖ ⊙ (Vx) + b`` with V = W + s·BA: x (..., in) -> (..., out). The
    norm gets no gradient.
    """
    with torch.no_grad():
        norm = dora_norm(weight, A, B, scaling)
    y = lora_forward(x, weight, None, A, B, scaling) * (m / norm)
    return y if bias is None else y + bias


def _forward_cases(g):
    for rows, n_in, n_out, r, s, bias in [
        ((3,), 6, 5, 2, 2.0, True),
        ((2, 4), 8, 8, 4, 0.5, False),
        ((5,), 7, 7, 3, 4.0, True),
        ((), 4, 9, 1, 1.5, True),
    ]:
        yield (
            randn(g, *rows, n_in),
            randn(g, n_out, n_in),
            randn(g, n_out) if bias else None,
            randn(g, r, n_in),
            randn(g, n_out, r),
            positive(g, n_out),
            s,
        )


def _gradient(function) -> Tensor:
    """∂/∂B of the sum of the outputs, where it flows through the norm if anything does."""
    g = torch.Generator().manual_seed(2)
    x = randn(g, 6, 5)
    W = randn(g, 7, 5)
    A = randn(g, 2, 5)
    B = randn(g, 7, 2).requires_grad_()
    y = function(x, W, None, A, B, positive(g, 7), 1.5)
    return torch.autograd.grad(y.sum(), B)[0]


def _through_the_norm(x, weight, bias, A, B, m, scaling):
    """The forward pass that has the norm's gradient too."""
    V = weight + scaling * (B @ A)
    return F.linear(x, V) * (m / V.norm(dim=1))


def _forward_property(function) -> str | Verdict | None:
    g = torch.Generator().manual_seed(1)
    x = randn(g, 2, 89)
    W = randn(g, 97, 89)
    A = randn(g, 2, 89)
    B = randn(g, 97, 2)
    m = positive(g, 97)
    made = holds_product(function, (x, W, None, A, B, m, 2.0), factors=(3, 4))
    if made:
        return (
            "The values are right, but you built an out × in tensor of A and B (BA, W + BA, or W "
            "with its rows scaled): scale the *output* instead, "
            "row scale times W x + s·B(Ax), and take the norm from dora_norm."
        )
    if torch.allclose(_gradient(function), _gradient(_through_the_norm), rtol=1e-3, atol=1e-4):
        return (
            "The values are right, but gradients flow through the norm: section 4.3 of the paper "
            "treats ‖V‖ as a constant. "
            "Compute it under torch.no_grad(), or detach() it."
        )
    return UNMEASURED if made is None else None


def _variant(
    scale=lambda m, n: m / n, norm=dora_norm, base=True, update=True, bias="added", s_of=lambda s: s
):
    """A DoRA forward pass with one thing done wrongly."""

    def forward(x, W, b, A, B, m, s):
        s = s_of(s)
        g = scale(m, norm(W, A, B, s))
        wx = F.linear(x, W)
        low = F.linear(F.linear(x, A), B) * s
        if bias == "scaled" and b is not None:
            wx = wx + b
        y = (wx * g if base else wx) + (low * g if update else low)
        return y + b if bias == "added" and b is not None else y

    return forward


DORA_FORWARD = Exercise(
    name="dora_forward",
    title="DoRA's forward pass",
    minutes=15,
    difficulty=2,
    reference=dora_forward,
    cases=_forward_cases,
    gradient_of=("x", "A", "B", "m"),
    property=_forward_property,
    praise="equal to the reference, values and gradients, without BA,",
    tolerance=1e-4,
    hints=(
        "Row i of W' is (m_i/‖V_i‖)·V_i, so output i is (m_i/‖V_i‖)·(V_i·x): the row scale can be "
        "applied to the output.",
        "V x = W x + s·B(Ax) is lab 1's LoRA forward pass without the bias.",
        "The norm: `with torch.no_grad(): norm = dora_norm(weight, A, B, scaling)`. Then scale = "
        "m / norm, shape (out,).",
        "Multiply W x + s·B(Ax) by the scale, and add the bias after that, unscaled.",
    ),
    wrong=(
        Wrong(
            "bias scaled",
            _variant(bias="scaled"),
            "The bias is scaled with the rows: eq. 5 decomposes the weight, so b is added after "
            "the scaling "
            "(torchtune scales it too).",
        ),
        Wrong("bias lost", _variant(bias="lost"), "The bias is lost: add it at the end, unscaled."),
        Wrong(
            "norm of W",
            _variant(norm=lambda W, A, B, s: W.norm(dim=1)),
            "You divide by ‖W‖, a constant: then m no longer is the length of the row, and BA "
            "changes the length again. "
            "Divide by ‖W + s·BA‖.",
        ),
        Wrong(
            "norm without scaling",
            _variant(norm=lambda W, A, B, s: dora_norm(W, A, B, 1.0)),
            "The norm is that of W + BA: the matrix in use is W + s·BA, so the norm needs "
            "`scaling` too.",
        ),
        Wrong(
            "not divided",
            _variant(scale=lambda m, n: m),
            "Nothing divides by the norm: m·Vx makes every row ‖V‖ times too long.",
        ),
        Wrong(
            "magnitude lost",
            _variant(scale=lambda m, n: 1 / n),
            "m is not used: all your rows have length 1.",
        ),
        Wrong(
            "upside down",
            _variant(scale=lambda m, n: n / m),
            "The row scale is upside down: m over the norm.",
        ),
        Wrong(
            "update not scaled",
            _variant(update=False),
            "Only W x is scaled: the row scale multiplies the whole of V x, W x + s·B(Ax).",
        ),
        Wrong(
            "base not scaled",
            _variant(base=False),
            "Only the update is scaled: the row scale multiplies the whole of V x, W x as well.",
        ),
        Wrong(
            "no scaling",
            _variant(s_of=lambda s: 1.0),
            "`scaling` is not used: V is W + s·BA, in the output and in the norm.",
        ),
    ),
)
