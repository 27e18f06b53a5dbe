"""How far a judge can be trusted: its agreement with another, its bias for a position, its bias for
length.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ftlib.core.stats import Interval, interval_of, share_interval

STEPS = 100  # of Newton's method; where it converges, ten are enough
LARGEST = 30.0  # a coefficient beyond it is on its way to infinity: σ(30) is 1 - 1e-13


# --- agreement ------------------------------------------------------------------------------------
def cohens_kappa(a: Sequence[Hashable], b: Sequence[Hashable], level: float = 0.95) -> Interval:
    """Agreement of two judges beyond chance: ``κ = (p_o - p_e)/(1 - p_e)`` (Cohen 1960, "A
    coefficient of agreement for nominal scales", Educational and Psychological Measurement 20).

    a, b: a category a case, such as verdicts 1, 0 and 0.5, both (n,). p_o is the share of cases in
    which they agree, ``p_e = Σ_c p_a(c)·p_b(c)`` what two judges would who give their categories
    with the same frequencies, independently. 1 is full agreement, 0 that of chance. The bounds are
    ``κ ± z·√var``, var of the delta method (Fleiss, Cohen and Everitt 1969, Psychological Bulletin
    72): with p_ij the share of cases with categories i and j,

        g_ij = ([i = j] - (1 - κ)·(p_b(i) + p_a(j)))/(1 - p_e),
        var = (Σ p_ij g_ij² - (Σ p_ij g_ij)²)/n

    They are for many cases (50 and more), and of no width where the judges agree always, which says
    that no disagreement was seen, not that there is none. ValueError: unequal or no cases, or one
    category throughout for both: agreement is then certain, and κ is 0/0.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"a has {len(a)} cases, b {len(b)}: as many are needed, one at least")
    table = _shares(a, b)  # (categories, categories)
    of_a = table.sum(1)
    of_b = table.sum(0)
    expected = float(of_a @ of_b)
    if expected > 1 - 1e-12:
        raise ValueError(
            f"a and b are {a[0]!r} in all {len(a)} cases: agreement is certain, κ undefined; add "
            "cases that differ"
        )
    kappa = (float(np.trace(table)) - expected) / (1 - expected)
    slopes = np.eye(len(table)) - (1 - kappa) * (of_b[:, None] + of_a[None, :])
    slopes /= 1 - expected
    variance = ((table * slopes**2).sum() - (table * slopes).sum() ** 2) / len(a)
    half = _quantile(level) * math.sqrt(max(float(variance), 0.0))
    return Interval(kappa, max(kappa - half, -1.0), min(kappa + half, 1.0), level)


def _shares(a: Sequence[Hashable], b: Sequence[Hashable]) -> np.ndarray:
    """The share of cases with each pair of categories."""
    places = {category: place for place, category in enumerate(dict.fromkeys([*a, *b]))}
    table = np.zeros((len(places), len(places)))
    for one, two in zip(a, b, strict=True):
        table[places[one], places[two]] += 1
    return table / len(a)


def _quantile(level: float) -> float:
    """The normal quantile z of a two-sided interval."""
    from scipy.special import ndtri  # half a second, and only intervals need it

    if not 0 < level < 1:
        raise ValueError(f"level={level!r}: must be between 0 and 1, such as 0.95")
    return float(ndtri((1 + level) / 2))


# --- position -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class PositionBias:
    """What the order of two answers does to a judge's verdicts.

    `flips`: the share of pairs whose verdict changes when their order is swapped (Wilson's
    interval). `advantage`: how much more an answer scores in the first place than in the second, on
    the scale of the verdicts (Student's interval over the pairs): 0 for a judge without a bias,
    also for one that flips at random; 1 for one that always takes the first, -1 the second.
    `to_first`, `to_second`: the flips that favour either place.
    """

    flips: Interval
    advantage: Interval
    to_first: int
    to_second: int


def position_bias(verdicts: Sequence[tuple[float, float]], level: float = 0.95) -> PositionBias:
    """A judge's bias for a position, from both orders of each pair (Zheng et al. 2023, arXiv
    2306.05685, section 3.3; Wang et al. 2023, arXiv 2305.17926).

    verdicts: (n, 2), `.verdicts` of `ftlib.win_rate`: the score of the answer in the first place
    with the answers in one order and in the other, 1, 0.5 or 0. A judge that looks at the answers
    alone gives ``second = 1 - first``; the pair's advantage of the first place is ``first + second
    - 1``. ValueError: no pairs, or a score outside [0, 1].
    """
    array = np.asarray(verdicts, dtype=float)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array):
        raise ValueError(f"verdicts: shape {array.shape}; two scores a pair are needed, (pairs, 2)")
    _check_scores("verdicts", array)
    advantage = array.sum(1) - 1  # (n,)
    to_first = int((advantage > 0).sum())
    to_second = int((advantage < 0).sum())
    return PositionBias(
        flips=share_interval(to_first + to_second, len(array), level),
        advantage=interval_of(advantage, level),
        to_first=to_first,
        to_second=to_second,
    )


