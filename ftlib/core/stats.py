"""Intervals over runs and questions, and what several comparisons at once do to a p value.

Which one: a few runs, `mean_interval`; two methods on the same seeds, `paired_difference`; a share
of questions, `share_interval`; where one further run will fall, `prediction_interval`; many values
of any distribution, `bootstrap_interval`. `python -m tests.core.coverage_table` prints how often
each holds the truth.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike

from ftlib.core.checks import check_positive_integer

# Below, the percentile bootstrap of a mean is too narrow: of nominal 95% it holds the mean of
# normal values 75 times in 100 at 3 values, 84 at 5, 90 at 10, 93 at 25.
FEWEST_FOR_BOOTSTRAP = 25
# Spread below this share of the largest value is rounding: 0.3 - 0.2 and 0.4 - 0.3 differ by 6e-17.
ROUNDING = 1e-10
# In print, a number below this share of the largest beside it is what fp32 has left of 0.
SHOWN_AS_ZERO = 1e-6


@dataclass(frozen=True)
class Interval:
    """A mean (a share, a mean difference) with the bounds of its interval, all in the unit of the
    values.

    Two intervals are equal if mean and bounds are. What a verdict needs besides is there where the
    function that made the interval knows it: `level`; `runs`, the number of independent runs;
    `p_value` and `test`, of the hypothesis that the mean is 0, and the name of the test.
    """

    mean: float
    low: float
    high: float
    level: float | None = field(default=None, compare=False)
    runs: int | None = field(default=None, compare=False)
    p_value: float | None = field(default=None, compare=False)
    test: str = field(default="", compare=False)

    def __str__(self) -> str:
        """Mean [low, high], three digits each; what is a rounding error beside the others is 0."""
        largest = max(abs(self.mean), abs(self.low), abs(self.high))
        numbers = []
        for value in (self.mean, self.low, self.high):
            nothing = abs(value) < SHOWN_AS_ZERO * largest
            numbers.append("0" if nothing else f"{value:.3g}")
        mean, low, high = numbers
        return f"{mean} [{low}, {high}]"

    def percent(self) -> str:
        return f"{100 * self.mean:z.0f}% [{100 * self.low:z.0f}, {100 * self.high:z.0f}]"

    def as_share(self) -> str:
        """As `percent`, of a share, whose bounds end at 0% and 100%: Student's interval does not
        know that a share lies in [0, 1]. Not for a difference of shares.
        """
        low = max(0.0, self.low)
        high = min(1.0, self.high)
        return Interval(self.mean, low, high).percent()

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the bounds: 0 for a difference, 0.5 for a win rate."""
        return not self.low <= value <= self.high


