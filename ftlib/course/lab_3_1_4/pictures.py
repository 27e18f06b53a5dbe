"""The figures of lab 3.1.4 over its records, and what its guesses are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.core.stats import mean_interval
from ftlib.course.lab_3_1_4 import marker_readings, readings
from ftlib.course.plots import style
from ftlib.course.records import figures
from ftlib.course.records.claims import FEWEST
from ftlib.course.records.live import Result

LETTER = {"above": "more", "below": "less", "none": "no", "open": "open"}


def outcome(result: Result, claim: str) -> str:
    """ "more", "less" or "no" (difference shown); "open" where there are too few runs."""
    return LETTER[result.outcome(claim)]


def costlier(result: Result) -> str:
    """Which spare marker alone costs more right answers: "turns" or "stop"; "no" where the interval
    of their difference holds 0; "open" without enough runs.
    """
    turns = marker_readings.marker_arm("spare", "own")
    stop = marker_readings.marker_arm("own", "spare")
    if not (result.has(turns) and result.has(stop)) or len(result.seeds) < FEWEST:
        return "open"
    gap = mean_interval(result.means(stop, "right") - result.means(turns, "right"))
    if not gap.excludes(0):
        return "no"
    return "stop" if gap.mean < 0 else "turns"


def across(figure: Figure, ax: Axes, names: Sequence[str]) -> None:
    """Long names of arms, each broken at its comma or blank, below the columns."""
    ax.set_xticks(range(len(names)), [name.replace(", ", ",\n") for name in names], fontsize=7)
    figure.autofmt_xdate(rotation=25)


def side_by_side(result: Result, metrics: Mapping[str, str]) -> Figure:
    """A panel a metric, {metric: title}, with all arms as columns of dots."""
    figure, axes = plt.subplots(len(metrics), 1, figsize=(8.4, 2.7 * len(metrics)), sharex=True)
    for ax, (metric, title) in zip(axes, metrics.items(), strict=True):
        figures.dots(result, metric, title, percent=True, ax=ax)
        ax.set_ylabel("%")
        if metric != next(iter(metrics)) and ax.get_legend():
            ax.get_legend().remove()
    across(figure, axes[-1], result.arms)
    return figure


def by_rate(result: Result, series: Mapping[str, Mapping[float, str]]) -> Figure:
    """Validation loss and forgetting over the rate, a line a method."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.8))
    figures.sweep(
        result, "validation_loss", series, "Learnt, by rate", "learning rate", log_y=True, ax=left
    )
    figures.sweep(
        result, "forgotten", series, "Forgotten, by rate", "learning rate", log_y=True, ax=right
    )
    return figure


def best_line(
    result: Result, series: Mapping[str, Mapping[float, str]], chosen: Mapping[str, float]
) -> str:
    """Each method's chosen rate with its validation loss and the lowest there is, and whether the
    lowest lies inside what was tried. `chosen`: {method: rate}.
    """
    if not result.arms:
        return result.why
    parts = []
    edges = []
    for method, arms in series.items():
        rates = sorted(rate for rate, arm in arms.items() if result.has(arm))
        if not rates:
            continue
        losses = {rate: result.means(arms[rate], "validation_loss").mean() for rate in rates}
        rate = chosen[method]
        lowest = min(losses, key=losses.__getitem__)
        parts.append(f"{method} {rate:.2g} ({losses[rate]:.3f}, lowest {losses[lowest]:.3f})")
        if lowest in (rates[0], rates[-1]):
            edges.append(method)
    inside = "The lowest losses all lie inside the rates that were tried."
    if edges:
        inside = (
            f"At the edge of what was tried: {', '.join(edges)}; their best may lie beyond, and "
            "what is said of them below holds for these rates."
        )
    return f"Chosen rate and its validation loss: {'; '.join(parts)}. {inside}"


def lowest_of_ties(losses: Mapping[float, float], tie: float) -> float:
    """The lowest rate within a share `tie` of the lowest loss: the rule of
    `records.store.best_arm` for the losses of {rate: loss}.
    """
    enough = (1 + tie) * min(losses.values())
    return min(rate for rate, loss in losses.items() if loss <= enough)


