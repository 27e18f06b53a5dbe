"""The adapter of lab 3.1.1: a linear layer with the student's functions beside it, put into a
model.

What the lab trains is this layer, in the notebook and in the records; `ft.add_lora` is held against
it once, and is what to use elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ftlib.adapters.functional import lora_forward
from ftlib.course.lab_3_1_1.lora_init import lora_init
from ftlib.course.lab_3_1_1.lora_scaling import lora_scaling

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
ALL_LINEAR = ATTENTION + MLP
TARGETS = {"q, v": ("q_proj", "v_proj"), "MLP": MLP, "all linear": ALL_LINEAR}
STARTS = {  # is A random (1) or zero (0), and B?
    "A random, B zero": (1, 0),
    "A zero, B random": (0, 1),
    "both zero": (0, 0),
    "both random": (1, 1),
}
PISSA = "principal"  # the start that takes A and B from W itself


class MyLoRA(nn.Module):
    """A frozen linear layer with an adapter beside it."""

    def __init__(self, layer: nn.Linear, A: Tensor, B: Tensor, scaling: float, forward: Callable):
        super().__init__()
        self.base = layer
        self.scaling = scaling
        self.adapted = forward
        self.lora_A = nn.Parameter(A.to(layer.weight.device))
        self.lora_B = nn.Parameter(B.to(layer.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        A = self.lora_A.to(x.dtype)
        B = self.lora_B.to(x.dtype)
        return self.adapted(x, self.base.weight, self.base.bias, A, B, self.scaling)

    def delta(self) -> Tensor:
        """ΔW = s·BA, (out, in)."""
        return self.scaling * (self.lora_B @ self.lora_A)


def first_values(layer: nn.Linear, r: int, start: str, init: Callable) -> tuple[Tensor, Tensor]:
    """A (r, in) and B (out, r) of one of `STARTS`: a random B is uniform in ±1/√r, as a random A is
    in ±1/√in.
    """
    n_out, n_in = layer.weight.shape
    random_a, random_b = STARTS[start]
    A, B = init(2 * torch.rand(r, n_in) - 1, n_out)
    noise = (2 * torch.rand(n_out, r) - 1) / r**0.5
    return A * random_a, B + noise * random_b


def principal_values(layer: nn.Linear, r: int, scaling: float) -> tuple[Tensor, Tensor]:
    """PiSSA (Meng et al. 2024, arXiv 2404.02948): A and B hold W's r largest singular values, and
    what is left of W stays frozen, W - s·BA; changes the layer's weight.
    """
    weight = layer.weight.data
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    root = (S[:r] / scaling).sqrt()  # s·BA = U S Vh
    A = root[:, None] * Vh[:r]  # (r, in)
    B = U[:, :r] * root  # (out, r)
    weight -= scaling * (B @ A)
    return A, B


def adapt(
    model: nn.Module,
    r: int,
    alpha: float,
    targets: Sequence[str] = ALL_LINEAR,
    start: str = "A random, B zero",
    use_rslora: bool = False,
    freeze: bool = True,
    seed: int = 0,
    lora_forward: Callable = lora_forward,
    lora_scaling: Callable = lora_scaling,
    lora_init: Callable = lora_init,
) -> nn.Module:
    """Put `MyLoRA` on the targets of every block, in place; returns the model. `start`: of
    `STARTS`, or `PISSA`. `freeze=False` is the mistake of section 8.
    """
    torch.manual_seed(seed)
    if freeze:
        model.requires_grad_(False)
    scaling = lora_scaling(alpha, r, use_rslora)
    for name, layer in list(model.named_modules()):
        parent, _, child = name.rpartition(".")
        if child not in targets:
            continue
        if start == PISSA:
            A, B = principal_values(layer, r, scaling)
        else:
            A, B = first_values(layer, r, start, lora_init)
        layer.requires_grad_(False)
        adapted = MyLoRA(layer, A, B, scaling, lora_forward)
        setattr(model.get_submodule(parent), child, adapted)
    return model


def adapters(model: nn.Module) -> dict[str, MyLoRA]:
    """The adapted layers by the names of the layers that they replaced."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, MyLoRA)}
