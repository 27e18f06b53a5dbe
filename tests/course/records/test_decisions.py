"""What a decision says where one test alone and all together disagree."""

import dataclasses
import math

import numpy as np

from ftlib.core.stats import Interval
from ftlib.course.records.claims import Decision, as_factor
from ftlib.course.records.experiment import LOGS, Claim, difference

CLAIM = Claim(
    "c", "loss, a − b", difference("loss", "a", "b"), "none", above="Up.", below="Down.", none="No."
)


def decision(low: float, high: float, p: float) -> Decision:
    interval = Interval((low + high) / 2, low, high, p_value=p, test="t test")
    return Decision(CLAIM, np.zeros(10), interval, p, compared=8)


def test_an_interval_that_leaves_zero_out_is_a_hint_where_holm_does_not_follow():
    said = decision(-0.3, -0.1, p=0.08).sentence
    assert "No." in said and "of 8 comparisons one may do so by chance" in said


def test_there_is_no_hint_where_both_agree():
    assert "hint" not in decision(-0.3, 0.1, p=0.4).sentence
    assert decision(-0.3, -0.1, p=0.01).sentence.endswith("Down.")


def test_a_logarithm_is_told_as_a_factor_too():
    """ln 0.5 between ln 0.25 and ln 1 is a factor of 0.5 between 0.25 and 1."""
    interval = Interval(math.log(0.5), math.log(0.25), 0.0, p_value=0.01, test="t test")
    assert str(as_factor(interval)) == "0.5 [0.25, 1]"
    claim = dataclasses.replace(CLAIM, unit=LOGS)
    figure = Decision(claim, np.zeros(10), interval, 0.01, compared=8).figure
    assert "in logarithms, a factor of 0.5 [0.25, 1], over 10 seeds" in figure
    assert "factor" not in decision(-0.3, -0.1, p=0.01).figure
