"""What a reader may conclude from lab 3.1.8's shuffled labels and from its pairs of unequal length,
for every outcome.
"""

from __future__ import annotations

from ftlib.course.lab_3_1_8.readings import NATS
from ftlib.course.records.experiment import Claim, Contrast, difference, level, within


def _level(metrics, prefix: str) -> float:
    """The mean of both answers' mean log-probabilities."""
    return (metrics[f"{prefix}chosen"] + metrics[f"{prefix}rejected"]) / 2


def _level_since_start(by_arm) -> float:
    metrics = by_arm["SimPO, shuffled"]
    return _level(metrics, "") - _level(metrics, "start_")


SHUFFLED = (
    Claim(
        "labels, SimPO",
        "faults per answer, SimPO on the real labels − on shuffled ones",
        difference("faults", "SimPO, real", "SimPO, shuffled"),
        "below",
        above="The real labels leave more faults than shuffled ones: then labels teach nothing.",
        below=(
            "It is the labels that teach: the same pairs, steps and rate do less with labels that "
            "say nothing. With section 6's comparison with imitation the claim of this lab is "
            "complete; the two share the arm with the real labels. *What* the labels teach stays "
            "open: to stop saying a few fixed strings would do, and shuffled labels do not teach "
            "that either."
        ),
        none=(
            "No difference to shuffled labels is shown, so that section 6's gain over imitation "
            "may come from the pairs and not from their labels."
        ),
    ),
    Claim(
        "labels, DPO",
        "faults per answer, DPO on the real labels − on shuffled ones",
        difference("faults", "DPO, real", "DPO, shuffled"),
        "below",
        above="With DPO the real labels leave more faults than shuffled ones.",
        below="With a reference too it is the labels that teach.",
        none="With a reference no difference to shuffled labels is shown.",
    ),
    Claim(
        "unneutral",
        "faults per answer, SimPO on shuffled labels − its start",
        within("SimPO, shuffled", "faults", "start_faults"),
        "below",
        above=(
            "Labels that say nothing do harm. So “shuffled SimPO loses” is no proof that the real "
            "labels taught something: the control is worse than no training. Compare a method "
            "with SFT on the same answers, as above."
        ),
        below=(
            "On labels that say nothing faults *fall*, as the derivation has it for a start that "
            "says what is wrong more readily than what is right: no neutral zero. Where a start "
            "knows better, the same pull would do harm."
        ),
        none=(
            "A fall was predicted and is not found. If there is one, it is at most as large as the "
            "lower end of the interval."
        ),
    ),
    Claim(
        "reference",
        "faults per answer on shuffled labels, SimPO − DPO, the same rate",
        difference("faults", "SimPO, shuffled", "DPO, shuffled"),
        "below",
        above="On random labels SimPO leaves more faults than DPO at the same rate.",
        below=(
            "On random labels SimPO leaves fewer faults than DPO at the same rate, in the "
            "direction of its expected gradient; DPO's begins at zero."
        ),
        none=(
            "Fewer faults were predicted and are not found. At each seed both arms have the same "
            "random labels, so that this noise is not what hides a difference: it is at most as "
            "large as the interval says."
        ),
    ),
    Claim(
        "apart",
        "|difference of a pair's means|, SimPO on shuffled labels − its start",
        within("SimPO, shuffled", "apart", "start_apart"),
        "below",
        unit=NATS,
        above=(
            "Pairs lie further apart than at the start, against the expected gradient. It is an "
            "expectation; single labels push single pairs apart."
        ),
        below=(
            "The two answers of a pair have moved together, as derived. Any flattening of the "
            "model would do that too: the next line holds it against DPO's."
        ),
        none=(
            "That the two answers move together was predicted and is not found, on pairs that were "
            "not trained on. If they do, it is by no more than the lower end of the interval."
        ),
    ),
    Claim(
        "apart of both",
        "|difference of a pair's means| on shuffled labels, SimPO − DPO, the same rate",
        difference("apart", "SimPO, shuffled", "DPO, shuffled"),
        "below",
        unit=NATS,
        above="DPO has pulled the answers of a pair closer together than SimPO.",
        below="SimPO has pulled the answers of a pair closer together than DPO, as derived.",
        none=(
            "That SimPO pulls them closer together than DPO was predicted and is not found; the "
            "interval says how much could be hidden."
        ),
    ),
    Claim(
        "level",
        "log p of both answers, SimPO on shuffled labels − its start",
        Contrast(("SimPO, shuffled",), _level_since_start),
        "below",
        unit=NATS,
        above=(
            "Both answers have become likelier on average: being trained at all brings the model "
            "nearer to this kind of text."
        ),
        below=(
            "Both answers have become less likely. The loss knows no level, so nothing holds it."
        ),
        none=(
            "That both may fall together was predicted and is not found; the interval says how far "
            "they could have fallen."
        ),
    ),
)


