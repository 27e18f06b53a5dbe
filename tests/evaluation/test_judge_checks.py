"""Judges judged: kappa by hand, position bias of judges that have one, a length-controlled win rate
where the truth is known.
"""

import math

import numpy as np
import pytest

import ftlib as ft


# --- kappa ----------------------------------------------------------------------------------------
def cases(table) -> tuple[list, list]:
    """Two judges' categories, `table[i][j]` cases of category i by a and j by b."""
    a, b = [], []
    for i, row in enumerate(table):
        for j, count in enumerate(row):
            a += [i] * count
            b += [j] * count
    return a, b


def test_kappa_by_hand():
    """Of 50 cases 20 yes and 15 no by both, 5 yes by a alone, 10 by b alone: p_o = 35/50 = 0.7; a
    says yes in 25 of 50, b in 30: p_e = 0.5·0.6 + 0.5·0.4 = 0.5; κ = 0.2/0.5 = 0.4.

    With 1 - κ = 0.6 and 1 - p_e = 0.5: g = (1 - 0.6·(0.6 + 0.5))/0.5 = 0.68 for yes and yes,
    (1 - 0.6·(0.4 + 0.5))/0.5 = 0.92 for no and no, -0.6·(0.6 + 0.5)/0.5 = -1.32 for a's yes and
    b's no, -0.6·(0.4 + 0.5)/0.5 = -1.08 for the last. Their mean is 0.4·0.68 + 0.3·0.92 - 0.1·1.32
    - 0.2·1.08 = 0.2, their mean square 0.18496 + 0.25392 + 0.17424 + 0.23328 = 0.8464, the variance
    (0.8464 - 0.04)/50.
    """
    found = ft.cohens_kappa(*cases([[20, 5], [10, 15]]))
    assert found.mean == pytest.approx(0.4)
    half = 1.959964 * math.sqrt((0.8464 - 0.04) / 50)
    assert (found.low, found.high) == pytest.approx((0.4 - half, 0.4 + half), abs=1e-6)


def test_kappa_of_full_agreement_chance_and_opposites():
    """Categories are any values: verdicts, words. Independent judges: table = margins' product."""
    same = ft.cohens_kappa(["A", "B", "tie", "A"], ["A", "B", "tie", "A"])
    assert same.mean == same.low == same.high == 1
    assert ft.cohens_kappa(*cases([[12, 28], [18, 42]])).mean == pytest.approx(0, abs=1e-12)
    assert ft.cohens_kappa([1, 0, 1, 0], [0, 1, 0, 1]).mean == pytest.approx(-1)


def test_kappas_interval_holds_the_truth():
    """True shares 0.4, 0.1, 0.2, 0.3 (κ = 0.4): of 400 samples of 150 cases, 95% ± 2.2% (two
    standard errors) hold it.
    """
    rng = np.random.default_rng(0)
    held = 0
    for counts in rng.multinomial(150, [0.4, 0.1, 0.2, 0.3], 400):
        table = counts.reshape(2, 2)
        found = ft.cohens_kappa(*cases(table))
        held += found.low <= 0.4 <= found.high
    assert 0.92 <= held / 400 <= 0.98


@pytest.mark.parametrize(
    "a, b, words",
    [
        ([1], [1, 0], "a has 1 cases, b 2"),
        ([], [], "a has 0 cases"),
        ([1, 1], [1, 1], "agreement is certain"),
    ],
)
def test_kappa_of_bad_input(a, b, words):
    with pytest.raises(ValueError, match=words):
        ft.cohens_kappa(a, b)


def test_the_level_of_kappa():
    a, b = cases([[20, 5], [10, 15]])
    assert ft.cohens_kappa(a, b, level=0.5).low > ft.cohens_kappa(a, b).low
    with pytest.raises(ValueError, match="level=1"):
        ft.cohens_kappa(a, b, level=1)


# --- position -------------------------------------------------------------------------------------
GOOD = ["long and good", "the very best", "good", "well done"]
BAD = ["bad", "no", "a long and bad one", "poor"]


def test_judges_of_every_kind():
    """One that looks at the answers has no flip; one that takes the first flips in all pairs, an
    advantage of 1 + 1 - 1 = 1; one that takes the second -1.
    """
    fair = ft.position_bias(ft.win_rate(GOOD, BAD, lambda x, y: float(x in GOOD)).verdicts)
    assert fair.flips.mean == 0 and fair.advantage.mean == 0
    first = ft.position_bias(ft.win_rate(GOOD, BAD, lambda x, y: 1).verdicts)
    assert first.flips == ft.share_interval(4, 4) and first.advantage.mean == 1
    assert (first.to_first, first.to_second) == (4, 0)
    second = ft.position_bias(ft.win_rate(GOOD, BAD, lambda x, y: 0).verdicts)
    assert second.advantage.mean == -1 and (second.to_first, second.to_second) == (0, 4)


def test_position_bias_by_hand():
    """Pairs (1, 0) and (0.5, 0.5) are consistent; (1, 1) and (1, 0.5) favour the first by 1 and
    0.5, (0, 0) the second by 1: 3 flips of 5, mean advantage (1 + 0.5 - 1)/5 = 0.1.
    """
    found = ft.position_bias([(1, 0), (0.5, 0.5), (1, 1), (1, 0.5), (0, 0)])
    assert found.flips == ft.share_interval(3, 5)
    assert found.advantage == ft.mean_interval([0, 0, 1, 0.5, -1])
    assert (found.to_first, found.to_second) == (2, 1)


