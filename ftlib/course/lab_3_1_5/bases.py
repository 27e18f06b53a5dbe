"""Frozen bases of lab 3.1.5: the linear layers of a model rounded to a few bits and taken back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ftlib.course.lab_3_1_5.normal_levels import normal_levels
from ftlib.course.lab_3_1_5.nvfp4 import round_nvfp4
from ftlib.course.lab_3_1_5.quantize_blocks import quantize_blocks
from ftlib.models.nf4 import DYNAMIC_LEVELS, LEVELS, SCALE_BLOCK

EDGE = 0.9677083  # the outermost probability of NF4's levels
BLOCK = 64
WHOLE = "16 bits"  # the base as it is, without rounding
SHUFFLED = ", errors shuffled"  # after the name of a type
NF4_SHUFFLED = "NF4" + SHUFFLED
NF4_16 = "NF4, blocks of 16"  # the name of an arm: the bits of NVFP4, the levels of NF4
NORMAL_LEVELS = {"NF4": (8, 7), "3 bits": (4, 3), "2 bits": (2, 1)}  # (above zero, below)
OTHER_LEVELS = {"FP4": "fp4", "INT4": "int4"}  # their names in ftlib.models.nf4.LEVELS

Quantize = Callable[[Tensor, int, Tensor], tuple[Tensor, Tensor]]
Levels = Callable[[int, int, float], Tensor]


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers by path, the head left out."""
    head = model.get_output_embeddings()
    layers = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            layers[path] = module
    return layers


def levels_of(kind: str, normal_levels: Levels = normal_levels) -> Tensor:
    """The levels of a type with one scale a block, ascending, without repetition."""
    if kind in NORMAL_LEVELS:
        above, below = NORMAL_LEVELS[kind]
        return normal_levels(above, below, EDGE)
    return torch.unique(LEVELS[OTHER_LEVELS[kind]])


def rounded_scales(scales: Tensor, quantize_blocks: Quantize = quantize_blocks) -> Tensor:
    """The scales (n,) after double quantisation: their mean taken off, in 8 bits, 256 of them with
    one fp32 scale; and back.
    """
    mean = scales.mean()
    missing = -len(scales) % SCALE_BLOCK
    centred = nn.functional.pad(scales - mean, (0, missing))
    levels = DYNAMIC_LEVELS.to(scales.device)
    codes, outer = quantize_blocks(centred, SCALE_BLOCK, levels)
    again = levels[codes].view(-1, SCALE_BLOCK) * outer[:, None]
    return again.flatten()[: len(scales)] + mean


def rounded_weight(
    weight: Tensor,
    kind: str,
    seed: int = 0,
    block: int | None = BLOCK,
    normal_levels: Levels = normal_levels,
    quantize_blocks: Quantize = quantize_blocks,
) -> Tensor:
    """A weight (out, in) as a type gives it back, in its shape and dtype.

    Types with levels have one scale for `block` weights (None: for all of them), doubly quantised.
    "NF4, errors shuffled" adds NF4's own errors to the weight, but each block's in a random order
    drawn with `seed`: errors of equal size, untied from the weights that they come from. So for
    every type.
    """
    if kind == WHOLE:
        return weight.detach().clone()
    if kind == "NVFP4":
        return round_nvfp4(weight)
    if kind.endswith(SHUFFLED):
        own = kind.removesuffix(SHUFFLED)
        again = rounded_weight(weight, own, seed, block, normal_levels, quantize_blocks)
        return weight.detach() + shuffled_in_blocks(again - weight.detach(), seed)
    flat = weight.detach().float().flatten()
    size = block or len(flat)
    levels = levels_of(kind, normal_levels).to(weight.device)
    codes, scales = quantize_blocks(flat, size, levels)
    scales = rounded_scales(scales, quantize_blocks)
    again = levels[codes].view(-1, size) * scales[:, None]
    return again.view(weight.shape).to(weight.dtype)


def shuffled_in_blocks(errors: Tensor, seed: int) -> Tensor:
    """The same errors, each block's in a random order of its own."""
    blocks = errors.reshape(-1, BLOCK)
    generator = torch.Generator().manual_seed(seed)
    keys = torch.rand(blocks.shape, generator=generator).to(errors.device)
    return blocks.gather(1, keys.argsort(1)).view(errors.shape)


def round_base(model: nn.Module, kind: str, seed: int = 0, **options) -> float:
    """Round the linear layers of a model in place; `options` as of `rounded_weight`. Returns the
    relative error of all weights together, ‖Ŵ − W‖/‖W‖.
    """
    wrong = 0.0
    total = 0.0
    for number, layer in enumerate(linear_layers(model).values()):
        weight = layer.weight.data
        again = rounded_weight(weight, kind, 1000 * seed + number, **options)
        wrong += (again - weight).float().square().sum().item()
        total += weight.float().square().sum().item()
        weight.copy_(again)
    return (wrong / total) ** 0.5
