"""Schedules and the rows of a step, with handles: what a rate, a warmup and accumulation make of
one pass through the data.
"""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from ftlib.course.explorable import Explorable, choice, slider
from ftlib.course.plots import style

SCHEDULES = ("linear", "cosine", "constant_with_warmup", "inverse_sqrt")
WARMUPS = (0.0, 0.03, 0.05, 0.1, 0.2, 0.5)
BATCHES = (1, 2, 4, 8, 16, 32)
ACCUMULATIONS = (1, 2, 4, 8, 16)
DEVICES = (1, 2, 4, 8)


def factors_of(schedule: str, warmup_steps: int, steps: int) -> list[float]:
    """What transformers multiplies the rate by in each of the steps."""
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = get_scheduler(schedule, optimizer, warmup_steps, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


class ScheduleExplorer(Explorable):
    """Handles for the schedule, its warmup, and the rows of a step; `rows` is the size of the data
    set, `rate` the highest learning rate.
    """

    def __init__(self, rows: int, rate: float, batch: int, accumulate: int):
        self.rows = rows
        self.rate = rate
        super().__init__(
            self.draw,
            self.describe,
            schedule=choice("schedule", SCHEDULES, "linear"),
            warmup=slider("warmup", WARMUPS, 0.1),
            batch=slider("rows per forward", BATCHES, batch),
            accumulate=slider("accumulated", ACCUMULATIONS, accumulate),
            devices=slider("devices", DEVICES, 1),
        )

    def steps_of(self, batch: int, accumulate: int, devices: int) -> int:
        """Optimizer steps of one pass through the data."""
        return math.ceil(self.rows / (batch * accumulate * devices))

    def rates(
        self, schedule: str, warmup: float, batch: int, accumulate: int, devices: int
    ) -> list[float]:
        """The learning rate of every step of the pass."""
        steps = self.steps_of(batch, accumulate, devices)
        factors = factors_of(schedule, round(warmup * steps), steps)
        return [self.rate * factor for factor in factors]

    def describe(
        self, schedule: str, warmup: float, batch: int, accumulate: int, devices: int
    ) -> str:
        """The rows of a step, the steps of a pass, and the sum of the rates."""
        rates = self.rates(schedule, warmup, batch, accumulate, devices)
        unmoved = sum(rate == 0 for rate in rates)
        return (
            f"{batch} × {accumulate} × {devices} = {batch * accumulate * devices} rows per step, "
            f"{len(rates)} steps a pass through {self.rows:,} rows. The rates add up to "
            f"{sum(rates):.3g}, {sum(rates) / (self.rate * len(rates)):.0%} of a constant rate's; "
            f"in {unmoved} of the steps the rate is 0 and nothing moves."
        )

    def draw(
        self, schedule: str, warmup: float, batch: int, accumulate: int, devices: int
    ) -> Figure:
        """The rate over the rows seen, and the same schedule with the other sizes of a step."""
        figure, ax = plt.subplots(figsize=(7.2, 3.2))
        rates = self.rates(schedule, warmup, batch, accumulate, devices)
        size = batch * accumulate * devices
        seen = [size * step for step in range(len(rates))]
        ax.step(seen, rates, where="post", label=schedule, **{**style(0), "marker": ""})
        if schedule != "linear":
            line = self.rates("linear", warmup, batch, accumulate, devices)
            look = {**style(1), "marker": ""}
            ax.step(seen, line, where="post", label="linear, TRL's default", **look)
        ax.set(
            title=f"Learning rate of a pass in steps of {size} rows",
            xlabel="rows seen",
            ylabel="learning rate",
            ylim=(0, 1.08 * self.rate),
        )
        ax.legend(fontsize="small")
        plt.close(figure)
        return figure
