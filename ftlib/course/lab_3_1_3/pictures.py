"""The lab's own figures, and what a sweep says in a line (lab 3.1.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.course.lab_3_1_3.experiments import CONTROL_ALPHAS, SIGNS, STRENGTHS, alpha_arm
from ftlib.course.plots import style
from ftlib.course.records import figures
from ftlib.course.records.live import Result

METRIC = "validation_loss"
DENSE = 100  # points of a formula's curve


# --- exact demonstrations -------------------------------------------------------------------------
def draw_parts(
    ratios: Sequence[float], parts: Sequence[tuple[float, float]], named: Mapping[float, float]
) -> Figure:
    """Signal and noise after RMSNorm over the noise's ratio ρ to the embedding, measured, with the
    formulas. `named`: {alpha: ρ} to mark.
    """
    figure, ax = plt.subplots()
    xs = np.linspace(0, max(ratios), DENSE)
    ax.plot(xs, 1 / np.sqrt(1 + xs**2), color="black", linestyle=":", label="1/√(1+ρ²)")
    ax.plot(xs, xs / np.sqrt(1 + xs**2), color="black", linestyle="--", label="ρ/√(1+ρ²)")
    for i, name in enumerate(("signal", "noise across it")):
        look = {**style(i), "linestyle": "none"}
        ax.plot(ratios, [part[i] for part in parts], label=f"{name}, measured", **look)
    for alpha, ratio in named.items():
        ax.annotate(f"{alpha:g}", (ratio, 1.04), fontsize=7, ha="center")
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
        ylabel="E L(x+ε) − L(x) (nats a token)",
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


def draw_rates(clean: Result, noised: Result) -> Figure:
    """Validation loss over the rate, without noise and at the best alpha, side by side."""
    figure, axes = plt.subplots(1, 2, figsize=(8.8, 3.4), sharey=True, layout="constrained")
    for ax, result, title in zip(
        axes, (clean, noised), ("Without noise", "At the best alpha"), strict=True
    ):
        series = {"validation loss": by_setting(result, "lr")}
        figures.sweep(result, METRIC, series, title, "learning rate", ax=ax)
        _mark(ax, series["validation loss"])
    return figure


def best_place(result: Result, setting: str) -> tuple[float, float, bool]:
    """(best value of a setting, its mean validation loss, whether it lies inside the grid)."""
    arms = by_setting(result, setting)
    places = sorted(arms)
    means = [float(result.means(arms[place], METRIC).mean()) for place in places]
    lowest = int(np.argmin(means))
    return places[lowest], means[lowest], 0 < lowest < len(places) - 1


def choice_line(results: Mapping[str, Result], setting: str, text: str) -> str:
    """A sentence on the best value of the setting in each sweep; says where it lies at the edge."""
    texts = []
    for name, result in results.items():
        if not result.arms:
            return result.why
        place, value, is_inside = best_place(result, setting)
        edge = "" if is_inside else ", **at the grid's edge: the true best may lie beyond**"
        texts.append(f"{name}: {text} {place:.2g}, validation loss {value:.3f}{edge}")
    return "Best: " + "; ".join(texts) + "."


def draw_strengths(result: Result) -> Figure:
    """Validation loss over alpha, dropout and weight decay, a panel each."""
    size = (9.4, 3.2)
    figure, axes = plt.subplots(1, len(STRENGTHS), figsize=size, sharey=True, layout="constrained")
    for ax, setting in zip(axes, STRENGTHS, strict=True):
        name = SIGNS[setting]
        series = {name: by_setting(result, setting)}
        figures.sweep(result, METRIC, series, f"By {name}", name, ax=ax)
        _mark(ax, series[name])
    return figure


def strengths_line(result: Result) -> str:
    """The best strength of every regulariser."""
    if not result.arms:
        return result.why
    texts = []
    for setting in STRENGTHS:
        place, value, is_inside = best_place(result, setting)
        edge = "" if is_inside else " (at the grid's edge)"
        texts.append(f"{SIGNS[setting]} {place:g}{edge}, {value:.3f}")
    return "Lowest validation loss: " + "; ".join(texts) + "."


# --- comparisons ----------------------------------------------------------------------------------
def over_alpha(
    result: Result, metric: str, arms: Mapping[float, str], title: str, ax: Axes | None = None
) -> Figure:
    """The metric by alpha, equally spaced, so that 0 has a place."""
    places: dict[float, str] = dict(enumerate(arms.values()))
    figure = figures.sweep(result, metric, {"uniform": places}, title, "alpha", log_x=False, ax=ax)
    axes = ax or figure.axes[0]
    axes.set_xticks(range(len(arms)), [f"{alpha:g}" for alpha in arms])
    return figure


def draw_kinds(result: Result, ax: Axes) -> None:
    """Test loss of fresh uniform, fresh Gaussian and frozen noise by alpha."""
    series: dict[str, dict[float, str]] = {}
    for kind in ("uniform", "Gaussian", "frozen"):
        arms = [alpha_arm(0)]
        arms += [alpha_arm(alpha, kind) for alpha in CONTROL_ALPHAS]
        series[kind] = dict(enumerate(arms))
    figures.sweep(result, "loss", series, "Test loss by kind of noise", "alpha", log_x=False, ax=ax)
    labels = ["0", *(f"{alpha:g}" for alpha in CONTROL_ALPHAS)]
    ax.set_xticks(range(len(labels)), labels)
