"""The figures of lab E7: who holds what, as a drawing and in numbers, and the weights of a process
through a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ftlib.course.plots import COLOURS, HATCHES, style

PARTS = ("weights", "gradients", "optimizer states")
STAGES = ("data parallel", "ZeRO-1", "ZeRO-2", "ZeRO-3, FSDP")
WIDTHS = (2.0, 2.0, 12.0)  # bytes of a parameter, as ZeRO counts them
GB = 1e9
MB = 1e6


def _look(i: int) -> dict[str, Any]:
    """Colour and hatch of the i-th part or tensor; of padding where i is -1."""
    if i < 0:
        return {"facecolor": "white", "hatch": "xx", "edgecolor": "grey"}
    return {"facecolor": COLOURS[i], "hatch": HATCHES[i], "edgecolor": "white"}


def draw_stages(processes: int = 2) -> Figure:
    """Each stage as a row of `processes` strips; in a strip the parts as wide as their bytes, white
    where the process does not hold them.
    """
    figure, axes = plt.subplots(len(STAGES), processes, figsize=(9.0, 3.4), squeeze=False)
    for stage, name in enumerate(STAGES):
        for rank in range(processes):
            ax = axes[stage][rank]
            _strip(ax, stage, rank, processes)
            if rank == 0:
                ax.set_ylabel(name, rotation=0, ha="right", va="center")
            if stage == 0:
                ax.set_title(f"process {rank}", fontsize=10)
    handles = []
    for i, part in enumerate(PARTS):
        look = _look(i)
        handles.append(Rectangle((0, 0), 1, 1, label=f"{part}, {WIDTHS[i]:.0f} bytes", **look))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small")
    figure.suptitle("Every stage splits one more part; white is on the other process", fontsize=11)
    plt.close(figure)
    return figure


def _strip(ax: Axes, stage: int, rank: int, processes: int) -> None:
    """What one process holds of the three parts at a stage."""
    left = 0.0
    for i, width in enumerate(WIDTHS):
        is_cut = stage >= len(WIDTHS) - i
        ax.add_patch(Rectangle((left, 0), width, 1, facecolor="white", edgecolor="grey"))
        own = width / processes if is_cut else width
        begin = left + rank * own if is_cut else left
        look = _look(i)
        ax.add_patch(Rectangle((begin, 0), own, 1, **look))
        left += width
    ax.set(xlim=(-0.2, left + 0.2), ylim=(-0.1, 1.1), xticks=[], yticks=[])
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)


def stage_lines(parameters: int, counts: Sequence[int], zero_bytes: Callable) -> Figure:
    """GB on each process over the number of processes, a line a stage, by the student's own
    function.
    """
    figure, ax = plt.subplots(figsize=(6.4, 3.4))
    for stage, name in enumerate(STAGES):
        totals = [sum(zero_bytes(parameters, count, stage)) / GB for count in counts]
        ax.plot(counts, totals, label=name, **style(stage))
    for capacity in (24, 80, 128):
        ax.axhline(capacity, color="grey", linestyle=":", linewidth=1)
        ax.annotate(
            f"{capacity} GB",
            (counts[-1], capacity),
            (-4, 2),
            "data",
            "offset points",
            ha="right",
            fontsize=8,
        )
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(counts), [str(count) for count in counts])
    ax.set_yscale("log")
    ax.set(
        title=f"Only splitting everything keeps shrinking ({parameters / 1e9:.0f}B parameters)",
        xlabel="processes",
        ylabel="GB on each",
    )
    ax.legend(fontsize="small")
    plt.close(figure)
    return figure


def holding_lines(courses: Mapping[str, Sequence[tuple[str, int]]]) -> Figure:
    """MB of weights on process 0 at each moment of a step, a line a kind of sharding."""
    figure, ax = plt.subplots(figsize=(9.0, 3.6))
    moments = max((course for course in courses.values()), key=len)
    names = [moment for moment, _ in moments]
    for i, (name, course) in enumerate(courses.items()):
        sizes = [size / MB for _, size in course]
        ax.plot(range(len(sizes)), sizes, drawstyle="steps-mid", label=name, **style(i))
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    ax.set_ylim(bottom=0)
    ax.set(
        title="Split weights are gathered block by block, then released",
        xlabel="",
        ylabel="MB of weights on process 0",
    )
    ax.legend(fontsize="small")
    plt.close(figure)
    return figure


def padded_bars(shards: np.ndarray, owners: Sequence[int], names: Sequence[str]) -> Figure:
    """The shards of a flat parameter as strips, each number coloured by the tensor it belongs to;
    `owners`: the tensor's place in `names` for each number, -1 for padding.
    """
    processes, width = shards.shape
    figure, ax = plt.subplots(figsize=(8.0, 0.5 * processes + 1.2))
    place = np.asarray(owners).reshape(processes, width)
    for rank in range(processes):
        for column in range(width):
            look = _look(int(place[rank, column]))
            ax.add_patch(Rectangle((column, processes - 1 - rank), 1, 0.8, **look))
    for i, name in enumerate(names):
        ax.add_patch(Rectangle((-9, -9), 1, 1, label=name, **_look(i)))
    ax.add_patch(Rectangle((-9, -9), 1, 1, label="padding", **_look(-1)))
    ax.set(xlim=(-0.2, width + 0.2), ylim=(-0.2, processes), xticks=[])
    ax.set_yticks(
        [processes - 0.6 - rank for rank in range(processes)],
        [f"process {rank}" for rank in range(processes)],
    )
    ax.set_title("Shards ignore tensors: one tensor may continue in the next process")
    ax.grid(False)
    ax.legend(
        fontsize="small", ncols=len(names) + 1, loc="upper center", bbox_to_anchor=(0.5, -0.02)
    )
    plt.close(figure)
    return figure