# --- runs -----------------------------------------------------------------------------------------
def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The mean of a few runs with Student's interval: ``mean ± t·s/√n``.

    s is the standard deviation with n - 1 in its denominator and t the quantile of Student's
    distribution with n - 1 degrees of freedom (Student 1908, "The probable error of a mean",
    Biometrika 6). At n = 3 t is 4.30, at 5 2.78, at 10 2.26: few runs pay with width, not with
    false certainty.

    `values`: one number per run, (n,), n of at least 2; or (seeds, items), items such as questions,
    where the interval holds the chance in both, by the formula of `paired_difference`. Mean and
    bounds have the unit of the values.

    The coverage is exact for normal values and close to it for symmetric ones. For skewed ones it
    falls short: at n = 5 a nominal 95% is 93% for a gamma distribution of skewness 1, 88% for an
    exponential one (skewness 2), 82% for a log-normal one (skewness 6). Take logarithms of such
    values, or compare paired differences, whose skewness mostly cancels. Values that are all equal
    have an interval without width, which says that no spread was seen, not that there is none; for
    shares of questions see `share_interval`.

    ValueError: fewer than two values, NaN or infinity among them, more than two dimensions, a level
    outside (0, 1).
    """
    array = _numbers("values", values)
    _check_level(level)
    return _of_runs("values", array, level, "t test")


def prediction_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Where one further run will fall: ``mean ± t·s·√(1 + 1/n)``, t with n - 1 degrees of freedom.

    The interval of the mean shrinks with more runs, this one does not shrink below the spread of
    the runs themselves: of 100 further runs, each after n new ones, about 95 fall inside. Hold a
    single run against it, such as one's own against recorded ones. It rests on normal runs more
    than an interval of the mean does (Hahn and Meeker 1991, Statistical Intervals, chapter 4).

    `values`: one number per run, (n,), n of at least 2. Units and errors as in `mean_interval`.
    """
    array = _numbers("values", values)
    _check_level(level)
    if array.ndim != 1:
        raise ValueError(f"values: shape {array.shape}; pass one number per run, (runs,)")
    _check_runs("values", array)
    mean, low, high = _prediction_bounds(array, level)
    return Interval(float(mean), float(low), float(high), level, len(array))


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """The mean of a - b where both were measured on the same seeds, or on the same seeds and items.

    Pairing takes the noise out that both share: the seed's order of the data, a hard question.

    One dimension, (n,), one number per seed: Student's interval of the differences d = a - b,
    ``mean(d) ± t·s_d/√n`` with n - 1 degrees of freedom (the paired t test).

    Two dimensions, (seeds, items), items such as questions: both are samples, and the mean
    difference would be another with other seeds, and with other items. With n seeds, m items and

        MS_seeds = m·Σ(d̄_i. - d̄)²/(n-1),  MS_items = n·Σ(d̄_.j - d̄)²/(m-1),
        MS_rest = Σ(d_ij - d̄_i. - d̄_.j + d̄)²/((n-1)(m-1))

    the variance of d̄ is estimated by (MS_seeds + MS_items - MS_rest)/(nm), and t has
    Satterthwaite's degrees of freedom (1946, Biometrics Bulletin 2). Where one of the two does not
    vary beyond the rest, its part is 0 and the other's is left: without an effect of items this is
    the t interval over the seeds' means.

    Why not resample both, the two-way bootstrap (McCullagh 2000, Bernoulli 6; Owen 2007, "The
    pigeonhole bootstrap", Annals of Applied Statistics 1)? It aims at the same variance, but its
    percentiles know nothing of the few seeds: where seeds differ as much as single answers do, its
    95% are 87% with 5 seeds, 91% with 10 and 93% with 20. Why not t over the seeds' means always?
    It leaves out the chance in the items, which all seeds share: where 24 items differ as much as
    single answers do and seeds hardly, its 95% are 84% with 5 seeds and 70% with 10. The interval
    here holds 94% to 98% from 5 seeds on, 92% to 98% with 3, in all the cases that
    `python -m tests.core.coverage_table` simulates: normal effects of seeds, items, both or
    neither, and right or wrong answers.

    `runs` of the interval is the number of seeds. Results have the unit of a. ValueError: unequal
    shapes, fewer than two seeds, more than two dimensions, NaN or infinity, a level outside (0, 1).
    """
    first = _numbers("a", a)
    second = _numbers("b", b)
    _check_level(level)
    if first.shape != second.shape:
        raise ValueError(
            f"a has shape {first.shape}, b {second.shape}: pairs need the same seeds and examples, "
            "in the same order"
        )
    differences = _without_rounding(first - second, first, second)
    return _of_runs("a and b", differences, level, "paired t test")


def interval_of(values: ArrayLike, level: float = 0.95) -> Interval:
    """`mean_interval`, and for a single value, which shows no spread, bounds at infinity."""
    array = _numbers("values", values)
    if array.shape == (1,):
        _check_level(level)
        return Interval(float(array[0]), -math.inf, math.inf, level)
    return mean_interval(array, level)


def _of_runs(name: str, array: np.ndarray, level: float, test: str) -> Interval:
    """The interval of the mean of (n,) or (seeds, items); `name` is for errors."""
    _check_runs(name, array)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]  # one item: it cannot vary
    if array.ndim == 1:
        return _interval(array, *_standard_error(array), level, test)
    return _interval(array, *_crossed_error(array), level, f"{test} over seeds and items")


def _interval(array: np.ndarray, error, freedom, level: float, test: str) -> Interval:
    """mean ± t·error, with the p value of the mean's being 0; `array` (seeds, …)."""
    mean, low, high = _bounds(array.mean(), error, freedom, level)
    runs = len(array)
    if error > 0:
        p_value = _two_sided_p(mean / error, freedom)
    else:
        # No spread, so no t. All runs agree in sign, which for n fair coins happens twice in 2^n.
        test = "sign test, as all runs differ by the same"
        p_value = 1.0 if mean == 0 else 2 * 0.5**runs
    return Interval(float(mean), float(low), float(high), level, runs, float(p_value), test)


