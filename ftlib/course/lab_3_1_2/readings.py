"""What the experiments of lab 3.1.2 are to show, and what to conclude from each outcome.

The expectations are the paper's, or follow from the lab's own derivations. Each claim has a reading
for the outcome that contradicts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.course.records.experiment import Claim, Contrast, difference, within

NATS = "nats per token"
TUNED_ALIKE = ("LoRA", "DoRA", "direction only")  # over the same rates
RANKS_NAMED = ("lowest rank", "middle rank", "highest rank")
MAYBE_SAME_RUNS = (  # "m frozen" is *direction only* at the rate of DoRA
    "Where section 5 chose that same rate for *direction only*, this is section 5's comparison "
    "again and no new evidence."
)
Runs = Mapping[str, Mapping[str, Any]]


def too_high(method: str) -> str:
    """The arm of a method at the rate that is too high."""
    return f"{method}, high rate"


METHODS = (
    Claim(
        "best",
        "test loss, DoRA − LoRA, each at its best rate",
        difference("loss", "DoRA", "LoRA"),
        "below",
        unit=NATS,
        above=(
            "At its best rate DoRA learns less than LoRA, the opposite of the paper's tables. "
            "Compare the difference with what the neighbouring rate costs (under the second "
            "figure): if it is smaller, it may still be the rate."
        ),
        below=(
            "At its best rate DoRA learns more. Before you call it the better method, compare "
            "the difference with what the neighbouring rate costs (under the second figure): "
            "tuning LoRA a little better can gain as much. The next two lines ask which part of "
            "DoRA it is."
        ),
        none=(
            "At each one's best rate no difference is shown. That does not mean that "
            "there is none: the interval says how much may have been missed."
        ),
    ),
    Claim(
        "division",
        "test loss, direction only − LoRA, each at its best rate",
        difference("loss", "direction only", "LoRA"),
        "below",
        unit=NATS,
        above="Dividing by the norm, with the lengths frozen, learns *less* than LoRA.",
        below=(
            "Dividing by the norm, with the lengths frozen, already learns more than LoRA: no "
            "trained length is needed for that."
        ),
        none=(
            "Dividing by the norm, with the lengths frozen, is not shown to differ from LoRA at "
            "the best rates of both."
        ),
    ),
    Claim(
        "trained lengths",
        "test loss, DoRA − direction only, each at its best rate",
        difference("loss", "DoRA", "direction only"),
        "below",
        unit=NATS,
        above="With trained lengths DoRA learns less than with frozen ones.",
        below=(
            "Trained lengths add something to the division. Section 6 asks whether as values, or "
            "by what they do for the run."
        ),
        none="What trained lengths add to the division is not shown at the best rates of both.",
    ),
    Claim(
        "high rate",
        "test loss at the high rate, DoRA − LoRA",
        difference("loss", too_high("DoRA"), too_high("LoRA")),
        "below",
        unit=NATS,
        above="At a rate that is too high for both DoRA ends *worse* than LoRA.",
        below=(
            "At a rate that is too high for both DoRA ends better. Where every rate can be tried "
            "this is worth little, where one run is all you can afford it is worth much. It holds "
            "near this rate: the curves say where both methods fail."
        ),
        none="At a rate that is too high for both no difference is shown.",
    ),
    Claim(
        "division at a high rate",
        "test loss at the high rate, direction only − LoRA",
        difference("loss", too_high("direction only"), too_high("LoRA")),
        "below",
        unit=NATS,
        above="The division alone, with frozen lengths, makes the high rate worse.",
        below=(
            "The division alone, with frozen lengths, makes the high rate better. How much of "
            "DoRA's gain that leaves to the trained lengths, the next line bounds."
        ),
        none="What the division alone does at the high rate is not shown.",
    ),
    Claim(
        "lengths trained at a high rate",
        "test loss at the high rate, DoRA − direction only",
        difference("loss", too_high("DoRA"), too_high("direction only")),
        "none",
        unit=NATS,
        above=(
            "With trained lengths the high rate ends worse: nothing divides a length out, and "
            "Adam moves it by the rate at every step."
        ),
        below="With trained lengths the high rate ends better than with frozen ones.",
        none="At the high rate trained lengths are not shown to differ from frozen ones.",
    ),
    Claim(
        "turn",
        "turn of a row at the high rate, LoRA − DoRA",
        difference("turn", too_high("LoRA"), too_high("DoRA")),
        "none",
        unit="degrees",
        above=(
            "At the high rate LoRA's rows are turned further, so DoRA's division keeps the "
            "turns smaller as well as the lengths. It is no proof that this is why one ends "
            "better: a run that fails also turns its rows further."
        ),
        below=(
            "At the high rate DoRA's rows are turned *further*, so smaller turns are no "
            "reason to end better. What DoRA spares the model are the lengths: those of LoRA's "
            "rows change as they turn, those of DoRA's hardly."
        ),
        none=(
            "No difference is shown in how far the rows are turned, as the arithmetic above "
            "has it: a step turns a row by its size over ‖V‖ in both. So the *size* of the turns "
            "does not explain the difference; where they point is not measured. The lengths do "
            "differ: those of LoRA's rows change as they turn, those of DoRA's hardly."
        ),
    ),
    Claim(
        "lengths at a high rate",
        "test loss of LoRA at the high rate, lengths reset − as trained",
        within(too_high("LoRA"), "reset_loss", "loss"),
        "below",
        unit=NATS,
        above=(
            "Giving LoRA's rows their old lengths back after training makes it worse: the lengths "
            "had become part of what it learnt. They are not simply damage that could be cut off "
            "afterwards."
        ),
        below=(
            "Giving LoRA's rows their old lengths back *after* training repairs part of the "
            "damage: part of what the high rate does is to make rows longer than they should be, "
            "and that is what DoRA divides out. Compare the size with the whole damage."
        ),
        none=(
            "Whether giving LoRA's rows their old lengths back after training repairs or harms is "
            "not shown."
        ),
    ),
    Claim(
        "m reset",
        "test loss of DoRA, lengths reset − as trained",
        within("DoRA", "reset_loss", "loss"),
        "above",
        unit=NATS,
        above=(
            "The learnt lengths are worth something as values. Compare the size with what the "
            "neighbouring rate costs, and with what scrambling costs."
        ),
        below="The trained directions do better with the *old* lengths: m has learnt noise.",
        none=(
            "The learnt lengths as values are worth nothing that this test can see: with the old "
            "lengths the model is not shown to differ from the model as trained."
        ),
    ),
    Claim(
        "m scrambled",
        "test loss of DoRA, lengths scrambled − reset",
        within("DoRA", "scrambled_loss", "reset_loss"),
        "above",
        unit=NATS,
        above=(
            "Changes of the same size in the wrong rows are worse than none: which row grows and "
            "which shrinks is part of what was learnt, or any such change would harm."
        ),
        below=(
            "Changes of the same size in the *wrong* rows are better than none, so it does not "
            "matter which row changes; growth as such helps. With a control that comes out like "
            "this, one cannot speak of learnt lengths."
        ),
        none=(
            "Changes of the same size in the wrong rows do no harm that this test can see. The "
            "model hardly cares how long its rows are at this size of change (section 2 asks the "
            "same of the base)."
        ),
    ),
    Claim(
        "plane, LoRA",
        "r of ΔM and ΔD, queries, LoRA − the same updates turned",
        within("LoRA", "r_query", "r_query_turned"),
        "none",
        above=(
            "LoRA's changes of length and direction are tied more closely than geometry ties "
            "them: that is what the paper says of it."
        ),
        below=(
            "LoRA's changes of length and direction are tied *less* closely than those of the same "
            "updates turned at random: what it has learnt loosens the tie. The high correlation "
            "is geometry."
        ),
        none=(
            "Pooled as in the paper's figure, LoRA's r is not shown to differ from that of the "
            "same updates, turned at random. The turned updates have learnt nothing, so a high r "
            "of this kind is no evidence of something that LoRA cannot do."
        ),
    ),
    Claim(
        "plane, DoRA",
        "r of ΔM and ΔD, queries, DoRA − the same updates turned",
        within("DoRA", "r_query", "r_query_turned"),
        "below",
        above="DoRA ties length and direction more closely than its updates, turned, would.",
        below=(
            "DoRA's lengths are less tied to its directions than the same updates, turned, would "
            "have them. That m is a parameter of its own is visible. Whether the sign is the "
            "paper's negative one is another question: see the panels."
        ),
        none=(
            "DoRA's correlation is not shown to differ from that of the same updates, turned: "
            "this measure does not show that m is free."
        ),
    ),
    Claim(
        "plane, full",
        "r of ΔM and ΔD, queries, full − the same updates turned",
        within("full", "r_query", "r_query_turned"),
        "below",
        above="Full fine-tuning ties length and direction more closely than geometry does.",
        below=(
            "Full fine-tuning ties length and direction less closely than geometry does, as the "
            "paper says of it, and without a parameter for lengths."
        ),
        none="Pooled like this, full fine-tuning's r is not shown to differ from geometry's.",
    ),
    Claim(
        "end, LoRA",
        "r of ΔM and ΔD at the end, all matrices, LoRA − the same updates turned",
        within("LoRA", "r_last", "r_last_turned"),
        "none",
        above="At the end, over all matrices, LoRA's tie is closer than geometry's.",
        below=(
            "At the end, over all matrices and without the clock of training, LoRA's tie is "
            "looser than geometry's: what it has learnt loosens it, if by little."
        ),
        none="At the end, over all matrices, LoRA's tie is not shown to differ from geometry's.",
    ),
    Claim(
        "end, full",
        "r of ΔM and ΔD at the end, all matrices, full − the same updates turned",
        within("full", "r_last", "r_last_turned"),
        "below",
        above="At the end, over all matrices, full fine-tuning's tie is closer than geometry's.",
        below=(
            "At the end, over all matrices, full fine-tuning's tie is looser than geometry's, in "
            "the direction that the paper describes, although r itself stays positive."
        ),
        none="At the end, over all matrices, full fine-tuning's tie is not shown to differ either.",
    ),
)

PARTS = (
    Claim(
        "m frozen",
        "test loss, m frozen − m trained, at DoRA's rate",
        difference("loss", "m frozen", "m trained"),
        "above",
        unit=NATS,
        above=(
            "A run that never trains m learns less. The next lines ask when m helps, and how. "
            + MAYBE_SAME_RUNS
        ),
        below=(
            "A run that never trains m learns *more*: at this rate m is a burden. "
            + MAYBE_SAME_RUNS
        ),
        none=(
            "A run that never trains m is not shown to differ from one that does, at the rate that "
            "was chosen with m trained. " + MAYBE_SAME_RUNS
        ),
    ),
    Claim(
        "while training",
        "test loss, m frozen − m trained and then reset",
        Contrast(
            ("m frozen", "m trained"),
            lambda by_arm: by_arm["m frozen"]["loss"] - by_arm["m trained"]["reset_loss"],
        ),
        "above",
        unit=NATS,
        above=(
            "Two models with the same old lengths: one trained with m, one without. The first has "
            "learnt more. So m helps *while* training, by the directions that it lets A and B "
            "find, beyond its final value."
        ),
        below=(
            "Two models with the same old lengths, one trained with m, one without: the one "
            "without is better. Directions found beside a moving m rely on it."
        ),
        none=(
            "Two models with the same old lengths, one trained with m, one without: no "
            "difference is shown, so it stays open whether m helps the run."
        ),
    ),
    Claim(
        "halves",
        "test loss, m trained in the first half only − in the second half only",
        difference("loss", "m first half", "m second half"),
        "below",
        unit=NATS,
        above=(
            "m is worth more in the second half, although the schedule leaves it a small part of "
            "the rate there."
        ),
        below=(
            "m is worth more in the first half. But the cosine schedule spends most of the rate "
            "there, so this may be how far m could move and not when."
        ),
        none=(
            "No difference is shown. (The halves are not alike: the cosine schedule spends most "
            "of the rate in the first.)"
        ),
    ),
    Claim(
        "m fast",
        "test loss, m × 10 − m trained",
        difference("loss", "m × 10", "m trained"),
        "below",
        unit=NATS,
        above=(
            "A tenfold rate for m does harm: the shared rate is not too low for it, although Adam "
            "moves a length by a smaller share of its size than an entry of A."
        ),
        below=(
            "A tenfold rate for m helps: at the shared rate m is under-trained, because Adam moves "
            "every number by about the rate, and a length is large beside an entry of A. Then "
            "DoRA as it is commonly run gives m less than it could use."
        ),
        none=(
            "Whether a tenfold rate for m helps or harms is not shown; the lengths move much "
            "further with it."
        ),
    ),
    Claim(
        "value of a fast m",
        "test loss of m × 10, lengths reset − as trained",
        within("m × 10", "reset_loss", "loss"),
        "above",
        unit=NATS,
        above=(
            "Lengths that have moved that far carry part of what was learnt: taken away, it is "
            "missing. So lengths *can* learn here; at the shared rate they hardly move."
        ),
        below="Lengths that have moved that far do harm: taken away, the model is better.",
        none="Even lengths that have moved that far are worth nothing that this test can see.",
    ),
    Claim(
        "detached",
        "test loss, norm with gradient − norm detached",
        difference("loss", "norm's gradient", "m trained"),
        "below",
        unit=NATS,
        above=(
            "With a gradient through the norm it learns *less*, at the rate that was chosen for "
            "the detached norm. At a rate of its own this may vanish."
        ),
        below=(
            "With a gradient through the norm it learns more: detaching has a price in loss, as it "
            "has a gain in memory (section 10). The rate was even chosen for the detached norm."
        ),
        none=(
            "No price of detaching is shown, at the rate that was chosen for the detached norm. "
            "Section 10 has what it saves."
        ),
    ),
)


def _gain(by_arm: Runs, place: str) -> float:
    """By how much DoRA's loss is lower at a rank."""
    return by_arm[f"LoRA, {place}"]["loss"] - by_arm[f"DoRA, {place}"]["loss"]


