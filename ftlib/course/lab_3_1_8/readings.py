"""What a reader may conclude from the comparison of losses in lab 3.1.8, for every outcome."""

from __future__ import annotations

from ftlib.course.records.experiment import Claim, Contrast, difference, within

NATS = "nats per token"
SFT, BASE_SFT = "SFT on chosen", "SFT from the base"
SIMPO_AT_DPO = "SimPO, DPO's rate"
DPO_AT_SIMPO = "DPO, SimPO's rate"
EQUAL_RATES = (("SimPO", DPO_AT_SIMPO), (SIMPO_AT_DPO, "DPO"))  # two arms at one rate


def at_equal_rates(metric: str) -> Contrast:
    """SimPO minus DPO at the same rate, mean over the two rates that are best for one of them.

    Each at its own best would compare the rates as much as the losses.
    """

    def subtract(by_arm) -> float:
        gaps = [by_arm[simpo][metric] - by_arm[dpo][metric] for simpo, dpo in EQUAL_RATES]
        return sum(gaps) / len(gaps)

    return Contrast(tuple(arm for pair in EQUAL_RATES for arm in pair), subtract)


def _lead_since_start(by_arm) -> float:
    """How much the lead of the chosen answer, by means, has grown in SimPO."""
    metrics = by_arm["SimPO"]
    before = metrics["start_chosen"] - metrics["start_rejected"]
    return metrics["chosen"] - metrics["rejected"] - before


METHODS = (
    Claim(
        "SimPO teaches",
        "faults per answer, SimPO − SFT on chosen",
        difference("faults", "SimPO", SFT),
        "below",
        above=(
            "SimPO makes more faults than more imitation does, with nine trials of settings for "
            "each. The rejected answers are then no help in this form; look at which sort of "
            "fault has grown before you blame the pairs, since DPO sees the same ones."
        ),
        below=(
            "Pairs with rejected answers teach something that the chosen ones alone do not. A "
            "chosen answer has faults, so imitation learns faults too. Section 7 asks whether it "
            "is the labels that do it. This needs chosen answers that are imperfect: where they "
            "are right already, SFT on them would be enough. Nor does it show that anything was "
            "learnt about the facts: to stop saying a few fixed strings would be enough (challenge "
            "5)."
        ),
        none=(
            "No difference to more imitation is shown, in this short a run. So nothing here says "
            "that SimPO gets more out of a pair than its chosen half."
        ),
    ),
    Claim(
        "DPO teaches",
        "faults per answer, DPO − SFT on chosen",
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
        "faults per answer, SimPO − DPO at equal rates",
        at_equal_rates("faults"),
        "none",
        above=(
            "Without a reference the same pairs leave more faults, on average over two rates. The "
            "next line has each rate by itself."
        ),
        below=(
            "Without a reference the same pairs leave fewer faults, on average over two rates. The "
            "next line has each rate by itself. This is "
            "one task with answers of equal length; it is no evidence for the papers' size of "
            "difference, nor against it."
        ),
        none=(
            "No difference is shown on average over two rates; the interval says how large one "
            "could still be hidden. The next line has each rate by itself."
        ),
    ),
    Claim(
        "ORPO teaches",
        "faults per answer, ORPO − SFT from the base",
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
        "faults per answer, ORPO − SimPO",
        difference("faults", "ORPO", "SimPO"),
        "below",
        above=(
            "The run from the base ends with more faults than SFT and SimPO after it. Compare "
            "recipes here, not losses: the other recipe had an SFT of its own, and ORPO had twice "
            "SimPO's steps. The next lines say which sort of fault it is, what each recipe has "
            "forgotten, and how many steps each took."
        ),
        below=(
            "One run from the base ends with fewer faults than SFT and SimPO after it. It is the "
            "recipe that wins, not yet the loss: ORPO saw twice as many pairs as SimPO, whose "
            "recipe spent its other steps on imitation. The next lines count the steps of both."
        ),
        none=(
            "No difference between the two recipes is shown. ORPO has not had the SFT from which "
            "SimPO begins, but twice SimPO's steps; the next lines count them."
        ),
    ),
    Claim(
        "forgotten",
        "forgotten, SimPO − DPO at equal rates",
        at_equal_rates("forgotten"),
        "above",
        unit=NATS,
        above=(
            "Without a reference more of the base's own text is lost, on average over two rates. A "
            "difference that is shown need not be one that matters: the next line compares its "
            "size with what the SFT start had already lost."
        ),
        below=(
            "SimPO loses less of the base's text than DPO, on average over two rates. A reference "
            "holds the answers near the start's, which is not the same as holding other text."
        ),
        none=("No difference in what is lost is shown on average over two rates."),
    ),
    Claim(
        "chosen",
        "log p of chosen answers, SimPO − its start",
        within("SimPO", "chosen", "start_chosen"),
        "below",
        unit=NATS,
        above=(
            "The chosen answers have become likelier, although SimPO asks only for a lead: the "
            "two answers of a pair share most of their words, so that what raises the one may "
            "raise the other too."
        ),
        below=(
            "The chosen answers have become less likely. A loss that sees only a difference allows "
            "that. But these chosen answers have faults in them, so that a part of the fall may be "
            "wanted: compare it with the faults, and with the lead in the next line."
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
