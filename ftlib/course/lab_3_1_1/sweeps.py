"""What a sweep says, read off by code: where the valley is, and whether it lies inside the grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ftlib.course.records.live import Result


def best_place(result: Result, arms: Mapping[float, str], metric: str) -> tuple[float, bool]:
    """The setting with the lowest mean of the metric, and whether it lies inside the grid. `arms`:
    {setting: arm}.
    """
    places = sorted(arms)
    means = [result.means(arms[place], metric).mean() for place in places]
    lowest = int(np.argmin(means))
    return places[lowest], 0 < lowest < len(places) - 1


def sweep_line(result: Result, series: Mapping[str, Mapping[float, str]], metric: str) -> str:
    """A sentence a series on its best setting; says where it lies at the edge."""
    texts = []
    for name, arms in series.items():
        place, is_inside = best_place(result, arms, metric)
        value = result.means(arms[place], metric).mean()
        edge = "" if is_inside else ", **at the grid's edge, so the true best may lie beyond**"
        texts.append(f"{name}: {value:.2f} at rate {place:.2g}{edge}")
    return "; ".join(texts)


def rates_at(result: Result, r: int, alpha: float) -> dict[float, str]:
    """{rate: arm} of the map's runs at a rank and an alpha."""
    return arms_with(result, "lr", r=r, alpha=alpha)


def arms_with(result: Result, place: str, **settings: Any) -> dict[Any, str]:
    """{value of the setting `place`: arm} of all arms that have these other settings."""
    found = {}
    for arm in result.arms:
        own = result.settings(arm)
        if all(own.get(name) == value for name, value in settings.items()):
            found[own[place]] = arm
    return found


def best_rates(result: Result) -> dict[tuple[int, float], tuple[float, float]]:
    """Of every (rank, alpha) of the map the best rate, and the validation loss there."""
    found = {}
    for arm in result.arms:
        own = result.settings(arm)
        key = own["r"], own["alpha"]
        rate, _ = best_place(result, rates_at(result, *key), "validation_loss")
        best_arm = rates_at(result, *key)[rate]
        found[key] = rate, float(result.means(best_arm, "validation_loss").mean())
    return found


def exponent(xs, ys) -> float:
    """The slope of log y over log x by least squares: y grows about like x to this power."""
    return float(np.polyfit(np.log(list(xs)), np.log(list(ys)), 1)[0])
