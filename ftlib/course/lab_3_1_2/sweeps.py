"""What a sweep over rates says, read off by code: where the best is, whether it lies inside the
grid, and how finely the grid can place it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ftlib.core.stats import Interval, paired_difference
from ftlib.course.records.live import Result

LOSS = "validation_loss"


def mean_losses(result: Result, arms: Mapping[float, str]) -> dict[float, float]:
    """{rate: mean validation loss}, from the lowest rate, of those that have runs: a profile may
    have fewer. `arms`: {rate: arm}.
    """
    rates = [rate for rate in sorted(arms) if result.has(arms[rate])]
    return {rate: float(result.means(arms[rate], LOSS).mean()) for rate in rates}


def tried(
    result: Result, series: Mapping[str, Mapping[float, str]]
) -> dict[str, Mapping[float, str]]:
    """The series that have runs, {name: {rate: arm}}."""
    return {name: arms for name, arms in series.items() if mean_losses(result, arms)}


def best_place(result: Result, arms: Mapping[float, str]) -> tuple[float, bool]:
    """The rate with the lowest mean loss, and whether it lies inside the grid."""
    losses = mean_losses(result, arms)
    best = min(losses, key=losses.__getitem__)
    return best, best not in (min(losses), max(losses))


def half_step_cost(result: Result, arms: Mapping[float, str]) -> float | None:
    """What a rate half a step of the grid beside the best one costs, in nats: by a parabola through
    the best and its two neighbours, over log rate. None for a best at the edge of the grid, and
    without runs.
    """
    if not mean_losses(result, arms):
        return None
    best, is_inside = best_place(result, arms)
    if not is_inside:
        return None
    losses = mean_losses(result, arms)
    rates = list(losses)
    place = rates.index(best)
    near = rates[place - 1 : place + 2]
    curvature, _, _ = np.polyfit(np.log(near), [losses[rate] for rate in near], 2)
    step = np.log(near[2] / near[0]) / 2
    return float(curvature * (step / 2) ** 2)


def neighbours_cost(result: Result, arms: Mapping[float, str]) -> Interval | None:
    """By how much the nearest other rate is worse than the best, in nats: a paired difference over
    the seeds, of the better one of the best rate's neighbours. None with a single rate or seed,
    and without runs.
    """
    losses = mean_losses(result, arms)
    if not losses:
        return None
    rates = list(losses)
    place = rates.index(min(losses, key=losses.__getitem__))
    near = rates[max(0, place - 1) : place] + rates[place + 1 : place + 2]
    if not near or len(result.seeds) < 2:
        return None
    beside = min(near, key=losses.__getitem__)
    best = result.means(arms[rates[place]], LOSS)
    return paired_difference(result.means(arms[beside], LOSS), best)


def shared_rates_line(
    result: Result, series: Mapping[str, Mapping[float, str]], one: str, other: str
) -> str:
    """At how many of the rates that both were tried at one method's mean loss is the lower one;
    empty where there is no such rate.
    """
    mine = mean_losses(result, series[one])
    theirs = mean_losses(result, series[other])
    shared = [rate for rate in mine if rate in theirs]
    if not shared:
        return ""
    lower = sum(mine[rate] < theirs[rate] for rate in shared)
    return f"{one} is below {other} at {lower} of {len(shared)} rates"


def width(result: Result, arms: Mapping[float, str], room: float) -> float | None:
    """The largest rate over the smallest whose loss is at most `room` nats above the lowest, by
    straight lines between the runs: how far off a rate may be. None with fewer than two rates.
    """
    losses = mean_losses(result, arms)
    if len(losses) < 2:
        return None
    limit = min(losses.values()) + room
    fine = np.geomspace(min(losses), max(losses), 2000)
    values = np.interp(np.log(fine), np.log(list(losses)), list(losses.values()))
    good = fine[values <= limit]
    return float(good.max() / good.min())


def sweep_line(result: Result, series: Mapping[str, Mapping[float, str]]) -> str:
    """A sentence a method that has runs on its best rate; says where it lies at the edge."""
    texts = []
    for name, arms in tried(result, series).items():
        best, is_inside = best_place(result, arms)
        edge = "" if is_inside else ", **at the grid's edge: the true best may lie beyond**"
        loss = mean_losses(result, arms)[best]
        texts.append(f"{name} {loss:.3f} at rate {best:.2g}{edge}")
    return "; ".join(texts)
