"""What a reader may conclude from each experiment of lab 3.1.8, for every outcome."""

from __future__ import annotations

from ftlib.course.records.experiment import Claim, Contrast, difference, level, within

NATS = "nats a token"
SFT, BASE_SFT = "SFT on chosen", "SFT from the base"
SIMPO_AT_DPO = "SimPO, DPO's rate"
DPO_AT_SIMPO = "DPO, SimPO's rate"


def _level(metrics, prefix: str) -> float:
    """The mean of both answers' mean log-probabilities."""
    return (metrics[f"{prefix}chosen"] + metrics[f"{prefix}rejected"]) / 2


def _level_since_start(by_arm) -> float:
    metrics = by_arm["SimPO, shuffled"]
    return _level(metrics, "") - _level(metrics, "start_")


def at_equal_rates(metric: str) -> Contrast:
    """SimPO minus DPO at the same rate, mean over the two rates that are best for one of them.

    Each at its own best would compare the rates as much as the losses.
    """
    pairs = (("SimPO", DPO_AT_SIMPO), (SIMPO_AT_DPO, "DPO"))

    def subtract(by_arm) -> float:
        gaps = [by_arm[simpo][metric] - by_arm[dpo][metric] for simpo, dpo in pairs]
        return sum(gaps) / len(gaps)

    return Contrast(tuple(arm for pair in pairs for arm in pair), subtract)


def _lead_since_start(by_arm) -> float:
    """How much the lead of the chosen answer, by means, has grown in SimPO."""
    metrics = by_arm["SimPO"]
    before = metrics["start_chosen"] - metrics["start_rejected"]
    return metrics["chosen"] - metrics["rejected"] - before


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
            "Pairs with rejected answers teach something that the chosen ones alone do not. A "
            "chosen report has rumours in it, so imitation learns the rumours too. Section 7 asks "
            "whether it is the labels that do it. This needs chosen answers that are imperfect: "
            "where they are right already, SFT on them would do."
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
            "DPO too learns from these pairs what imitation does not. It is no independent "
            "confirmation: same pairs, same start, and a loss that differs by the reference."
        ),
        none="No difference between DPO and more imitation is shown.",
    ),
    Claim(
        "reference",
        "faults an answer, SimPO − DPO at equal rates",
        at_equal_rates("faults"),
        "none",
        above=("Without a reference the same pairs leave more faults, at the same two rates."),
        below=(
            "Without a reference the same pairs leave fewer faults, at the same two rates. This is "
            "one task with answers of equal length; it is no evidence for the papers' size of "
            "difference, nor against it."
        ),
        none=(
            "No difference is shown; the interval says how large one could still be hidden. In so "
            "few steps of AdamW, which takes the scale out of a gradient, two losses that push the "
            "same answers apart may well do the same."
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
        "below",
        above=(
            "The run from the base ends with more faults than SFT and SimPO after it. Compare "
            "recipes here, not losses: the other recipe had an SFT of its own, on general "
            "instructions and on these reports, whose steps ORPO has not had."
        ),
        below=(
            "One run from the base ends with fewer faults than SFT and SimPO after it, with fewer "
            "steps in all. It is the recipe that wins, not yet the loss: ORPO saw twice as many "
            "pairs as SimPO, whose other steps went into imitation."
        ),
        none=(
            "No difference between the two recipes is shown, although ORPO has not had the SFT "
            "from which SimPO begins."
        ),
    ),
    Claim(
        "forgotten",
        "forgotten, SimPO − DPO at equal rates",
        at_equal_rates("forgotten"),
        "above",
        unit=NATS,
        above=(
            "Without a reference more of the base's own text is lost, at the same two rates. Hold "
            "the size against what the SFT start had lost already (the figure)."
        ),
        below=(
            "SimPO loses less of the base's text than DPO, at the same two rates. A reference "
            "holds the answers near the start's, which is not the same as holding other text."
        ),
        none=("No difference in what is lost is shown at the same two rates."),
    ),
    Claim(
        "chosen",
        "log p of chosen answers, SimPO − its start",
        within("SimPO", "chosen", "start_chosen"),
        "below",
        unit=NATS,
        above=(
            "The chosen answers have become likelier, although SimPO asks only for a lead: the "
            "two answers of a pair share most of their sentences, and what is learnt about one "
            "person's facts serves another's."
        ),
        below=(
            "The chosen answers have become less likely. A loss that sees only a difference allows "
            "that. But these chosen answers have rumours in them, so that a part of the fall may "
            "be wanted: hold it against the faults, and against the lead in the next line."
        ),
        none="No change of the chosen answers' probability is shown.",
    ),
    Claim(
        "lead",
        "lead of chosen over rejected answers, by means, SimPO − its start",
        Contrast(("SimPO",), _lead_since_start),
        "above",
        unit=NATS,
        above="The lead has grown on pairs that were not trained on, which is what was trained.",
        below="The lead has shrunk on pairs that were not trained on: look at the settings first.",
        none="No change of the lead is shown on pairs that were not trained on.",
    ),
)

