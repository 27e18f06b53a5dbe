"""NF4 in one picture: 64 weights become codes of four bits and a share of a scale."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ftlib.course.lab_3_1_5.quantize_blocks import quantize_blocks
from ftlib.models.nf4 import NF4_LEVELS, SCALE_BLOCK

BLOCK = 64
SHOWN = 8  # weights whose numbers are written out


def draw_block(weights: Tensor, shape: tuple[int, int], r: int) -> Figure:
    """The first 64 of `weights` on their way to 4 bits, and the layer of `shape` (out, in) that
    they belong to, with its adapter of rank r; closed, so that a cell shows it once.
    """
    block = weights.detach().float().flatten()[:BLOCK].cpu()
    codes, scales = quantize_blocks(block, BLOCK, NF4_LEVELS)
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(8.8, 4.8), gridspec_kw={"height_ratios": [3, 2]}
    )
    _draw_weights(top, block, scales.item())
    _draw_storage(bottom, block.tolist(), codes.tolist(), scales.item(), shape, r)
    plt.close(figure)
    return figure


def _draw_weights(ax: Axes, block: Tensor, scale: float) -> None:
    """The block's weights as stems between the levels, which are c·q."""
    place = np.arange(BLOCK)
    for level in NF4_LEVELS.tolist():
        ax.axhline(level * scale, color="0.8", linewidth=0.9)
    ax.vlines(place, 0, block, color="black", linewidth=0.9)
    ax.plot(place, block, "o", color="black", markersize=3)
    largest = int(block.abs().argmax())
    ax.plot(largest, block[largest], "o", markersize=11, markerfacecolor="none", color="black")
    right = BLOCK + 0.4
    for code in (0, 7, 15):
        height = NF4_LEVELS[code].item() * scale
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        words = f"code {code}: {NF4_LEVELS[code]:.2f}·c"
        ax.text(right, height, words, fontsize=9, va="center", bbox=box)
    ax.set(
        title="A block of 64 weights; grey: the 16 levels times c, the largest |w| (ringed)",
        xlim=(-1, BLOCK + 9),
        ylabel="weight",
        xticks=[0, 16, 32, 48, 63],
    )
    ax.grid(visible=False)


def _cells(ax: Axes, x: float, y: float, texts: list[str], width: float, hatch: str = "") -> None:
    """A row of boxes with a text in each."""
    for i, text in enumerate(texts):
        cell = Rectangle((x + i * width, y), width, 0.8, facecolor="white", edgecolor="black")
        cell.set(hatch=hatch, linewidth=0.9)
        ax.add_patch(cell)
        middle = x + (i + 0.5) * width
        box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        ax.text(middle, y + 0.4, text, ha="center", va="center", fontsize=8.5, bbox=box)


def _draw_storage(
    ax: Axes,
    block: list[float],
    codes: list[int],
    scale: float,
    shape: tuple[int, int],
    r: int,
) -> None:
    """What is stored of the block, and what is trained beside it."""
    n_out, n_in = shape
    weights = [f"{weight:+.3f}" for weight in block[:SHOWN]]
    _cells(ax, 0, 3.4, [*weights, "…"], 1.1)
    ax.text(10.2, 3.8, "64 weights of W", va="center", fontsize=9)
    pairs = []
    for i in range(0, SHOWN, 2):
        pairs.append(f"{codes[i]:04b} {codes[i + 1]:04b}")
    _cells(ax, 0, 2.0, [*pairs, "…"], 1.98, hatch="//")
    ax.text(10.2, 2.4, "64 codes, 4 bits each: 32 bytes", va="center", fontsize=9)
    _cells(ax, 0, 0.6, [f"c = {scale:.4f}"], 2.2, hatch="..")
    _cells(ax, 2.6, 0.6, [f"one fp32 scale for {SCALE_BLOCK} such c"], 4.4)
    ax.text(10.2, 1.0, f"c in 8 bits, and 1/{SCALE_BLOCK} of 32 bits", va="center", fontsize=9)
    ax.annotate("", (0.55, 2.85), (0.55, 3.35), arrowprops={"arrowstyle": "->"})
    ax.text(0.8, 3.1, "nearest level to w/c", va="center", fontsize=9)
    line = (
        f"$y = x\\,\\mathrm{{dequant}}(W)^\\top + \\frac{{\\alpha}}{{r}}(xA^\\top)B^\\top$:   "
        f"W {n_out} × {n_in} frozen in 4 bits;   A {r} × {n_in} and B {n_out} × {r} trained in fp32"
    )
    ax.text(0, -0.25, line, va="center", fontsize=9.5)
    ax.set(xlim=(-0.2, 15.2), ylim=(-0.7, 4.4))
    ax.axis("off")