def _gain_grows(by_arm: Runs) -> float:
    return _gain(by_arm, RANKS_NAMED[-1]) - _gain(by_arm, RANKS_NAMED[0])


def _at_rank(place: str) -> Claim:
    return Claim(
        place,
        f"test loss, DoRA − LoRA, {place}",
        difference("loss", f"DoRA, {place}", f"LoRA, {place}"),
        "below",
        unit=NATS,
        above="At this rank LoRA learns more, each at its own rate.",
        below="At this rank DoRA learns more, each at its own rate.",
        none="At this rank no difference is shown, each at its own rate.",
    )


RANKS = (
    *[_at_rank(place) for place in RANKS_NAMED[::2]],  # the middle one is `METHODS`' first
    Claim(
        "trend",
        "DoRA's gain in test loss, highest rank − lowest rank",
        Contrast(
            tuple(
                f"{method}, {place}" for place in RANKS_NAMED[::2] for method in ("LoRA", "DoRA")
            ),
            _gain_grows,
        ),
        "below",
        unit=NATS,
        above=(
            "The gain is larger at the *highest* rank, the opposite of the paper's Figure 5. There "
            "LoRA had one rate for all ranks, here each rank has its own: try DoRA where LoRA's "
            "update is large rather than where its rank is low."
        ),
        below=(
            "The gain is larger at the lowest rank, as in the paper's Figure 5, and with a rate "
            "for each rank: try DoRA first where the rank is low."
        ),
        none=(
            "No trend over the rank is shown once each rank has its own rate, and one smaller "
            "than this interval could not have been seen. The advice to try DoRA at low ranks "
            "first rests on the paper's Figure 5, where LoRA had one rate for all ranks."
        ),
    ),
)