SHUFFLED = (
    Claim(
        "labels, SimPO",
        "faults an answer, SimPO on the real labels − on shuffled ones",
        difference("faults", "SimPO, real", "SimPO, shuffled"),
        "below",
        above="The real labels leave more faults than shuffled ones: then labels teach nothing.",
        below=(
            "It is the labels that teach: the same pairs, steps and rate do less with labels that "
            "say nothing. With section 6's comparison with imitation the claim of this lab is "
            "complete."
        ),
        none=(
            "No difference to shuffled labels is shown, so that section 6's gain over imitation "
            "may come from the pairs and not from their labels."
        ),
    ),
    Claim(
        "labels, DPO",
        "faults an answer, DPO on the real labels − on shuffled ones",
        difference("faults", "DPO, real", "DPO, shuffled"),
        "below",
        above="With DPO the real labels leave more faults than shuffled ones.",
        below="With a reference too it is the labels that teach.",
        none="With a reference no difference to shuffled labels is shown.",
    ),
    Claim(
        "unneutral",
        "faults an answer, SimPO on shuffled labels − its start",
        within("SimPO, shuffled", "faults", "start_faults"),
        "below",
        above=(
            "Labels that say nothing do harm. So “shuffled SimPO loses” is no proof that the real "
            "labels taught something: the control is worse than no training. Compare a method "
            "with SFT on the same answers, as above."
        ),
        below=(
            "On labels that say nothing faults *fall*, as the derivation has it for a start that "
            "says rumours more readily than truths: no neutral zero. Where a start knows better, "
            "the same pull would do harm."
        ),
        none=(
            "No change of faults is shown. Random labels of so few pairs are not balanced in each "
            "run, so that seeds scatter; the interval says how much could be hidden."
        ),
    ),
    Claim(
        "reference",
        "faults an answer on shuffled labels, SimPO − DPO, the same rate",
        difference("faults", "SimPO, shuffled", "DPO, shuffled"),
        "below",
        above="On random labels SimPO leaves more faults than DPO at the same rate.",
        below=(
            "On random labels SimPO leaves fewer faults than DPO at the same rate, in the "
            "direction of its expected gradient; DPO's begins at zero."
        ),
        none=(
            "No difference is shown. The derivation is of the *expected* gradient, and each batch "
            "has its own random labels."
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
            "No change is shown of how far apart the answers of a pair are, on pairs that were "
            "not trained on."
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
        none="Which of the two pulls the answers of a pair closer together is not shown.",
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
        none="No change of the level is shown.",
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
            "mean takes away the count of tokens, not what is in them; a report is cut from the "
            "end, so that length also decides which sentences are scored."
        ),
        below=(
            "The mean is linked with length as well, in the sum's direction. A mean takes away "
            "the count of tokens, not what is in them; a report is cut from the end, so that "
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
        "words an answer after training, sums as steep as means − means",
        difference("words", "sums, small β", "means"),
        "above",
        above=(
            "With a β that is smaller by the number of tokens, the scale of sums is gone and their "
            "reports are longer still. It is the sum, and not its steepness alone."
        ),
        below="With a β that is smaller by the number of tokens, sums make reports shorter.",
        none=(
            "With a β that is smaller by the number of tokens no difference to means is shown: "
            "what sums did to the length, if anything, may have been their scale."
        ),
    ),
)