def _check_scores(name: str, scores: np.ndarray) -> None:
    bad = ~((scores >= 0) & (scores <= 1))  # NaN too
    if bad.any():
        raise ValueError(f"{name} holds {scores[bad][0]}: a score lies between 0 and 1")


# --- length ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class LengthControlledWinRate:
    """`rate`: the win rate that is left at equal lengths; `raw`: the share of points as they are
    (Wilson's interval); `slope`: the log odds that more length is worth, φ below.
    """

    rate: Interval
    raw: Interval
    slope: Interval


def length_controlled_win_rate(
    scores: ArrayLike, lengths_a: ArrayLike, lengths_b: ArrayLike, level: float = 0.95
) -> LengthControlledWinRate:
    """The win rate of a over b if their answers were equally long, by logistic regression as in
    AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475, section 3):

        P(a wins pair i) = σ(θ + φ·tanh(d_i/s)),  d_i = length of a's answer - length of b's,

    s the standard deviation of the d_i. The controlled rate is σ(θ), the prediction at d = 0. Left
    out is AlpacaEval's third term, the instructions' difficulty, which it has from the other models
    of its leaderboard, and its regularisation: θ and φ are the maximum of the likelihood.

    scores: (n,), `.scores` of `ftlib.win_rate`, each from 0 to 1, halves for ties (a quasi-binomial
    likelihood; Papke and Wooldridge 1996, Journal of Applied Econometrics 11). lengths: (n,), in
    one unit, such as characters. Bounds are normal on the scale of log odds, with the sandwich
    covariance, which ties and other fractions need, then through σ. In
    `tests/evaluation/test_judge_checks.py` they hold the truth about 95 times in 100 at 100 pairs.

    ValueError: unequal numbers, scores outside [0, 1], lengths that differ alike in all pairs,
    which then cannot be told from quality, and scores that length, or a side, settles completely:
    their coefficients are infinite.
    """
    points = np.asarray(scores, dtype=float)
    longer = np.asarray(lengths_a, dtype=float) - np.asarray(lengths_b, dtype=float)
    if points.ndim != 1 or points.shape != longer.shape or len(points) < 2:
        raise ValueError(
            f"scores {points.shape} and lengths {longer.shape}: as many numbers are needed of "
            "each, two at least"
        )
    _check_scores("scores", points)
    spread = float(longer.std())
    if not spread > 0:
        raise ValueError(
            f"lengths_a - lengths_b is {longer[0]:g} in every pair: its effect cannot be told "
            "from quality; use win_rate"
        )
    design = np.stack([np.ones_like(longer), np.tanh(longer / spread)], 1)  # (n, 2)
    weights = _logistic(design, points)
    error = _sandwich(design, points, weights)
    z = _quantile(level)
    theta, phi = weights
    low, high = _sigmoid(theta - z * error[0]), _sigmoid(theta + z * error[0])
    return LengthControlledWinRate(
        rate=Interval(float(_sigmoid(theta)), float(low), float(high), level),
        raw=share_interval(float(points.sum()), len(points), level),
        slope=Interval(float(phi), float(phi - z * error[1]), float(phi + z * error[1]), level),
    )


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _logistic(design: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The weights (k,) of largest likelihood, by Newton's method: design (n, k), points (n,)."""
    weights = np.zeros(design.shape[1])
    for _ in range(STEPS):
        p = _sigmoid(design @ weights)
        gradient = design.T @ (points - p)
        curvature = (design * (p * (1 - p))[:, None]).T @ design  # (k, k)
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        weights = weights + step
        if np.abs(weights).max() > LARGEST:
            break
        if np.abs(step).max() < 1e-10:
            return weights
    raise ValueError(
        "scores are settled by length or by the side alone, so that no finite coefficients fit: "
        "judge more pairs, or report win_rate"
    )


def _sandwich(design: np.ndarray, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Standard errors (k,) of the weights, ``H⁻¹ (Σ r_i² x_i x_iᵀ) H⁻¹`` with r the residuals
    (White 1982, Econometrica 50), times n/(n - k), k the number of weights.
    """
    p = _sigmoid(design @ weights)
    inverse = np.linalg.inv((design * (p * (1 - p))[:, None]).T @ design)
    scores = design * (points - p)[:, None]
    n, k = design.shape
    covariance = inverse @ (scores.T @ scores) @ inverse * n / (n - k)
    return np.sqrt(np.diag(covariance))
