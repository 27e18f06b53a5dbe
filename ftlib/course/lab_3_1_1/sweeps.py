"""What a sweep says, read off by code: where the valley is, and whether it lies inside the grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ftlib.course.lab_3_1_1.experiments import arms_of, capacity_arm
from ftlib.course.records.live import Result

BEHIND = 0.1  # nats by which a rank's loss must be higher to be called behind


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
def map_line(result: Result) -> str:
    """What the map shows of alpha, of the rank, and of the best settings."""
    best = best_rates(result)
    ranks = sorted({r for r, _ in best})
    alphas = sorted({alpha for _, alpha in best})
    powers = [exponent(alphas, [best[r, alpha][0] for alpha in alphas]) for r in ranks]
    middle = alphas[len(alphas) // 2]
    of_ranks = [best[r, middle][0] for r in ranks]
    spread = max(of_ranks) / min(of_ranks)
    listed = ", ".join(f"rank {r}: {power:+.2f}" for r, power in zip(ranks, powers, strict=True))
    if spread <= 2:
        transfer = (
            f"At alpha {middle:g} the best rates of all ranks lie within one step of the grid: "
            "with α/r one rate serves every rank, which is what the formula is for."
        )
    else:
        transfer = (
            f"At alpha {middle:g} the best rates of the ranks differ by a factor of {spread:.0f}: "
            "α/r does not make one rate serve every rank here."
        )
    (r, alpha), (rate, loss) = min(best.items(), key=_loss_of)
    return (
        f"The best rate goes with alpha to the power {listed}; −1 is what follows if only B moves, "
        f"−½ if A moves as much. {transfer} The lowest validation loss, {loss:.2f}, is at rank "
        f"{r}, alpha {alpha:g}, rate {rate:.2g}. One seed a point: read the valley, not the dot."
    )


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
    if at_norm is not None:
        forgot = interpolated(result, first_arms, "norm", "forgotten", norm)
        other = float(result.means(second_arms[rate], "forgotten").mean())
        other_loss = float(result.means(second_arms[rate], "validation_loss").mean())
        texts.append(
            f"At the size of {second}'s best update, ‖ΔW‖ = {norm:.0f}, {first} has a loss of "
            f"{at_norm:.2f} against {other_loss:.2f}, and has forgotten {forgot:.2f} nats against "
            f"{other:.2f}"
        )
    if other_norm is None:
        texts.append(
            f"{second}'s runs do not pass through {first}'s best loss, {loss:.2f}, so equal loss "
            "cannot be read off this sweep"
        )
    else:
        texts.append(
            f"At {first}'s best loss, {loss:.2f}, its update is {own_norm / other_norm:.1f} times "
            f"as large as {second}'s"
        )
    return "; ".join(texts) + "."


def rates_of(result: Result, method: str) -> dict[float, str]:
    """{rate: arm} of a method of the sweeps over rates."""
    arms = arms_of({arm: result.settings(arm) for arm in result.arms}, method)
    return {rate: arm for rate, arm in arms.items() if arm in result.arms}


def way(first: float, last: float) -> str:
    """Whether a course rises, falls or stays, a tenth being nothing."""
    if last > 1.1 * first:
        return "rises"
    return "falls" if last < 0.9 * first else "stays"


def capacity_line(result: Result, ranks, rows) -> str:
    """Where each rank's loss on its own rows leaves the highest rank's, by more than a tenth of a
    nat.
    """
    highest = max(ranks)
    texts = []
    for r in ranks:
        if r == highest:
            continue
        behind = {}
        for count in rows:
            own = result.means(capacity_arm(r, count), "own_loss").mean()
            best = result.means(capacity_arm(highest, count), "own_loss").mean()
            behind[count] = own - best
        left = [count for count, gap in behind.items() if gap > BEHIND]
        gaps = ", ".join(f"{gap:+.2f}" for gap in behind.values())
        where = f"is behind from {min(left)} rows on" if left else "keeps up with all rows tried"
        texts.append(f"Rank {r} {where} (against rank {highest}: {gaps} nats)")
    return f"{'. '.join(texts)}. All ranks had the settings that are best at the profile's rank."
