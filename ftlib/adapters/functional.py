"""LoRA's and DoRA's mathematics as functions of tensors: the update, the forward pass, DoRA's norm,
and all of it fused.

The layer that uses them is in `ftlib.adapters.lora_layer`, where the formulas' papers are named as
well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ftlib.core.dtypes import fp32_or_wider
from ftlib.models.nf4 import dequantize_packed


def lora_delta(A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """The dense update ``s·BA`` (out, in), from A (r, in) and B (out, r), in their dtype also under
    autocast: it is put into weights, where 16 bits of it would stay.
    """
    with torch.autocast(A.device.type, enabled=False):
        return (B @ A) * scaling


def merged_weight(
    weight: Tensor, A: Tensor, B: Tensor, scaling: float, magnitude: Tensor | None = None
) -> Tensor:
    """``W + sBA`` (out, in) as a new tensor in A's dtype; with DoRA's `magnitude` (out,) its rows
    scaled to that length.
    """
    merged = lora_delta(A, B, scaling).add_(weight)
    if magnitude is not None:
        g = dora_scale(magnitude, dora_norm(weight, A, B, scaling))  # (out,)
        merged *= g[:, None]
    return merged


def lora_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, scaling: float
) -> Tensor:
    """LoRA's forward pass ``Wx + b + s·B(Ax)``: x (..., in) -> (..., out). No out×in tensor is
    made.
    """
    return F.linear(x, weight, bias) + F.linear(F.linear(x, A), B) * scaling


def dense_weight(weight: Tensor, quant_state, dtype: torch.dtype) -> Tensor:
    """W (out, in) in `dtype`. What is dequantised or cast here lives for one product only: nobody
    keeps it.
    """
    if quant_state is None:
        return weight.to(dtype)
    return dequantize_packed(weight, quant_state).to(dtype)


def dora_scale(magnitude: Tensor, norm: Tensor) -> Tensor:
    """DoRA's g = m/‖W + sBA‖ (out,). A row of zeros has no direction that m could give a length to:
    its g and its gradient are 0, and so is its output (PEFT's are NaN, 0/0).
    """
    tiny = torch.finfo(norm.dtype).tiny
    quotient = magnitude / norm.clamp_min(tiny)
    return torch.where(norm > tiny, quotient, 0.0)


# Of FusedLoRA.forward, in their order.
ARGUMENTS = (
    "x",
    "weight",
    "quant_state",
    "bias",
    "A",
    "B",
    "g",
    "scaling",
    "p",
    "gate",
    "act",
)


class FusedLoRA(torch.autograd.Function):
    """LoRA, and DoRA where `g` (out,) is given, over a frozen weight: ``y = g⊙(Wx + s·B(A·drop(x)))
    + b``.

    Saves x, xAᵀ (N, r) and for DoRA the output, which the next layer mostly keeps anyway. The
    low-rank part is added into Wx in place. The gradient of g is Σ dy⊙(y−b)/g, so Wx itself need
    not be kept. A weight of another dtype, or in 4 bits (`quant_state`), is cast or dequantised
    once in forward and once more in backward, and never saved. Of dropout (probability `p`) the
    mask is saved, a byte an element, and not the dropped x. With `gate` (of x's shape) and the
    activation `act` the input is ``act(gate)⊙x``, multiplied out again in backward: only gate and x
    are saved.
    """

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        weight: Tensor,
        quant_state,
        bias: Tensor | None,
        A: Tensor,
        B: Tensor,
        g: Tensor | None,
        scaling: float,
        p: float,
        gate: Tensor | None = None,
        act: Callable[[Tensor], Tensor] = F.silu,
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])  # (N, in)
        kept_input = flat
        if gate is not None:
            gate = gate.reshape(flat.shape)
            flat = act(gate) * flat
        dropped = flat
        mask = None
        if p:
            dropped, mask = torch.native_dropout(flat, p, True)
        low = dropped @ A.T  # (N, r)
        first_bias = bias if g is None else None  # with DoRA the bias is added after the scale
        W = dense_weight(weight, quant_state, x.dtype)
        y = F.linear(flat.view(x.shape), W, first_bias)  # (..., out)
        rows = y.view(-1, B.shape[0])  # (N, out); y itself is no view, so that others may write it
        rows.addmm_(low, B.T, alpha=scaling)
        if g is not None:
            rows.mul_(g)
            if bias is not None:
                rows.add_(bias)
        kept_output = None if g is None else y
        ctx.save_for_backward(kept_input, low, weight, bias, A, B, g, kept_output, mask, gate)
        ctx.act = act
        kind = x.device.type
        ctx.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        ctx.quant_state = quant_state
        ctx.scaling = scaling
        ctx.keep = 1 - p
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy: Tensor):
        x, low, weight, bias, A, B, g, y, mask, gate = ctx.saved_tensors
        wants = dict(zip(ARGUMENTS, ctx.needs_input_grad, strict=False))
        wants_input = wants["x"] or (gate is not None and wants["gate"])
        shape = dy.shape
        dy = dy.reshape(-1, shape[-1])  # (N, out)
        gated = None
        if gate is not None:
            with torch.autocast(*ctx.autocast, cache_enabled=False):
                gated = GatedProduct(ctx.act, gate, x)
        flat = x if gated is None else gated.value()
        dg = None
        if g is not None and wants["g"]:
            W = partial(dense_weight, weight, ctx.quant_state, dy.dtype)
            recompute = partial(_rows_of_output, flat, W, low, B, ctx.scaling)
            dg = _scale_gradient(dy, y.reshape(dy.shape), g, bias, recompute)
            del recompute  # it holds `flat`
        if g is not None:
            dy = dy * g
        if wants_input or wants["A"]:
            dlow = (dy @ B) * ctx.scaling  # (N, r)
        dA = _a_gradient(dlow, flat, mask, ctx.keep) if wants["A"] else None
        del flat  # a gated input's product is freed before dx is made
        dx: Tensor | None = None
        dgate: Tensor | None = None
        if wants_input:
            dense = dense_weight(weight, ctx.quant_state, dy.dtype)
            dx = _input_gradient(dy, dense, dlow, A, mask, ctx.keep)  # (N, in)
            if gated is not None:
                dgate, dx = gated.gradients(dx)
                dgate = dgate.view(*shape[:-1], A.shape[1])
            dx = dx.view(*shape[:-1], A.shape[1])
        dB = (dy.T @ low) * ctx.scaling if wants["B"] else None  # (out, r)
        found = {"x": dx, "A": dA, "B": dB, "g": dg, "gate": dgate}
        return tuple(found.get(name) for name in ARGUMENTS)


def _rows_of_output(
    flat: Tensor, W: Callable[[], Tensor], low: Tensor, B: Tensor, scaling: float, rows: Tensor
) -> Tensor:
    """Some columns of ``Wx + s·BAx`` (N, chosen), before DoRA's scale; W() gives the weight."""
    return flat @ W()[rows].T + scaling * (low @ B[rows].T)


def _input_gradient(
    dy: Tensor, W: Tensor, dlow: Tensor, A: Tensor, mask: Tensor | None, keep: float
) -> Tensor:
    """∂L/∂x (N, in), of the weight's branch and of the low-rank one, behind its dropout."""
    dx = dy @ W
    if mask is None:
        return dx.addmm_(dlow, A)
    return dx.add_((dlow @ A).mul_(mask), alpha=1 / keep)


def _a_gradient(dlow: Tensor, flat: Tensor, mask: Tensor | None, keep: float) -> Tensor:
    """∂L/∂A (r, in)."""
    if mask is None:
        return dlow.T @ flat
    return (dlow.T @ (flat * mask)) / keep


class GatedProduct:
    """``act(gate)⊙x`` of saved factors: its value, and its gradients by both."""

    def __init__(self, act: Callable[[Tensor], Tensor], gate: Tensor, x: Tensor):
        self.gate = gate.detach().requires_grad_()
        self.x = x
        with torch.enable_grad():
            self.activated = act(self.gate)

    def value(self) -> Tensor:
        return self.activated.detach() * self.x

    def gradients(self, dproduct: Tensor) -> tuple[Tensor, Tensor]:
        """∂L/∂gate and ∂L/∂x from ∂L/∂(act(gate)⊙x), which is written over."""
        dx = dproduct * self.activated.detach()
        (dgate,) = torch.autograd.grad(self.activated, self.gate, dproduct.mul_(self.x))
        return dgate, dx


def _scale_gradient(dy: Tensor, y: Tensor, g: Tensor, bias: Tensor | None, recompute) -> Tensor:
    """∂L/∂g (out,) of DoRA, summed in fp32 or wider; `recompute(rows)` gives Wx + sBAx of rows that
    g = 0 wiped out.
    """
    wide = fp32_or_wider(dy.dtype)
    scaled = y if bias is None else y - bias  # g⊙(Wx + sBAx), (N, out)
    dg = (dy * scaled).sum(0, dtype=wide) / g.to(wide)
    zero = g == 0  # (out,)
    if zero.any():
        dg[zero] = (dy[:, zero] * recompute(zero)).sum(0, dtype=wide)
    return dg.to(g.dtype)


NORM_ROWS = 2048  # rows of W that dora_norm widens at a time


def row_squares(weight: Tensor) -> Tensor:
    """``‖W_i‖²`` of every output row, (out,), in at least fp32: the part of the norm that never
    changes.
    """
    dtype = fp32_or_wider(weight.dtype)
    squares = [rows.to(dtype).square().sum(1) for rows in weight.split(NORM_ROWS)]
    return torch.cat(squares)


def dora_norm(
    weight: Tensor, A: Tensor, B: Tensor, scaling: float, squares: Tensor | None = None
) -> Tensor:
    """``‖W + sBA‖`` of every output row, (out,), without the dense product.

    ``n_i² = ‖W_i‖² + 2s·Σ_k B_ik (WAᵀ)_ik + s²·[(B·AAᵀ)⊙B]_i``, in at least fp32; `squares` is
    ``‖W_i‖²`` if it is known (`row_squares`). W is widened a few rows at a time, so the temporaries
    stay small.
    """
    dtype = fp32_or_wider(weight.dtype)
    A = A.to(dtype)
    B = B.to(dtype)
    if squares is None:
        squares = row_squares(weight)
    products = torch.cat([rows.to(dtype) @ A.T for rows in weight.split(NORM_ROWS)])  # (out, r)
    cross = (B * products).sum(1)  # (out,)
    update = ((B @ (A @ A.T)) * B).sum(1)  # (out,)
    norm_squared = squares + 2 * scaling * cross + scaling**2 * update
    return norm_squared.clamp_min(0).sqrt()
