"""The memory plan with handles: choose model, method, rank, batch and length, and see what fits
into 24, 48, 80 and 128 GB (`ftlib.course.explorable`).
"""

from __future__ import annotations

from ftlib.course.explorable import Explorable, choice, slider, switch
from ftlib.training.memory_plan import LOSSES, METHODS, MODELS, MemoryPlan, plan_memory

CAPACITIES = (24, 48, 80, 128)  # GB: consumer card, workstation card, A100 or H100, DGX Spark
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
LENGTHS = tuple(2**k for k in range(7, 15))  # 128 to 16,384 tokens
START = {
    "model": "llama-3.1-70b",
    "method": "qlora",
    "loss": "sft",
    "r": 16,
    "batch_size": 1,
    "seq_len": 1024,
    "gradient_checkpointing": True,
}


class Planner(Explorable):
    """Handles by the names of `plan_memory`'s arguments in `controls`; `plan` is always the plan of
    what they show.

    As the last value of a cell it shows its handles and, below them, the figure.
    """

    def __init__(self, **start):
        unknown = sorted(start.keys() - START.keys())
        if unknown:
            raise ValueError(f"planner has no handle {', '.join(unknown)}: use {', '.join(START)}")
        chosen = START | start
        _plan(**chosen)  # names a bad value before a widget does
        super().__init__(_drawn, _described, **_handles(chosen))

    @property
    def plan(self) -> MemoryPlan:
        return _plan(**self.values)

    def __repr__(self) -> str:
        return f"{self.plan}\n{describe(self.plan)}"


def _plan(model: str, **settings) -> MemoryPlan:
    return plan_memory(model, **settings)


def _drawn(**settings):
    return draw(_plan(**settings))


def _described(**settings) -> str:
    return describe(_plan(**settings))


def _handles(chosen: dict) -> dict:
    """The widgets by the name of what they set, at the chosen values."""
    handles = {}
    for name, options in {"model": MODELS, "method": METHODS, "loss": LOSSES}.items():
        handles[name] = choice(name, options, chosen[name])
    numbers = {
        "r": ("rank", RANKS),
        "batch_size": ("batch", BATCHES),
        "seq_len": ("length (tokens)", LENGTHS),
    }
    for name, (label, options) in numbers.items():
        handles[name] = slider(label, options, chosen[name])
    handles["gradient_checkpointing"] = switch(
        "recompute activations (checkpointing)", chosen["gradient_checkpointing"]
    )
    return handles


def describe(plan: MemoryPlan) -> str:
    """The plan's peak in GB, and which of `CAPACITIES` hold it."""
    fits = [f"{size} GB" for size in CAPACITIES if plan.fits(size * 1e9)]
    where = f"fits {', '.join(fits)}" if fits else f"more than {CAPACITIES[-1]} GB"
    return f"{plan.total / 1e9:.1f} GB: {where}"


def draw(plan: MemoryPlan):
    """The plan as a figure, closed, so that a cell shows it once."""
    import matplotlib.pyplot as plt

    from ftlib.course.plots import memory_bars

    settings = plan.settings
    rank = "" if settings["method"] == "full" else f"r = {settings['r']}, "
    activations = "recomputed" if settings["gradient_checkpointing"] else "kept"
    name = (
        f"{settings['method']}, {settings['loss']}\n"
        f"{rank}{settings['batch_size']} × {settings['seq_len']:,} tokens,\n"
        f"activations {activations}"
    )
    figure, ax = plt.subplots(figsize=(6.4, 3.8))
    memory_bars({name: plan}, CAPACITIES, f"{plan.name}: {describe(plan)}", ax)
    handles, parts = ax.get_legend_handles_labels()
    ax.set_xlim(-0.5, 2.2)  # room for the legend, in the order of the stack
    ax.legend(
        handles[::-1],
        [f"{plan.parts.get(part, 0) / 1e9:.1f}  {part}" for part in parts[::-1]],
        fontsize=8,
        loc="upper right",
        title="GB by part",
        title_fontsize=8,
        frameon=True,
        framealpha=1,
    )
    plt.close(figure)
    return figure


def planner(**start) -> Planner:
    """The interactive memory planner; `start` sets handles, such as `planner(model="llama-3.1-8b",
    method="lora", r=32)`.

    ValueError where a name or a value is not one of `plan_memory`'s.
    """
    return Planner(**start)
