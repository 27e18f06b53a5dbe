"""A linear layer with LoRA's or DoRA's low-rank update beside it.

LoRA (Hu et al. 2021, arXiv 2106.09685, eq. 3): ``y = Wx + b + s·B(Ax)`` with ``s = alpha/r``.
rsLoRA (Kalajdzievski 2023, arXiv 2312.03732): ``s = alpha/sqrt(r)``. DoRA (Liu et al. 2024, arXiv
2402.09353, eq. 5): ``y = m/‖W + sBA‖ · (W + sBA)x + b``, one norm per output row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftlib.adapters.drift import Drift, requantising
from ftlib.adapters.functional import FusedLoRA, dense_weight, dora_scale, lora_delta
from ftlib.adapters.row_norm import KeptNorm
from ftlib.core.checks import check_above_zero, check_number, check_positive_integer
from ftlib.core.dtypes import master_like
from ftlib.models.wrapped import unwrapped


@dataclass(frozen=True)
class AdapterConfig:
    """What `add_lora` was asked for; `target_modules` holds the names as given."""

    r: int = 8
    lora_alpha: float = 16
    target_modules: str | tuple[str, ...] = "all-linear"
    lora_dropout: float = 0.0
    use_rslora: bool = False
    use_dora: bool = False

    def __post_init__(self):
        r = check_positive_integer("r", self.r, hint="r is the rank of the update")
        object.__setattr__(self, "r", r)  # frozen; NumPy's integers are not JSON
        alpha = check_above_zero("lora_alpha", self.lora_alpha)
        object.__setattr__(self, "lora_alpha", alpha)
        dropout = check_number("lora_dropout", self.lora_dropout, 0, 1)
        object.__setattr__(self, "lora_dropout", dropout)
        if not self.target_modules:
            raise ValueError(
                "target_modules is empty: name at least one linear layer, or pass 'all-linear'"
            )

    @property
    def scaling(self) -> float:
        """s in ``W + s·BA``: alpha/r, or alpha/sqrt(r) for rsLoRA."""
        divisor = math.sqrt(self.r) if self.use_rslora else self.r
        return self.lora_alpha / divisor


def _dense_linear(layer: nn.Module, n_in: int, n_out: int) -> nn.Linear:
    """An uninitialised `nn.Linear` in the place of a 4-bit layer, with its bias, in the dtype that
    the weight had before: the model's own, which is what its other layers hand over (a 4-bit layer
    casts its input, a dense one does not).
    """
    dtype = layer.weight.quant_state.dtype
    dense = nn.utils.skip_init(
        nn.Linear, n_in, n_out, bias=layer.bias is not None, dtype=dtype, device=layer.weight.device
    )
    if layer.bias is not None:
        dense.bias.data.copy_(layer.bias)
    return dense.requires_grad_(False).train(layer.training)


class LoRALinear(nn.Module):
    """A linear layer with a low-rank update beside it; `base_layer` stays as it was.

    Parameters: `lora_A` (r, in) ~ kaiming_uniform(a=√5), `lora_B` (out, r) = 0, and for DoRA
    `lora_magnitude_vector` (out,) = ‖W‖ per output row; all in fp32 or wider. The update is
    computed in the input's dtype, over a 4-bit base that trains in its `compute_dtype`. Dropout
    acts on the low-rank branch only (PEFT's DoRA also drops the input of W; equal in expectation
    and in evaluation).
    """

    def __init__(self, base_layer: nn.Linear, config: AdapterConfig):
        super().__init__()
        weight = base_layer.weight
        new = master_like(weight)
        self.base_layer = base_layer
        self.scaling = config.scaling
        self.use_dora = config.use_dora
        self.in_features = base_layer.in_features
        self.out_features = base_layer.out_features
        self.dropout = nn.Dropout(config.lora_dropout)
        self.lora_A = nn.Parameter(torch.empty(config.r, self.in_features, **new))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, config.r, **new))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        if config.use_dora:
            wide = self.dense_weight().to(new["dtype"])  # (out, in)
            self.lora_magnitude_vector = nn.Parameter(wide.norm(dim=1))
        self.enabled = True
        self.merged = False
        self.was_4bit = False  # merged into a dequantised weight
        self._packed: tuple | None = None  # the 4-bit layer that merging set aside
        self._shared: tuple | None = None  # the weight that the layer shares, set aside likewise
        self._kept_norm = KeptNorm()
        # from_pretrained gives evaluation mode: dropout must not act in it
        self.train(base_layer.training)

    @property
    def weight(self) -> Tensor:
        """The base layer's weight: transformers reads dtype and device from it."""
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base_layer.bias

    @property
    def quant_state(self):
        """bitsandbytes' record of a 4-bit weight, or None. FSDP2 makes new parameters, which lack
        it: the layer has it too.
        """
        of_weight = getattr(self.base_layer.weight, "quant_state", None)
        return of_weight or getattr(self.base_layer, "quant_state", None)

    def dense_weight(self) -> Tensor:
        """W (out, in), dequantised where the base layer is a bitsandbytes 4-bit layer."""
        weight = self.base_layer.weight
        if self.quant_state is None:
            return weight.detach()
        return dense_weight(weight.data, self.quant_state, self.quant_state.dtype)

    def forward(
        self,
        x: Tensor,
        gate: Tensor | None = None,
        act: Callable[[Tensor], Tensor] = F.silu,
    ) -> Tensor:
        """``Wx + b + s·B(Ax)``, or DoRA's ``g⊙(Wx + s·B(Ax)) + b``: x (..., in) -> (..., out).

        With `gate` (of x's shape) and `act`, an activation by elements: the same of
        ``act(gate)⊙x``, a product that training then need not keep (`ftlib.adapters.gated`).
        """
        adapts = self.enabled and not self.merged
        if adapts and self._fusible():
            return self._fused(x, gate, act)
        if gate is not None:
            x = act(gate) * x
        if not adapts:
            return self.base_layer(x)
        y = self.base_layer(x)
        A = self.lora_A.to(x.dtype)
        B = self.lora_B.to(x.dtype)
        low = F.linear(self.dropout(x), A)  # (..., r)
        y = y + F.linear(low, B) * self.scaling
        if not self.use_dora:
            return y
        g = self.row_scale().to(y.dtype)  # (out,)
        if self.bias is None:
            return y * g
        return (y - self.bias) * g + self.bias

    def _fusible(self) -> bool:
        """Whether the base is frozen, and an `nn.Linear` or in training a 4-bit one.

        Without gradients bitsandbytes has its own kernels for 4-bit products, which read the packed
        weight directly.
        """
        if has_hooks(self.base_layer):  # they wait for a call of the layer itself
            return False
        frozen_bias = self.bias is None or not self.bias.requires_grad
        frozen = frozen_bias and not self.weight.requires_grad
        trained_4bit = self.quant_state is not None and torch.is_grad_enabled()
        return frozen and (trained_4bit or type(self.base_layer) is nn.Linear)

    def _fused(self, x: Tensor, gate: Tensor | None, act: Callable) -> Tensor:
        kind = x.device.type
        out_dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        dtype = out_dtype
        # As Linear4bit does: its compute dtype inside, the input's outside.
        if self.quant_state is not None:
            dtype = self.base_layer.compute_dtype or dtype
        if gate is not None and not x.dtype == gate.dtype == act(gate[:0]).dtype == dtype:
            # Multiplied in the dtypes that the model has outside, as without this layer.
            x = act(gate) * x
            gate = None
        bias = None if self.bias is None else self.bias.to(dtype)
        # Casting A and B outside the function leaves their gradients in the master weights' dtype.
        g = self.row_scale().to(dtype) if self.use_dora else None
        y = FusedLoRA.apply(
            x.to(dtype),
            self.weight,
            self.quant_state,
            bias,
            self.lora_A.to(dtype),
            self.lora_B.to(dtype),
            g,
            self.scaling,
            self.dropout.p if self.training else 0.0,
            gate,
            act,
        )
        return y.to(out_dtype)

    def row_scale(self) -> Tensor:
        """DoRA's g = m/‖W + sBA‖ (out,); the norm is detached as in section 4.3 of the paper. A row
        of zeros has no direction: its g is 0, and it gets no gradient.
        """
        return dora_scale(self.lora_magnitude_vector, self._row_norm())

    # Its key changes with every step: torch.compile would compile it again each time.
    @torch.compiler.disable
    @torch.no_grad()
    def _row_norm(self) -> Tensor:
        """‖W + sBA‖ (out,), from an earlier pass where A, B and W are as they were in it."""
        return self._kept_norm.norm(
            self.base_layer.weight, self.dense_weight, self.lora_A, self.lora_B, self.scaling
        )

    def forget_norm(self) -> None:
        """Drop the kept norm, after A or B were written through `.data`."""
        self._kept_norm.forget()

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """W + sBA (out, in), with DoRA its rows rescaled, in fp32 or wider."""
        W = self.dense_weight().to(self.lora_A.dtype)
        merged = W + lora_delta(self.lora_A, self.lora_B, self.scaling)
        if self.use_dora:
            merged *= self.row_scale()[:, None]
        return merged

    @torch.no_grad()
    def merge(self, untie: bool = False) -> Drift:
        """Put the update into the base weight, computed in fp32 or wider; returns what rounding
        took of it.

        A 4-bit base layer is set aside, and a dequantised one, in the dtype that it was quantised
        from, takes its place. `untie`: into a copy of the weight, which other modules hold as well.
        """
        W = self.dense_weight().to(self.lora_A.dtype)
        merged = self.merged_weight()
        if self.use_dora:
            self._merge_scale = self.row_scale()[:, None]
            self._lost_rows = W[self._merge_scale[:, 0] == 0]
        if self.quant_state is not None:
            self._packed = (self.base_layer,)  # in a tuple: not a submodule
            self.base_layer = _dense_linear(self.base_layer, self.in_features, self.out_features)
            self.was_4bit = True
        elif untie:
            shared = self.base_layer.weight
            self._shared = (shared,)
            own = nn.Parameter(shared.detach().clone(), requires_grad=shared.requires_grad)
            self.base_layer.weight = own
        self.base_layer.weight.copy_(merged)
        self.merged = True
        kept = self.base_layer.weight.to(W.dtype)
        return Drift(
            update=(merged - W).square().sum().item(),
            rounding=(kept - merged).square().sum().item(),
            requantising=self._requantising(merged),
        )

    def _requantising(self, merged: Tensor) -> float:
        """What storing `merged` in 4 bits again would take of it, squared; 0 for a base that is not
        in 4 bits.
        """
        if not self._packed:
            return 0.0
        return requantising(merged, self._packed[0].weight.quant_state)

    @property
    def holds_original(self) -> bool:
        """Whether merging has set the base weight aside, as it was."""
        return bool(self._packed or self._shared)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the update out again: to rounding, or exactly where a 4-bit layer or a shared weight
        was set aside.
        """
        if self._packed:
            self.base_layer = self._packed[0]
            self._packed = None
            self.was_4bit = False
        elif self._shared:
            self.base_layer.weight = self._shared[0]
            self._shared = None
        else:
            self._subtract()
        self.merged = False

    def _subtract(self) -> None:
        """W from the merged weight; rows that DoRA had scaled to 0 come back from their copy."""
        weight = self.base_layer.weight
        W = weight.to(self.lora_A.dtype)
        if self.use_dora:
            W = W / self._merge_scale.masked_fill(self._merge_scale == 0, 1.0)
        W = W - lora_delta(self.lora_A, self.lora_B, self.scaling)
        if self.use_dora:
            W[self._merge_scale[:, 0] == 0] = self._lost_rows
        weight.copy_(W)

    def extra_repr(self) -> str:
        return (
            f"r={self.lora_A.shape[0]}, scaling={self.scaling:g}, dora={self.use_dora}, "
            f"merged={self.merged}"
        )


def has_hooks(module: nn.Module) -> bool:
    """Whether someone looks at what goes into the module or comes out, or at their gradients."""
    return bool(
        module._forward_pre_hooks  # noqa: SLF001
        or module._forward_hooks  # noqa: SLF001
        or module._backward_pre_hooks  # noqa: SLF001
        or module._backward_hooks  # noqa: SLF001
    )


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """All adapted layers of a model by module path, as it is without wrappers around it."""
    inner = unwrapped(model)
    return {name: m for name, m in inner.named_modules() if isinstance(m, LoRALinear)}


def adapted_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """`lora_layers`; ValueError where there are none."""
    layers = lora_layers(model)
    if not layers:
        raise ValueError("model has no adapter: call add_lora or load_adapter first")
    return layers