LENGTH = (
    Claim(
        "sum",
        "r of the sum's margin with the difference of length, before training",
        level("before", "sums"),
        "below",
        above=(
            "By the sum the longer answer is ahead, which no sum of negative numbers of equal "
            "size would give."
        ),
        below=(
            "By the sum the shorter answer is ahead, almost whatever it says: each token takes "
            "some away."
        ),
        none="By the sum no link with length is shown.",
    ),
    Claim(
        "mean",
        "r of the mean's margin with the difference of length, before training",
        level("before", "means"),
        "none",
        above=(
            "The mean is not free of length either: by the mean the *longer* answer is ahead. A "
            "mean takes away the count of tokens, not what is in them; an answer is cut from the "
            "end, so that length also decides which sentences are scored."
        ),
        below=(
            "The mean is linked with length as well, in the sum's direction. A mean takes away "
            "the count of tokens, not what is in them; an answer is cut from the end, so that "
            "length also decides which sentences are scored."
        ),
        none="By the mean no link with length is shown.",
    ),
    Claim(
        "stronger",
        "|r| with length before training, sum − mean",
        difference("size_before", "sums", "means"),
        "above",
        above=(
            "The sum's link is the stronger one, on the same pairs. That is the claim “with sums, "
            "length decides” as far as it holds: a matter of more and less."
        ),
        below=(
            "The mean's link is the *stronger* one on these pairs, so “with sums, length decides” "
            "would be a wrong title: both are linked with length, in their own directions."
        ),
        none="Which of the two is linked with length more closely is not shown.",
    ),
    Claim(
        "weight",
        "r of a pair's weight with the difference of length, sums − means",
        difference("weight", "sums", "means"),
        "above",
        above=(
            "With sums it depends more closely on length which pairs are taught: those whose "
            "chosen answer is the longer one. A pair's weight is a falling function of its margin, "
            "so that this is the link of margin and length once more, seen from the loss's side, "
            "and no finding of its own."
        ),
        below="With means the weight follows length more than with sums, against the expectation.",
        none="No difference is shown in whom the two teach.",
    ),
    Claim(
        "words",
        "words per answer after training, sums − means",
        difference("words", "sums", "means"),
        "above",
        above=(
            "Trained with sums the model writes longer texts, from pairs in which the chosen "
            "answer was the longer one just as often as not. Longer is not fuller: what the words "
            "are, the table says."
        ),
        below=(
            "Trained with sums the model writes shorter answers. Look at what they lack: it may "
            "be that the longer answers were taught so hard that the text broke."
        ),
        none="No difference in the length of answers is shown in this short run.",
    ),
    Claim(
        "small beta",
        "words per answer after training, sums as steep as means − means",
        difference("words", "sums, small β", "means"),
        "above",
        above=(
            "With a β that is smaller by the number of tokens, the scale of sums is gone and their "
            "answers are longer still: a part of the effect is the sum's own. How much of the "
            "whole that is, the next line says."
        ),
        below="With a β that is smaller by the number of tokens, sums make answers shorter.",
        none=(
            "With a β that is smaller by the number of tokens no difference to means is shown: "
            "what sums did to the length, if anything, may have been their scale."
        ),
    ),
)
