"""What a decision says where one test alone and all together disagree."""

import numpy as np

from ftlib.core.stats import Interval
from ftlib.course.records.claims import Decision
from ftlib.course.records.experiment import Claim, difference

CLAIM = Claim(
    "c", "loss, a − b", difference("loss", "a", "b"), "none", above="Up.", below="Down.", none="No."
)


def decision(low: float, high: float, p: float) -> Decision:
    interval = Interval((low + high) / 2, low, high, p_value=p, test="t test")
    return Decision(CLAIM, np.zeros(10), interval, p, compared=8)


def test_an_interval_that_leaves_zero_out_is_a_hint_where_holm_does_not_follow():
    said = decision(-0.3, -0.1, p=0.08).sentence
    assert "No." in said and "of 8 comparisons some do so by chance" in said


def test_there_is_no_hint_where_both_agree():
    assert "hint" not in decision(-0.3, 0.1, p=0.4).sentence
    assert decision(-0.3, -0.1, p=0.01).sentence.endswith("Down.")
