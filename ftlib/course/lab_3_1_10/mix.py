"""A mix of types with handles: choose a type for each kind of matrix, and see what the file weighs
and what KL the record leads one to expect.

The expectation is the sum of the KLs of the kinds one at a time. Errors that are small and do not
know of each other add up so; the lab compares the sum with a file that was measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ftlib.course.lab_3_1_10.files import KINDS
from ftlib.course.records.live import Result

BITS = {"F16": 16.0, "Q6_K": 6.5625, "Q4_K": 4.5, "Q2_K": 2.625}  # a weight, scales included
TYPES = tuple(BITS)
NAMES = tuple(KINDS.values())
START = {name: "Q4_K" for name in NAMES}


def kind_of(tensor: str) -> str:
    """The kind of a matrix by its name in a GGUF. ValueError for another tensor."""
    for pattern, name in KINDS.items():
        if re.search(pattern, tensor):
            return name
    raise ValueError(f"{tensor!r} is none of {', '.join(NAMES)}")


def weights_by_kind(tensors: Mapping[str, Any]) -> dict[str, int]:
    """How many weights each kind has, of a file's tensors by name."""
    counts = dict.fromkeys(NAMES, 0)
    for name, tensor in tensors.items():
        if len(tensor.shape) > 1:
            counts[kind_of(name)] += int(tensor.n_elements)
    return counts


class MixPlanner:
    """Handles by kind of matrix in `controls`; `megabytes` and `kl` are of what they show.

    `result`: of the experiment `kinds`; `counts`: weights by kind; `measured`: {name: (MB, KL)} of
    whole files, drawn for comparison. As the last value of a cell it shows its handles and the
    figure, which stays in the output where widgets do not run.
    """

    def __init__(
        self,
        result: Result,
        counts: Mapping[str, int],
        measured: Mapping[str, tuple[float, float]],
        **start: str,
    ):
        import ipywidgets as widgets

        for name, kind in start.items():
            if name not in NAMES or kind not in TYPES:
                raise ValueError(
                    f"{name}={kind!r}: use {', '.join(NAMES)}, each one of {', '.join(TYPES)}"
                )
        self.kl_of = _kl_by_kind(result)
        self.size_of = {
            name: {kind: counts[name] * bits / 8e6 for kind, bits in BITS.items()} for name in NAMES
        }
        self.measured = dict(measured)
        self.frontier = self._best()
        self.controls = {
            name: widgets.ToggleButtons(
                options=TYPES, value={**START, **start}[name], description=name
            )
            for name in NAMES
        }
        self.headline = widgets.HTML()
        self.handle = None
        for control in self.controls.values():
            control.observe(self._changed, "value")
        self._changed()

    @property
    def mix(self) -> dict[str, str]:
        return {name: control.value for name, control in self.controls.items()}

    @property
    def megabytes(self) -> float:
        return sum(self.size_of[name][kind] for name, kind in self.mix.items())

    @property
    def kl(self) -> float:
        return sum(self.kl_of[name][kind] for name, kind in self.mix.items())

    def sums(self, result: Result) -> np.ndarray:
        """The mix's sum of KLs within every seed of the experiment on kinds, (seeds,)."""
        total = np.zeros(len(result.seeds))
        for place, kind in enumerate(self.mix.values()):
            if kind != "F16":
                total += result.values(kind, "answer_kl")[:, place]
        return total

    def describe(self) -> str:
        return f"{self.megabytes:.2f} MB, KL on answers {self.kl:.2g} nats per token expected"

    def _best(self) -> tuple[np.ndarray, np.ndarray]:
        """(MB, KL) of the mixes that no other beats in both, from small to large."""
        sizes = np.zeros(1)
        kls = np.zeros(1)
        for name in NAMES:
            size = np.array(list(self.size_of[name].values()))
            kl = np.array([self.kl_of[name][kind] for kind in TYPES])
            sizes = (sizes[:, None] + size).ravel()
            kls = (kls[:, None] + kl).ravel()
            keep = _undominated(sizes, kls)
            sizes, kls = sizes[keep], kls[keep]
        return sizes, kls

    def _changed(self, _=None) -> None:
        self.headline.value = f"<b>{self.describe()}</b>"
        if self.handle is not None:
            self.handle.update(self.draw())

    def draw(self):
        """The plane of size and KL, closed, so that a cell shows it once."""
        import matplotlib.pyplot as plt

        from ftlib.course.plots import COLOURS, MARKERS

        figure, axes = plt.subplots()
        axes.plot(*self.frontier, color="grey", linewidth=1, label="best possible sums")
        for i, (name, (size, kl)) in enumerate(self.measured.items()):
            look = {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": "none"}
            axes.plot(size, kl, label=f"{name}, measured", **look)
        axes.plot(self.megabytes, self.kl, "*", color="black", markersize=13, label="your mix")
        axes.set(
            title="Which matrices get the bits",
            xlabel="weights, MB",
            ylabel="KL on answers, nats per token",
            yscale="log",
        )
        largest = max(kl for _, kl in self.measured.values())
        smallest = min(kl for _, kl in self.measured.values())
        axes.set_ylim(smallest / 5, largest * 5)
        sizes = [size for size, _ in self.measured.values()]
        axes.set_xlim(0.8 * min(sizes), max(1.5 * max(sizes), 1.05 * self.megabytes))
        axes.legend(fontsize="small")
        plt.close(figure)
        return figure

    def _ipython_display_(self) -> None:
        import ipywidgets as widgets
        from IPython.display import display

        display(widgets.VBox([*self.controls.values(), self.headline]))
        self.handle = display(self.draw(), display_id=True)

    def __repr__(self) -> str:
        chosen = ", ".join(f"{name} {kind}" for name, kind in self.mix.items())
        return f"{chosen}: {self.describe()}"


def _kl_by_kind(result: Result) -> dict[str, dict[str, float]]:
    """{kind of matrix: {type: mean KL on answers}}, 0 for F16."""
    found: dict[str, dict[str, float]] = {name: {"F16": 0.0} for name in NAMES}
    for arm in result.arms:
        means = result.values(arm, "answer_kl").mean(0)  # (kinds,)
        for name, kl in zip(NAMES, means, strict=True):
            found[name][arm] = float(kl)
    return found


def _undominated(sizes: np.ndarray, kls: np.ndarray) -> np.ndarray:
    """Indices, by rising size, of the points whose KL is below that of every smaller one."""
    order = np.lexsort((kls, sizes))
    lowest = np.minimum.accumulate(kls[order])
    before = np.concatenate([[np.inf], lowest[:-1]])
    return order[kls[order] < before]
