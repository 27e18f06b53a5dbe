"""A figure with handles: each redraws it, and it stays in the output where widgets do not run.

    def draw(beta: float, reward: str) -> Figure: …

    Explorable(draw, beta=slider("beta", BETAS, 0.1), reward=choice("reward", REWARDS, "facts"))

as the last value of a cell shows the handles and, below them, the figure of their values. `draw`
closes its figure (`plt.close(figure)`), or the cell would show it twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

WIDE = {"style": {"description_width": "9em"}, "layout": {"width": "34em"}}


def slider(label: str, options: Iterable, value: Any):
    """A handle that steps through values in their order."""
    import ipywidgets as widgets

    steps = sorted({*options, value})
    return widgets.SelectionSlider(options=steps, value=value, description=label, **WIDE)


def choice(label: str, options: Iterable, value: Any):
    """A list to choose one from, in the order given."""
    import ipywidgets as widgets

    listed = list(dict.fromkeys([*options, value]))
    return widgets.Dropdown(options=listed, value=value, description=label, **WIDE)


def switch(label: str, value: bool):
    """On or off."""
    import ipywidgets as widgets

    return widgets.Checkbox(value=value, description=label, **WIDE)


class Explorable:
    """Handles by the names of `draw`'s parameters in `controls`; `headline(**values)`, if given,
    makes the line above the figure.
    """

    def __init__(
        self,
        draw: Callable[..., Any],
        headline: Callable[..., str] | None = None,
        **controls: Any,
    ):
        import ipywidgets as widgets

        self.controls = controls
        self.headline = widgets.HTML()
        self._draw = draw
        self._say = headline
        self._shown = None
        for control in controls.values():
            control.observe(self._changed, "value")
        self._changed()

    @property
    def values(self) -> dict[str, Any]:
        """What the handles show, by name."""
        return {name: control.value for name, control in self.controls.items()}

    def _changed(self, _=None) -> None:
        if self._say is not None:
            self.headline.value = f"<b>{self._say(**self.values)}</b>"
        if self._shown is not None:
            self._shown.update(self._draw(**self.values))

    def _ipython_display_(self) -> None:
        import ipywidgets as widgets
        from IPython.display import display

        display(widgets.VBox([*self.controls.values(), self.headline]))
        self._shown = display(self._draw(**self.values), display_id=True)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.values.items())
        return f"{type(self).__name__}({shown})"