# The arithmetic, over the last dimension or the last two: the tests try thousands of samples.
def _standard_error(samples: np.ndarray) -> tuple[np.ndarray, int]:
    """s/√n and the degrees of freedom, of samples (…, n)."""
    n = samples.shape[-1]
    return _spread(samples) / math.sqrt(n), n - 1


def _spread(samples: np.ndarray) -> np.ndarray:
    """The standard deviation of samples (…, n), 0 where it is rounding."""
    deviation = samples.std(-1, ddof=1)
    largest = np.abs(samples).max(-1)
    return np.where(deviation <= ROUNDING * largest, 0.0, deviation)


def _prediction_bounds(samples: np.ndarray, level: float):
    """mean, low and high of `prediction_interval`, of samples (…, n)."""
    n = samples.shape[-1]
    error = _spread(samples) * math.sqrt(1 + 1 / n)
    return _bounds(samples.mean(-1), error, n - 1, level)


def _bounds(mean, error, freedom, level: float):
    """mean, mean - t·error, mean + t·error."""
    from scipy.special import stdtrit  # half a second, and no other part of the library needs it

    t = stdtrit(freedom, (1 + level) / 2)
    return mean, mean - t * error, mean + t * error


def _two_sided_p(t, freedom):
    """How often |t| is at least as large where the mean is 0."""
    from scipy.special import stdtr

    return 2 * stdtr(freedom, -np.abs(t))


