"""What the runs of lab E1 may say, each reading chosen by the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ftlib.course.records.experiment import Claim, Contrast, difference, level

NEAR = 0.1  # the price at which PPO is held near the start
MANY = "each pair once"
FEW = "few pairs, four times"
COIN = "judgements by coin"
DPO = "DPO"
SHARE = "of the pairs"
FEWER = "fewer faults per answer"
UNITS = "units of score"
HALF = 0.5


def kl_arm(coefficient: float) -> str:
    """The arm of PPO at this price."""
    return f"PPO, β = {coefficient:g}"


FREE = kl_arm(0.0)
HELD = kl_arm(NEAR)


# --- reward models --------------------------------------------------------------------------------
JUDGES = (
    Claim(
        "learnt",
        "held-out accuracy, each pair once − ½",
        level("accuracy", MANY, HALF),
        "above",
        unit=SHARE,
        above=(
            "The reward model has learnt something that holds for people whom no judgement "
            "named. It is often wrong too, and PPO will find where."
        ),
        below="The reward model is worse than a coin on people whom it has not seen.",
        none="The reward model is not told apart from a coin on people whom it has not seen.",
    ),
    Claim(
        "few pairs, accuracy",
        "held-out accuracy, few pairs − each pair once",
        difference("accuracy", FEW, MANY),
        "below",
        unit=SHARE,
        above="In equally many steps few pairs, read again, teach more than many pairs read once.",
        below="In equally many steps few pairs, read again, teach less than many pairs read once.",
        none="No difference in accuracy is shown between few pairs read again and many read once.",
    ),
    Claim(
        "too sure",
        "mean confidence − accuracy, each pair once",
        level("too sure", MANY),
        "none",
        unit=SHARE,
        above="On new people it is overconfident: its score promises too much.",
        below=(
            "On new people it is underconfident: right more often than it says. Its head began at "
            "zero, and one pass was too short for the gaps to grow. With scores so small, β holds "
            "the policy back more than its value suggests."
        ),
        none="These runs show neither overconfidence nor underconfidence.",
    ),
    Claim(
        "few pairs, too sure",
        "mean confidence − accuracy, few pairs − each pair once",
        difference("too sure", FEW, MANY),
        "above",
        unit=SHARE,
        above=(
            "Reading the same pairs again makes it overconfident: training pairs are ranked right "
            "by then, and the loss only asks for larger gaps."
        ),
        below="Reading the same pairs again lowers its confidence relative to its accuracy.",
        none="These runs show no difference in confidence minus accuracy.",
    ),
)


# --- policies -------------------------------------------------------------------------------------
def _kept(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
    return by_arm[HELD]["proxy gain"] - HALF * by_arm[FREE]["proxy gain"]


def at_kl(found: Mapping[str, Any], kl: float) -> float:
    """The true gain of a run that was measured on its way, where it had gone this far: a line
    between its looks by KL, from the start (0, 0) on; beyond its last look that look's.
    """
    kls = np.maximum.accumulate([0.0, *found["kl on the way"]])
    gains = [0.0, *(true - found["true of start"] for true in found["true on the way"])]
    return float(np.interp(kl, kls, gains))


def _dpo_at_equal_kl(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
    return at_kl(by_arm[DPO], by_arm[HELD]["kl"]) - by_arm[HELD]["true gain"]


METHODS = (
    Claim(
        "proxy rises",
        "score above the start's, without the KL term",
        level("proxy gain", FREE),
        "above",
        unit=UNITS,
        above="Without the KL term the reward model's score rises: PPO does what it is asked to.",
        below="Without the KL term the score falls: PPO has not even done what it is asked to.",
        none="Without the KL term no rise of the score is shown, so PPO has optimised nothing.",
    ),
    Claim(
        "truth falls",
        "true reward above the start's, without the KL term",
        level("true gain", FREE),
        "below",
        unit=FEWER,
        above=(
            "Without the KL term the answers have become *better*, by the true rule as well: this "
            "reward model was not hacked in so few steps."
        ),
        below=(
            "Without the KL term the answers have become worse than at the start, while the reward "
            "model calls them better. That is reward hacking."
        ),
        none=(
            "Without the KL term no change of the true reward is shown: the score rose and bought "
            "nothing that anybody wanted."
        ),
    ),
    Claim(
        "price, kept proxy",
        "score above the start's, β = 0.1 − half of that at β = 0",
        Contrast((HELD, FREE), _kept),
        "above",
        unit=UNITS,
        above="At β = 0.1 most of the score's gain is kept.",
        below="At β = 0.1 most of the score's gain is gone: β is too high for it to learn.",
        none="Whether β = 0.1 keeps more than half of the score's gain is not shown.",
    ),
    Claim(
        "price, truth",
        "true reward, β = 0.1 − β = 0",
        difference("true gain", HELD, FREE),
        "above",
        unit=FEWER,
        above="With the KL term the true reward ends higher than without.",
        below="With the KL term the true reward is lower than without: it held back what was good.",
        none="No difference in true reward is shown between runs with and without the KL term.",
    ),
    Claim(
        "price, gain",
        "true reward above the start's, β = 0.1",
        level("true gain", HELD),
        "above",
        unit=FEWER,
        above="At β = 0.1 the policy is better than where it began, by the true rule.",
        below=(
            "At β = 0.1 the policy is worse than where it began, by the true rule: even so near "
            "the start the reward model misleads it."
        ),
        none=(
            "At β = 0.1 the policy is not shown to be better than where it began: this reward "
            "model has little to teach."
        ),
    ),
    Claim(
        "coin",
        "true reward at β = 0.1, judgements − judgements by coin",
        difference("true gain", HELD, COIN),
        "above",
        unit=FEWER,
        above=(
            "The judgements matter: the same PPO with the same β, against a reward model trained "
            "on coin tosses, ends lower."
        ),
        below="Against a reward model trained on coin tosses the same PPO ends *higher*.",
        none=(
            "No difference from the control is shown, the same PPO against coin tosses: no effect "
            "here can be credited to the judgements. The interval says how large one may still be."
        ),
    ),
    Claim(
        "DPO at equal KL",
        "true reward at equal KL, DPO − PPO at β = 0.1",
        Contrast((DPO, HELD), _dpo_at_equal_kl),
        "none",
        unit=FEWER,
        above=(
            "At the same KL or less (the next line counts the seeds), on the same judgements, DPO "
            "is better: it learns from the judgements themselves, without a reward model in "
            "between."
        ),
        below=(
            "At the same KL, or DPO's lower one (the next line counts the seeds), on the same "
            "judgements, PPO is better: it learns from its own answers, DPO from somebody else's."
        ),
        none=(
            "At the same KL or less (the next line counts the seeds), on the same judgements, no "
            "difference between DPO and PPO is shown."
        ),
    ),
    Claim(
        "DPO, cost",
        "tokens through a model, DPO ÷ PPO, reward model included (ln)",
        Contrast((DPO, HELD), lambda by_arm: float(np.log(_passes(by_arm, DPO, HELD)))),
        "below",
        above="DPO costs more than PPO and its reward model together.",
        below="DPO costs less than PPO and its reward model together.",
        none="No difference in tokens through a model is shown.",
    ),
)


def _passes(by_arm: Mapping[str, Mapping[str, Any]], first: str, second: str) -> float:
    return by_arm[first]["passes"] / by_arm[second]["passes"]
