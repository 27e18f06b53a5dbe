"""What the records of lab 3.1.7 say, in words that the numbers choose."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ftlib.core.stats import mean_interval
from ftlib.course.lab_3_1_7.experiments import BETAS, arms_of, beta_name, equal_drift
from ftlib.course.lab_3_1_7.frontier import best_of_course, optimum_course, win_at
from ftlib.course.lab_3_1_7.measures import asked_rows
from ftlib.course.lab_3_1_7.pictures import COUNTS, FRONTIER_BETAS, levels_of, mean_course
from ftlib.course.lab_3_1_7.side_by_side import points, told_apart
from ftlib.course.lab_3_1_7.starts import TEST
from ftlib.course.lab_3_1_7.trials import DRAWS
from ftlib.course.records.live import Result
from ftlib.course.records.shown import whose


def swept(result: Result, method: str) -> dict[float, str]:
    """{rate: arm} of a method of a sweep."""
    settings = {arm: result.settings(arm) for arm in result.arms}
    return arms_of(settings, method)


def best_place(result: Result, method: str) -> tuple[float, float, bool]:
    """A method's best rate, its win rate there, and whether the rate lies inside the grid."""
    arms = swept(result, method)
    rates = sorted(arms)
    wins = [float(result.means(arms[rate], "win").mean()) for rate in rates]
    best = int(np.argmax(wins))
    return rates[best], wins[best], 0 < best < len(rates) - 1


def sweep_line(result: Result, methods: Sequence[str]) -> str:
    """Each method's best rate on the validation prompts, and which methods have not been run."""
    if not result.arms:
        return result.why
    texts = []
    absent = []
    for method in methods:
        if not swept(result, method):
            absent.append(method)
            continue
        rate, win, inside = best_place(result, method)
        edge = "" if inside else " (**at the grid's edge**)"
        texts.append(f"{method}: {win:.0%} at rate {rate:.2g}{edge}")
    said = f"{whose(result)}Best on the validation prompts: {'; '.join(texts)}."
    return f"{said} Not run in {result.profile.name}: {', '.join(absent)}." if absent else said


def drift_line(drift: Result, rates: Result) -> str:
    """At which rate the irrelevant preference goes as far as DPO, and how far apart equal rates
    are.
    """
    if not drift.arms or not rates.arms:
        return drift.why or rates.why
    chosen = equal_drift(drift.profile)
    dpo = swept(rates, beta_name(chosen["beta"]))
    irrelevant = swept(drift, "irrelevant")
    shared = sorted(set(dpo) & set(irrelevant))
    texts = []
    for rate in shared:
        one = float(rates.means(dpo[rate], "kl").mean())
        other = float(drift.means(irrelevant[rate], "kl").mean())
        texts.append(f"{one:.2f} and {other:.2f} at rate {rate:.2g}")
    best, _, _ = best_place(rates, beta_name(chosen["beta"]))
    target = float(rates.means(dpo[best], "kl").mean())
    return (
        f"{whose(drift)}"
        f"KL of DPO and of the irrelevant preference, at equal rates and beta {chosen['beta']:g}: "
        f"{'; '.join(texts)} (nats). DPO's best is at {target:.2f} nats; the control gets the rate "
        f"**{chosen['lr']:.2g}**, at which it goes about as far."
    )


def beta_line(result: Result) -> str:
    """Which beta wins most on the test prompts, from which others it is not told apart, and where
    on the grid it lies.
    """
    if not result.arms:
        return result.why
    wins = {beta: float(result.means(beta_name(beta), "win").mean()) for beta in BETAS}
    best = max(wins, key=wins.__getitem__)
    listed = "; ".join(
        f"beta {beta:g}: {result.interval(beta_name(beta), 'win').as_share()} at "
        f"{result.interval(beta_name(beta), 'kl')} nats"
        for beta in BETAS
    )
    if best in (BETAS[0], BETAS[-1]):
        where = f"The highest mean is beta {best:g}'s, at **the edge of the grid**"
    else:
        where = f"The highest mean is beta {best:g}'s, inside the grid"
    return f"{whose(result)}{listed}. {where}. {_told_apart_line(result, best)}"


def _told_apart_line(result: Result, best: float) -> str:
    """The best beta minus each other, seed by seed: not the best one where it is not told apart."""
    texts = []
    level = []
    for beta in BETAS:
        if beta == best:
            continue
        wins = result.means(beta_name(best), "win") - result.means(beta_name(beta), "win")
        apart = mean_interval(wins)
        texts.append(f"beta {beta:g}: {points(apart)}, {told_apart(apart)}")
        if not apart.excludes(0):
            level.append(f"{beta:g}")
    said = f"Its lead, seed by seed, over {'; '.join(texts)}."
    if not level:
        return said
    return f"{said} So these runs do not say that it is better than beta {' or '.join(level)}."


