"""What the bases compared in lab 3.1.5 are to show, with a reading for whatever comes out."""

from __future__ import annotations

from ftlib.course.lab_3_1_5.bases import NF4_16, NF4_SHUFFLED, SHUFFLED, WHOLE
from ftlib.course.records.experiment import Claim, Contrast, difference

NATS = "nats per answer token"
PLACES = ("lower", "middle", "higher")  # of the rates at which all bases are compared
THREE_COARSE = "3 bits, one scale"
TWO_SHUFFLED = "2 bits" + SHUFFLED


def base_arm(kind: str, place: str) -> str:
    """The arm of a kind of base at one of the shared rates."""
    return f"{kind}, {place} rate"


def over_rates(one: str, other: str) -> Contrast:
    """Test loss of one kind of base minus another's, at equal rates, mean over `PLACES`.

    A best rate of its own for each kind would be placed by a few noisy runs, and near the best a
    factor of two in the rate costs as much as the differences that are looked for.
    """
    arms = [base_arm(kind, place) for place in PLACES for kind in (one, other)]

    def subtract(by_arm) -> float:
        gaps = []
        for place in PLACES:
            mine = by_arm[base_arm(one, place)]["loss"]
            gaps.append(mine - by_arm[base_arm(other, place)]["loss"])
        return sum(gaps) / len(gaps)

    return Contrast(tuple(arms), subtract)


