"""The claims of lab 3.1.9 with what to conclude in each case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.course.records.experiment import Claim, Contrast, difference

SHARE = "of the win rate"


def fall(method: str, others: str) -> Contrast:
    """What 40% wrong judgements cost `method`, less what they cost `others`, in win rate: above 0,
    it loses less.
    """
    arms = tuple(f"{name}, {noise} wrong" for name in (method, others) for noise in ("0%", "40%"))

    def compare(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
        right, wrong, other_right, other_wrong = (by_arm[arm]["wins"] for arm in arms)
        return (wrong - right) - (other_wrong - other_right)

    return Contrast(arms, compare)


def greedy_less_sampled(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
    """Share of polite answers when the most likely token is taken, less that when one is drawn."""
    found = by_arm["SFT, 40% wrong"]
    return found["polite"] - found["polite_sampled"]


JUDGEMENTS = (
    Claim(
        "same judgements",
        "win rate, KTO − DPO, the same judgements",
        difference("wins", "KTO, 0% wrong", "DPO, 0% wrong"),
        "none",
        unit=SHARE,
        above=(
            "On the very same judgements, taken apart into thumbs, KTO is ahead of DPO. Both had "
            "five rates to choose from and one pass over the data. It had less to go on: it does "
            "not know which two answers belong together. β was 0.1 for both and not tuned."
        ),
        below=(
            "On the very same judgements DPO is ahead. KTO was not told which two answers belong "
            "together, and that is worth something here: in the difference of a pair whatever the "
            "two answers share cancels, in a single row it does not. Where you have pairs, use "
            "them. β was 0.1 for both and not tuned."
        ),
        none=(
            "No difference is shown on the very same judgements, although KTO does not know which "
            "two answers belong together. That is the paper's statement for large models; this "
            "many prompts and seeds would not show a difference of a few points."
        ),
    ),
    Claim(
        "against SFT",
        "win rate, KTO − SFT on the liked answers",
        difference("wins", "KTO, 0% wrong", "SFT, 0% wrong"),
        "above",
        unit=SHARE,
        above=(
            "The thumbs down are worth something: KTO beats plain imitation of the answers that "
            "were liked. Without this baseline a win over the start would say nothing about KTO, "
            "since imitation beats the start too."
        ),
        below=(
            "Plain imitation of the liked answers does better than KTO. Where good answers are "
            "there in number and the wanted manner is in their words, begin with SFT; KTO earns "
            "its place where most of what you have is thumbs down."
        ),
        none=(
            "No difference to plain imitation of the liked answers is shown: in this task the "
            "thumbs down add nothing that shows. The wanted manner is all in the liked answers' "
            "words. Try the baseline before you build anything on thumbs."
        ),
    ),
    Claim(
        "thumbs",
        "win rate, KTO on loose thumbs − on shuffled ones",
        difference("wins", "KTO, loose thumbs", "KTO, shuffled thumbs"),
        "above",
        unit=SHARE,
        above=(
            "The labels carry the effect: the same answers with as many thumbs up and down, dealt "
            "anew, do not do it. The control trains on the same texts with the same steps and rate."
        ),
        below=(
            "Labels dealt at random do better than the given ones. Then what wins here is not the "
            "judgement but training on these texts at all; look at which rule of the judge decides."
        ),
        none=(
            "No difference to shuffled labels is shown, so nothing here may be credited to the "
            "judgements. More thumbs or a higher rate would have to show it."
        ),
    ),
    Claim(
        "noise, DPO",
        "loss of win rate from 0% to 40% wrong, DPO's − KTO's",
        fall("KTO", "DPO"),
        "above",
        unit=SHARE,
        above=(
            "Wrong judgements cost KTO less than DPO. The saturating slope is one explanation: a "
            "wrong label looks like a hopeless row, and KTO lets go of it. It is not the only one: "
            "a KTO run also moves less where labels contradict each other, since its gradients "
            "cancel without pairs. The noise here is blind to the answers."
        ),
        below=(
            "Wrong judgements cost KTO more than DPO: the saturating slope does not protect it "
            "here. It could only do so for rows that are far from z0, and after a short run few "
            "are. Rates were chosen on clean judgements for both; with noise in the choice too, "
            "the order may change."
        ),
        none=(
            "No difference in what wrong judgements cost is shown. The argument from the slope is "
            "about rows that are many nats on the wrong side; in a short run there are few of "
            "those, so it has nothing to work on. A claim of robustness needs this measurement in "
            "your own regime; the curve of the slope is no substitute."
        ),
    ),
    Claim(
        "noise, SFT",
        "loss of win rate from 0% to 40% wrong, SFT's − KTO's",
        fall("KTO", "SFT"),
        "above",
        unit=SHARE,
        above=(
            "Wrong judgements cost KTO less than imitation. SFT copies whatever has a thumb up; "
            "KTO sees the same text with a thumb down elsewhere, and the two pulls cancel."
        ),
        below=(
            "Wrong judgements cost imitation less than KTO, against what the saturating slope "
            "promises. Imitation learns the mixture of manners in what was liked, and a greedy "
            "answer takes the more frequent one: up to 50% wrong the majority is right. KTO also "
            "pushes right answers down, and at its own best rate it goes further from the "
            "reference. Sampled answers, in the next line, show the mixture."
        ),
        none=(
            "No difference to imitation is shown in what wrong judgements cost. Compare the "
            "levels in the figure too: who has won little has little to lose. And a greedy answer "
            "takes the more frequent manner, which hides noise in what was imitated."
        ),
    ),
    Claim(
        "greedy hides noise",
        "polite answers of SFT at 40% wrong, greedy − sampled",
        Contrast(("SFT, 40% wrong",), greedy_less_sampled),
        "above",
        unit="of the answers",
        above=(
            "Greedy decoding hides the noise: the policy has learnt both manners in about the "
            "shares of its data, and the greedy answer is the more likely one. So judge by the "
            "decoding that you will serve with; a win rate of greedy answers says nothing about "
            "the wrong half of a mixture."
        ),
        below=(
            "Sampled answers are politer than greedy ones: the most likely opener is not a polite "
            "one for some people, and sampling finds the others."
        ),
        none=(
            "Greedy and sampled answers are about as polite: the policy is sure of its manner in "
            "spite of the noise, so it is no artefact of greedy decoding that imitation holds."
        ),
    ),
)

UNEVEN = (
    Claim(
        "more downs",
        "win rate, 1:10 − 1:1, the same thumbs up, weights 1",
        difference("wins", "1:10", "1:1"),
        "below",
        unit=SHARE,
        above=(
            "Ten times as many thumbs down on top of the same thumbs up help, even with weights 1. "
            "So imbalance as such is no harm here: more rows say more. What hurts in practice, "
            "when the total is fixed, is that thumbs up are missing."
        ),
        below=(
            "Adding thumbs down hurts, although no thumb up is lost: with weights 1 nearly all of "
            "the pull says what not to write, and a policy can obey that by writing anything else. "
            "This is imbalance itself, not scarcity: the thumbs up and the steps are the same."
        ),
        none=(
            "With the thumbs up held no harm of imbalance is shown. What looks like imbalance in "
            "comparisons with a fixed total is to a good part that thumbs up are missing there."
        ),
    ),
    Claim(
        "weights",
        "win rate at 1:10, weighted (target 1) − weights 1",
        difference("wins", "1:10, weighted 1", "1:10"),
        "above",
        unit=SHARE,
        above=(
            "The weights help: they give the thumbs up as much pull in sum as the ten times as "
            "many thumbs down. Each of the two had its own rate, so it is not the size of the "
            "loss, which Adam would cancel anyway, but its balance."
        ),
        below=(
            "The weights hurt here. They make a few rows count tenfold, so every step depends on "
            "the one thumb up in it; that is noisy. Each of the two had its own rate."
        ),
        none=(
            "No effect of the weights is shown, each with its own rate. The advice is about the "
            "balance of the pull; look at its share on thumbs up in the table, which the weights "
            "do change, and at the curve, whether either has anything left to gain."
        ),
    ),
    Claim(
        "worth of downs",
        "win rate, 1:10 weighted (target 1) − 1:1",
        difference("wins", "1:10, weighted 1", "1:1"),
        "none",
        unit=SHARE,
        above=(
            "Once weighted, the additional thumbs down are worth having: use them all rather than "
            "throwing nine tenths away to be balanced."
        ),
        below=(
            "Even weighted, the additional thumbs down do harm: balancing by throwing rows away "
            "would have been better here than balancing by weights."
        ),
        none=(
            "Once weighted, the additional thumbs down neither help nor harm visibly. They cost "
            "compute, though: ten times as many answers are scored in each step."
        ),
    ),
    Claim(
        "advised range",
        "win rate at 1:10, weighted to 4/3 − to 1",
        difference("wins", "1:10, weighted 4/3", "1:10, weighted 1"),
        "none",
        unit=SHARE,
        above=(
            "The upper end of the advised range does better than the lower: a little more pull on "
            "thumbs up pays here. The rate was chosen for the lower end."
        ),
        below=(
            "The lower end of the advised range does better than the upper. The rate was chosen "
            "for the lower end, which may be all of it."
        ),
        none=(
            "The two ends of the advised range are not told apart: within it the exact weight is "
            "not worth a search."
        ),
    ),
    Claim(
        "against SFT",
        "win rate, 1:10 weighted (target 1) − SFT on the thumbs up",
        difference("wins", "1:10, weighted 1", "SFT on the ups"),
        "above",
        unit=SHARE,
        above=(
            "KTO gets more out of few thumbs up and many down than imitation of the few: this is "
            "the case that it is made for."
        ),
        below=(
            "Imitation of the few thumbs up does better than KTO with all the thumbs down. When "
            "the liked answers hold all that is wanted, as here, that is hard to beat."
        ),
        none=(
            "No difference to imitation of the few thumbs up is shown, although KTO saw eleven "
            "times as many rows. Try the cheap baseline first."
        ),
    ),
)

POINTS = (
    Claim(
        "usual, zero",
        "win rate from the reference on, β = 0.1, z0 always 0 − right",
        difference("wins", "usual: always 0", "usual: right"),
        "none",
        unit=SHARE,
        above=(
            "In the usual regime z0 = 0 does better than the right z0. The estimate is of one "
            "batch, so it is noisy, and noise in z0 moves all rows of the batch at once."
        ),
        below=(
            "Already in the usual regime z0 = 0 does worse: within one short run the policy drifts "
            "far enough for the reference point to count."
        ),
        none=(
            "In the usual regime, from the reference on at β = 0.1, no loss by z0 = 0 is shown: z0 "
            "begins at 0 for everybody, and a few nats times 0.1 leave a row on the straight part "
            "of the curve. A comparison of this kind cannot find the bug, which is why the others "
            "look elsewhere."
        ),
    ),
    Claim(
        "near, zero",
        "win rate from the reference on, β = 0.5, z0 always 0 − right",
        difference("wins", "near: always 0", "near: right"),
        "below",
        unit=SHARE,
        above=(
            "From the reference on at a large β z0 = 0 does better than the right z0: the estimate "
            "is of one batch, so it is noisy, and at this β its noise reaches the slopes."
        ),
        below=(
            "At a large β z0 = 0 does worse although the run begins at its own reference: the "
            "policy drifts within the run, and β turns a few nats into a place on the curve."
        ),
        none=(
            "From the reference on no loss by z0 = 0 is shown at a large β either: within one "
            "short run the policy does not drift far enough for it to cost wins."
        ),
    ),
    Claim(
        "far, zero",
        "win rate far from the reference, z0 always 0 − right",
        difference("wins", "far: always 0", "far: right"),
        "below",
        unit=SHARE,
        above=(
            "Far from the reference z0 = 0 does better than the right z0. It takes every thumb up "
            "for a gain already made and spends its slope on the thumbs down; in this task that "
            "happens to be the useful side. Look at the facts, too: win rate is not all."
        ),
        below=(
            "Far from the reference z0 = 0 does worse: it takes what the drift has added to every "
            "answer for a gain, so the thumbs up are on the flat part of the curve from the first "
            "step on, and the slope is spent on the thumbs down. This is what z0 is for. It takes "
            "drift to find the bug."
        ),
        none=(
            "Even far from the reference no difference is shown. Two things hide it. A drift that "
            "all rows share makes all slopes smaller by about one factor, and Adam cancels "
            "factors; what is left is the balance between up and down, in the table. And a wrong "
            "balance costs little when either side alone teaches the manner."
        ),
    ),
    Claim(
        "far, balance",
        "share of the pull on thumbs up, far, z0 always 0 − right",
        difference("share_up", "far: always 0", "far: right"),
        "below",
        unit="of the pull",
        above=(
            "With z0 = 0 more of the pull is on thumbs up: in this drift the thumbs down have "
            "risen further above the reference than the thumbs up, so they are the flatter ones."
        ),
        below=(
            "With z0 = 0 less of the pull is on thumbs up: they have risen above the reference "
            "with everything else and count as gained. That is the mechanism, whatever the win "
            "rate says."
        ),
        none=(
            "The balance of the pull is not shifted visibly: up and down rows have drifted alike, "
            "so both slopes shrink by the same factor, which Adam cancels."
        ),
    ),
    Claim(
        "far, gradient",
        "win rate far from the reference, matched with gradient − right",
        difference("wins", "far: matched, with gradient", "far: right"),
        "below",
        unit=SHARE,
        above=(
            "Far from the reference the bug does better than the right z0. With gradient the "
            "batch's mean cancels out of every pull: what is left is up against down, a contrast "
            "as in DPO, and that is no bad thing in a batch with both. It still is another loss "
            "than KTO's, and with thumbs of one kind alone it teaches nothing."
        ),
        below=(
            "Far from the reference a z0 of matched pairs with gradient does worse: the rows and "
            "their own mean push against each other, and only the contrast within the batch is "
            "left."
        ),
        none=(
            "No difference is shown for a z0 of matched pairs with gradient. In a batch with as "
            "many up as down the two pulls on the mean nearly cancel, so the gradient through z0 "
            "is small. With thumbs of one kind alone it would cancel everything, as the table "
            "above has shown on paper."
        ),
    ),
)