def _crossed_error(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The standard error of the mean of samples (…, seeds, items), both random, and its degrees of
    freedom: see `paired_difference`.
    """
    n, m = samples.shape[-2:]
    by_seed = samples.mean(-1, keepdims=True)  # (…, n, 1)
    by_item = samples.mean(-2, keepdims=True)  # (…, 1, m)
    mean = samples.mean((-2, -1), keepdims=True)
    rest = samples - by_seed - by_item + mean
    of_seeds = m * ((by_seed - mean) ** 2).sum((-2, -1)) / (n - 1)
    of_items = n * ((by_item - mean) ** 2).sum((-2, -1)) / (m - 1)
    of_rest = (rest**2).sum((-2, -1)) / ((n - 1) * (m - 1))
    total = of_seeds + of_items - of_rest
    weights = of_seeds**2 / (n - 1) + of_items**2 / (m - 1) + of_rest**2 / ((n - 1) * (m - 1))
    freedom = np.maximum(total**2 / np.maximum(weights, 1e-300), min(n, m) - 1)
    # Where one of them does not vary beyond the rest, the wider of the two t intervals.
    alone = np.minimum(of_seeds, of_items) <= of_rest
    seeds_lead = of_seeds >= of_items
    total = np.where(alone, np.maximum(of_seeds, of_items), total)
    freedom = np.where(alone, np.where(seeds_lead, n - 1, m - 1), freedom)
    error = np.sqrt(total / (n * m))
    largest = np.abs(samples).max((-2, -1))
    return np.where(error <= ROUNDING * largest, 0.0, error), freedom


# --- shares ---------------------------------------------------------------------------------------
def share_interval(successes: float, n: int, level: float = 0.95) -> Interval:
    """The share of n independent questions that were right, with Wilson's interval.

        (p + z²/2n ± z·√(p(1-p)/n + z²/4n²)) / (1 + z²/n),  p = successes/n

    with z the normal quantile (Wilson 1927, "Probable inference", JASA 22). It stays inside [0, 1],
    and 0 of 24 is [0, 14%] where a bootstrap says [0, 0]. The coverage moves around the nominal
    one, because successes are whole: at 95% and n from 24 to 1,000 it is 92% or more for true
    shares from 0.05 to 0.95, and not below 83% anywhere.

    A half point for a tie may be among the `successes`, as win rates count them: p(1-p) is the
    largest variance that scores between 0 and 1 can have, so the interval then is too wide rather
    than too narrow. The questions must be independent, and one run's: for several runs over the
    same questions see `paired_difference`, or `mean_interval` over the runs' shares.

    ValueError: n not a whole number of at least 1, successes below 0 or above n, a level outside
    (0, 1).
    """
    from scipy.special import ndtri

    n = check_positive_integer("n", n, hint="the number of questions")
    _check_level(level)
    is_number = isinstance(successes, Real) and not isinstance(successes, bool)
    if not is_number or not 0 <= successes <= n:
        raise ValueError(f"successes={successes!r} of n={n}: must be a number from 0 to n")
    z = float(ndtri((1 + level) / 2))
    share = successes / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    low = middle - half if successes > 0 else 0.0  # exactly, whatever rounding says
    high = middle + half if successes < n else 1.0
    return Interval(float(share), low, high, level)


# --- several comparisons --------------------------------------------------------------------------
def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given (Holm 1979, Scandinavian Journal of Statistics
    6): with p_(1) ≤ … ≤ p_(m), ``max over j ≤ i of min(1, (m - j + 1)·p_(j))``.

    Of m comparisons without any effect one has p ≤ 0.05 by chance with probability 1 - 0.95^m, 23%
    for five. Judged by the adjusted values that stays at 5% for all of them together, whatever
    their dependence; it never rejects less than Bonferroni's m·p.

    ValueError: none given, or one that is NaN or outside [0, 1].
    """
    array = _numbers("p_values", p_values)
    if array.ndim != 1 or not ((array >= 0) & (array <= 1)).all():
        raise ValueError(
            f"p_values={p_values!r}: pass a list of probabilities from 0 to 1, one a comparison"
        )
    count = len(array)
    adjusted = np.empty(count)
    largest = 0.0
    for rank, i in enumerate(np.argsort(array, kind="stable")):
        largest = max(largest, min(1.0, (count - rank) * array[i]))
        adjusted[i] = largest
    return adjusted.tolist()


# --- many values ----------------------------------------------------------------------------------
def bootstrap_interval(
    values: ArrayLike, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Mean and percentile bootstrap interval (Efron 1979, "Bootstrap methods: another look at the
    jackknife", Annals of Statistics 7), for many values of any distribution.

    One dimension, (n,): values, such as one an example. Two dimensions, (seeds, examples): both are
    resampled (Owen 2007; see `paired_difference`), so the interval holds the chance in both.

    Below FEWEST_FOR_BOOTSTRAP values, or seeds, it is too narrow, and a UserWarning says so: that
    of three values is their range, which leaves 0 out whenever three signs agree, for no effect at
    all one time in four. There use `mean_interval`, `paired_difference` or `share_interval`.

    ValueError: no values, NaN or infinity, more than two dimensions, a level outside (0, 1).
    """
    array = np.atleast_1d(_numbers("values", values))
    if array.ndim > 2:
        raise ValueError(
            f"values: shape {array.shape}; pass one or two dimensions, (n,) or (seeds, examples)"
        )
    _check_level(level)
    if len(array) < FEWEST_FOR_BOOTSTRAP:
        warnings.warn(
            f"bootstrap_interval of {len(array)} values is too narrow; it needs "
            f"{FEWEST_FOR_BOOTSTRAP}: use mean_interval or paired_difference for runs, "
            "share_interval for shares",
            stacklevel=2,
        )
    means = _resampled_means(array, draws, np.random.default_rng(seed))  # (draws,)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(array.mean()), float(low), float(high), level)


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


# --- arguments ------------------------------------------------------------------------------------
def _numbers(name: str, values) -> np.ndarray:
    """The values as finite float64, at least one; ValueError names the first that is not finite: an
    interval of NaN would "exclude" every value.
    """
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be read as numbers of equal shape: {error}") from error
    if array.size == 0:
        raise ValueError(f"{name}: shape {array.shape}; pass at least one value")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = ", ".join(str(i) for i in bad[0])
        value = array[tuple(bad[0])]
        raise ValueError(
            f"{name}[{place}] is {value}: a run diverged, or a score is missing; find out why, or "
            "leave it out and say so"
        )
    return array


def _check_level(level) -> None:
    is_number = isinstance(level, Real) and not isinstance(level, bool)
    if not is_number or not 0 < level < 1:
        raise ValueError(f"level={level!r}: must be between 0 and 1, such as 0.95")


def _check_runs(name: str, array: np.ndarray) -> None:
    """(n,) or (seeds, items) with at least two runs."""
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{name}: shape {array.shape}; pass one number per run, (runs,), or (seeds, items)"
        )
    if len(array) < 2:
        raise ValueError(
            f"{name}: {len(array)} run in shape {array.shape}; an interval needs two at least and "
            "a verdict five (the items of one run go into one dimension)"
        )


def _without_rounding(differences: np.ndarray, *values: np.ndarray) -> np.ndarray:
    """The differences, 0 where nothing but rounding is left of the values."""
    largest = np.maximum(*(np.abs(value) for value in values))
    return np.where(np.abs(differences) <= ROUNDING * largest, 0.0, differences)