BASES = (
    Claim(
        name="qlora",
        text="test loss, NF4 − 16 bits",
        contrast=over_rates("NF4", WHOLE),
        expected="none",
        above=(
            "At this size the four bits cost something, at rates that both share. "
            "The interval says how much; compare it with what a rate off by a factor of two "
            "costs, in the line below the figure. The paper's tables are about models a thousand "
            "times larger, with more redundancy to absorb the errors, so this does not "
            "contradict them."
        ),
        below=(
            "The rounded base is the better start here, at equal rates. Before you make a story of "
            "it, look at the control with shuffled errors, which says whether any noise would do, "
            "and at how the difference changes with the rate."
        ),
        none=(
            "In the mean over three rates, the claim as it was stated, this is undecided: no "
            "difference that ten seeds could show after a short run, and a cost up to the "
            "interval's upper end is compatible with them."
        ),
        unit=NATS,
    ),
    Claim(
        name="shuffled",
        text="test loss, NF4 with errors shuffled − NF4",
        contrast=over_rates(NF4_SHUFFLED, "NF4"),
        expected="none",
        above=(
            "Errors of the same size do more harm when they are untied from the weights. The "
            "relative error alone then does not tell how good a type is."
        ),
        below=(
            "Errors of the same size do less harm when they are shuffled: rounding errors have a "
            "pattern that training feels. The relative error alone then does not tell how good a "
            "type is."
        ),
        none=(
            "In the mean over rates, where the errors sit makes no difference that ten seeds could "
            "show. At an error this small little could show at all; the same control at two bits "
            "is the sharper one. "
            "The shuffled errors have a new order for each seed, NF4 is one fixed rounding."
        ),
        unit=NATS,
    ),
    Claim(
        name="fp4",
        text="test loss, FP4 − NF4",
        contrast=over_rates("FP4", "NF4"),
        expected="above",
        above=(
            "FP4's larger error of the weights is a larger loss after training, as in the paper's "
            "Table 4. Both have four bits and the same scales; their levels differ, in place and "
            "in number. It is one rounding of one base: seeds vary the training alone."
        ),
        below=(
            "FP4 comes out ahead, against its larger error of the weights and against the "
            "paper's Table 4. With one small model the direction of a small difference depends "
            "on which weights happen to be hit; do not choose a type by this."
        ),
        none=(
            "FP4's error of the weights is larger, and the mean over rates does not show it in the "
            "loss. The paper's Table 4, on larger models and MMLU, finds FP4 about a point behind."
        ),
        unit=NATS,
    ),
    Claim(
        name="nvfp4",
        text="test loss, NVFP4 − NF4",
        contrast=over_rates("NVFP4", "NF4"),
        expected="none",
        above=(
            "NVFP4 costs more on this base, at 4.5 bits against 4.127. What it buys is not "
            "accuracy but speed: tensor cores multiply E2M1 as it is stored, while NF4 is taken "
            "back to 16 bits first."
        ),
        below=(
            "NVFP4 comes out ahead, at 4.5 bits against 4.127. It differs from NF4 in three "
            "things, the levels, the type of the scales and the blocks of 16, so this does not "
            "say which of them did it. The next claim gives NF4 the same blocks and bits."
        ),
        none=(
            "No difference that ten seeds could show in the mean over rates. NVFP4 takes 4.5 bits "
            "against 4.127; what it buys is speed on tensor cores that multiply it as it is."
        ),
        unit=NATS,
    ),
    Claim(
        name="equal_bits",
        text="test loss, NVFP4 − NF4 in blocks of 16",
        contrast=over_rates("NVFP4", NF4_16),
        expected="above",
        above=(
            "At equal bits NF4 is ahead, as its smaller error of the weights leads one to expect. "
            "The two differ in levels and in the type of their scales."
        ),
        below=(
            "NVFP4 is ahead at equal bits too, although its error of the weights is larger. So "
            "it is not the small blocks alone, and once more the size of the error does not "
            "decide: which weights are hit, and where a base lands by rounding, does. On another "
            "base such a small difference may well have the other sign."
        ),
        none=(
            "At equal bits no difference that ten seeds could show in the mean over rates, though "
            "their errors of the weights differ."
        ),
        unit=NATS,
    ),
    Claim(
        name="three",
        text="test loss, 3 bits − 16 bits",
        contrast=over_rates("3 bits", WHOLE),
        expected="above",
        above=(
            "One bit less is seen. The measure can therefore show damage of this size, and where "
            "it shows none for NF4 that has weight."
        ),
        below=(
            "The base with 3 bits is ahead of the whole one, which nobody would expect. Look at "
            "the curves over the rate before concluding anything."
        ),
        none=(
            "One bit less, with twice NF4's error, is a dose that the measure should see, but in "
            "this mean over rates it does not. So this control has failed. For every error below "
            'the smallest dose that is seen, "no cost shown" is an upper bound, the interval\'s '
            "upper end; a cost is not ruled out."
        ),
        unit=NATS,
    ),
    Claim(
        name="coarse",
        text="test loss, 3 bits with one scale − 16 bits",
        contrast=over_rates(THREE_COARSE, WHOLE),
        expected="above",
        above=(
            "A dose between three bits and two is seen: the measure resolves damage of an error "
            "more than three times NF4's. The line on the doses says what it resolves below that."
        ),
        below="A base with more than three times NF4's error is ahead: look at the curves first.",
        none=(
            "An error more than three times NF4's does not show either. So the measure is coarse, "
            "and says little about NF4."
        ),
        unit=NATS,
    ),
    Claim(
        name="two_shuffled",
        text="test loss, 2 bits with errors shuffled − 2 bits",
        contrast=over_rates(TWO_SHUFFLED, "2 bits"),
        expected="none",
        above=(
            "Where errors are large enough to be seen, errors of the same size do more harm when "
            "they are untied from the weights: rounding is kinder than noise of its size, and the "
            "relative error alone does not tell how good a type is."
        ),
        below=(
            "Where errors are large enough to be seen, shuffled ones do *less* harm. These two "
            "bits have the levels −1, 0, 0.338 and 1, with nothing between −1 and 0: what a weight "
            "becomes depends on its sign and size, and shuffling unties the errors from both. "
            "Besides, the shuffled errors have a new order for each seed, while 2 bits is one "
            "fixed rounding. Which of the two matters is not measured, nor whether it would be so "
            "with other levels."
        ),
        none=(
            "Even where errors are large enough to be seen, it is not shown in the mean over rates "
            "that their places matter beside their size."
        ),
        unit=NATS,
    ),
    Claim(
        name="two",
        text="test loss, 2 bits − 16 bits",
        contrast=over_rates("2 bits", WHOLE),
        expected="above",
        above=(
            "Taking two bits away is seen, so the measure is not blind. The line on the doses says "
            "which of the smaller ones it has seen too."
        ),
        below=(
            "The base with four levels is ahead of the whole one, which nobody would expect: "
            "look at the curves and at the trial before concluding anything."
        ),
        none=(
            "Four levels, an error of more than half the weights' norm, and nothing shows in the "
            "mean over rates: unless opposite signs cancel there, the measure is blind, and "
            "nothing that it says about NF4 counts."
        ),
        unit=NATS,
    ),
)


# --- between scales -------------------------------------------------------------------------------
def _at_one_rate(name: str, kind: str, expected: str, above: str, none: str) -> Claim:
    """A kind of base against 16 bits at the middle rate, which every profile records."""
    return Claim(
        name=name,
        text=f"test loss, {kind} − 16 bits, at the middle rate",
        contrast=difference("loss", base_arm(kind, "middle"), base_arm(WHOLE, "middle")),
        expected=expected,
        above=above,
        below="The rounded base ends ahead, which no derivation leads one to expect.",
        none=none,
        unit=NATS,
    )


BETWEEN_SCALES = (
    _at_one_rate(
        "qlora at one rate",
        "NF4",
        "none",
        "An adapter over NF4 ends behind one over 16 bits.",
        "An adapter over NF4 ends where one over 16 bits does, as far as these runs tell.",
    ),
    _at_one_rate(
        "2 bits at one rate",
        "2 bits",
        "above",
        "An adapter does not repair what two bits destroy.",
        "Two bits cost nothing that these runs show: then the measure is blind.",
    ),
)
