"""Gated feed-forward blocks that keep less for the backward pass.

A block of SwiGLU's kind (Shazeer 2020, arXiv 2002.05202), ``down(act(gate(x)) ⊙ up(x))``, keeps
four tensors of its inner width: both factors, act(gate) and the product that `down` multiplies. The
last two follow from the first two. Where `down` is an adapted layer it takes the factors instead of
their product, keeps those alone, and multiplies them out again in its backward pass, with the same
operations: every gradient keeps every bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from types import MethodType, SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftlib.adapters.lora_layer import LoRALinear
from ftlib.models.wrapped import inner_name

PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")


@contextlib.contextmanager
def factors_only(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block the model's adapted gated blocks keep their factors alone; nothing stays
    behind. A model inside a wrapper, as of `torch.compile`, is left as it is.
    """
    blocks = []
    if inner_name(model) is None:
        blocks = gated_blocks(model)
    try:
        for block in blocks:
            block.forward = MethodType(_forward, block)
        yield model
    finally:
        for block in blocks:
            del block.forward


def gated_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks ``down_proj(act_fn(gate_proj(x)) * up_proj(x))`` of a model whose `down_proj` has
    a LoRA or DoRA adapter.

    They are known by what their class computes, not by its name. Left out: a block whose `forward`
    was replaced, and one where a hook waits for the product.
    """
    known: dict[type, bool] = {}
    found = []
    for module in model.modules():
        if not all(hasattr(module, part) for part in PARTS):
            continue
        down = module.down_proj
        if not isinstance(down, LoRALinear) or "forward" in vars(module):
            continue
        if down._forward_pre_hooks or "forward" in vars(down):  # noqa: SLF001
            continue
        kind = type(module)
        if kind not in known:
            known[kind] = _computes_gated_product(kind, module.act_fn)
        if known[kind]:
            found.append(module)
    return found


def _forward(self, x: Tensor) -> Tensor:
    gate = self.gate_proj(x)
    return self.down_proj(self.up_proj(x), gate=gate, act=self.act_fn)


def _computes_gated_product(kind: type[nn.Module], act_fn) -> bool:
    """Whether the class's `forward` is the formula, tried with small layers in place of its own."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = draw(2, 3, 4)
    gate = partial(F.linear, weight=draw(5, 4))
    up = partial(F.linear, weight=draw(5, 4))
    down = partial(F.linear, weight=draw(4, 5))
    stand_in = SimpleNamespace(gate_proj=gate, up_proj=up, down_proj=down, act_fn=act_fn)
    try:
        with torch.no_grad():
            return torch.equal(kind.forward(stand_in, x), down(act_fn(gate(x)) * up(x)))
    except Exception:  # whatever another forward misses here: it computes something else
        return False
