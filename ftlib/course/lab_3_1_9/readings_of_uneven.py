"""The claims of lab 3.1.9 on uneven thumbs, with what to conclude in each case."""

from __future__ import annotations

from ftlib.course.lab_3_1_9.readings import SHARE
from ftlib.course.records.experiment import Claim, difference

UNEVEN = (
    Claim(
        "more downs",
        "win rate, 1:10 − 1:1, the same thumbs up, weights 1",
        difference("wins", "1:10", "1:1"),
        "below",
        unit=SHARE,
        above=(
            "Ten times as many thumbs down on top of the same thumbs up help, even with weights 1. "
            "Two things come with them: a batch of eleven rows in place of two, and a z0 from as "
            "many. Which of the three helps, these runs do not separate."
        ),
        below=(
            "Adding thumbs down hurts, although no thumb up is lost and the batch is larger, "
            "eleven rows in place of two, with a z0 from as many: scarcity of thumbs up is not "
            "the reason. How far the balance of the pull is, the weights below test."
        ),
        none=(
            "With the thumbs up held no harm of imbalance is shown by the win rate. Facts and "
            "words, paired below, may tell another story. The batch grows along with the thumbs "
            "down, from two rows to eleven, and z0 comes from as many: a harm of the imbalance and "
            "a gain of the larger batch could hide each other."
        ),
    ),
    Claim(
        "weights",
        "win rate at 1:10, weighted (target 1) − weights 1",
        difference("wins", "1:10, weighted 1", "1:10"),
        "above",
        unit=SHARE,
        above=(
            "The weights help: rows, batches and steps are the same, and each of the two had a "
            "rate of its own, so it is the balance of the pull that counts, not the size of the "
            "loss."
        ),
        below=(
            "The weights hurt here, with the same rows, batches and steps, and a rate of its own "
            "for each of the two. They make every step depend on the one thumb up in it, on "
            "average; whether that is the reason was not tested."
        ),
        none=(
            "No effect of the weights on the win rate is shown, each at the rate taken for it. It "
            "is one number: what the weights do to manners, facts and words, the paired lines "
            "below say, and to the pull on thumbs up, the line above."
        ),
    ),
    Claim(
        "worth of downs",
        "win rate, 1:10 weighted (target 1) − 1:1",
        difference("wins", "1:10, weighted 1", "1:1"),
        "none",
        unit=SHARE,
        above=(
            "Once weighted, the additional thumbs down, with the larger batch that comes of them, "
            "are worth having: use them all rather than throwing nine tenths away to be balanced."
        ),
        below=(
            "Even weighted, the additional thumbs down do harm: balancing by throwing rows away "
            "would have been better here than balancing by weights."
        ),
        none=(
            "Once weighted, neither harm nor gain of the additional thumbs down is shown by the "
            "win rate. What they cost is certain: a step scores eleven rows in place of two."
        ),
    ),
    Claim(
        "against SFT",
        "win rate, 1:10 weighted (target 1) − SFT on the thumbs up",
        difference("wins", "1:10, weighted 1", "SFT on the ups"),
        "above",
        unit=SHARE,
        above=(
            "KTO gets more out of few thumbs up and many down than one pass of imitation over the "
            "few. It saw 220 answers, eleven per step; SFT saw 20, one per step. More passes of "
            "SFT were not tried. Where the rates taken differ (the line on rates), it is a "
            "comparison of methods with their rates."
        ),
        below=(
            "At the rates taken one pass of imitation over the 20 thumbs up, one per step, does "
            "better than KTO with 200 thumbs down on top of them. Where the rates differ (the line "
            "on rates), how much of the lead is the rate's is open: no run here has the two at "
            "one, as section 7 has. If liked answers hold the wanted manner, as here, have SFT on "
            "them as a baseline."
        ),
        none=(
            "No difference to imitation of the few thumbs up is shown, although KTO saw 220 "
            "answers, eleven per step, and SFT 20, one per step. Each ran at the rate taken "
            "for it. If liked answers are at hand, the cheap baseline is worth a try."
        ),
    ),
)
