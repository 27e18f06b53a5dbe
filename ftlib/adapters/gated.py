"""Gated feed-forward blocks that keep less for the backward pass.

A block of SwiGLU's kind (Shazeer 2020, arXiv 2002.05202), ``down(act(gate(x)) ⊙ up(x))``, keeps
four tensors of its inner width: both factors, act(gate) and the product that `down` multiplies. The
last two follow from the first two. Where `down` is an adapted layer it takes the factors instead of
their product, keeps those alone, and multiplies them out again in its backward pass, with the same
operations: every gradient keeps every bit.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module

from ftlib.adapters.lora_layer import LoRALinear, has_hooks

PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")
SCALES = (1e-2, 1.0, 1e3)  # of the inputs on which a formula is tried: a limit shows at one of them


@contextlib.contextmanager
def factors_only(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block the model's adapted gated blocks keep their factors alone; nothing stays
    behind, and a copy that is made meanwhile is a plain one.
    """
    blocks = gated_blocks(model)
    kinds: list[Any] = [type(block) for block in blocks]
    for block, kind in zip(blocks, kinds, strict=True):
        block.__class__ = _lean(kind)
    try:
        yield model
    finally:
        for block, kind in zip(blocks, kinds, strict=True):
            if type(block) is _lean(kind):  # else FSDP has put its own class in front
                block.__class__ = kind


def gated_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks ``down_proj(act_fn(gate_proj(x)) * up_proj(x))`` of a model whose `down_proj` has
    a LoRA or DoRA adapter.

    They are known by what they compute, not by their class's name. Left out: a block whose
    `forward` was replaced, and one whose activation has parameters.
    """
    return [block for block in model.modules() if _is_gated_block(block)]


def _is_gated_block(block: nn.Module) -> bool:
    if not all(hasattr(block, part) for part in PARTS) or "forward" in vars(block):
        return False
    act = block.act_fn
    if isinstance(act, nn.Module) and any(True for _ in act.parameters()):
        return False  # their gradients would be missing
    return isinstance(block.down_proj, LoRALinear) and _computes_gated_product(block)


class _Lean:
    """In front of the class of a gated block: `forward` hands the factors on. A class, and no
    function on the block itself: replicas of data parallelism run with layers of their own.
    """

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module
    act_fn: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not _takes_factors(self.down_proj):
            return super().forward(x)  # type: ignore[misc]
        gate = self.gate_proj(x)
        return self.down_proj(self.up_proj(x), gate=gate, act=self.act_fn)

    def __reduce_ex__(self, protocol):
        """A copy or a pickle is of the class behind."""
        classes = type(self).__mro__
        return _empty, (classes[classes.index(_Lean) + 1],), vars(self).copy()


def _empty(kind: Any) -> nn.Module:
    """A module with nothing in it: that comes from the copy's or the pickle's state."""
    return kind.__new__(kind)


@functools.cache
def _lean(kind: Any) -> Any:
    return type(kind.__name__, (_Lean, kind), {"__module__": kind.__module__})


def _takes_factors(down: nn.Module) -> bool:
    """Whether the layer can take the factors in this call: nobody waits for their product."""
    watched = has_hooks(down) or module._has_any_global_hook()  # noqa: SLF001
    return isinstance(down, LoRALinear) and not watched and "forward" not in vars(down)


def _computes_gated_product(block: nn.Module) -> bool:
    """Whether the block's `forward` is the formula: tried with small layers in place of its own,
    and with all else that it has.
    """
    kind: Any = type(block)
    if len(inspect.signature(kind.forward).parameters) != 2:  # self and x
        return False
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = draw(2, 3, 4)
    gate = functools.partial(F.linear, weight=draw(5, 4))
    up = functools.partial(F.linear, weight=draw(5, 4))
    down = functools.partial(F.linear, weight=draw(4, 5))
    act = block.act_fn
    if isinstance(act, nn.Module):
        act = act.forward  # without the hooks that someone may have put on it
    stand_in = kind.__new__(kind)
    parts = {"gate_proj": gate, "up_proj": up, "down_proj": down, "act_fn": act}
    stand_in.__dict__.update(vars(block), **parts)  # before `_modules`, where the real ones are
    try:
        with torch.no_grad():
            for scale in SCALES:
                there = kind.forward(stand_in, scale * x)
                if not torch.equal(there, down(act(gate(scale * x)) * up(scale * x))):
                    return False
    except Exception:  # whatever another forward misses here: it computes something else
        return False
    return True
