"""One super-block of Q4_K as a figure: the weights, and the levels that its eight sub-blocks
have.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ftlib.course.lab_3_1_10.super_block import SUB_BLOCKS, WEIGHTS, SuperBlocks, levels
from ftlib.course.plots import COLOURS


def draw_super_block(
    parts: SuperBlocks, block: int, before: np.ndarray, after: np.ndarray
) -> Figure:
    """`before`, `after`: the 256 weights in 16 bits, and as the super-block gives them back."""
    possible = levels(parts, block)  # (8, 16)
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(9, 4.4), sharex=True, gridspec_kw={"height_ratios": [3, 1]}
    )
    width = WEIGHTS // SUB_BLOCKS
    for j in range(SUB_BLOCKS):
        left = j * width - 0.5
        top.hlines(possible[j], left, left + width, color="0.8", linewidth=0.7)
        where = (left + width / 2, possible[j].min())
        text = f"scale {int(parts.scales[block, j])}\nmin {int(parts.mins[block, j])}"
        top.annotate(
            text,
            where,
            xytext=(0, -3),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=7,
        )
    places = np.arange(WEIGHTS)
    top.plot(places, before, "o", color=COLOURS[0], markersize=3, label="in 16 bits")
    top.plot(places, after, "_", color=COLOURS[1], markersize=5, label="in Q4_K")
    top.set(title="Eight sub-blocks, each with its own 16 levels (grey)", ylabel="weight")
    top.margins(y=0.2)
    top.legend(loc="upper right", fontsize="small", ncols=2)
    top.grid(False)
    step = possible[:, 1] - possible[:, 0]  # (8,)
    bottom.step(places, np.repeat(step, width) / 2, where="mid", color="black", linewidth=1)
    bottom.step(places, -np.repeat(step, width) / 2, where="mid", color="black", linewidth=1)
    bottom.plot(places, after - before, ".", color=COLOURS[1], markersize=3)
    bottom.set(xlabel="place in the super-block", ylabel="rounding", xlim=(-1, WEIGHTS))
    bottom.set_xticks(range(0, WEIGHTS + 1, width))
    return figure
