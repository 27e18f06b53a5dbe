"""A block of weights with an outlier that can be dragged (`ftlib.course.explorable`): what the
shared scale does to the outlier's neighbours.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ftlib.course.explorable import Explorable, choice, slider
from ftlib.course.lab_3_1_5.bases import levels_of
from ftlib.course.lab_3_1_5.nvfp4 import E2M1_LEVELS, E2M1_MOST
from ftlib.course.lab_3_1_5.quantize_blocks import quantize_blocks
from ftlib.course.plots import style

COUNT = 64  # weights that are shown
PLACE = 20  # of the outlier among them
TYPES = ("NF4", "FP4", "INT4", "E2M1 (NVFP4)")
BLOCKS = (16, 32, 64)
SIZES = tuple(float(size) for size in np.arange(0, 20.5, 0.5))


@functools.cache
def _normal_weights() -> Tensor:
    return torch.randn(COUNT, generator=torch.Generator().manual_seed(0))


def weights_with(outlier: float) -> Tensor:
    """64 normal numbers of standard deviation 1, one of them replaced by `outlier`."""
    weights = _normal_weights().clone()
    weights[PLACE] = outlier
    return weights


def levels_by_name(kind: str) -> Tensor:
    """The levels, ascending, the largest 1."""
    if kind == TYPES[-1]:
        return E2M1_LEVELS / E2M1_MOST
    return levels_of(kind)


@dataclass(frozen=True)
class Rounded:
    """64 weights, what they come back as, and the scale of the outlier's block (scales in fp32)."""

    weights: Tensor  # (64,)
    again: Tensor  # (64,)
    codes: Tensor  # (64,)
    scale: float
    block: int

    @property
    def own_block(self) -> slice:
        """The outlier's block."""
        first = PLACE // self.block * self.block
        return slice(first, first + self.block)

    def neighbours(self) -> Tensor:
        """Which weights share the scale with the outlier, (64,) of bool, itself left out."""
        found = torch.zeros(COUNT, dtype=torch.bool)
        found[self.own_block] = True
        found[PLACE] = False
        return found

    def error(self, of: Tensor) -> float:
        """Relative error of the weights marked in `of`."""
        return ((self.again - self.weights)[of].norm() / self.weights[of].norm()).item()

    @property
    def levels_used(self) -> int:
        """How many levels the outlier's neighbours take."""
        return len(torch.unique(self.codes[self.neighbours()]))


def round_with(outlier: float, kind: str, block: int) -> Rounded:
    """The 64 weights rounded to a type with one scale for every `block`."""
    weights = weights_with(outlier)
    levels = levels_by_name(kind)
    codes, scales = quantize_blocks(weights, block, levels)
    again = (levels[codes].view(-1, block) * scales[:, None]).flatten()
    return Rounded(weights, again, codes, scales[PLACE // block].item(), block)


def describe(outlier: float, kind: str, block: int) -> str:
    """What the outlier's neighbours have left, in a line."""
    rounded = round_with(outlier, kind, block)
    neighbours = rounded.neighbours()
    others = ~neighbours
    others[PLACE] = False
    line = (
        f"{kind}: the outlier's {int(neighbours.sum())} neighbours use {rounded.levels_used} of "
        f"{len(levels_by_name(kind))} levels; their relative error is "
        f"{rounded.error(neighbours):.2f}"
    )
    if not others.any():
        return line
    return f"{line}, that of the other {int(others.sum())} weights {rounded.error(others):.2f}"


def draw(outlier: float, kind: str, block: int) -> Figure:
    """The weights between their levels, and the neighbours' error over the outlier's size; closed,
    so that a cell shows it once.
    """
    rounded = round_with(outlier, kind, block)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.2, 3.6), gridspec_kw={"width_ratios": [3, 2]}
    )
    _draw_block(left, rounded, kind)
    _draw_errors(right, outlier, kind, block)
    plt.close(figure)
    return figure


def _draw_block(ax: Axes, rounded: Rounded, kind: str) -> None:
    """Weights as dots, what they come back as as crosses; lines are levels times scale."""
    own = rounded.own_block
    for level in levels_by_name(kind).tolist():
        height = level * rounded.scale
        ax.hlines(height, own.start - 0.5, own.stop - 0.5, color="0.75", linewidth=0.8)
    place = np.arange(COUNT)
    ax.plot(place, rounded.weights, "o", markersize=3.5, color="black", label="weight")
    ax.plot(place, rounded.again, "x", markersize=5, color="#D55E00", label="comes back as")
    ax.plot(PLACE, rounded.weights[PLACE], "*", markersize=12, color="black", label="outlier")
    for edge in range(rounded.block, COUNT, rounded.block):
        ax.axvline(edge - 0.5, color="black", linestyle=":", linewidth=0.8)
    most = max(3.2, 1.1 * rounded.weights.abs().max().item())
    ax.set(
        title=f"{kind}, one scale for {rounded.block}: lines are its levels",
        xlabel="place of the weight",
        ylabel="value (standard deviations)",
        ylim=(-most, most),
    )
    ax.grid(visible=False)
    ax.legend(fontsize=8, loc="lower right", ncol=3)


def _draw_errors(ax: Axes, outlier: float, kind: str, block: int) -> None:
    """The neighbours' error over the outlier's size, a line a type, and where the handle is."""
    for i, name in enumerate(TYPES):
        runs = [round_with(size, name, block) for size in SIZES]
        errors = [run.error(run.neighbours()) for run in runs]
        width = 2.4 if name == kind else 1.0
        ax.plot(SIZES, errors, label=name, markevery=8, linewidth=width, **style(i))
    chosen = round_with(outlier, kind, block)
    height = chosen.error(chosen.neighbours())
    ax.plot(outlier, height, "*", markersize=13, color="black", zorder=5)
    ax.set(
        title="Error of the outlier's neighbours",
        xlabel="outlier (standard deviations)",
        ylabel="relative error",
        ylim=(0, 1.05),
    )
    ax.legend(fontsize=8)


def outlier_block(outlier: float = 8.0, kind: str = "NF4", block: int = 64) -> Explorable:
    """The block with handles for the outlier's size, the type and how many share a scale."""
    return Explorable(
        draw,
        describe,
        outlier=slider("outlier (std)", SIZES, outlier),
        kind=choice("type", TYPES, kind),
        block=slider("weights a scale", BLOCKS, block),
    )
