"""Intervals by hand and against scipy; what is refused; Holm's correction. How often they hold the
truth is in test_coverage.py.
"""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

import ftlib as ft
from ftlib.core.stats import FEWEST_FOR_BOOTSTRAP, Interval, interval_of

# With two degrees of freedom Student's quantile has a closed form: (2p - 1)/√(2p(1 - p)).
T_2 = 0.95 / math.sqrt(2 * 0.975 * 0.025)  # 4.3027
# What bootstrap_interval says of few values; the tests that want it say so.
pytestmark = pytest.mark.filterwarnings("ignore:bootstrap_interval of")


# --- the mean of runs -----------------------------------------------------------------------------
def test_the_interval_of_a_mean_by_hand():
    """1, 2, 3: mean 2, s = 1, so 2 ± 4.3027/√3 = 2 ± 2.484."""
    found = ft.mean_interval([1, 2, 3])
    assert found.mean == 2
    assert (found.low, found.high) == pytest.approx((2 - T_2 / 3**0.5, 2 + T_2 / 3**0.5), rel=1e-9)
    assert (found.runs, found.level) == (3, 0.95)


def test_the_interval_of_two_runs_by_hand():
    """t with 1 degree of freedom at 97.5% is tan(0.475π), Cauchy's distribution: 12.7."""
    found = ft.mean_interval([0, 2])  # mean 1, s/√2 = 1
    assert found.high - 1 == pytest.approx(math.tan(0.475 * math.pi), rel=1e-9)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_the_interval_of_a_mean_is_scipys(level):
    values = np.random.default_rng(0).normal(0.3, 1, 7)
    test = scipy_stats.ttest_1samp(values, 0)
    wanted = test.confidence_interval(level)
    found = ft.mean_interval(values, level)
    assert (found.low, found.high, found.p_value) == pytest.approx((*wanted, test.pvalue), rel=1e-9)
    assert found.excludes(0) == (found.p_value < 1 - level)


def test_one_further_run_by_hand():
    """1, 2, 3: 2 ± 4.3027·√(1 + 1/3) = 2 ± 4.968."""
    found = ft.prediction_interval([1, 2, 3])
    half = T_2 * (4 / 3) ** 0.5
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half), rel=1e-9)
    assert found.p_value is None  # nothing is tested


# --- pairs ----------------------------------------------------------------------------------------
def test_pairs_are_scipys_paired_t_test():
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, 6)
    b = a + rng.normal(0.1, 0.1, 6)
    test = scipy_stats.ttest_rel(a, b)
    wanted = test.confidence_interval(0.95)
    found = ft.paired_difference(a, b)
    assert (found.low, found.high, found.p_value) == pytest.approx((*wanted, test.pvalue), rel=1e-9)
    assert (found.runs, found.test) == (6, "paired t test")


def test_paired_difference_takes_the_common_noise_out():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 10, 20)
    paired = ft.paired_difference(noise + 1, noise + rng.normal(0, 0.1, 20))
    assert paired.excludes(0) and not paired.excludes(1) and paired.high - paired.low < 0.2
    assert not ft.mean_interval(noise + 1).excludes(0)


def test_seeds_and_items_by_hand():
    """Differences (1, 2), (3, 6): the mean is 3, seeds' means 1.5 and 4.5, items' 2 and 4.
    MS_seeds = 2·(1.5² + 1.5²)/1 = 9, MS_items = 2·(1 + 1)/1 = 4, each rest is ±0.5, MS_rest = 1.
    Together 12, the variance of the mean 12/4 = 3, degrees of freedom 12²/(9² + 4² + 1²) = 144/98.
    """
    differences = np.array([[1.0, 2.0], [3.0, 6.0]])
    found = ft.paired_difference(differences, np.zeros((2, 2)))
    half = scipy_stats.t.ppf(0.975, 144 / 98) * 3**0.5
    p_value = 2 * scipy_stats.t.sf(3 / 3**0.5, 144 / 98)
    assert (found.mean, found.low, found.high) == pytest.approx((3, 3 - half, 3 + half), rel=1e-9)
    assert found.p_value == pytest.approx(p_value, rel=1e-9)
    assert (found.runs, found.test) == (2, "paired t test over seeds and items")
    assert ft.mean_interval(differences) == found


