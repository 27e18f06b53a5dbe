"""What the experiments of lab 3.1.2 are to show, and what to conclude from each outcome.

The expectations are the paper's, or follow from the lab's own derivations. Each claim has a reading
for the outcome that contradicts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.course.records.experiment import Claim, Contrast, difference, within

NATS = "nats a token"
TUNED_ALIKE = ("LoRA", "DoRA", "direction only")  # over the same rates
RANKS_NAMED = ("lowest rank", "middle rank", "highest rank")
Runs = Mapping[str, Mapping[str, Any]]


def too_high(method: str) -> str:
    """The arm of a method at the rate that is too high."""
    return f"{method}, high rate"


def cost_of_rate(one: str, other: str) -> Contrast:
    """How much more the high rate costs one method than another: (one at the high rate − one at its
    best) − (other at the high rate − other at its best).
    """

    def subtract(by_arm: Runs) -> float:
        costs = []
        for method in (one, other):
            costs.append(by_arm[too_high(method)]["loss"] - by_arm[method]["loss"])
        return costs[0] - costs[1]

    return Contrast((one, too_high(one), other, too_high(other)), subtract)


METHODS = (
    Claim(
        "best",
        "test loss, DoRA − LoRA, each at its best rate",
        difference("loss", "DoRA", "LoRA"),
        "below",
        unit=NATS,
        above=(
            "At its best rate DoRA learns less than LoRA, the opposite of the paper's tables. Hold "
            "the size against what half a step of the grid of rates costs (under the first "
            "figure): below that it may still be the rate."
        ),
        below=(
            "At its best rate DoRA learns more. Before you call it the better method, hold the "
            "size against what half a step of the grid of rates costs (under the first figure): a "
            "difference of that size is also had by tuning LoRA a little better. More "
            "rates near the optimum would change this conclusion, more seeds would not."
        ),
        none=(
            "At each one's best rate no difference is shown. It does not say that there is "
            "none: the interval holds what may have been missed. Look at the curves once "
            "more: at some shared rate a difference would have shown, and it would have been "
            "the rate's."
        ),
    ),
    Claim(
        "robust",
        "what the high rate costs in test loss, LoRA − DoRA",
        cost_of_rate("LoRA", "DoRA"),
        "above",
        unit=NATS,
        above=(
            "A rate that is too high costs LoRA more: DoRA forgives it. Compare the size with "
            "the line above. Where every rate can be tried this is worth little, where one "
            "run is all you can afford it is worth much. It holds near this rate alone: the "
            "curves say where both methods fail."
        ),
        below=(
            "A rate that is too high costs DoRA more: dividing by the norm does not protect it "
            "here. The lengths m are then the suspects, since nothing divides them out; the next "
            "line says whether freezing them helps."
        ),
        none=(
            "No difference is shown in what the high rate costs. So close to where training "
            "fails, seeds differ widely: some runs fail and some do not, and the interval is "
            "as wide. The curves say whether the two part company at a lower rate."
        ),
    ),
    Claim(
        "robust without m",
        "what the high rate costs in test loss, direction only − DoRA",
        cost_of_rate("direction only", "DoRA"),
        "none",
        unit=NATS,
        above=(
            "With m frozen a high rate costs more, so trained lengths protect: a row that the "
            "high rate has turned too far can at least be made shorter."
        ),
        below=(
            "With m frozen a high rate costs *less*: a trained m is a weakness there, since "
            "nothing divides it out and Adam moves it by the rate at every step. Whatever "
            "forgives in DoRA is the division by the norm."
        ),
        none=(
            "With m frozen no different cost is shown. If DoRA forgives more than LoRA (the line "
            "above), then the division by the norm is a sufficient reason, and trained "
            "lengths are not needed for it."
        ),
    ),
    Claim(
        "turn",
        "turn of a row at the high rate, LoRA − DoRA",
        difference("turn", too_high("LoRA"), too_high("DoRA")),
        "none",
        unit="degrees",
        above=(
            "At the high rate LoRA's rows are turned further, so DoRA's division keeps the "
            "turns smaller as well as the lengths. It is no proof that this is why one "
            "forgives more: a run that fails also turns its rows further."
        ),
        below=(
            "At the high rate DoRA's rows are turned *further*, so smaller turns are no "
            "reason to forgive anything. What DoRA spares the model are the lengths: LoRA's "
            "rows become longer as they turn, and DoRA's do not."
        ),
        none=(
            "No difference is shown in how far the rows are turned, as the arithmetic above "
            "has it: a step turns a row by its size over ‖V‖ in both. So turns are not what "
            "tells the two apart. What is left are the lengths: LoRA's rows become longer as "
            "they turn, and DoRA's do not."
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
            "had become part of what it learnt. A division has to be there while training, to "
            "help."
        ),
        below=(
            "Giving LoRA's rows their old lengths back *after* training repairs part of the "
            "damage: part of what the high rate does is to make rows longer than they should be, "
            "and that is what DoRA divides out. Compare the size with the whole damage."
        ),
        none=(
            "Giving LoRA's rows their old lengths back after training neither repairs nor harms. "
            "The damage of the high rate is in the directions, and whatever the division does "
            "about it, it does while training."
        ),
    ),
    Claim(
        "m reset",
        "test loss of DoRA, lengths reset − as trained",
        within("DoRA", "reset_loss", "loss"),
        "above",
        unit=NATS,
        above=(
            "The learnt lengths are worth something as values. Hold the size against what "
            "half a step of the grid of rates costs, and against what scrambling costs."
        ),
        below="The trained directions do better with the *old* lengths: m has learnt noise.",
        none=(
            "The learnt lengths as values are worth nothing that this test can see: the trained "
            "directions do as well with the old lengths."
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
            "matter which row changes; growth as such helps. A control that comes out like this "
            "forbids to speak of learnt lengths."
        ),
        none=(
            "Changes of the same size in the wrong rows do no harm that this test can see. The "
            "model hardly cares how long its rows are at this size of change, as section 2 has "
            "shown for the base."
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
            "The same updates, turned at random, correlate as much. They have learnt nothing, so a "
            "high r is geometry and no evidence of something that LoRA cannot do."
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
            "DoRA's correlation is not told apart from that of the same updates, turned: that m is "
            "free does not show in this measure."
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
        none="Full fine-tuning's correlation is not told apart from geometry's.",
    ),
)

PARTS = (
    Claim(
        "m frozen",
        "test loss, m frozen − m trained, at DoRA's rate",
        difference("loss", "m frozen", "m trained"),
        "above",
        unit=NATS,
        above="A run that never trains m learns less. The next lines ask when m helps, and how.",
        below="A run that never trains m learns *more*: at this rate m is a burden.",
        none=(
            "A run that never trains m learns as much, as far as this many seeds can tell. What "
            "DoRA has over LoRA, if anything, is then the division by the norm."
        ),
    ),
    Claim(
        "as a value",
        "test loss, m reset after training − m trained",
        within("m trained", "reset_loss", "loss"),
        "above",
        unit=NATS,
        above=(
            "Taking the learnt lengths away after training costs something: they are worth "
            "something as values."
        ),
        below="Taking the learnt lengths away after training *helps*.",
        none="Taking the learnt lengths away after training costs nothing that can be seen.",
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
            "difference is shown. What m gives, if it gives anything, it gives as a value."
        ),
    ),
    Claim(
        "halves",
        "test loss, m trained in the first half only − in the second half only",
        difference("loss", "m first half", "m second half"),
        "below",
        unit=NATS,
        above="m is worth more late than early: it corrects lengths for directions already found.",
        below="m is worth more early than late, while the directions are still being found.",
        none="No difference is shown between training m early and late.",
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
            "A tenfold rate for m neither helps nor harms. What m can do here it does at either "
            "rate."
        ),
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
            "No price of detaching is shown, and its gain in memory is large (section 10): the "
            "paper's choice is the right one here."
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
            "No trend over the rank is shown once each rank has its own rate. The advice to try "
            "DoRA at low ranks first rests on the paper's Figure 5, where LoRA had one rate for "
            "all ranks."
        ),
    ),
)
