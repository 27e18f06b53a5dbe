"""What a reader may conclude from each experiment of lab 3.1.8, for every outcome."""

from __future__ import annotations

from ftlib.course.records.experiment import Claim, Contrast, difference

NATS = "nats a token"
SFT, BASE_SFT = "SFT on chosen", "SFT from the base"


def since_start(metric: str, arm: str) -> Contrast:
    """A metric of an arm less the same of the model it began with."""

    def subtract(by_arm) -> float:
        return by_arm[arm][metric] - by_arm[arm][f"start_{metric}"]

    return Contrast((arm,), subtract)


def _level(metrics, prefix: str) -> float:
    """The mean of both answers' mean log-probabilities."""
    return (metrics[f"{prefix}chosen"] + metrics[f"{prefix}rejected"]) / 2


def _level_since_start(by_arm) -> float:
    metrics = by_arm["SimPO, shuffled"]
    return _level(metrics, "") - _level(metrics, "start_")


def only(metric: str, arm: str) -> Contrast:
    """A metric of one arm."""

    def read(by_arm) -> float:
        return by_arm[arm][metric]

    return Contrast((arm,), read)


METHODS = (
    Claim(
        "SimPO teaches",
        "faults an answer, SimPO − SFT on chosen",
        difference("faults", "SimPO", SFT),
        "below",
        above=(
            "SimPO makes more faults than more imitation does, with nine trials of settings for "
            "each. The rejected answers are then no help in this form; look at which sort of "
            "fault has grown before you blame the pairs, since DPO sees the same ones."
        ),
        below=(
            "The rejected answers teach something that the chosen ones cannot. A chosen report "
            "has rumours in it, so imitation learns the rumours; only the comparison says which "
            "of two sentences was the reason. This needs chosen answers that are imperfect: where "
            "they are right already, SFT on them would do."
        ),
        none=(
            "No difference to more imitation is shown, in this short a run. So nothing here says "
            "that SimPO gets more out of a pair than its chosen half."
        ),
    ),
    Claim(
        "DPO teaches",
        "faults an answer, DPO − SFT on chosen",
        difference("faults", "DPO", SFT),
        "below",
        above=(
            "DPO makes more faults than more imitation does. With the reference near, it may "
            "not have gone far enough in this many steps; the sweep over β says so if it did not."
        ),
        below=(
            "DPO too learns from the rejected answers what imitation does not. The comparison "
            "itself carries the information, not one particular loss."
        ),
        none="No difference between DPO and more imitation is shown.",
    ),
    Claim(
        "reference",
        "faults an answer, SimPO − DPO",
        difference("faults", "SimPO", "DPO"),
        "none",
        above=(
            "Without a reference the same pairs leave more faults, each loss at its best of nine "
            "trials. The reference says how likely each answer was before, so DPO pushes what has "
            "yet to change; SimPO pushes the mean wherever it stands."
        ),
        below=(
            "Without a reference the same pairs leave fewer faults. This is one task with answers "
            "of about equal length; it is no evidence for the papers' size of difference, nor "
            "against it."
        ),
        none=(
            "No difference is shown. The interval says how large a difference could still be "
            "hidden, and nine trials on two seeds place each loss's best only roughly."
        ),
    ),
    Claim(
        "ORPO teaches",
        "faults an answer, ORPO − SFT from the base",
        difference("faults", "ORPO", BASE_SFT),
        "below",
        above=(
            "With the odds ratio there are more faults than by the first term alone: the two "
            "terms compete for few steps, and imitation is needed first."
        ),
        below=(
            "The odds ratio adds what its first term, imitation, cannot learn. Both arms begin "
            "at the base and see the same pairs for as many steps."
        ),
        none=(
            "No difference to its first term alone is shown. The odds ratio may be the smaller "
            "force at this weight: the sweep over λ shows what a larger one does."
        ),
    ),
    Claim(
        "one run",
        "faults an answer, ORPO − SimPO",
        difference("faults", "ORPO", "SimPO"),
        "above",
        above=(
            "The run from the base ends with more faults than SFT and SimPO after it. Compare "
            "recipes here, not losses: the other recipe had an SFT of its own, on general "
            "instructions and on these reports, whose steps ORPO has not had."
        ),
        below=(
            "One run from the base ends with fewer faults than SFT and SimPO after it, with fewer "
            "steps in all. It is the recipe that wins, not yet the loss: ORPO met the pairs before "
            "anybody had taught the model the rumours, and it saw twice as many of them as SimPO, "
            "whose other steps went into imitation."
        ),
        none=(
            "No difference between the two recipes is shown, although ORPO has not had the SFT "
            "from which SimPO begins."
        ),
    ),
    Claim(
        "forgotten",
        "forgotten, SimPO − DPO",
        difference("forgotten", "SimPO", "DPO"),
        "above",
        unit=NATS,
        above=(
            "Without a reference more of the base's own text is lost. Each had the rate that "
            "makes the fewest faults, so part of it may be the rate: nothing but the rate keeps "
            "SimPO near its start."
        ),
        below=(
            "SimPO loses less of the base's text than DPO. A reference holds the answers near "
            "the start's, which is not the same as holding other text; the rates differ too."
        ),
        none=(
            "No difference in what is lost is shown. A reference bounds how the *answers* move, "
            "and says nothing of other text."
        ),
    ),
    Claim(
        "chosen",
        "log p of chosen answers, SimPO − its start",
        since_start("chosen", "SimPO"),
        "below",
        unit=NATS,
        above=(
            "The chosen answers have become likelier, although SimPO asks only for a lead: the "
            "two answers of a pair share most of their sentences, and what is learnt about one "
            "person's facts serves another's."
        ),
        below=(
            "The chosen answers have become less likely: the lead grew because the rejected ones "
            "fell further. A loss that sees only a difference allows that, and here it happens "
            "while faults are counted in what the model says instead. Look at both together."
        ),
        none="No change of the chosen answers' probability is shown.",
    ),
)

