"""What the experiment of lab 3.1.6 on what a model keeps of its rows is to show, with a reading for
whatever comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ftlib.course.records.experiment import Claim, Contrast, within

PAIRS = "of the pairs"
CANARY_COUNTS = 5  # how often a canary is in the set: 0, 1, 2, 4, 8


def gap_change(first: str, last: str) -> Contrast:
    """How the area under the curve of rows trained on, less that of rows held out, changes from one
    arm to another.
    """
    gap_first = within(first, "auc_trained", "auc_others")
    gap_last = within(last, "auc_trained", "auc_others")

    def subtract(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
        return gap_last(by_arm) - gap_first(by_arm)

    return Contrast((first, last), subtract)


def exposure_slope(arm: str) -> Contrast:
    """Bits of exposure for every doubling of a canary's copies, over those that are in the set."""
    xs = np.arange(CANARY_COUNTS - 1.0)  # log2 of 1, 2, 4, 8
    centred = xs - xs.mean()

    def fit(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
        bits = np.array(by_arm[arm]["exposure"], dtype=float)[1:]
        return float(centred @ (bits - bits.mean()) / (centred @ centred))

    return Contrast((arm,), fit)


MEMORY = (
    Claim(
        name="order",
        text=(
            "how often a wrong answer has the higher loss: lead of the rows trained on over the "
            "rows held out, after 8 epochs minus after 1"
        ),
        contrast=gap_change("1 epoch", "8 epochs"),
        expected="below",
        above=(
            "The longer the training, the more rows that were read are ahead of rows that were "
            "not. Right rows are then learnt faster than wrong ones are kept, and more epochs "
            "would still help a search in the very rows that are trained on."
        ),
        below=(
            "With more epochs the rows that were read fall behind those that were not: their "
            "wrong answers are learnt by heart, until they look more like right ones. What agrees "
            "with other rows is learnt first, what does not is memorised later (Arpit et al. "
            "2017). So rank rows early, or by a model that has not read them."
        ),
        none=(
            "Ten seeds show no change of the gap between one epoch and eight. This model keeps "
            "single wrong answers slowly; a larger one would keep them sooner."
        ),
        unit=PAIRS,
    ),
    Claim(
        name="others",
        text=(
            "how often a wrong answer has the higher loss after 8 epochs: rows held out − rows "
            "trained on"
        ),
        contrast=within("8 epochs", "auc_others", "auc_trained"),
        expected="above",
        above=(
            "The same model tells wrong from right better in rows that it has not read. To search "
            "a set for errors, train on one half and rank the other, and then the other way "
            "round."
        ),
        below=(
            "Wrong answers are found better in rows that were trained on than in others: right "
            "answers have become surer, and wrong ones are not kept yet."
        ),
        none=(
            "After eight epochs ten seeds show no difference between rows read and rows not read. "
            "Nothing speaks for ranking by a model that has not read them, nor against it."
        ),
        unit=PAIRS,
    ),
    Claim(
        name="canaries",
        text="exposure per doubling of a canary's copies, after 2 epochs",
        contrast=exposure_slope("2 epochs"),
        expected="above",
        above=(
            "What is in the set more often is kept better, and a canary can only be kept by being "
            "read: no other row answers it. That is why copies are dropped before training, and "
            "why personal data that is there ten times is the first to leak (Lee et al. 2021; "
            "Carlini et al. 2022)."
        ),
        below=(
            "Canaries that are there more often are kept less, which is hard to explain: look at "
            "whether the ranks are at their top already."
        ),
        none=(
            "Ten seeds show no effect of copies on exposure: either nothing is kept yet, or all "
            "of it is at the top of its scale. The figure tells which."
        ),
        unit="bits",
    ),
)
