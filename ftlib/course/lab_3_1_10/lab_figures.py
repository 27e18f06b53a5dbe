"""The figures of lab 3.1.10 over its records: one message each, readable without colour."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.core.stats import mean_interval
from ftlib.course.lab_3_1_10.faults import QUANTISED
from ftlib.course.lab_3_1_10.mix import NAMES
from ftlib.course.plots import HATCHES, style
from ftlib.course.records.figures import LIVE, LIVE_LABEL, dots
from ftlib.course.records.live import Result


def _mean_and_error(values: np.ndarray) -> tuple[float, list[list[float]]]:
    """The mean and its interval as error bars; no bar for a single run."""
    if len(values) < 2:
        return float(values.mean()), [[0.0], [0.0]]
    interval = mean_interval(list(values))
    return interval.mean, [[interval.mean - interval.low], [interval.high - interval.mean]]


def _mark(figure: Figure, result: Result) -> Figure:
    """The figure, which names the profile of its runs where the session has another."""
    if result.shown_in:
        figure.text(0.995, 0.005, "runs of tiny", ha="right", va="bottom", fontsize=7)
    return figure


def draw_merges(result: Result) -> Figure:
    """Left: what each form costs in KL. Right: how much of an update's effect is lost, over the
    update's size beside the weights.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    whole = ["bf16", "bf16 sum", "f16", "Q8_0"]
    dots(result, "answer_kl", "KL from the sum in fp32", whole, ax=left)
    left.set_yscale("symlog", linthresh=1e-7)
    for i, form in enumerate(("bf16", "f16")):
        arms = [arm for arm in result.arms if arm == form or arm.startswith(f"{form},")]
        sizes = [result.means(arm, "size").mean() for arm in arms]
        lost = [result.means(arm, "lost_effect") for arm in arms]
        look = style(i)
        right.plot(sizes, [values.mean() for values in lost], label=form, **look)
        for size, values in zip(sizes, lost, strict=True):
            right.plot([size] * len(values), values, ".", color=look["color"], alpha=0.4)
        for arm in arms:
            if arm in result.live:
                place = result.live_mean(arm, "size")
                right.plot(place, result.live_mean(arm, "lost_effect"), **LIVE)
    right.set(
        title="What bf16 and f16 lose of an update",
        xlabel="‖update‖ / ‖weight‖",
        ylabel="KL lost / the update's own KL",
        xscale="log",
    )
    right.invert_xaxis()
    right.legend(fontsize="small")
    return _mark(figure, result)


