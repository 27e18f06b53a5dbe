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
UNITS = "of the score"
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
            "named. It is far from always right, and PPO will look for where it is not."
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
        above="In as many steps few pairs, read again, teach more than many pairs read once.",
        below="In as many steps few pairs, read again, teach less than many pairs read once.",
        none="By accuracy few pairs read again are not told apart from many read once.",
    ),
    Claim(
        "too sure",
        "mean confidence − accuracy, each pair once",
        level("too sure", MANY),
        "none",
        unit=SHARE,
        above="On new people it is surer than it is right: a score that promises too much.",
        below=(
            "On new people it is right more often than it says: too shy, not too sure. Its head "
            "began at zero, and in one pass the gaps have not grown to what it knows. A policy "
            "that climbs such a score is held back by β more than the number says."
        ),
        none="By its mean confidence it is neither too sure nor too shy as far as these runs show.",
    ),
    Claim(
        "few pairs, too sure",
        "mean confidence − accuracy, few pairs − each pair once",
        difference("too sure", FEW, MANY),
        "above",
        unit=SHARE,
        above=(
            "Reading the same pairs again makes it surer than it is right: training pairs are "
            "ranked right by then, and the loss only asks for larger gaps."
        ),
        below="Reading the same pairs again makes it less sure for what it is worth.",
        none="How sure it is for what it is worth does not differ as far as these runs show.",
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
        "score above the start's, without a price",
        level("proxy gain", FREE),
        "above",
        unit=UNITS,
        above="Without a price the reward model's score rises: PPO does what it is asked to.",
        below="Without a price the score falls: PPO has not even done what it is asked to.",
        none="Without a price no rise of the score is shown: then nothing was optimised.",
    ),
    Claim(
        "truth falls",
        "true reward above the start's, without a price",
        level("true gain", FREE),
        "below",
        unit=FEWER,
        above=(
            "Without a price the answers have become *better*, by the true rule as well: this "
            "reward model was not hacked in so few steps."
        ),
        below=(
            "Without a price the answers have become worse than where they began, while the "
            "judge that was trained on judgements calls them better. That is reward hacking."
        ),
        none=(
            "Without a price the true reward is not shown to have moved: the score's rise bought "
            "nothing that anybody wanted."
        ),
    ),
    Claim(
        "price, kept proxy",
        "score above the start's, β = 0.1 − half of that without a price",
        Contrast((HELD, FREE), _kept),
        "above",
        unit=UNITS,
        above="At β = 0.1 most of the score's gain is kept.",
        below="At β = 0.1 most of the score's gain is gone: the price is too high to learn.",
        none="Whether β = 0.1 keeps more than half of the score's gain is not shown.",
    ),
    Claim(
        "price, truth",
        "true reward, β = 0.1 − without a price",
        difference("true gain", HELD, FREE),
        "above",
        unit=FEWER,
        above="The price of going away saves the true reward.",
        below="With the price the true reward is lower than without: it held back what was good.",
        none="With and without the price the true reward is not told apart.",
    ),
    Claim(
        "price, gain",
        "true reward above the start's, β = 0.1",
        level("true gain", HELD),
        "above",
        unit=FEWER,
        above="At β = 0.1 the policy is better than where it began, by the true rule.",
        below=(
            "At β = 0.1 the policy is worse than where it began, by the true rule: near is not "
            "near enough, where the reward model is blind from the start."
        ),
        none=(
            "At β = 0.1 the policy is not shown to be better than where it began: the price saves "
            "it from the fall, but this reward model has little to teach."
        ),
    ),
    Claim(
        "coin",
        "true reward at β = 0.1, judgements − judgements by coin",
        difference("true gain", HELD, COIN),
        "above",
        unit=FEWER,
        above=(
            "It is the judgements that count: the same PPO at the same price, against a reward "
            "model of coin tosses, ends lower."
        ),
        below="Against a reward model of coin tosses the same PPO ends *higher*.",
        none=(
            "The control fails to be told apart: against coin tosses the same PPO ends about "
            "where it ends with the judgements, so nothing here may be put down to them."
        ),
    ),
    Claim(
        "DPO at equal KL",
        "true reward at equal KL, DPO − PPO at β = 0.1",
        Contrast((DPO, HELD), _dpo_at_equal_kl),
        "none",
        unit=FEWER,
        above=(
            "As far from the start, on the same judgements, DPO is better: it learns from the "
            "judgements themselves, and no reward model stands between."
        ),
        below=(
            "As far from the start, on the same judgements, PPO is better: it learns from its own "
            "answers, DPO from somebody else's."
        ),
        none="As far from the start, on the same judgements, DPO and PPO are not told apart.",
    ),
    Claim(
        "DPO, cost",
        "tokens through a model, DPO ÷ PPO, reward model included (ln)",
        Contrast((DPO, HELD), lambda by_arm: float(np.log(_passes(by_arm, DPO, HELD)))),
        "below",
        above="DPO costs more than PPO and its reward model together.",
        below="DPO costs less than PPO and its reward model together.",
        none="By tokens through a model the two are not told apart.",
    ),
)


def _passes(by_arm: Mapping[str, Mapping[str, Any]], first: str, second: str) -> float:
    return by_arm[first]["passes"] / by_arm[second]["passes"]