SHUFFLED = (
    Claim(
        "harm",
        "faults an answer, SimPO on shuffled labels − its start",
        since_start("faults", "SimPO, shuffled"),
        "above",
        above=(
            "Labels that say nothing do harm. So “shuffled SimPO loses” is no proof that the real "
            "labels taught something: the control is worse than no training. Compare a method "
            "with SFT on the same answers, as above."
        ),
        below=(
            "On labels that say nothing faults *fall*. This is the derived pull at work, and no "
            "neutral zero either: the start says rumours more readily than truths, a few "
            "rumours stand in many pairs, and pulled towards equal they lose. Where a start "
            "knows better, the same pull would do harm."
        ),
        none=(
            "No change is shown: at this rate and in this many steps random labels left the "
            "answers as they were, whatever they did to their probabilities. A longer run, or a "
            "higher rate, gives the pull that you have derived more time."
        ),
    ),
    Claim(
        "reference",
        "faults an answer on shuffled labels, SimPO − DPO, the same rate",
        difference("faults", "SimPO, shuffled", "DPO, shuffled"),
        "above",
        above=(
            "At the same rate the reference makes random labels less harmful, as derived: DPO's "
            "pull begins at zero, SimPO's does not. What harm is left with the reference is the "
            "noise of single labels."
        ),
        below=(
            "At the same rate DPO is harmed more. Its expected gradient begins at zero, but each "
            "batch has its own random labels, and Adam makes steps of full size out of noise."
        ),
        none=(
            "No difference is shown. The derivation is of the *expected* gradient; each batch "
            "has its own labels, and Adam makes steps of full size out of their noise, with a "
            "reference as without."
        ),
    ),
    Claim(
        "apart",
        "|difference of a pair's means|, SimPO on shuffled labels − its start",
        since_start("apart", "SimPO, shuffled"),
        "below",
        unit=NATS,
        above=(
            "Pairs lie further apart than at the start, against the expected gradient: the noise "
            "of the labels moves single pairs more than their mean pulls them together."
        ),
        below=(
            "The two answers of a pair have moved together, as derived: on labels that say "
            "nothing SimPO teaches that truth and rumour are equally likely."
        ),
        none=(
            "No change is shown of how far apart the answers of a pair are, on pairs that were "
            "not trained on."
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
            "Both answers have become less likely. The loss knows no level, so nothing holds it, "
            "and there is more room below than above: a log-probability ends at 0."
        ),
        none="No change of the level is shown.",
    ),
)


def _small_weight_difference() -> Contrast:
    def subtract(by_arm) -> float:
        return by_arm["sums"]["small_weight"] - by_arm["means"]["weight"]

    return Contrast(("sums", "means"), subtract)


LENGTH = (
    Claim(
        "sum",
        "r of the sum's margin with the difference of length, before training",
        only("before", "sums"),
        "below",
        above=(
            "By the sum the longer answer is ahead, which no sum of negative numbers of equal "
            "size would give: the end of a short report must be so unlikely that it costs more "
            "than the sentences left out."
        ),
        below=(
            "By the sum the shorter answer is ahead, almost whatever it says: each token takes "
            "some away."
        ),
        none="By the sum no link with length is shown; the content varies more than the length.",
    ),
    Claim(
        "mean",
        "r of the mean's margin with the difference of length, before training",
        only("before", "means"),
        "none",
        above=(
            "The mean is not free of length either: by the mean the *longer* answer is ahead. "
            "Half of the reports that this start has learnt end early, and still an early end is "
            "an unlikely token, which a short answer shares with few others. A mean takes away "
            "the count of tokens, not what is in them."
        ),
        below=(
            "The mean is linked with length as well, in the sum's direction: the tokens of longer "
            "answers are unlikelier on average. A mean takes away the count of tokens, not what is "
            "in them."
        ),
        none="By the mean no link with length is shown, as SimPO means it.",
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
            "With sums, the pairs that are taught are those whose chosen answer is the longer one; "
            "with means less so, or the other way. This is how length gets into the model although "
            "the labels say nothing about it."
        ),
        below="With means the weight follows length more than with sums, against the expectation.",
        none="No difference is shown in whom the two teach.",
    ),
    Claim(
        "words",
        "words an answer after training, sums − means",
        difference("words", "sums", "means"),
        "above",
        above=(
            "Trained with sums the model writes longer reports, from pairs in which the chosen "
            "answer was the longer one just as often as not."
        ),
        below=(
            "Trained with sums the model writes shorter reports. Look at what they lack: it may "
            "be that the longer answers were taught so hard that the text broke."
        ),
        none="No difference in the length of answers is shown in this short run.",
    ),
    Claim(
        "small beta",
        "r of a pair's weight with the difference of length, sums with β over the length − means",
        _small_weight_difference(),
        "above",
        above=(
            "A β that is smaller by the number of tokens takes the sums' scale away, and length "
            "still decides whom they teach. It is the sum, not the steepness."
        ),
        below="With a small β the sums' weights follow length less than those of means.",
        none=(
            "With a β that is smaller by the number of tokens no difference to means is shown. "
            "So their scale may be what is wrong with sums."
        ),
    ),
)