def test_where_one_of_them_does_not_vary_the_other_is_left():
    """Items alike in every seed: t over the seeds' means; seeds alike: t over the items' means."""
    values = np.random.default_rng(0).normal(1, 1, 5)
    by_seed = np.repeat(values[:, None], 8, 1)  # (5, 8)
    found = ft.mean_interval(by_seed)
    wanted = ft.mean_interval(values)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    found = ft.mean_interval(by_seed.T)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.runs == 8
    assert ft.mean_interval(values[:, None]) == wanted  # one item


def test_no_item_varies_beyond_the_rest():
    """(1, -1), (-1, 1), (3, 1): the mean is 2/3, the seeds' means 0, 0, 2, the items' 1 and 1/3.
    MS_seeds = 2·(4/9 + 4/9 + 16/9)/2 = 24/9 and MS_items = 3·(1/9 + 1/9)/1 = 6/9. The rests are
    ±2/3, ∓4/3, ±2/3, so MS_rest = 2·(4/9 + 16/9 + 4/9)/2 = 24/9, more than MS_items. What is left
    is t over 0, 0, 2.
    """
    found = ft.mean_interval([[1, -1], [-1, 1], [3, 1]])
    wanted = ft.mean_interval([0, 0, 2])
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_items_make_the_interval_wider_than_the_seeds_means_do():
    rng = np.random.default_rng(0)
    by_item = rng.normal(0, 1, (1, 30))
    values = 0.1 * rng.normal(0, 1, (6, 1)) + by_item
    both = ft.mean_interval(values)
    of_seeds = ft.mean_interval(values.mean(1))
    assert both.high - both.low > 3 * (of_seeds.high - of_seeds.low)


