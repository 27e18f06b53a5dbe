"""The picture of README.md: three results of the labs on a real language model, drawn from the
records of the profile pocket (SmolLM2-135M).

python -m tools.front_picture
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from ftlib.core.profiles import get_profile
from ftlib.core.stats import mean_interval
from ftlib.course import plots
from ftlib.course.records.store import read_record

FILE = Path(__file__).resolve().parent.parent / "labs" / "records" / "pocket.png"
SPREAD = 0.12  # of a column's width, over which its seeds lie side by side


@dataclass(frozen=True)
class Panel:
    """A metric of one record, in some of its arms; `arms`: name in the record -> name shown."""

    title: str
    lab: str
    experiment: str
    metric: str
    label: str
    arms: dict[str, str]
    percent: bool = False
    logarithmic: bool = False


PANELS = (
    Panel(
        "What the data teach\n(96 or 48 training rows)",
        "3.1.6",
        "quality",
        "accuracy",
        "held-out answers right (%)",
        {
            "large, long": "96\nclean",
            "small, long": "48\nclean",
            "messy, long": "96, 4 in\n10 wrong",
            "shuffled, long": "48\nshuffled",
        },
        percent=True,
    ),
    Panel(
        "What is forgotten\n(each at its best learning rate)",
        "3.1.1",
        "methods",
        "forgotten",
        "forgotten (nats per token)",
        {"full": "all weights", "LoRA": "LoRA", "LoRA, shuffled": "LoRA,\nshuffled"},
    ),
    Panel(
        "Bits the base needs\n(logarithmic scale)",
        "3.1.5",
        "bases",
        "loss",
        "test loss (nats per token)",
        {
            "16 bits, middle rate": "16 bits",
            "NF4, middle rate": "NF4\n(4 bits)",
            "2 bits, middle rate": "2 bits",
        },
        logarithmic=True,
    ),
)


def add_key(ax) -> None:
    """What a pale mark and a bar are, in words: one key for all panels, in grey."""
    ax.plot([], [], "o", color="grey", alpha=0.45, label="one run of one seed")
    ax.errorbar([], [], yerr=[], fmt="o", color="grey", capsize=4, label="mean, 95% interval")
    ax.legend(loc="best", fontsize=8)


def draw(panel: Panel, ax) -> None:
    """Every seed as a dot, their mean with Student's 95% interval beside them."""
    record = read_record(panel.lab, panel.experiment, get_profile("pocket"))
    scale = 100 if panel.percent else 1
    for place, arm in enumerate(panel.arms):
        values = scale * np.asarray(record.values(arm, panel.metric))
        look = {**plots.style(place), "linestyle": "none"}
        side_by_side = place + np.linspace(-SPREAD, SPREAD, len(values))
        ax.plot(side_by_side, values, alpha=0.45, **look)
        interval = mean_interval(values)
        error = [[interval.mean - interval.low], [interval.high - interval.mean]]
        ax.errorbar(place + 0.3, interval.mean, yerr=error, capsize=4, **look)
    ax.set_xticks(range(len(panel.arms)), list(panel.arms.values()))
    ax.set_xlim(-0.5, len(panel.arms) - 0.4)
    ax.set_ylabel(panel.label)
    ax.set_title(panel.title)
    if panel.logarithmic:
        ax.set_yscale("log")


def main() -> int:
    plots.use_style()
    figure, axes = plt.subplots(1, len(PANELS), figsize=(10.2, 3.6), width_ratios=(4, 3, 3))
    for panel, ax in zip(PANELS, axes, strict=True):
        draw(panel, ax)
    add_key(axes[0])
    figure.savefig(FILE, dpi=150, metadata={"Software": None})
    print(FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
