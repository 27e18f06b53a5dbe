"""The claims of lab 3.1.9 on the reference point, with what to conclude in each case."""

from __future__ import annotations

import numpy as np

from ftlib.course.lab_3_1_9.readings import SHARE, ByArm
from ftlib.course.records.experiment import Claim, Contrast, difference

PULL = "of the pull on all rows of a run's batches"
RIGHT_ARM = "far: right"


def longer_less_shorter(metric: str) -> Contrast:
    """Mean over the batches with longer rows, less that over those with shorter rows. The lists go
    from short to long.
    """

    def compare(by_arm: ByArm) -> float:
        values = np.asarray(by_arm[RIGHT_ARM][metric])
        half = len(values) // 2
        return float(values[half:].mean() - values[:half].mean())

    return Contrast((RIGHT_ARM,), compare)


def _share_of_longer(pulls) -> float:
    values = np.asarray(pulls)
    return float(values[len(values) // 2 :].sum() / values.sum())


def pull_on_longer(by_arm: ByArm) -> float:
    """Share of all the pull that is in the half of the batches with longer rows: with z0 = 0, less
    with the right z0, on the same rows.
    """
    found = by_arm[RIGHT_ARM]
    return _share_of_longer(found["pull_zero"]) - _share_of_longer(found["pull_right"])


def pull_on_ups(by_arm: ByArm) -> float:
    """Share of all the pull that is on thumbs up: with z0 = 0, less with the right z0, on the same
    rows.
    """
    found = by_arm[RIGHT_ARM]
    zero = float(np.sum(found["up_zero"]) / np.sum(found["pull_zero"]))
    right = float(np.sum(found["up_right"]) / np.sum(found["pull_right"]))
    return zero - right


USUAL = (
    Claim(
        "usual, zero",
        "win rate from the reference on, β = 0.1, z0 always 0 − right",
        difference("wins", "KTO, loose thumbs, z0 always 0", "KTO, loose thumbs"),
        "none",
        unit=SHARE,
        above=(
            "In the usual regime z0 = 0 does better than the right z0. In the steps counted above "
            "the two losses are the same, so they differ in the others."
        ),
        below=(
            "Already in the usual regime z0 = 0 does worse: in the steps that are not counted "
            "above z0 is large enough to matter, within one short run."
        ),
        none=(
            "In the usual regime no loss by z0 = 0 is shown. In the steps counted above the two "
            "losses are the same: the more there are of them, the less can a comparison of this "
            "kind find the bug. That is why the others begin far from the reference."
        ),
    ),
)

POINTS = (
    Claim(
        "far, zero",
        "win rate far from the reference, z0 always 0 − right",
        difference("wins", "far: always 0", RIGHT_ARM),
        "below",
        unit=SHARE,
        above=(
            "Far from the reference z0 = 0 does better than the right z0 by win rate. Look at the "
            "facts in the table, too: the rate was chosen near the reference and at another β, "
            "and what one z0 wins in manners it may lose in facts."
        ),
        below=(
            "Far from the reference z0 = 0 does worse: it takes what the drift has added to an "
            "answer for a gain already made. The lines on the batches say where its pull is "
            "missing. It takes drift to find the bug."
        ),
        none=(
            "Even far from the reference no difference by win rate is shown. It says little where "
            "the runs end near the ceiling: see the line on the room. Whether the two pull at the "
            "same rows is another question, which the lines on the batches answer."
        ),
    ),
    Claim(
        "far, length",
        "z0 before the first step, the longer half of the batches − the shorter half",
        longer_less_shorter("z0_before"),
        "above",
        unit="nats",
        above=(
            "The drift has raised mismatched answers further above the reference in batches of "
            "long rows, so z0 jumps with the length of a batch's rows. Where the table shows two "
            "kinds of batches, few of them are near the mean of a half that holds both. The right "
            "z0 gives each batch its own zero."
        ),
        below=(
            "z0 is higher in batches of short rows: here the drift has raised these further above "
            "the reference."
        ),
        none=(
            "It is not shown that z0 goes by the length of a batch's rows: what makes it jump from "
            "batch to batch is then left open."
        ),
    ),
    Claim(
        "far, flat",
        "share of the pull on the longer half of the batches, same rows, z0 always 0 − right",
        Contrast((RIGHT_ARM,), pull_on_longer),
        "below",
        unit=PULL,
        above=(
            "With z0 = 0 more of the pull is on long rows than with the right z0, on the very same "
            "rows. The nearer a row is to z0, the harder it is pulled. The right z0 is one number "
            "for a batch whose rows have drifted unequally far, and here it is far from many long "
            "rows that are near 0."
        ),
        below=(
            "With z0 = 0 the long batches lose pull to the short ones, on the very same rows: they "
            "are further out on the flat end of the curve, and less is learnt from them. Adam "
            "would cancel a factor that all batches share, but not one that depends on length."
        ),
        none=(
            "It is not shown that z0 = 0 divides the pull differently between long and short "
            "batches. Adam cancels a factor that all batches share."
        ),
    ),
    Claim(
        "far, balance",
        "share of the pull that is on thumbs up, the same rows, z0 always 0 − right",
        Contrast((RIGHT_ARM,), pull_on_ups),
        "below",
        unit=PULL,
        above=(
            "With z0 = 0 more of the pull is on thumbs up, on the very same rows: among the rows "
            "that z0 = 0 still pulls at, the thumbs up have the steeper slopes."
        ),
        below=(
            "With z0 = 0 less of the pull is on thumbs up, on the very same rows: they have risen "
            "above the reference and count as gained, more so than the thumbs down count as lost."
        ),
        none=(
            "It is not shown that z0 = 0 shifts the balance of the pull between thumbs up and "
            "down, on the very same rows."
        ),
    ),
    Claim(
        "far, matched",
        "win rate far from the reference, matched − right",
        difference("wins", "far: matched", RIGHT_ARM),
        "none",
        unit=SHARE,
        above=(
            "Far from the reference a z0 of the batch's own rows does better than the right one. "
            "It moves with the batch too: it is what the rows themselves have risen by on average."
        ),
        below=(
            "Far from the reference a z0 of the batch's own rows does worse than the right one: "
            "it rises with what is being trained."
        ),
        none=(
            "No difference by win rate is shown between a z0 of matched and one of mismatched "
            "pairs; near the ceiling that says little. On paper they differ once the judged rows "
            "have moved and the others have not."
        ),
    ),
    Claim(
        "far, gradient",
        "win rate far from the reference, matched with gradient − matched without",
        difference("wins", "far: matched, with gradient", "far: matched"),
        "below",
        unit=SHARE,
        above=(
            "The gradient through z0 helps here, with all else the same. It is another loss than "
            "KTO's, in which a row is compared with its batch, and with thumbs of one kind alone "
            "it teaches nothing, as the table on paper shows."
        ),
        below=(
            "The gradient through z0 does harm, with all else the same: every row also pulls at "
            "the mean that it is compared with. Compare the facts in the table."
        ),
        none=(
            "No effect of the gradient through z0 on the win rate is shown; near the ceiling that "
            "says little. The batches here hold thumbs of both kinds; with one kind alone the "
            "gradient would cancel everything, as the table on paper shows."
        ),
    ),
)
