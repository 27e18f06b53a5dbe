"""The memory plan with handles: choose model, method, rank, batch and length, and see what fits
into 24, 48, 80 and 128 GB.

The picture is an ordinary figure that the handles redraw, so it stays in the output where widgets
do not run.
"""

from __future__ import annotations

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


class Planner:
    """Handles by the names of `plan_memory`'s arguments in `controls`; `plan` is always the plan of
    what they show.

    As the last value of a cell it shows its handles and, below them, the figure.
    """

    def __init__(self, **start):
        import ipywidgets as widgets

        unknown = sorted(start.keys() - START.keys())
        if unknown:
            raise ValueError(f"planner has no handle {', '.join(unknown)}: use {', '.join(START)}")
        chosen = START | start
        self.plan = _plan(chosen)  # names a bad value before a widget does
        self.controls = _handles(chosen)
        self.headline = widgets.HTML()
        self.handle = None
        for control in self.controls.values():
            control.observe(self._changed, "value")
        self._changed()

    def _changed(self, _=None) -> None:
        self.plan = _plan({name: control.value for name, control in self.controls.items()})
        self.headline.value = f"<b>{describe(self.plan)}</b>"
        if self.handle is not None:
            self.handle.update(draw(self.plan))

    def _ipython_display_(self) -> None:
        import ipywidgets as widgets
        from IPython.display import display

        display(widgets.VBox([*self.controls.values(), self.headline]))
        self.handle = display(draw(self.plan), display_id=True)

    def __repr__(self) -> str:
        return f"{self.plan}\n{describe(self.plan)}"


def _plan(settings: dict) -> MemoryPlan:
    others = {name: value for name, value in settings.items() if name != "model"}
    return plan_memory(settings["model"], **others)


def _handles(chosen: dict) -> dict:
    """The widgets by the name of what they set, at the chosen values."""
    import ipywidgets as widgets

    wide = {"style": {"description_width": "9em"}, "layout": {"width": "34em"}}
    handles = {}
    for name, options in {"model": MODELS, "method": METHODS, "loss": LOSSES}.items():
        handles[name] = widgets.Dropdown(
            options=list(dict.fromkeys([*options, chosen[name]])),
            value=chosen[name],
            description=name,
            **wide,
        )
    numbers = {
        "r": ("rank", RANKS),
        "batch_size": ("batch", BATCHES),
        "seq_len": ("length (tokens)", LENGTHS),
    }
    for name, (label, options) in numbers.items():
        handles[name] = widgets.SelectionSlider(
            options=sorted({*options, chosen[name]}),
            value=chosen[name],
            description=label,
            **wide,
        )
    handles["gradient_checkpointing"] = widgets.Checkbox(
        value=chosen["gradient_checkpointing"],
        description="recompute activations (checkpointing)",
        **wide,
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