def draw_sizes(result: Result, megabytes: Mapping[str, float]) -> Figure:
    """Left: KL by size of the file, on answers and on prompts. Right: log-loss of both, minus
    f16's.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    files = [arm for arm in result.arms if arm != "F16"]
    parts = (("answers", "answer_kl", "answer_loss"), ("prompts", "prompt_kl", "prompt_loss"))
    for i, (name, kl, loss) in enumerate(parts):
        look = style(i)
        for ax, metric, places in (
            (left, kl, [megabytes[arm] for arm in files]),
            (right, loss, [k + 0.2 * i - 0.1 for k in range(len(files))]),
        ):
            _draw_points(ax, result, metric, files, places, f"on {name}", look)
    for arm in files:
        highest = result.means(arm, "prompt_kl").mean()
        beside = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center"}
        left.annotate(arm, (megabytes[arm], highest), fontsize=8, **beside)
    left.set(
        title="KL from f16 by size of the file",
        xlabel="size of the file, MB",
        ylabel="KL from f16, nats per token",
        yscale="log",
    )
    left.margins(x=0.12, y=0.15)
    if result.live:
        left.plot([], [], label=LIVE_LABEL, **{**LIVE, "markersize": 8})
    right.axhline(0, color="black", linestyle=":", linewidth=1)
    right.set(title="Log-loss of the same files, minus f16's", ylabel="nats per token")
    right.set_xticks(range(len(files)), files)
    left.legend(fontsize="small")
    return _mark(figure, result)


def _draw_points(
    ax: Axes, result: Result, metric: str, arms: list[str], places: list[float], name: str, look
) -> None:
    """Means with intervals, a dot a seed, and the live runs."""
    for k, (arm, place) in enumerate(zip(arms, places, strict=True)):
        values = result.means(arm, metric)
        ax.plot([place] * len(values), values, ".", color=look["color"], alpha=0.35, markersize=4)
        mean, error = _mean_and_error(values)
        label = name if k == 0 else None
        ax.errorbar(place, mean, yerr=error, capsize=3, label=label, **{**look, "linestyle": ""})
        if arm in result.live:
            ax.plot(place, result.live_mean(arm, metric), **{**LIVE, "markersize": 8})


def draw_kinds(result: Result, counts: Mapping[str, int]) -> Figure:
    """KL on answers of each kind of matrix at each type, and beside it a million weights' worth."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=False)
    width = 0.8 / len(result.arms)
    millions = np.array([counts[name] / 1e6 for name in NAMES])
    for i, arm in enumerate(result.arms):
        runs = result.values(arm, "answer_kl")  # (seeds, kinds)
        places = np.arange(len(NAMES)) + (i - 1) * width
        look = {"hatch": HATCHES[i], "edgecolor": "white", "color": style(i)["color"]}
        for ax, values in ((left, runs), (right, runs / millions)):
            means = values.mean(0)
            errors = np.array([_mean_and_error(column)[1] for column in values.T])[:, :, 0].T
            errors[0] = np.minimum(errors[0], means * 0.95)  # a logarithmic axis ends above 0
            ax.bar(places, means, width, yerr=errors, capsize=2, label=arm, **look)
    left.set(title="One kind of matrix at a time", ylabel="KL on answers, nats per token")
    right.set(
        title=("The same, for each million weights"), ylabel="nats per token, per million weights"
    )
    for ax in (left, right):
        ax.set_yscale("log")
        ax.set_xticks(range(len(NAMES)), NAMES, rotation=35, ha="right")
    left.legend(fontsize="small", ncols=3)
    return _mark(figure, result)


def draw_importance(result: Result) -> Figure:
    """Of Q2_K by calibration: rounding weighed by held-out inputs, KL on answers and on prompts."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.6))
    arms = [arm for arm in result.arms if arm.startswith("Q2_K")]
    titles = {
        "rounding": "Rounding, weighted by inputs",
        "answer_kl": "KL on answers",
        "prompt_kl": "KL on prompts",
    }
    for ax, (metric, title) in zip(axes, titles.items(), strict=True):
        dots(result, metric, title, arms, ax=ax)
        ax.set_xticks(range(len(arms)), [arm.partition(", ")[2] for arm in arms])
        ax.get_legend().remove()
    figure.suptitle("Q2_K with four calibrations (none: without an importance matrix)", fontsize=10)
    return figure


def draw_faults(result: Result) -> Figure:
    """Right answers with each fault, the most harmful at the bottom."""
    figure, ax = plt.subplots(figsize=(7.5, 4.2))
    order = sorted(result.arms, key=lambda arm: result.means(arm, "right").mean())
    for i, arm in enumerate(order):
        values: np.ndarray = 100 * result.means(arm, "right")
        look = {**style(_kind_of(arm)), "linestyle": "none"}
        spread = i + np.linspace(-0.15, 0.15, len(values))
        ax.plot(values, spread, alpha=0.35, **{**look, "markersize": 3})
        mean, error = _mean_and_error(values)
        ax.errorbar(mean, i, xerr=error, capsize=3, **look)
        ax.annotate(f"{mean:.0f}%", (104, i), va="center", fontsize=8, annotation_clip=False)
        if arm in result.live:
            ax.plot(100 * result.live_mean(arm, "right"), i, **{**LIVE, "markersize": 9})
    if result.live:
        ax.plot([], [], label=LIVE_LABEL, **LIVE)
        ax.legend(loc="lower right", fontsize="small")
    ax.set(title="Faults of the last mile beside quantisation", xlabel="right answers, %")
    ax.set_xlim(-3, 103)
    ax.set_yticks(range(len(order)), order)
    return _mark(figure, result)


def _kind_of(arm: str) -> int:
    """0: spoiled, 1: quantised, 2: as trained."""
    if arm == "as trained":
        return 2
    return int(arm in QUANTISED)
