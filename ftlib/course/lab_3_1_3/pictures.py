"""The lab's own figures, and what a sweep says in a line (lab 3.1.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.course.lab_3_1_3.answers import FEWEST_PAIRS, alike_in_length
from ftlib.course.lab_3_1_3.experiments import STRENGTHS, TIE, UNREGULARISED
from ftlib.course.plots import style
from ftlib.course.records import figures
from ftlib.course.records.live import Result
from ftlib.course.records.shown import whose

METRIC = "validation_loss"
DENSE = 100  # points of a formula's curve
CLOSE = 0.1  # below this distance two names on the axis of ρ would overlap


# --- exact demonstrations -------------------------------------------------------------------------
def draw_parts(
    ratios: Sequence[float], parts: Sequence[tuple[float, float]], named: Mapping[float, float]
) -> Figure:
    """Signal and noise after RMSNorm over the noise's ratio ρ to the embedding, measured, with the
    formulas. `named`: {alpha: ρ} to mark, where there is room.
    """
    figure, ax = plt.subplots()
    xs = np.linspace(0, max(ratios), DENSE)
    ax.plot(xs, 1 / np.sqrt(1 + xs**2), color="black", linestyle=":", label="1/√(1+ρ²)")
    ax.plot(xs, xs / np.sqrt(1 + xs**2), color="black", linestyle="--", label="ρ/√(1+ρ²)")
    for i, name in enumerate(("signal", "noise across it")):
        look = {**style(i), "linestyle": "none"}
        ax.plot(ratios, [part[i] for part in parts], label=f"{name}, measured", **look)
    last = np.inf
    for alpha, ratio in sorted(named.items(), reverse=True):
        if last - ratio > CLOSE:
            ax.annotate(f"{alpha:g}", (ratio, 1.04), fontsize=7, ha="center")
            last = ratio
    ax.set(
        title="RMSNorm turns the noise's size into an angle (numbers: alpha)",
        xlabel="ρ, noise by embedding",
        ylabel="share of the clean vector's norm",
        xscale="symlog",
        ylim=(0, 1.12),
    )
    ax.legend(fontsize="small")
    return figure


def draw_rises(alphas: Sequence[float], risen: Sequence[float], predicted: Sequence[float]):
    """E[L(x+ε)] - L by alpha, measured, and ½σ² tr H; on a scale that is linear near zero."""
    figure, ax = plt.subplots()
    ax.plot(alphas, predicted, label="½σ² tr H", color="black", linestyle=":")
    ax.plot(alphas, risen, label="measured", **{**style(0), "linestyle": "none"})
    ax.axhline(0, color="grey", linewidth=0.8)
    smallest = max(1e-12, min(abs(value) for value in [*risen, *predicted]))
    ax.set(
        title="Rise of the loss under noise, and second order",
        xlabel="alpha",
        ylabel="E L(x+ε) − L(x) (nats per token)",
        xscale="log",
    )
    ax.set_yscale("symlog", linthresh=smallest)
    ax.set_xticks(list(alphas), [f"{alpha:g}" for alpha in alphas])
    ax.minorticks_off()
    ax.legend(fontsize="small")
    return figure


# --- sweeps ---------------------------------------------------------------------------------------
def by_setting(result: Result, setting: str) -> dict[float, str]:
    """{value: arm} of the runs that have this setting."""
    found = {}
    for arm in result.arms:
        own = result.settings(arm)
        if setting in own:
            found[own[setting]] = arm
    return found


def _mark(ax: Axes, arms: Mapping[float, str]) -> None:
    """Ticks at the values that were tried."""
    places = sorted(arms)
    ax.set_xticks(places, [f"{place:g}" for place in places], fontsize=8)
    ax.minorticks_off()


def draw_rates(result: Result) -> Figure:
    """Validation loss over the rate, without noise."""
    series = {"no noise": by_setting(result, "lr")}
    figure, ax = plt.subplots()
    title = "Validation loss over the rate, without noise"
    figures.sweep(result, METRIC, series, title, "learning rate", ax=ax)
    _mark(ax, series["no noise"])
    return figure


def mean_loss(result: Result, arm: str) -> float:
    """An arm's validation loss, the mean over the sweep's seeds."""
    return float(result.means(arm, METRIC).mean())


def _edge(place: float, places: Sequence[float]) -> str:
    """A warning where the best of the places is the first or the last one."""
    inside = min(places) < place < max(places)
    return "" if inside else ", **at the grid's edge: the true best may lie beyond**"


def _seeds(result: Result) -> str:
    count = len(result.seeds)
    return f"{count} seed{'' if count == 1 else 's'}"


def rate_line(result: Result, chosen: float) -> str:
    """A sentence on the rate that the sweep has chosen."""
    if not result.arms:
        return result.why
    arms = by_setting(result, "lr")
    arm = next(own for lr, own in arms.items() if np.isclose(lr, chosen))
    return (
        f"{whose(result)}Best rate: **{chosen:.2g}**, validation loss {mean_loss(result, arm):.3f}"
        f"{_edge(chosen, list(arms))}. (The lowest rate within {TIE:.0%} of the lowest loss, over "
        f"{_seeds(result)} that no comparison has.)"
    )


def draw_strengths(result: Result) -> Figure:
    """Validation loss over alpha and dropout, a panel each, equally spaced, so that 0 has a
    place.
    """
    size = (8.8, 3.4)
    figure, axes = plt.subplots(1, len(STRENGTHS), figsize=size, sharey=True, layout="constrained")
    for ax, setting in zip(axes, STRENGTHS, strict=True):
        arms = by_setting(result, setting)
        places = sorted(arms)
        over_setting(result, METRIC, {p: arms[p] for p in places}, setting, f"By {setting}", ax)
    return figure


def strengths_line(result: Result, chosen: Mapping[str, float]) -> str:
    """The strength of each regulariser that the sweep has chosen, and whether none is better."""
    if not result.arms:
        return result.why
    none = mean_loss(result, UNREGULARISED)
    texts = []
    for setting, strength in chosen.items():
        arms = by_setting(result, setting)
        value = mean_loss(result, arms[strength])
        verdict = "lower than" if value < none else "**not lower than**"
        edge = _edge(strength, [0, *STRENGTHS[setting]])
        beside = f"{verdict} the {none:.3f} without"
        texts.append(f"{setting} **{strength:g}**, {value:.3f}, {beside}{edge}")
    return (
        f"{whose(result)}Lowest validation loss of the strengths above 0, over {_seeds(result)} "
        f"that no comparison has: {'; '.join(texts)}."
    )


# --- comparisons ----------------------------------------------------------------------------------
def over_setting(
    result: Result,
    metric: str,
    arms: Mapping[float, str],
    name: str,
    title: str,
    ax: Axes | None = None,
) -> Figure:
    """The metric over a setting, {value: arm}, equally spaced, so that 0 has a place."""
    places: dict[float, str] = dict(enumerate(arms.values()))
    figure = figures.sweep(result, metric, {name: places}, title, name, log_x=False, ax=ax)
    axes = ax or figure.axes[0]
    axes.set_xticks(range(len(arms)), [f"{value:g}" for value in arms])
    return figure


def draw_arms(result: Result, metric: str, title: str, ax: Axes) -> None:
    """One column an arm, names broken at their comma so that they have room."""
    figures.dots(result, metric, title, ax=ax)
    names = [arm.replace(", ", ",\n") for arm in result.arms]
    ax.set_xticks(range(len(names)), names, fontsize=8)


def pairs_line(result: Result, one: str, other: str) -> str:
    """How many pairs of answers are alike in length, and so count for the wins."""
    if not result.arms:
        return result.why
    counts = []
    for first, second in zip(
        result.values(one, "words"), result.values(other, "words"), strict=True
    ):
        counts.append(int(alike_in_length({"words": first}, {"words": second}).sum()))
    few = sum(count < FEWEST_PAIRS for count in counts)
    asked = result.values(one, "words").shape[1]
    return (
        f"{whose(result)}Of {asked} pairs of answers per seed, {np.mean(counts):.1f} on average "
        f"are alike in length ({min(counts)} to {max(counts)}). Seeds with fewer than "
        f"{FEWEST_PAIRS}, which count as a draw: {few}."
    )
