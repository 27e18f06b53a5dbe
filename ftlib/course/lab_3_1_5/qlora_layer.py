"""Lab 3.1.5, QLoRA, exercises 6 and 7: the layer."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.adapters.functional import lora_forward
from ftlib.course.exercise import Exercise, Wrong
from ftlib.models.nf4 import NF4_LEVELS, QuantizedTensor, quantize_nf4


def qlora_forward(x: Tensor, q: QuantizedTensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """y = x·dequant(W)ᵀ + s·B(Ax), computed in x's dtype. x (..., in), q holds W (out, in), A (r,
    in), B (out, r) -> (..., out).
    """
    return lora_forward(x, q.dequantize(x.dtype), None, A.to(x.dtype), B.to(x.dtype), scaling)


def qlora_backward(
    dy: Tensor, x: Tensor, q: QuantizedTensor, A: Tensor, B: Tensor, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(dx (N, in), dA (r, in), dB (out, r)) from dy (N, out) and x (N, in); the frozen W has no
    gradient.
    """
    dlow = scaling * (dy @ B)  # the gradient of Ax, (N, r)
    return dy @ q.dequantize(dy.dtype) + dlow @ A, dlow.T @ x, scaling * (dy.T @ (x @ A.T))


def _layer_cases(g):
    for n, width, height, r, s in (
        (3, 64, 32, 2, 2.0),
        (5, 32, 64, 4, 0.5),
        (2, 128, 8, 1, 4.0),
        (7, 16, 16, 3, 1.5),
    ):
        q = quantize_nf4(0.1 * torch.randn(height, width, generator=g))
        yield (
            torch.randn(n, width, generator=g),
            q,
            torch.randn(r, width, generator=g),
            torch.randn(height, r, generator=g),
            s,
        )


def _forward(
    base=lambda q: q.dequantize(), factor=lambda s, A: s, low=lambda x, A, B: x @ A.T @ B.T
):
    return lambda x, q, A, B, s: x @ base(q).T + factor(s, A) * low(x, A, B)


def _codes_as_numbers(q):
    return q.codes().float()


def _levels_only(q):
    return NF4_LEVELS[q.codes().int()]


def _keeps_dtype(function) -> str | None:
    """Whether x in another dtype than the fp32 masters A and B gives a result in x's dtype."""
    x, q, A, B, s = next(_layer_cases(torch.Generator().manual_seed(1)))
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float64, "float64")):
        try:
            y = function(x.to(dtype), q, A, B, s)
        except RuntimeError:
            return (
                f"With x in {name} and A, B in fp32 it fails: "
                "cast A and B to x's dtype, and dequantise W into it."
            )
        if y.dtype != dtype:
            return f"With x in {name} it answers in {y.dtype}: compute in x's dtype."
    return None


FORWARD = Exercise(
    name="qlora_forward",
    title="The forward pass",
    minutes=8,
    difficulty=2,
    reference=qlora_forward,
    cases=_layer_cases,
    gradient_of=("x", "A", "B"),
    property=_keeps_dtype,
    hints=(
        "Equation 5 of the paper. `q.dequantize(dtype)` is W (out, in) in that dtype.",
        "Linear layers multiply with the transpose: `x @ W.T`. The low-rank part is x·Aᵀ first, "
        "then ·Bᵀ, "
        "so that nothing of out×in is made.",
        "A and B are fp32 masters: cast them to `x.dtype` for the product. Do not detach anything.",
        "return x @ q.dequantize(x.dtype).T + scaling * (x @ A.to(x.dtype).T @ B.to(x.dtype).T)",
    ),
    wrong=(
        Wrong(
            "codes as weights",
            _forward(base=_codes_as_numbers),
            "You multiplied with the codes: they are indices from 0 to 15. Dequantise first.",
        ),
        Wrong(
            "levels without scales",
            _forward(base=_levels_only),
            "You multiplied with the levels in [−1, 1]: the blocks' scales are missing. "
            "`q.dequantize()` applies both.",
        ),
        Wrong(
            "scaling forgotten",
            _forward(factor=lambda s, A: 1.0),
            "The low-rank part lacks its factor `scaling`.",
        ),
        Wrong(
            "divided by r again",
            _forward(factor=lambda s, A: s / len(A)),
            "You divided by r: `scaling` is alpha/r already.",
        ),
        Wrong(
            "adapter alone",
            _forward(base=lambda q: 0 * q.dequantize()),
            "That is the adapter alone: the frozen base's product is missing.",
        ),
        Wrong(
            "base alone",
            _forward(factor=lambda s, A: 0.0),
            "That is the frozen base alone: add s·B(Ax).",
        ),
        Wrong(
            "adapter scales everything",
            lambda x, q, A, B, s: s * (x @ q.dequantize().T + x @ A.T @ B.T),
            "You scaled the base's product as well: `scaling` belongs to the low-rank part alone.",
        ),
    ),
)


def _gradient_cases(g):
    for x, q, A, B, s in _layer_cases(g):
        yield torch.randn(len(x), q.shape[0], generator=g), x, q, A, B, s


def _backward(
    dx=lambda dy, W, dlow, A: dy @ W + dlow @ A,
    dA=lambda dlow, x, s: dlow.T @ x,
    dB=lambda dy, x, A, s: s * (dy.T @ (x @ A.T)),
    base=lambda q: q.dequantize(),
):
    def backward(dy, x, q, A, B, s):
        dlow = s * (dy @ B)
        return dx(dy, base(q), dlow, A), dA(dlow, x, s), dB(dy, x, A, s)

    return backward


BACKWARD = Exercise(
    name="qlora_backward",
    title="The backward pass",
    minutes=15,
    difficulty=3,
    reference=qlora_backward,
    cases=_gradient_cases,
    hints=(
        "Write h = Ax (N, r). Then y = x·Wᵀ + s·h·Bᵀ. Work from the end: the gradient of h is dh "
        "= s·dy·B.",
        "x is used twice, once by W and once by A: dx = dy·W + dh·A. W is dequantised again for "
        "this product.",
        "dA = dhᵀ·x and dB = s·dyᵀ·h. The shapes decide what is transposed.",
        "dh = scaling * (dy @ B); return dy @ q.dequantize(dy.dtype) + dh @ A, dh.T @ x, scaling "
        "* (dy.T @ (x @ A.T))",
    ),
    wrong=(
        Wrong(
            "base not in dx",
            _backward(dx=lambda dy, W, dlow, A: dlow @ A),
            "dx lacks the way through the frozen base: W gets no gradient, but it passes one on. "
            "Without it the layers below hardly learn.",
        ),
        Wrong(
            "adapter not in dx",
            _backward(dx=lambda dy, W, dlow, A: dy @ W),
            "dx lacks the way through the adapter: x goes into A as well.",
        ),
        Wrong(
            "scaling missing in dA",
            _backward(dA=lambda dlow, x, s: (dlow / s).T @ x),
            "dA lacks the factor `scaling`: it multiplies B(Ax), so both factors' gradients "
            "carry it.",
        ),
        Wrong(
            "scaling missing in dB",
            _backward(dB=lambda dy, x, A, s: dy.T @ (x @ A.T)),
            "dB lacks the factor `scaling`.",
        ),
        Wrong(
            "scaling twice",
            _backward(dA=lambda dlow, x, s: s * (dlow.T @ x)),
            "dA has the factor `scaling` twice: the gradient of Ax holds it already.",
        ),
        Wrong(
            "scales missing",
            _backward(base=_levels_only),
            "dx went through the levels without the blocks' scales: dequantise W as in the "
            "forward pass.",
        ),
    ),
)
