"""Intervals over runs and questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def percent(self) -> str:
        return f"{100 * self.mean:.0f}% [{100 * self.low:.0f}, {100 * self.high:.0f}]"

    def excludes(self, value: float) -> bool:
        """Whether the interval leaves `value` out: a difference "beyond chance" leaves out 0."""
        return not self.low <= value <= self.high


def bootstrap_interval(
    values: Sequence, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Mean and percentile bootstrap interval (Efron 1979).

    One dimension: values, one a seed or one an example. Two dimensions (seeds, examples): both are
    resampled, so the interval holds the chance in the runs and in the questions. With fewer than
    five seeds it is too narrow rather than too wide; read it as the spread seen.
    """
    array = np.atleast_1d(np.asarray(values, dtype=float))
    if not np.isfinite(array).all():  # an interval of NaN would "exclude" every value
        raise ValueError("values hold NaN or infinity: a run diverged, or a score is missing")
    if array.size == 0 or array.ndim > 2 or not 0 < level < 1:
        raise ValueError(
            f"values of shape {array.shape}, level={level}: pass one or two dimensions, not "
            "empty, and 0 < level < 1"
        )
    means = _resampled_means(array, draws, np.random.default_rng(seed))  # (draws,)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(array.mean()), float(low), float(high))


def _resampled_means(array: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Means of `draws` samples, each drawn with replacement along every dimension."""
    count = array.shape[0]
    rows = rng.integers(0, count, (draws, count))  # (draws, count)
    if array.ndim == 1:
        return array[rows].mean(1)
    width = array.shape[1]
    columns = rng.integers(0, width, (draws, width))  # (draws, width)
    means = np.empty(draws)
    for draw in range(draws):
        sample = array[np.ix_(rows[draw], columns[draw])]  # (count, width)
        means[draw] = sample.mean()
    return means


def paired_difference(a: Sequence, b: Sequence, **options: Any) -> Interval:
    """Interval of mean(a − b) where a and b share seeds (and examples).

    Pairing takes their common noise out.
    """
    first = np.asarray(a, dtype=float)
    second = np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise ValueError(
            f"a has shape {first.shape}, b {second.shape}: pairs need the same seeds and examples"
        )
    return bootstrap_interval(first - second, **options)
