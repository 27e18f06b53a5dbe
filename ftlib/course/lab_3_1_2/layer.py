"""The adapters of lab 3.1.2: LoRA and DoRA around a frozen linear layer, with the student's
functions inside.

What the lab trains is these layers, in the notebook and in the records; `ft.add_lora` is held
against them once, and is what to use elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftlib.adapters.functional import lora_forward
from ftlib.adapters.targets import target_names
from ftlib.course.lab_3_1_2.decompose import decompose
from ftlib.course.lab_3_1_2.dora_forward import dora_forward


class MyLoRA(nn.Module):
    """A frozen linear layer with LoRA beside it: A random, B zero."""

    def __init__(self, layer: nn.Linear, r: int, alpha: float):
        super().__init__()
        n_out, n_in = layer.weight.shape
        device = layer.weight.device
        self.base = layer.requires_grad_(False)
        self.scaling = alpha / r
        A = torch.empty(r, n_in)
        nn.init.kaiming_uniform_(A, a=math.sqrt(5))  # uniform in ±1/√in
        self.lora_A = nn.Parameter(A.to(device))
        self.lora_B = nn.Parameter(torch.zeros(n_out, r, device=device))

    def forward(self, x: Tensor) -> Tensor:
        A = self.lora_A.to(x.dtype)
        B = self.lora_B.to(x.dtype)
        return lora_forward(x, self.base.weight, self.base.bias, A, B, self.scaling)

    def rows(self) -> Tensor:
        """V = W + s·BA (out, in), without its graph: what LoRA applies, and DoRA divides by its row
        norms.
        """
        return (self.base.weight + self.scaling * self.lora_B @ self.lora_A).detach()

    def applied(self) -> Tensor:
        """The weight that the layer applies, (out, in), without its graph."""
        return self.rows()


class MyDoRA(MyLoRA):
    """A frozen linear layer with your DoRA around it.

    m is ‖W‖ and what has been learnt. `speed` is m's own learning rate as a multiple of that of A
    and B; while `trains_m` is off, m stays as it is.
    """

    def __init__(
        self,
        layer: nn.Linear,
        r: int,
        alpha: float,
        speed: float = 1.0,
        decompose: Callable = decompose,
        forward: Callable = dora_forward,
    ):
        super().__init__(layer, r, alpha)
        lengths, _ = decompose(layer.weight.detach())
        self.register_buffer("start", lengths, persistent=False)
        self.learnt_m = nn.Parameter(torch.zeros_like(lengths))
        self.speed = speed
        self.trains_m = speed != 0
        self.adapted = forward

    @property
    def m(self) -> Tensor:
        """The length of every row, (out,)."""
        if not self.speed:
            return self.start
        learnt = self.learnt_m if self.trains_m else self.learnt_m.detach()
        # Adam moves `learnt_m` by the rate and so m by `speed` times the rate; the gradient is m's
        # own, so that clipping finds the same norm at every speed.
        faster = (self.speed - 1) * learnt.detach()
        return self.start + learnt + faster

    def forward(self, x: Tensor) -> Tensor:
        A = self.lora_A.to(x.dtype)
        B = self.lora_B.to(x.dtype)
        return self.adapted(x, self.base.weight, self.base.bias, A, B, self.m, self.scaling)

    def applied(self) -> Tensor:
        V = self.rows()
        return (self.m.detach() / V.norm(dim=1))[:, None] * V


class DenseDoRA(MyDoRA):
    """The same numbers; but BA and V are built for the norm, and the norm has a gradient."""

    detach = False

    def forward(self, x: Tensor) -> Tensor:
        A = self.lora_A.to(x.dtype)
        B = self.lora_B.to(x.dtype)
        W = self.base.weight
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach):
            norm = (W + self.scaling * B @ A).norm(dim=1)  # (out,)
        low_rank = F.linear(F.linear(x, A), B) * self.scaling
        y = (F.linear(x, W) + low_rank) * (self.m / norm)
        return y if self.base.bias is None else y + self.base.bias


class DetachedDenseDoRA(DenseDoRA):
    """The dense way, without a gradient through the norm."""

    detach = True


def adapt(
    model: nn.Module, kind: Callable[..., MyLoRA], r: int, alpha: float, seed: int = 0, **options
) -> nn.Module:
    """Put layers of the kind on all linear layers but the output head, in place; returns the model.

    The seed sets A, the same for every kind.
    """
    torch.manual_seed(seed)
    model.requires_grad_(False)
    for name in target_names(model, "all-linear"):
        parent, _, child = name.rpartition(".")
        layer = kind(model.get_submodule(name), r, alpha, **options)
        setattr(model.get_submodule(parent), child, layer)
    return model


def adapters(model: nn.Module) -> dict[str, MyLoRA]:
    """The adapted layers by the names of the layers that they replaced."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, MyLoRA)}
