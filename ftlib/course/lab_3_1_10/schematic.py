"""The way of lab 3.1.10 in one picture: what is merged, what a GGUF file holds, and how 256 of its
weights lie in a super-block of Q4_K.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ftlib.course.lab_3_1_10.super_block import PARTS

GREY = "#d9d9d9"
BLUE = "#bcd9ec"
ORANGE = "#f6d2b3"
WHITE = "#ffffff"


def draw_way() -> Figure:
    """Three rows: the steps, the file, the super-block."""
    figure, (steps, file, block) = plt.subplots(
        3, 1, figsize=(9, 4.6), gridspec_kw={"height_ratios": [1.5, 1, 1]}
    )
    for axes in (steps, file, block):
        axes.set(xlim=(0, 100), ylim=(0, 10))
        axes.axis("off")
    _draw_steps(steps)
    _draw_file(file)
    _draw_block(block)
    return figure


def _box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, hatch=""
) -> None:
    axes.add_patch(
        Rectangle((x, y), width, height, facecolor=colour, edgecolor="black", hatch=hatch)
    )
    behind = {"facecolor": colour, "edgecolor": "none", "pad": 1.0}
    axes.text(
        x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8, bbox=behind
    )


def _arrow(axes: Axes, start: float, end: float, y: float, text: str) -> None:
    axes.annotate("", (end, y), (start, y), arrowprops={"arrowstyle": "->"})
    axes.text((start + end) / 2, y + 0.7, text, ha="center", fontsize=7)


def _draw_steps(axes: Axes) -> None:
    axes.set_title("Merge, write, quantise, describe, serve", loc="left", fontsize=9)
    _box(axes, 0, 2, 9, 6, "W\n(out, in)", GREY)
    axes.text(9.6, 5, "+ α/r ·", va="center", fontsize=8)
    _box(axes, 15, 2, 3.4, 6, "", BLUE, "//")
    axes.text(16.7, 0.2, "B (out, r)", ha="center", fontsize=8)
    _box(axes, 19, 5.6, 9, 2.4, "", BLUE, "//")
    axes.text(23.5, 8.6, "A (r, in)", ha="center", fontsize=8)
    _arrow(axes, 30, 36, 5, "merge")
    _box(axes, 36.5, 2, 9, 6, "W′\n(out, in)\nfp32", GREY)
    _arrow(axes, 46, 53, 5, "write")
    _box(axes, 53.5, 2, 10, 6, "GGUF\nf16", WHITE)
    _arrow(axes, 64, 71, 5, "quantise")
    _box(axes, 71.5, 2, 10, 6, "GGUF\nQ4_K_M", WHITE)
    _arrow(axes, 82, 87, 5, "serve")
    _box(axes, 87.3, 0.3, 12.5, 9.4, "Modelfile\nFROM\nTEMPLATE\nPARAMETER\nstop, num_ctx", ORANGE)


def _draw_file(axes: Axes) -> None:
    axes.set_title("The file, from its first byte to its last", loc="left", fontsize=9)
    parts = (
        ("magic,\ncounts", 8, WHITE, ""),
        ("key–value pairs:\narchitecture, rope,\nheads, norm", 18, ORANGE, ""),
        ("tokens, merges,\neos, eot,\nchat template", 18, ORANGE, ".."),
        ("tensors: name,\nshape, type,\noffset", 14, WHITE, ""),
        ("weights, one tensor after the other\n(q and k with their rows reordered)", 42, GREY, ""),
    )
    x = 0.0
    for text, width, colour, hatch in parts:
        _box(axes, x, 1, width, 8, text, colour, hatch)
        x += width


def _draw_block(axes: Axes) -> None:
    total = sum(size for _, _, size in PARTS)
    title = f"256 neighbouring weights of a row in Q4_K: {total} bytes, {total * 8 / 256} bits each"
    axes.set_title(title, loc="left", fontsize=9)
    widths = {"d": 7, "dmin": 7, "scales and minima": 24, "codes": 62}
    notes = {
        "d": "fp16",
        "dmin": "fp16",
        "scales and minima": "8 + 8 whole numbers of 6 bits",
        "codes": "8 sub-blocks of 32 codes of 4 bits:  w = d·scale·code − dmin·min",
    }
    x = 0.0
    for name, _, size in PARTS:
        text = f"{name}, {size} bytes\n{notes[name]}" if size > 2 else f"{name}\n{notes[name]}"
        colour = GREY if name == "codes" else BLUE
        _box(axes, x, 2.5, widths[name], 6.5, text, colour)
        x += widths[name]
