"""The map of rank, alpha and rate with handles: where the runs of the record lie, and which way the
valley goes.

The picture is an ordinary figure that the handles redraw, so it stays in the output where widgets
do not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.course.plots import style
from ftlib.course.records.figures import LIVE
from ftlib.course.records.live import Result

LOSS = "validation_loss"
FORGOTTEN = "forgotten"
LEAST = 1e-3  # nats: what is forgotten less is drawn here, on a logarithmic axis


class MapExplorer:
    """Handles for rank, alpha and rate in `controls`; `arm` is always the run that they show.

    As the last value of a cell it shows its handles and, below them, the figure.
    """

    def __init__(self, result: Result):
        import ipywidgets as widgets

        self.result = result
        self.settings = {arm: result.settings(arm) for arm in result.arms}
        start = min(self.settings, key=self.loss)
        wide = {"style": {"description_width": "6em"}, "layout": {"width": "28em"}}
        self.controls = {}
        for name, text in {"r": "rank", "alpha": "alpha", "lr": "rate"}.items():
            self.controls[name] = widgets.SelectionSlider(
                options=self._options(name, self.settings[start]),
                value=self.settings[start][name],
                description=text,
                **wide,
            )
        self.arm = start
        self.headline = widgets.HTML()
        self.handle = None
        for control in self.controls.values():
            control.observe(self._changed, "value")
        self._show()

    def loss(self, arm: str) -> float:
        return float(self.result.means(arm, LOSS).mean())

    def _options(self, name: str, chosen: Mapping[str, Any]) -> list[tuple[str, float]]:
        """The values of a setting, with their labels; the rates are those of the alpha."""
        values = set()
        for settings in self.settings.values():
            if name != "lr" or settings["alpha"] == chosen["alpha"]:
                values.add(settings[name])
        return [(f"{value:.2g}" if name == "lr" else f"{value}", value) for value in sorted(values)]

    def _changed(self, change) -> None:
        if change["owner"] is self.controls["alpha"]:
            self._offer_rates()
        chosen = {name: control.value for name, control in self.controls.items()}
        for arm, settings in self.settings.items():
            if all(settings[name] == value for name, value in chosen.items()):
                self.arm = arm
                self._show()

    def _offer_rates(self) -> None:
        """The new alpha's rates, the one in the same place chosen."""
        rate = self.controls["lr"]
        place = rate.index
        options = self._options("lr", {"alpha": self.controls["alpha"].value})
        rate.unobserve(self._changed, "value")
        rate.options = options
        rate.index = min(place, len(options) - 1)
        rate.observe(self._changed, "value")

    def _show(self) -> None:
        self.headline.value = f"<b>{self.describe()}</b>"
        if self.handle is not None:
            self.handle.update(self.draw())

    def describe(self) -> str:
        """The chosen run in a line."""
        forgotten = float(self.result.means(self.arm, FORGOTTEN).mean())
        norm = float(self.result.means(self.arm, "norm").mean())
        return (
            f"{self.arm}: validation loss {self.loss(self.arm):.2f}, forgotten {forgotten:.2f} "
            f"nats, ‖ΔW‖ {norm:.0f}"
        )

    def draw(self) -> Figure:
        """Both panels, closed, so that a cell shows them once."""
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6))
        self._draw_rates(left)
        self._draw_plane(right)
        plt.close(figure)
        return figure

    def _draw_rates(self, ax: Axes) -> None:
        """Loss over the rate at the chosen alpha, a line a rank."""
        chosen = self.settings[self.arm]
        for i, (text, r) in enumerate(self._options("r", chosen)):
            points = {}
            for arm, settings in self.settings.items():
                if settings["alpha"] == chosen["alpha"] and settings["r"] == r:
                    points[settings["lr"]] = self.loss(arm)
            rates = sorted(points)
            width = 2.6 if r == chosen["r"] else 1.0
            losses = [points[rate] for rate in rates]
            ax.plot(rates, losses, label=f"rank {text}", linewidth=width, **style(i))
        ax.plot(chosen["lr"], self.loss(self.arm), **LIVE)
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="learning rate",
            ylabel="validation loss (nats a token)",
            title=f"alpha = {chosen['alpha']}",
        )
        ax.legend(fontsize="small")

    def _draw_plane(self, ax: Axes) -> None:
        """What every run has learnt and forgotten, a marker a rank."""
        chosen = self.settings[self.arm]
        for i, (text, r) in enumerate(self._options("r", chosen)):
            losses = []
            forgotten = []
            for arm, settings in self.settings.items():
                if settings["r"] == r:
                    losses.append(self.loss(arm))
                    forgotten.append(max(LEAST, self.result.means(arm, FORGOTTEN).mean()))
            look = {**style(i), "linestyle": "none"}
            ax.plot(losses, forgotten, label=f"rank {text}", alpha=0.6, **look)
        lost = max(LEAST, self.result.means(self.arm, FORGOTTEN).mean())
        ax.plot(self.loss(self.arm), lost, label="chosen", **LIVE)
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="validation loss (nats a token)",
            ylabel="forgotten (nats a token)",
            title="All runs: learnt and forgotten",
        )
        ax.legend(fontsize="small")

    def _ipython_display_(self) -> None:
        import ipywidgets as widgets
        from IPython.display import display

        display(widgets.VBox([*self.controls.values(), self.headline]))
        self.handle = display(self.draw(), display_id=True)

    def __repr__(self) -> str:
        return self.describe()
