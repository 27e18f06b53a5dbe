"""Lab E1, RLHF, exercise 2: does a reward model know how sure it may be?"""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def bin_of(confidence: Tensor, bins: int) -> Tensor:
    """(N,) the number of the bin, of `bins` equal ones from ½ to 1, in which each lies."""
    places = ((confidence - 0.5) * 2 * bins).long()
    return places.clamp(max=bins - 1)


def calibration_error(gaps: Tensor, bins: int = 5) -> float:
    """Expected calibration error of a reward model on held-out pairs, 0 to ½.

    gaps (N,): r_chosen - r_rejected. Its confidence is max(p, 1 - p) with p = σ(gap), and it is
    right where the gap is above 0. Pairs go into `bins` equal bins of confidence from ½ to 1; the
    mean over pairs of their bin's |share right - mean confidence|.
    """
    likely = torch.sigmoid(gaps.double())
    confidence = torch.maximum(likely, 1 - likely)
    right = (gaps > 0).double()
    places = bin_of(confidence, bins)
    error = 0.0
    for number in range(bins):
        inside = places == number
        if inside.any():
            apart = right[inside].mean() - confidence[inside].mean()
            error += inside.double().mean().item() * abs(apart.item())
    return error


def _cases(g):
    for count, scale, shift, bins in ((40, 2.0, 0.5, 5), (60, 6.0, 0.0, 5), (25, 0.5, 0.3, 4)):
        yield shift + scale * torch.randn(count, generator=g), bins
    yield torch.tensor([3.0, -3.0, 2.5, 0.1, 60.0]), 10


def _binned(gaps, bins, confidence, right, weigh=None, signed=False):
    """The mean over bins with one thing done otherwise."""
    places = bin_of(confidence, bins)
    total = 0.0
    used = 0
    for number in range(bins):
        inside = places == number
        if not inside.any():
            continue
        used += 1
        apart = (right[inside].mean() - confidence[inside].mean()).item()
        share = inside.double().mean().item() if weigh is None else weigh
        total += share * (apart if signed else abs(apart))
    return total if weigh is None else total / used


def _parts(gaps):
    likely = torch.sigmoid(gaps.double())
    return torch.maximum(likely, 1 - likely), (gaps > 0).double()


def _unweighted(gaps, bins=5):
    return _binned(gaps, bins, *_parts(gaps), weigh=1.0)


def _signed(gaps, bins=5):
    return _binned(gaps, bins, *_parts(gaps), signed=True)


def _overall(gaps, bins=5):
    confidence, right = _parts(gaps)
    return abs((right.mean() - confidence.mean()).item())


def _by_pair(gaps, bins=5):
    confidence, right = _parts(gaps)
    return (right - confidence).abs().mean().item()


def _always_right(gaps, bins=5):
    confidence, _ = _parts(gaps)
    return _binned(gaps, bins, confidence, torch.ones_like(confidence))


CALIBRATION = Exercise(
    name="calibration_error",
    title="Expected calibration error",
    minutes=12,
    difficulty=2,
    reference=calibration_error,
    defaults=("bins",),
    cases=_cases,
    tolerance=1e-5,
    hints=(
        "p = σ(gap) is the probability that the model gives the answer that was chosen. It "
        "*predicts* the answer that it scores higher, with confidence max(p, 1 - p).",
        "The bin: `((confidence - 0.5) * 2 * bins).long()`, at most bins - 1.",
        "In each bin that is not empty: the share of pairs with a gap above 0, minus the mean "
        "confidence; weight its absolute value by the bin's number of pairs.",
        "error += inside.double().mean() * abs(right[inside].mean() - confidence[inside].mean())",
    ),
    wrong=(
        Wrong(
            "bins weigh alike",
            _unweighted,
            "You take the mean over bins: a bin with one pair then counts like one with fifty. "
            "Weight each by its share of the pairs.",
        ),
        Wrong(
            "signs kept",
            _signed,
            "Overconfidence in one bin and underconfidence in another cancel in yours: take the "
            "absolute value in every bin.",
        ),
        Wrong(
            "no bins",
            _overall,
            "That is the mean confidence minus the accuracy over all pairs at once: a model that "
            "is overconfident on some and underconfident on others passes.",
        ),
        Wrong(
            "pair by pair",
            _by_pair,
            "You compare each pair's 0 or 1 with its confidence, which gives 1 - p of the chosen "
            "answer. A single pair cannot be 80% right: take the means in a bin first.",
        ),
        Wrong(
            "always right",
            _always_right,
            "You count every pair as right: the model is right where its gap is above 0.",
        ),
    ),
)