def halves_line(result: Result, series: Mapping[str, Mapping[float, str]], tie: float) -> str:
    """The rate that either half of the sweep's seeds would choose, by the same rule: how much of
    the choice is chance.
    """
    half = len(result.seeds) // 2
    if not half:
        return "The sweep has too few seeds to be halved."
    parts = []
    for method, arms in series.items():
        choices = []
        run = {rate: arm for rate, arm in arms.items() if result.has(arm)}
        if not run:
            continue
        for part in (slice(None, half), slice(half, None)):
            losses = {}
            for rate, arm in run.items():
                losses[rate] = float(result.means(arm, "validation_loss")[part].mean())
            choices.append(lowest_of_ties(losses, tie))
        first, second = choices
        parts.append(f"{method} {first:.2g} and {second:.2g}")
    return f"By the first and by the second half of its seeds: {'; '.join(parts)}."


def whose(result: Result) -> str:
    """For a title: which profile's runs these are, where the session has another."""
    return f" ({result.profile.name})" if result.shown_in else ""


def _lower_rates() -> list[str]:
    return [arm for method in readings.TWO for arm in readings.frontier_arms(method)]


def frontier(result: Result) -> Figure:
    """Where finished runs of LoRA and of full fine-tuning end, at three rates each: golden loss
    and forgetting, a dot a seed, and a line through the means.
    """
    figure, ax = plt.subplots(figsize=(6.4, 3.8))
    for i, method in enumerate(readings.TWO):
        arms = [arm for arm in readings.ends(method) if result.has(arm)]
        look = style(i)
        means = []
        for arm in arms:
            losses = result.means(arm, "loss")
            rises = np.maximum(readings.LEAST, result.means(arm, "forgotten"))
            ax.plot(losses, rises, ".", color=look["color"], alpha=0.35)
            means.append((losses.mean(), rises.mean()))
        ax.plot([x for x, _ in means], [y for _, y in means], label=method, **look)
    rates = "three rates each" if all(map(result.has, _lower_rates())) else "at the best rates"
    ax.set(
        title=f"Ends of finished runs, {rates}{whose(result)}", xscale="log", yscale="log",
        xlabel="golden loss (nats per token)", ylabel="forgotten (nats per token)",
    )  # fmt: skip
    ax.legend(fontsize="small")
    return figure


def few_curves(result: Result, arm: str, places: Sequence[int], kept: int | None) -> Figure:
    """Loss on the rows and on others, and the others' right answers, over the steps; a line where
    the checkpoint is kept.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.4))
    if not result.arms:
        left.set_title(f"no record for the profile {result.profile.name}")
        return figure
    for i, (metric, name) in enumerate((("own_loss", "these rows"), ("held_out_loss", "others"))):
        _course(left, result, arm, metric, places, name, i)
    left.set(
        title=f"Two dozen rows, over and over{whose(result)}",
        xlabel="step", ylabel="loss (nats per token)", yscale="log",
    )  # fmt: skip
    _course(right, result, arm, "held_out_right", places, "others", 1, 100)
    right.set(title=f"Other rows answered right{whose(result)}", xlabel="step", ylabel="right (%)")
    for ax in (left, right):
        if kept is not None:
            ax.axvline(places[kept], color="grey", linestyle=":", label="kept by early_stop")
        ax.legend(fontsize="small")
    return figure


def _course(
    ax: Axes,
    result: Result,
    arm: str,
    metric: str,
    places: Sequence[int],
    name: str,
    i: int,
    scale: int = 1,
) -> None:
    """Every seed as a thin line, their mean as a thick one, and the live run in black."""
    runs: np.ndarray = scale * result.values(arm, metric)  # (seeds, looks)
    look = style(i)
    ax.plot(places, runs.T, color=look["color"], alpha=0.25, linewidth=0.8)
    ax.plot(places, runs.mean(0), label=name, **look)
    if arm in result.live:
        ax.plot(places, scale * np.array(result.live[arm][metric]), color="black", linewidth=1.0)
