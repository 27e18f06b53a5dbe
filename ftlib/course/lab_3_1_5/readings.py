"""What the experiments of lab 3.1.5 are to show, with a reading for whatever comes out."""

from __future__ import annotations

from ftlib.course.lab_3_1_5.bases import NF4_16, NF4_SHUFFLED, SHUFFLED, WHOLE
from ftlib.course.records.experiment import Claim, Contrast, within

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
            "The interval says how much; hold it against what a rate off by a factor of two "
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
            "No difference that ten seeds could show in the mean over three rates, after a short "
            "run. That is not equality: a cost up to the interval's upper end would still be "
            "compatible, and the line above says how it changes with the rate."
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
            "Where the errors sit makes no difference that ten seeds could show. At an error this "
            "small little could show at all; the same control at two bits is the sharper one."
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
            "FP4's error of the weights is larger, and ten seeds do not show it in the loss at "
            "this task. The paper's Table 4, on larger models and MMLU, finds FP4 about a point "
            "behind."
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
            "No difference that ten seeds could show. NVFP4 takes 4.5 bits against 4.127; what it "
            "buys is speed on tensor cores that multiply it as it is."
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
            "At equal bits no difference that ten seeds could show, though their errors of the "
            "weights differ."
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
            "One bit less, with twice NF4's error, does not show in this mean over rates. So a "
            "type that shows none has been shown to do less harm than the next dose that does, "
            "and no more than that. The interval says how much could hide."
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
            "more than three times NF4's."
        ),
        below="A base with more than three times NF4's error is ahead: look at the curves first.",
        none=(
            "An error more than three times NF4's does not show either. So the measure is coarse, "
            "and what it says of NF4 is little."
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
            "Where errors are large enough to be seen, shuffled ones do *less* harm: rounding to "
            "few levels has a pattern that noise of its size has not."
        ),
        none=(
            "Even where errors are large enough to be seen, it is not shown that their places "
            "matter beside their size."
        ),
        unit=NATS,
    ),
    Claim(
        name="two",
        text="test loss, 2 bits − 16 bits",
        contrast=over_rates("2 bits", WHOLE),
        expected="above",
        above=(
            "Two bits less are seen, so the measure is not blind. With the two doses between them "
            "the claims bracket from which error on it sees damage."
        ),
        below=(
            "The base with four levels is ahead of the whole one, which nobody would expect: "
            "look at the curves and at the trial before concluding anything."
        ),
        none=(
            "Four levels, an error of more than half the weights' norm, and nothing shows: the "
            "measure is blind, and nothing that it says of NF4 counts."
        ),
        unit=NATS,
    ),
)


SLOWEST = "a quarter"
FASTEST = "best rate"
MERGING = (
    Claim(
        name="slow",
        text="golden loss at a quarter of the rate, in NF4 again − beside",
        contrast=within(SLOWEST, "again", "beside"),
        expected="above",
        above=(
            "A small update does not survive the second rounding: the dequantised weights lie on "
            "the grid, and what moves a weight by less than half a step is undone. Whether the "
            "updates of another run are small against its grid, that run itself must tell, by "
            "their size over the rounding error or by its loss after merging; a run like the "
            "next one says nothing about it."
        ),
        below=(
            "The second rounding lowers the loss, which it has no reason to do. Suspect the "
            "merge before you believe it: is the adapter added twice?"
        ),
        none=(
            "Even a small update survives. Then the grid is finer than the update, contrary to "
            "what the share that is left says; look at both before you merge into four bits."
        ),
        unit=NATS,
    ),
    Claim(
        name="fast",
        text="golden loss at the best rate, in NF4 again − beside",
        contrast=within(FASTEST, "again", "beside"),
        expected="above",
        above=(
            "A loss even here. The figure shows how large this update is, in units of the "
            "rounding error, and how much of it is left: the smaller, the worse."
        ),
        below=(
            "The second rounding comes out ahead, though it can only take away from the update "
            "or add noise to it. That it helps would need a reason; the figure shows what was "
            "left of the update, and a little regularisation is one guess."
        ),
        none=(
            "No damage that ten seeds could show, against what one reads about merging into four "
            "bits. The reason to look for is the size of the update, in the figure: what is as "
            "large as the rounding error or larger survives. Do not carry this over to a run "
            "whose rate is lower."
        ),
        unit=NATS,
    ),
    Claim(
        name="once",
        text="golden loss at a quarter of the rate, original in NF4 once − in NF4 again",
        contrast=within(SLOWEST, "once", "again"),
        expected="below",
        above=(
            "Going through the original base is worse, although it is rounded once only. The "
            "adapter had learnt around NF4's errors, and they are not the same after the second "
            "rounding."
        ),
        below=(
            "The same update, the same type, and a much smaller loss; what differs is that the "
            "original weights do not lie on the grid. Each sits somewhere between two levels, so "
            "a small update tips a few of them over to the next level, and on average exactly as "
            "many as its size asks for: rounding off the grid keeps the mean of the update, as "
            "dithering does. So merge into the 16-bit base and quantise that."
        ),
        none=(
            "Both lose equally, so being off the grid does not help here. Then the rounding "
            "error of the weights dominates, and neither way is good; keep the adapter beside "
            "its base."
        ),
        unit=NATS,
    ),
    Claim(
        name="original",
        text="golden loss at the best rate, original base − beside",
        contrast=within(FASTEST, "original", "beside"),
        expected="none",
        above=(
            "The adapter misses the errors that it was trained beside: a little of what it "
            "learnt was their repair. The interval says how little; it is the price of serving "
            "from 16 bits."
        ),
        below=(
            "Over the base that it never saw the adapter is even better: at serving, a base "
            "without rounding errors is worth more than the one that the adapter knows."
        ),
        none=(
            "No difference that ten seeds could show: the adapter has learnt the task and not "
            "the repair of its base's errors. Merging into the 16-bit original is safe here."
        ),
        unit=NATS,
    ),
    Claim(
        name="shrunken",
        text="golden loss at a quarter of the rate, as much of the update unrounded − in NF4 again",
        contrast=within(SLOWEST, "shrunken", "again"),
        expected="none",
        above=(
            "The rounded update is worth more than its share suggests. What is left of it along "
            "its own direction, taken alone and without rounding, does worse. So the rest is not "
            "mere noise. A weight jumps where the push is large against the step of its own "
            "place on the grid, and then by the whole step, in the direction of the push."
        ),
        below=(
            "The rounded update is worth less than its share suggests: what rounding adds at "
            "right angles to the update is noise that does harm of its own."
        ),
        none=(
            "What is left along the update's own direction explains the loss: the rest, at right "
            "angles to it, neither helps nor harms measurably."
        ),
        unit=NATS,
    ),
)
