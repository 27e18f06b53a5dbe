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
        chosen, wide = (
            START | start,
            {"style": {"description_width": "9em"}, "layout": {"width": "34em"}},
        )
        plan_memory(
            chosen["model"], **{k: v for k, v in chosen.items() if k != "model"}
        )  # names a bad value before a widget does
        kinds = {
            "model": (widgets.Dropdown, MODELS),
            "method": (widgets.Dropdown, METHODS),
            "loss": (widgets.Dropdown, LOSSES),
            "r": (widgets.SelectionSlider, RANKS),
            "batch_size": (widgets.SelectionSlider, BATCHES),
            "seq_len": (widgets.SelectionSlider, LENGTHS),
        }
        labels = {"r": "rank", "batch_size": "batch", "seq_len": "length (tokens)"}
        self.controls = {
            k: kind(
                options=sorted({*options, chosen[k]})
                if k in labels
                else list(dict.fromkeys([*options, chosen[k]])),
                value=chosen[k],
                description=labels.get(k, k),
                **wide,
            )
            for k, (kind, options) in kinds.items()
        }
        self.controls["gradient_checkpointing"] = widgets.Checkbox(
            value=chosen["gradient_checkpointing"],
            description="recompute activations (checkpointing)",
            **wide,
        )
        self.headline, self.plan, self.handle = widgets.HTML(), None, None
        for control in self.controls.values():
            control.observe(self._changed, "value")
        self._changed()

    def _changed(self, _=None) -> None:
        settings = {name: control.value for name, control in self.controls.items()}
        self.plan = plan_memory(settings.pop("model"), **settings)
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


def describe(plan: MemoryPlan) -> str:
    """The plan's peak in GB, and which of `CAPACITIES` hold it."""
    fits = [f"{size} GB" for size in CAPACITIES if plan.fits(size * 1e9)]
    return f"{plan.total / 1e9:.1f} GB: " + (
        f"fits {', '.join(fits)}" if fits else f"more than {CAPACITIES[-1]} GB"
    )


def draw(plan: MemoryPlan):
    """The plan as a figure, closed, so that a cell shows it once."""
    import matplotlib.pyplot as plt

    from ftlib.course.plots import memory_bars

    s = plan.settings
    name = (
        f"{s['method']}, {s['loss']}\n"
        + ("" if s["method"] == "full" else f"r = {s['r']}, ")
        + f"{s['batch_size']} × {s['seq_len']:,} tokens,\n"
        f"activations {'recomputed' if s['gradient_checkpointing'] else 'kept'}"
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
