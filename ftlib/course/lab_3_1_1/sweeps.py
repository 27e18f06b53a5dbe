"""What a sweep says, read off by code: where the valley is, and whether it lies inside the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ftlib.course.lab_3_1_1.experiments import arms_of, capacity_arm
from ftlib.course.records.live import Result

GROWS = 1.5  # times: by how much more a rank must be behind with many rows than with few


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
        texts.append(f"{name}: {two_digits(value)} at rate {place:.2g}{edge}")
    return "; ".join(texts)


def by_method(result: Result, methods: Sequence[str]) -> dict[str, dict[float, str]]:
    """{method: {rate: arm}} of those methods that the profile has runs of."""
    found = {method: rates_of(result, method) for method in methods}
    return {method: arms for method, arms in found.items() if arms}


def left_out(result: Result, methods: Sequence[str]) -> str:
    """A sentence on the methods that the profile has no runs of; empty where it has all."""
    missing = [method for method in methods if not rates_of(result, method)]
    if not missing:
        return ""
    return f" {result.profile.name} has no runs of {' and '.join(missing)}."


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


def interpolated(
    result: Result, arms: Mapping[float, str], x: str, y: str, place: float
) -> float | None:
    """The metric y where the metric x has the value `place`, along a method's rates up to its best
    one; on logarithmic scales. None where its runs do not reach that far.
    """
    best, _ = best_place(result, arms, "validation_loss")
    points = []
    for rate in sorted(arms):
        if rate <= best:
            means = [max(1e-6, result.means(arms[rate], metric).mean()) for metric in (x, y)]
            points.append(means)
    xs, ys = np.log(np.array(sorted(points)).T)
    if not xs[0] <= np.log(place) <= xs[-1]:
        return None
    return float(np.exp(np.interp(np.log(place), xs, ys)))


# --- in words -------------------------------------------------------------------------------------
def two_digits(value: float) -> str:
    """A loss as 1.23; a small one by its first two digits, 0.039, where that would say 0.04."""
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def map_line(result: Result) -> str:
    """What the map shows of alpha, of the rank, and of the best settings."""
    best = best_rates(result)
    ranks = sorted({r for r, _ in best})
    alphas = sorted({alpha for _, alpha in best})
    factors = []
    for alpha in alphas:
        of_ranks = [best[r, alpha][0] for r in ranks]
        factors.append(f"{max(of_ranks) / min(of_ranks):.0f} at alpha {alpha:g}")
    (r, alpha), (rate, loss) = min(best.items(), key=_loss_of)
    return (
        f"{_powers(best, ranks, alphas)} The best "
        f"rates of the ranks differ by a factor of {', '.join(factors)}: 1 would mean that one "
        f"rate serves every rank. The lowest validation loss, {two_digits(loss)}, is at rank {r}, "
        f"alpha {alpha:g}, rate {rate:.2g}.{_edges(result, best)} One seed per point: read the "
        "valley, not the dot."
    )


def _powers(best: Mapping[tuple[int, float], tuple[float, float]], ranks, alphas) -> str:
    """How the best rate changes with alpha, for each rank."""
    if len(alphas) < 2:
        return (
            f"This map has one alpha, {alphas[0]:g}, so what alpha does to the best rate is not "
            "seen in it."
        )
    powers = []
    for r in ranks:
        steps = []
        for low, high in pairwise(alphas):
            steps.append(f"{exponent((low, high), (best[r, low][0], best[r, high][0])):+.2f}")
        powers.append(f"rank {r}: {', '.join(steps)}")
    return (
        "From one alpha to the next the best rate goes with alpha to the power "
        f"{'; '.join(powers)}; −1 is what follows if only B moves, −½ if A moves as much."
    )


def _edges(result: Result, best: Mapping[tuple[int, float], tuple[float, float]]) -> str:
    """Where a best rate is the lowest or the highest that was tried."""
    found = []
    for r, alpha in best:
        if not best_place(result, rates_at(result, r, alpha), "validation_loss")[1]:
            found.append(f"rank {r} at alpha {alpha:g}")
    if not found:
        return " Every best rate lies inside the grid."
    return f" At the edge of the rates tried: {', '.join(found)}."


def _loss_of(item: tuple) -> float:
    return item[1][1]


def norm_line(result: Result, series: Mapping[str, Mapping[float, str]]) -> str:
    """Two methods at equal ‖ΔW‖ and at equal loss. `series`: two names with their {rate: arm}."""
    (first, first_arms), (second, second_arms) = series.items()
    rate, _ = best_place(result, second_arms, "validation_loss")
    norm = float(result.means(second_arms[rate], "norm").mean())
    first_rate, _ = best_place(result, first_arms, "validation_loss")
    first_arm = first_arms[first_rate]
    loss = float(result.means(first_arm, "validation_loss").mean())
    own_norm = float(result.means(first_arm, "norm").mean())
    other_norm = interpolated(result, second_arms, "validation_loss", "norm", loss)
    at_norm = interpolated(result, first_arms, "norm", "validation_loss", norm)
    texts = []
    forgot = interpolated(result, first_arms, "norm", "forgotten", norm)
    if at_norm is not None and forgot is not None:
        other = float(result.means(second_arms[rate], "forgotten").mean())
        other_loss = float(result.means(second_arms[rate], "validation_loss").mean())
        texts.append(
            f"At the size of {second}'s best update, ‖ΔW‖ = {norm:.0f}, {first} has a loss of "
            f"{two_digits(at_norm)} against {two_digits(other_loss)}, and has forgotten "
            f"{two_digits(forgot)} nats against {two_digits(other)}{_by_size(forgot, other)}"
        )
    if other_norm is None:
        texts.append(
            f"{second}'s runs do not pass through {first}'s best loss, {two_digits(loss)}, so "
            "equal loss cannot be read off this sweep"
        )
    else:
        texts.append(
            f"At {first}'s best loss, {two_digits(loss)}, its update is "
            f"{own_norm / other_norm:.1f} times as large as {second}'s"
        )
    return f"{'. '.join(texts)}. Of full fine-tuning ‖ΔW‖ leaves out the embedding and the norms."


def _by_size(forgotten: float, other: float) -> str:
    """Whether equal sizes forget alike."""
    if 0.5 * other < forgotten < 2 * other:
        return ": size goes a long way to say what is forgotten"
    return ": size alone does not decide what is forgotten"


def rates_of(result: Result, method: str) -> dict[float, str]:
    """{rate: arm} of a method of the sweeps over rates."""
    arms = arms_of({arm: result.settings(arm) for arm in result.arms}, method)
    return {rate: arm for rate, arm in arms.items() if arm in result.arms}


def capacity_line(result: Result, ranks, rows) -> str:
    """Each rank's loss on its own rows as a multiple of the highest rank's, by rows; whether one
    falls behind as the rows grow.
    """
    highest = max(ranks)
    texts = []
    leaving = []
    for r in ranks:
        if r == highest:
            continue
        factors = []
        for count in rows:
            own = result.means(capacity_arm(r, count), "own_loss").mean()
            best = result.means(capacity_arm(highest, count), "own_loss").mean()
            factors.append(float(own / best))
        listed = ", ".join(f"{factor:.1f}" for factor in factors)
        texts.append(f"rank {r}: {listed} times")
        if factors[-1] > GROWS * factors[0]:
            leaving.append(f"rank {r}")
    reading = (
        "No rank falls behind as the rows grow: in this many steps no end of capacity is shown."
    )
    if leaving:
        reading = (
            f"The more rows, the further {' and '.join(leaving)} falls behind. That is what an end "
            "of capacity looks like, but slower learning looks the same: a longer run would tell."
        )
    counts = ", ".join(map(str, rows))
    return (
        f"Loss on the rows trained on, as a multiple of rank {highest}'s, at {counts} rows: "
        f"{'; '.join(texts)}. {reading} {len(result.seeds)} seeds per point, each rank at its own "
        "best settings, the same steps for all, so few rows are read more often."
    )
