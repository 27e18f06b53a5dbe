"""What the comparison of methods and the few rows of lab 3.1.4 are to show, and what to conclude
from each outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ftlib.course.records.experiment import LOGS, Claim, Contrast, difference

NATS = "nats per token"
FEW_ROWS = "two dozen rows"
TWO = ("LoRA", "full fine-tuning")
SHARES = (0.25, 0.5)  # of the best rate: the lower rates at which these two are run as well
LEAST = 1e-3  # nats: what is forgotten less counts as this much where logarithms are taken

ByArm = Mapping[str, Mapping[str, Any]]


# --- methods --------------------------------------------------------------------------------------
def frontier_arms(method: str) -> list[str]:
    """The arms of a method at a quarter and at half of its best rate."""
    return [f"{method}, a quarter of the rate", f"{method}, half the rate"]


def ends(method: str) -> list[str]:
    """All arms of one of the two methods, from the lowest rate to the best one."""
    return [*frontier_arms(method), method]


def forgotten_for(by_arm: ByArm, method: str, loss: float) -> float:
    """ln of what the method forgets to end at `loss`, in one seed: on a straight line between the
    ends of finished runs at neighbouring rates, from the lowest rate on. A rate that ends no lower
    than those below it is left out. Where the lowest rate already ends below `loss`, what that run
    forgot is taken, which is too much rather than too little.
    """
    losses: list[float] = []
    rises: list[float] = []
    for arm in ends(method):
        run = by_arm[arm]
        if losses and run["loss"] >= losses[-1]:
            continue
        losses.append(run["loss"])
        rises.append(float(np.log(max(LEAST, run["forgotten"]))))
    return float(np.interp(-loss, -np.array(losses), rises))


def _forgotten_at_equal_loss(by_arm: ByArm) -> float:
    """ln(LoRA / full), at the higher one of the lowest losses of the two: both have ended there."""
    lowest = [min(by_arm[arm]["loss"] for arm in ends(method)) for method in TWO]
    reached = max(lowest)
    lora, full = (forgotten_for(by_arm, method, reached) for method in TWO)
    return lora - full


METHODS = (
    Claim(
        "learnt",
        "golden loss, LoRA − full, each at its best rate",
        difference("loss", *TWO),
        "above",
        unit=NATS,
        above=(
            "Full fine-tuning has learnt more in as many steps, although both rates were chosen "
            "with the same care: Biderman's “learns less”, at this length of run. It does not "
            "follow for a longer one; look at whether the curves still fall at the last step."
        ),
        below=(
            "LoRA has learnt more, with a part of the trained numbers. Biderman et al. find the "
            "opposite on code and mathematics, which the base has to learn; here the base mostly "
            "has what is asked for (in `tiny` the facts, in `pocket` they stand in the message), "
            "and whether that is the reason was not tested."
        ),
        none=(
            "No difference is shown between the two. The interval says how large a difference "
            "could have been missed; that the two learn equally much does not follow."
        ),
    ),
    Claim(
        "forgotten",
        "forgotten at the end, LoRA − full, each at its best rate",
        difference("forgotten", *TWO),
        "below",
        unit=NATS,
        above=(
            "At its best rate LoRA damages the base more. That alone does not say why: the rates "
            "were chosen for learning, and forgetting rises steeply with the rate. The next line "
            "asks at equal learning."
        ),
        below=(
            "At its best rate LoRA has forgotten less. That alone does not say why: the rates were "
            "chosen for learning, and forgetting follows the rate. The next line asks at equal "
            "learning."
        ),
        none=(
            "Neither is shown to have forgotten more at the end. The rates were chosen for "
            "learning alone, and the sign of this number may depend on them (where half of LoRA's "
            "rate was run, the line below says so); the next line asks at equal learning."
        ),
    ),
    Claim(
        "forgotten at equal loss",
        "ln(forgotten by LoRA / by full) by finished runs that end at the same golden loss",
        Contrast((*ends(TWO[0]), *ends(TWO[1])), _forgotten_at_equal_loss),
        "below",
        unit=LOGS,
        above=(
            "For the same learning LoRA pays with more forgetting: in runs of this length a full "
            "update at a low rate is the gentler one."
        ),
        below=(
            "For the same learning LoRA pays with less forgetting. It was asked of finished runs "
            "at three rates per method, so the difference of the best rates does not explain it; "
            "the length of the run was the same in all."
        ),
        none=(
            "It is not shown that one of them forgets less for the same learning. The interval "
            "says which factor could have been missed."
        ),
    ),
    Claim(
        "DoRA",
        "golden loss, DoRA − LoRA",
        difference("loss", "DoRA", "LoRA"),
        "none",
        unit=NATS,
        above="DoRA has learnt less here, at the cost of more memory and time. Lab 3.1.2 asks why.",
        below=(
            "DoRA has learnt more at the same rank. Set the size of the difference beside its cost "
            "in the table; lab 3.1.2 takes it apart."
        ),
        none=(
            "No difference between DoRA and LoRA is shown at this rank and length. What it costs "
            "is in the table; lab 3.1.2 looks for where it pays."
        ),
    ),
    Claim(
        "QLoRA",
        "golden loss, QLoRA − LoRA, both at LoRA's rate",
        difference("loss", "QLoRA", "LoRA"),
        "above",
        unit=NATS,
        above=(
            "Training on a base in four bits costs a little: the rounding of the weights is there "
            "from the start, and the adapter has to make up for it. On a small model rounding "
            "weighs more than on one of 8B."
        ),
        below=(
            "The four-bit base ends lower. Rounding adds no knowledge, and nothing measured here "
            "says why; do not expect it elsewhere."
        ),
        none=(
            "No cost of the four-bit base is shown. Where the interval lies below 0 as a whole, it "
            "lies on the wrong side for a cost: rounding adds no knowledge, so take that for "
            "chance until it is repeated. That large models pay nothing either ([Dettmers et al. "
            "2023](https://arxiv.org/abs/2305.14314), Table 4) does not follow from it."
        ),
    ),
    Claim(
        "prefix",
        "golden loss, prefix tuning − LoRA",
        difference("loss", "prefix tuning", "LoRA"),
        "above",
        unit=NATS,
        above=(
            "Prefix tuning has learnt less in these steps. That it trains few numbers, and can "
            "only steer what attention reads, may be why; it was not tested. Its own best rate was "
            "used, so the rate is no excuse; the number of steps may be: the lines below say "
            "whether its curve still falls."
        ),
        below="Prefix tuning has learnt more: sixteen virtual tokens are enough for this task.",
        none=(
            "No difference between prefix tuning and LoRA is shown. The interval says what could "
            "have been missed; the table says how many numbers each trains."
        ),
    ),
    Claim(
        "bottleneck",
        "golden loss, bottleneck adapters − LoRA",
        difference("loss", "bottleneck adapters", "LoRA"),
        "none",
        unit=NATS,
        above=(
            "Bottleneck adapters have learnt less, each method at a rate of its own; the table "
            "says how many numbers each trains. They stay in the path at inference, where LoRA is "
            "merged away."
        ),
        below=(
            "Bottleneck adapters have learnt more. The two do not train equally many numbers, and "
            "neither the number nor the place was varied. They stay in the path at inference; "
            "LoRA is merged away."
        ),
        none=(
            "No difference in golden *loss* is shown; the interval says what could have been "
            "missed. Right answers and forgetting are another matter and not tested: read the "
            "lines below before you call the two equal. Bottleneck adapters stay in the path at "
            "inference; LoRA is merged away."
        ),
    ),
)


# --- few rows -------------------------------------------------------------------------------------
def _chosen(run: Mapping[str, Any]) -> int:
    """The look before the last one at which the loss on the rows that choose was lowest."""
    return int(np.argmin(run["choosing_loss"][:-1]))


def _loss_after_best(by_arm: ByArm) -> float:
    """Validation loss at the end − at the look that other rows choose."""
    run = by_arm[FEW_ROWS]
    return float(run["held_out_loss"][-1] - run["held_out_loss"][_chosen(run)])


def _right_after_best(by_arm: ByArm) -> float:
    """Right answers at the end − at the look that other rows choose."""
    run = by_arm[FEW_ROWS]
    return float(run["held_out_right"][-1] - run["held_out_right"][_chosen(run)])


FEW = (
    Claim(
        "loss rises",
        "validation loss, at the end − at the look where it was lowest on other rows",
        Contrast((FEW_ROWS,), _loss_after_best),
        "above",
        unit=NATS,
        above=(
            "The loss on other rows rises while the rows themselves are learnt by heart: this is "
            "overfitting, as the loss sees it. The look was chosen by other rows, so that the rise "
            "is not due to the choice."
        ),
        below="The validation loss still falls at the end: two dozen rows are not yet used up.",
        none="No rise is shown. The interval says how large a rise could have been missed.",
    ),
    Claim(
        "answers after",
        "validation rows answered right, at the end − at the look where the loss was lowest",
        Contrast((FEW_ROWS,), _right_after_best),
        "none",
        unit="of the rows",
        above=(
            "More rows are answered right than at the look that the loss would keep. The two "
            "rulers disagree: choose the checkpoint by the one you care about."
        ),
        below=(
            "Fewer rows are answered right as well, and we had expected to see no change: we were "
            "wrong. Here both rulers agree, and the loss is a fair warning."
        ),
        none=(
            "The share of right answers is not shown to change after that look. The interval says "
            "how many answers could have been lost or won all the same."
        ),
    ),
)