# --- no spread ------------------------------------------------------------------------------------
def test_runs_that_all_agree():
    """No spread, no t: the sign test, 2·(1/2)^n. Rounding is no spread."""
    same = ft.paired_difference([0.1, 0.2, 0.7], [0.1, 0.2, 0.7])
    assert (same.mean, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    a = np.array([0.3, 0.4, 0.5, 0.6, 0.7])
    shifted = ft.paired_difference(a, a - 0.1)
    assert shifted.low == shifted.high == pytest.approx(0.1)
    assert shifted.p_value == 2 / 32 and "sign test" in shifted.test
    items = ft.paired_difference(np.full((6, 4), 0.3), np.full((6, 4), 0.1))
    assert items.p_value == 2 / 64 and items.low == items.high
    rounded = ft.paired_difference([0.1 + 0.2, 0.3], [0.3, 0.3])
    assert (rounded.mean, rounded.p_value) == (0, 1)


# --- shares ---------------------------------------------------------------------------------------
def test_no_success_of_24_by_hand():
    """p = 0: (z²/2n + z·√(z²/4n²))/(1 + z²/n) = z²/(n + z²) = 3.8415/27.8415 = 13.8%."""
    found = ft.share_interval(0, 24)
    assert (found.mean, found.low) == (0, 0) and not found.excludes(0)
    assert found.high == pytest.approx(3.8415 / 27.8415, abs=1e-5)
    assert found.percent() == "0% [0, 14]"
    every = ft.share_interval(24, 24)
    assert every.high == 1 and every.low == pytest.approx(1 - found.high)


@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_shares_are_scipys(n, part, level):
    successes = round(part * n)
    wanted = scipy_stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    found = ft.share_interval(successes, n, level)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_a_tie_counts_one_half():
    """4.5 of 9 is 1/2 as 5 of 10 is, of fewer."""
    found = ft.share_interval(4.5, 9)
    assert found.mean == 0.5 and found.low == pytest.approx(1 - found.high)
    assert found.low < ft.share_interval(5, 10).low


# --- several comparisons --------------------------------------------------------------------------
def test_holm_by_hand():
    """Sorted 0.01, 0.03, 0.04: 3·0.01 = 0.03, 2·0.03 = 0.06, 1·0.04, raised to 0.06."""
    assert ft.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert ft.holm([0.2]) == [0.2]
    assert ft.holm([0.9, 0.5]) == [1, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_single_values_and_bonferroni(p_values):
    adjusted = ft.holm(p_values)
    for single, held in zip(p_values, adjusted, strict=True):
        assert single <= held <= min(1, len(p_values) * single) + 1e-12
    by_single = [adjusted[i] for i in np.argsort(p_values, kind="stable")]
    assert by_single == sorted(by_single)


def test_holm_keeps_five_percent_for_all_comparisons_together():
    """Five without an effect: one or more below 0.05 in 1 - 0.95⁵ = 23% of 2,000 families, in 5% by
    Holm (standard error 0.5 points).
    """
    families = np.random.default_rng(0).uniform(0, 1, (2000, 5))
    lowest = [min(ft.holm(family)) for family in families]
    assert (families.min(1) <= 0.05).mean() == pytest.approx(0.226, abs=0.03)
    assert np.mean(np.array(lowest) <= 0.05) == pytest.approx(0.05, abs=0.015)


# --- many values ----------------------------------------------------------------------------------
def test_the_bootstrap_interval_covers():
    """Of 300 intervals at 90% over 40 draws each, about 270 hold the true mean: within 3.5 standard
    deviations (5.2).
    """
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        interval = ft.bootstrap_interval(rng.normal(3, 2, 40), level=0.9, draws=400)
        hits += not interval.excludes(3)
    assert 252 <= hits <= 288


def test_two_dimensions_hold_the_chance_of_seeds_and_of_questions():
    """Seeds that differ by ±1 and questions that differ by ±1: the interval is wider than for
    either alone.
    """
    rng = np.random.default_rng(0)
    seeds, questions = rng.normal(0, 1, (6, 1)), rng.normal(0, 1, (1, 30))

    def width(i):
        return i.high - i.low

    both = width(ft.bootstrap_interval(seeds + questions))
    assert both > width(ft.bootstrap_interval(seeds[:, 0]))
    assert both > 1.2 * width(ft.bootstrap_interval(questions[0]))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_the_bootstrap_interval_holds_its_mean_and_stays_within_the_values(values):
    i = ft.bootstrap_interval(values, draws=200)
    assert i.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert min(values) - 1e-9 <= i.low <= i.high <= max(values) + 1e-9


def test_few_values_are_too_few_to_resample():
    few = np.arange(FEWEST_FOR_BOOTSTRAP - 1)
    with pytest.warns(UserWarning, match="24 values is too narrow; it needs 25: use mean_interval"):
        ft.bootstrap_interval(few)
    with pytest.warns(UserWarning, match="3 values is too narrow"):
        ft.bootstrap_interval(np.zeros((3, 100)))  # seeds, not answers
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ft.bootstrap_interval(np.arange(FEWEST_FOR_BOOTSTRAP))


# --- intervals ------------------------------------------------------------------------------------
def test_same_values_same_interval_and_text():
    assert ft.bootstrap_interval([1, 2, 4]) == ft.bootstrap_interval([1, 2, 4])
    found = Interval(0.5, 0.25, 0.75)
    assert (str(found), found.percent()) == ("0.5 [0.25, 0.75]", "50% [25, 75]")
    assert Interval(0.0, -0.001, 0.001).percent() == "0% [0, 0]"  # not -0
    assert str(Interval(2e-8, -0.279, 0.279)) == "0 [-0.279, 0.279]"  # what fp32 leaves of 0
    assert str(Interval(2e-3, -0.279, 0.279)) == "0.002 [-0.279, 0.279]"
    assert str(Interval(3e-9, 1e-9, 5e-9)) == "3e-09 [1e-09, 5e-09]"
    assert found.excludes(0.2) and not found.excludes(0.25)
    assert found == Interval(0.5, 0.25, 0.75, runs=5, level=0.95)


def test_the_bounds_of_a_share_end_at_nought_and_at_a_hundred_percent():
    """0.9, 1 and 1: mean 29/30, s = 1/√300 = 0.0577, t of two degrees of freedom 4.303, so that
    the bounds are 0.967 ± 4.303 · 0.0577/√3 = 0.967 ± 0.143. `percent` stays as it is.
    """
    high = ft.mean_interval([0.9, 1.0, 1.0])
    assert (high.percent(), high.as_share()) == ("97% [82, 111]", "97% [82, 100]")
    low = ft.mean_interval([0.1, 0.0, 0.0])
    assert (low.percent(), low.as_share()) == ("3% [-11, 18]", "3% [0, 18]")
    assert high.high > 1  # the interval itself is as it was
    assert Interval(0.4, 0.3, 0.5).as_share() == "40% [30, 50]"


def test_a_single_value_shows_no_spread():
    found = interval_of([3])
    assert (found.mean, found.low, found.high) == (3, -math.inf, math.inf)
    assert interval_of([1, 2, 3]) == ft.mean_interval([1, 2, 3])


# --- what is refused ------------------------------------------------------------------------------
def in_pairs(values, **options):
    return ft.paired_difference(values, values, **options)


RUNS = [ft.mean_interval, ft.prediction_interval, in_pairs]


@pytest.mark.parametrize("function", RUNS)
@pytest.mark.parametrize("values", [[1], [[1, 2, 3]]])
def test_one_run_is_refused(function, values):
    with pytest.raises(ValueError, match=r"1 run in shape .* needs two at least|pass one number"):
        function(values)


@pytest.mark.parametrize("function", [*RUNS, ft.bootstrap_interval])
@pytest.mark.parametrize("level", [0, 1.0, 95, -0.1, float("nan"), True, "0.9", None])
def test_levels(function, level):
    with pytest.raises(ValueError, match=r"level=.*: must be between 0 and 1"):
        function([1, 2, 3], level=level)
    with pytest.raises(ValueError, match=r"level="):
        ft.share_interval(1, 2, level=level)


@pytest.mark.parametrize("function", [*RUNS, ft.bootstrap_interval])
@pytest.mark.parametrize(
    "values", [[], np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((2, 2, 2)), 3.0]
)
def test_shapes(function, values):
    if function is ft.bootstrap_interval and np.shape(values) == ():
        assert function(values).mean == 3  # a number, as ever
        return
    with pytest.raises(ValueError, match=r"shape \(.*\); pass"):
        function(values)


@pytest.mark.parametrize("values", [["a", 1], [[1, 2], [3]], [1, None, {}]])
def test_what_is_no_number(values):
    with pytest.raises(ValueError, match="values cannot be read as numbers of equal shape"):
        ft.mean_interval(values)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_run_is_named(bad):
    """An interval of NaN would "exclude" zero, as every comparison with NaN is false."""
    with pytest.raises(ValueError, match=r"a\[1\] is (nan|inf): a run diverged"):
        ft.paired_difference([1.0, bad], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"b\[0, 1\] is (nan|inf): a run diverged"):
        ft.paired_difference([[1.0, 1.0]], [[1.0, bad]])
    with pytest.raises(ValueError, match=r"values\[2\]"):
        ft.prediction_interval([1, 2, bad])


def test_pairs_must_match():
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        ft.paired_difference([1, 2], [1, 2, 3])


@pytest.mark.parametrize("successes", [-1, 25, float("nan"), "3", True, None])
def test_successes(successes):
    with pytest.raises(ValueError, match=r"successes=.* of n=24: must be a number from 0 to n"):
        ft.share_interval(successes, 24)


@pytest.mark.parametrize("n", [0, -3, 2.5, True, None])
def test_numbers_of_questions(n):
    with pytest.raises(ValueError, match=r"n=.*: must be a whole number of at least 1"):
        ft.share_interval(0, n)


@pytest.mark.parametrize("p_values", [[], [0.1, 1.2], [-0.1], [float("nan")], [[0.1]], 0.3])
def test_p_values(p_values):
    with pytest.raises(ValueError, match="p_values"):
        ft.holm(p_values)
