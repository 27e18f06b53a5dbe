"""The memory plan of one process among several, with handles: choose the model, how many GPUs share
it, and how.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ftlib.course.explorable import Explorable, choice, slider
from ftlib.course.lab_e7.step_traffic import step_traffic
from ftlib.course.lab_e7.tables import GB, SHARD_NAMES
from ftlib.course.memory_planner import CAPACITIES, LENGTHS
from ftlib.course.plots import memory_bars
from ftlib.training.memory_plan import METHODS, MODELS, MemoryPlan, plan_memory

GPUS = (1, 2, 4, 8, 16, 32, 64)
START = {
    "model": "llama-3.1-70b",
    "method": "qlora",
    "gpus": 2,
    "shard": "full",
    "seq_len": 1024,
}


class SeveralPlanner(Explorable):
    """Handles by the names of `plan_memory`'s arguments in `controls`; `plan` is always that of one
    process of those shown. `start` sets handles. ValueError for a name or value that is not one of
    theirs.
    """

    def __init__(self, **start):
        unknown = sorted(start.keys() - START.keys())
        if unknown:
            raise ValueError(f"no handle {', '.join(unknown)}: use {', '.join(START)}")
        chosen = START | start
        plan_for(**chosen)  # names a bad value before a widget does
        super().__init__(
            draw,
            describe,
            model=choice("model", MODELS, chosen["model"]),
            method=choice("method", METHODS, chosen["method"]),
            gpus=slider("GPUs", GPUS, chosen["gpus"]),
            shard=choice("shared as", SHARD_NAMES, chosen["shard"]),
            seq_len=slider("length (tokens)", LENGTHS, chosen["seq_len"]),
        )

    @property
    def plan(self) -> MemoryPlan:
        return plan_for(**self.values)


def plan_for(model: str, method: str, gpus: int, shard: str, seq_len: int) -> MemoryPlan:
    """The plan of one process; one GPU has nobody to share with."""
    if gpus == 1:
        return plan_memory(model, method, seq_len=seq_len)
    return plan_memory(model, method, seq_len=seq_len, gpus=gpus, shard=shard)


def traffic_of(model: str, method: str, gpus: int, shard: str) -> float:
    """Bytes that each process sends in a step, by rings; gradients of what trains in fp32."""
    if gpus == 1:
        return 0.0
    whole = plan_memory(model, method).parts
    weights = whole["weights"] + whole.get("adapter", 0)
    return step_traffic(weights, whole["gradients"], gpus, shard)


def describe(model: str, method: str, gpus: int, shard: str, seq_len: int) -> str:
    """GB on each GPU, where that fits, and GB sent in a step."""
    plan = plan_for(model, method, gpus, shard, seq_len)
    fits = [f"{size}" for size in CAPACITIES if plan.fits(size * GB)]
    where = f"fits {', '.join(fits)} GB" if fits else f"more than {CAPACITIES[-1]} GB"
    sent = traffic_of(model, method, gpus, shard)
    return (
        f"{plan.total / GB:.1f} GB on each of {gpus}: {where}; each sends "
        f"{sent / GB:.1f} GB per step"
    )


def draw(model: str, method: str, gpus: int, shard: str, seq_len: int) -> Figure:
    """One GPU alone, and each of several, beside the usual capacities; closed, so that a cell shows
    it once.
    """
    plans = {"alone": plan_for(model, method, 1, shard, seq_len)}
    if gpus > 1:
        name = f"each of {gpus},\n{SHARD_NAMES[shard]}"
        plans[name] = plan_for(model, method, gpus, shard, seq_len)
    figure, ax = plt.subplots(figsize=(7.2, 3.8))
    memory_bars(plans, CAPACITIES, f"{model}, {method}", ax)
    ax.set_xlim(-0.5, len(plans) + 1.1)  # room for the legend
    handles, parts = ax.get_legend_handles_labels()
    shown = list(plans.values())[-1].parts
    ax.legend(
        handles[::-1],
        [f"{shown.get(part, 0) / GB:.1f}  {part}" for part in parts[::-1]],
        fontsize=8,
        loc="upper right",
        title="GB by part, right bar" if gpus > 1 else "GB by part",
        title_fontsize=8,
        frameon=True,
        framealpha=1,
    )
    plt.close(figure)
    return figure
