"""How often ftlib's intervals at 95% hold the truth, by simulation; for shares exactly.

`python -m tests.core.coverage_table` prints a table in Markdown, in minutes; test_coverage.py holds
the main numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from scipy.stats import binom

from ftlib.core import stats

LEVEL = 0.95
SAMPLES = 20_000  # the standard error of a coverage of 95% is 0.15 points
CROSSED_SAMPLES = 2_000  # 0.5 points
BOOTSTRAPS = 400  # 1.1 points at 95%, 2.2 points at 75%

# name -> (draws of a size, their mean)
DISTRIBUTIONS: dict[str, tuple[Callable, float]] = {
    "normal": (lambda rng, size: rng.normal(0, 1, size), 0.0),
    "gamma, skewness 1": (lambda rng, size: rng.gamma(4, 1, size), 4.0),
    "exponential, skewness 2": (lambda rng, size: rng.exponential(1, size), 1.0),
    "log-normal, skewness 6": (lambda rng, size: rng.lognormal(0, 1, size), np.exp(0.5)),
}
# Standard deviations of the effects of seeds and of items, and of the rest.
EFFECTS = {
    "seeds and the rest": (1, 0, 1),
    "items and the rest": (0, 1, 1),
    "items, hardly seeds": (0.3, 1, 1),
    "seeds, items, the rest alike": (1, 1, 1),
    "the rest alone": (0, 0, 1),
    "a little of both": (0.3, 0.3, 1),
}


def holds(bounds, truth: float) -> float:
    """The share of the intervals (mean, low, high), arrays of one shape, that hold the truth."""
    _, low, high = bounds
    return float(((low <= truth) & (truth <= high)).mean())


def of_mean(samples: np.ndarray, truth: float) -> float:
    """Coverage of `mean_interval` over samples (samples, n)."""
    error, freedom = stats._standard_error(samples)
    return holds(stats._bounds(samples.mean(-1), error, freedom, LEVEL), truth)


def of_skewed(name: str, n: int, seed: int = 0) -> float:
    draw, truth = DISTRIBUTIONS[name]
    return of_mean(draw(np.random.default_rng(seed), (SAMPLES, n)), truth)


def of_paired(name: str, n: int, seed: int = 0) -> float:
    """Coverage of `paired_difference`: two methods' values of one distribution, truly 0.5 apart, on
    seeds whose common part is three times as large.
    """
    draw, _ = DISTRIBUTIONS[name]
    rng = np.random.default_rng(seed)
    common = 3 * rng.normal(0, 1, (SAMPLES, n))
    a = common + 0.5 + draw(rng, (SAMPLES, n))
    b = common + draw(rng, (SAMPLES, n))
    return of_mean(a - b, 0.5)


def of_prediction(n: int, seed: int = 0) -> float:
    """How often `prediction_interval` of n normal runs holds the next one."""
    runs = np.random.default_rng(seed).normal(0, 1, (SAMPLES, n + 1))
    _, low, high = stats._prediction_bounds(runs[:, :n], LEVEL)
    further = runs[:, n]
    return float(((low <= further) & (further <= high)).mean())


def crossed(effects: tuple, seeds: int, items: int, rng, count: int) -> np.ndarray:
    """Differences (count, seeds, items) whose true mean is 0."""
    of_seeds, of_items, rest = effects
    by_seed = of_seeds * rng.normal(0, 1, (count, seeds, 1))
    by_item = of_items * rng.normal(0, 1, (count, 1, items))
    return by_seed + by_item + rest * rng.normal(0, 1, (count, seeds, items))


def right_or_wrong(seeds: int, items: int, rng, count: int) -> np.ndarray:
    """Differences (count, seeds, items) of two methods' right (1) and wrong (0) answers: both have
    the same chance, from 0.05 to 0.95, at an item, and a seed moves each method's by up to 0.05.
    """
    chance = rng.uniform(0.05, 0.95, (count, 1, items))
    answers = []
    for _ in range(2):
        moved = chance + rng.uniform(-0.05, 0.05, (count, seeds, 1))
        answers.append(rng.random((count, seeds, items)) < moved)
    return answers[0].astype(float) - answers[1]


def of_crossed(samples: np.ndarray) -> float:
    """Coverage of the interval over seeds and items, of samples (count, seeds, items) around 0."""
    error, freedom = stats._crossed_error(samples)
    return holds(stats._bounds(samples.mean((-2, -1)), error, freedom, LEVEL), 0)


def of_seed_means(samples: np.ndarray) -> float:
    """Coverage of t over the seeds' means, of the same samples: what `paired_difference` does not
    do.
    """
    return of_mean(samples.mean(-1), 0)


def of_bootstrap(samples: np.ndarray, truth: float = 0, draws: int = 500) -> float:
    """Coverage of the percentile bootstrap, of samples (count, n) or (count, seeds, items)."""
    held = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says itself that it is too narrow
        for i, values in enumerate(samples):
            interval = stats.bootstrap_interval(values, LEVEL, draws, seed=i)
            held += not interval.excludes(truth)
    return held / len(samples)


def of_share(share: float, n: int) -> float:
    """Coverage of `share_interval` where the true share is `share`: exact, the sum of the
    probabilities of the successes whose interval holds it.
    """
    probability = binom.pmf(np.arange(n + 1), n, share)
    held = [not stats.share_interval(k, n, LEVEL).excludes(share) for k in range(n + 1)]
    return float(probability[held].sum())


# --- the table ------------------------------------------------------------------------------------
def rows() -> Iterator[tuple[str, str, float]]:
    """(interval, of what, coverage)."""
    for name in DISTRIBUTIONS:
        for n in (3, 5, 10, 25):
            yield "mean_interval", f"{name}, n = {n}", of_skewed(name, n)
    for name in DISTRIBUTIONS:
        for n in (3, 5, 10):
            yield "paired_difference", f"differences of {name}, n = {n}", of_paired(name, n)
    for n in (3, 5, 10):
        yield "prediction_interval", f"normal, n = {n}", of_prediction(n)
    yield from _crossed_rows()
    for n in (24, 100, 400):
        for share in (0.0, 0.01, 0.05, 0.1, 0.5):
            yield "share_interval", f"true share {share:g}, n = {n}", of_share(share, n)
    rng = np.random.default_rng(0)
    for n in (3, 5, 10, 25, 50):
        samples = rng.normal(0, 1, (4 * BOOTSTRAPS, n))
        yield "bootstrap_interval", f"normal, n = {n}", of_bootstrap(samples)


def _crossed_rows() -> Iterator[tuple[str, str, float]]:
    rng = np.random.default_rng(0)
    for seeds, items in ((3, 24), (5, 24), (5, 100), (10, 24), (10, 100), (20, 100)):
        size = f"{seeds} × {items}"
        for name, effects in EFFECTS.items():
            samples = crossed(effects, seeds, items, rng, CROSSED_SAMPLES)
            what = f"{name}, {size}"
            yield "paired_difference", what, of_crossed(samples)
            yield "(t over the seeds' means)", what, of_seed_means(samples)
            yield "(two-way bootstrap)", what, of_bootstrap(samples[:BOOTSTRAPS])
        answers = right_or_wrong(seeds, items, rng, CROSSED_SAMPLES)
        yield "paired_difference", f"right or wrong, {size}", of_crossed(answers)


def main() -> None:
    print("| interval at 95% | of | holds the truth |")
    print("|---|---|---|")
    for interval, of_what, coverage in rows():
        print(f"| {interval} | {of_what} | {100 * coverage:.1f}% |", flush=True)


if __name__ == "__main__":
    main()