def test_flips_are_what_consistency_lacks():
    def judge(x, y):
        return 1.0 if len(x) > 3 else 0.5

    rate = ft.win_rate(GOOD, BAD, judge)
    assert ft.position_bias(rate.verdicts).flips.mean == pytest.approx(1 - rate.consistency) != 0


@pytest.mark.parametrize(
    "verdicts, words",
    [([], "shape"), ([1, 0], "shape"), ([(1, 2)], "holds 2.0"), ([(1, math.nan)], "holds nan")],
)
def test_position_bias_of_bad_input(verdicts, words):
    with pytest.raises(ValueError, match=words):
        ft.position_bias(verdicts)


# --- length ---------------------------------------------------------------------------------------
def test_length_control_by_hand():
    """Lengths differ by +100 in four pairs, of which a wins three, and by -100 in four, of which a
    wins one: s = 100, tanh(±1) = ±0.761594, σ(θ + φt) = 3/4 and σ(θ - φt) = 1/4. So θ = 0 and φt =
    ln 3: the controlled rate is 1/2, φ = ln 3/0.761594.

    Where a wins 7/8 of the longer and 1/2 of the shorter ones, θ is the mean of ln 7 and ln 1, the
    controlled rate 1/(1 + 1/√7); two ties are one of the halves.
    """
    a, b = [200] * 4 + [100] * 4, [100] * 4 + [200] * 4
    found = ft.length_controlled_win_rate([1, 1, 1, 0, 1, 0, 0, 0], a, b)
    assert found.rate.mean == pytest.approx(0.5)
    assert found.slope.mean == pytest.approx(math.log(3) / math.tanh(1))
    assert found.raw == ft.share_interval(4, 8)
    found = ft.length_controlled_win_rate([1, 1, 1, 0.5, 1, 0, 0.5, 0.5], a, b)
    assert found.rate.mean == pytest.approx(1 / (1 + 7**-0.5))


def test_the_interval_by_hand():
    """The first case above: p is 3/4 or 1/4, p(1-p) = 3/16, and x = (1, ±t): the curvature is
    8·3/16·diag(1, t²) = 1.5·diag(1, t²). Residuals: ±1/4 three times of four, ±3/4 once, their
    squares sum to 2·(3/16 + 9/16) = 1.5, so the middle is 1.5·diag(1, t²) too and the covariance
    diag(1, 1/t²)/1.5, times n/(n - 2) = 8/6: an error of θ of √(8/9).
    """
    a, b = [200] * 4 + [100] * 4, [100] * 4 + [200] * 4
    found = ft.length_controlled_win_rate([1, 1, 1, 0, 1, 0, 0, 0], a, b)
    half = 1.959964 * math.sqrt(8 / 9)
    assert found.rate.low == pytest.approx(1 / (1 + math.exp(half)), rel=1e-6)
    assert found.rate.high == pytest.approx(1 / (1 + math.exp(-half)), rel=1e-6)
    assert found.slope.high - found.slope.mean == pytest.approx(half / math.tanh(1), rel=1e-6)


def simulated(rng, theta: float, phi: float, n: int = 100):
    """Pairs in which a's answers are longer by 80 on average; AlpacaEval's model is the truth."""
    longer = rng.normal(80, 100, n)
    p = 1 / (1 + np.exp(-(theta + phi * np.tanh(longer / longer.std()))))
    return (rng.random(n) < p).astype(float), 300 + longer, np.full(n, 300.0)


def test_what_length_wins_is_taken_out():
    """No difference at equal length (θ = 0), and length is worth φ = 1.5: raw a wins far more than
    half, controlled half. The bounds hold 1/2 in 95% ± 2.2% of 400 samples.
    """
    rng = np.random.default_rng(1)
    held = 0
    raw = []
    for _ in range(400):
        found = ft.length_controlled_win_rate(*simulated(rng, 0.0, 1.5))
        held += found.rate.low <= 0.5 <= found.rate.high
        raw.append(found.raw.mean)
    assert np.mean(raw) > 0.6
    assert 0.92 <= held / 400 <= 0.98


def test_a_real_advantage_stays():
    """θ = 1 (73%), φ = -1: a is better, and its length costs it points."""
    rng = np.random.default_rng(2)
    found = ft.length_controlled_win_rate(*simulated(rng, 1.0, -1.0, 4000))
    assert found.rate.low <= 1 / (1 + math.exp(-1)) <= found.rate.high
    assert found.raw.high < found.rate.low and found.slope.high < 0


def test_swapping_the_sides_turns_the_rate_round():
    scores, a, b = simulated(np.random.default_rng(3), 0.4, 0.8)
    one = ft.length_controlled_win_rate(scores, a, b).rate
    two = ft.length_controlled_win_rate(1 - scores, b, a).rate
    assert (one.mean, one.low, one.high) == pytest.approx((1 - two.mean, 1 - two.high, 1 - two.low))


@pytest.mark.parametrize(
    "scores, a, b, words",
    [
        ([1, 0], [1], [1], "as many numbers"),
        ([1], [1], [2], "two at least"),
        ([1, 2], [1, 2], [2, 1], "holds 2.0"),
        ([1, 0], [5, 6], [3, 4], "is 2 in every pair"),
        ([1, 1, 0, 0], [5, 6, 1, 2], [3, 3, 3, 3], "settled by length"),
        ([1, 1, 1], [5, 1, 3], [3, 3, 3], "or by the side alone"),
    ],
)
def test_length_control_of_bad_input(scores, a, b, words):
    with pytest.raises(ValueError, match=words):
        ft.length_controlled_win_rate(scores, a, b)