def loss_line(result: Result, arm: str) -> str:
    """Whether the loss says what the win rate says, in the second half of a run."""
    if not result.has(arm):
        return result.why
    losses = result.values(arm, "loss by step").mean(0)
    wins = result.values(arm, "win by step").mean(0)
    half = len(losses) // 2
    early = float(losses[:half].mean())
    late = float(losses[half:].mean())
    falls = late < early
    worse = wins[-1] < wins[-2]
    said = (
        f"{whose(result)}"
        f"{arm}: the loss, on pairs that the run has not seen before, is {early:.3f} in the first "
        f"half and {late:.3f} in the second; the win rate is {wins[-2]:.0%} halfway and "
        f"{wins[-1]:.0%} at the end."
    )
    if falls and worse:
        return f"{said} The loss improves and the answers do not: it is no measure of them."
    if falls:
        return f"{said} Here both improve; the loss alone could not have told."
    return f"{said} The loss rises too, so that it would have given a warning here."


def frontier_line(draws: Result, result: Result, arm: str) -> str:
    """How an arm's wins compare with what can be reached at its KL."""
    if not draws.arms or not result.arms:
        return draws.why or result.why
    levels = levels_of(draws)
    kl, win = mean_course(result, arm)[-1]
    best = best_of_course(levels, COUNTS)
    at_optimum = win_at(optimum_course(levels, FRONTIER_BETAS), kl)
    if at_optimum is None:
        highest = optimum_course(levels, FRONTIER_BETAS)[:, 1].max()
        return (
            f"{whose(result)}"
            f"{arm} ends at {kl:.2f} nats and wins {win:.0%}. Choosing among the start's own "
            f"answers never goes so far: all it can reach is {highest:.0%}. A policy that drifts "
            "further than that pays for what no choice among the start's answers needs"
            + (", or says what the start hardly ever said." if win > highest else ".")
        )
    n = next((n for n, point in zip(COUNTS, best, strict=True) if point[1] >= win), None)
    enough = f"the best of {n} draws wins at least as often as {arm}"
    among = enough if n else f"not even the best of {COUNTS[-1]} draws wins as often as {arm}"
    return (
        f"{whose(result)}"
        f"{arm} wins {win:.0%} at {kl:.2f} nats; at that KL the optimum wins {at_optimum:.0%}, and "
        f"{among}. DPO never asks the judge for a policy's own answers, and best-of-n asks it for "
        "every one."
    )


def chosen_line(draws: Result) -> str:
    """How often the chosen answers of the test prompts themselves would win over the start."""
    if not draws.arms:
        return draws.why
    rows = asked_rows(draws.profile, TEST, DRAWS)
    if not all("chosen_faults" in row for row in rows):
        return ""
    own = np.array([row["chosen_faults"] for row in rows])
    drawn = draws.values("the start", "faults")  # (seeds, prompts·DRAWS)
    win = np.mean((own < drawn) + (own == drawn) / 2)
    return (
        f"{whose(draws)}"
        f"The chosen answers of the test prompts themselves would win {win:.0%} over the start, "
        "by the same judge: that is where perfect imitation would end."
    )


def optimum_margin(smoothing: float) -> float:
    """z at which −(1−ε)·ln σ(z) − ε·ln σ(−z) is smallest: ln((1−ε)/ε)."""
    return math.log((1 - smoothing) / smoothing)


def noise_line(result: Result, noise: float) -> str:
    """The measured margins in units of z beside the optima of the losses on noisy labels, and how
    far each run has gone.
    """
    if not result.arms:
        return result.why
    still = (1 - noise) * (1 - noise) + noise * noise  # a label kept twice, or turned twice
    optima = {"plain": optimum_margin(noise), "cDPO": math.log(still / (1 - still))}
    texts = []
    for arm in result.arms:
        beta = result.settings(arm)["beta"]
        margin = beta * float(result.means(arm, "margin").mean())
        best = f"optimum {optima[arm]:.2f}" if arm in optima else "optimum as on clean labels"
        texts.append(f"{arm}: z = {margin:.2f} ({best}), KL {result.interval(arm, 'kl')} nats")
    said = "Mean margin of pairs of the training pool, KL to the start: "
    return f"{whose(result)}{said}{'; '.join(texts)}."
