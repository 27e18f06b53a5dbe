"""What the experiments of lab 3.1.7 on pairs, noise and length are to show, and what to conclude
from each outcome.
"""

from __future__ import annotations

from ftlib.course.records.experiment import Claim, difference, level

DISTANCE = (
    Claim(
        "alike",
        "log π − log π_ref of right reports after pairs that differ in one token",
        level("chosen", "level 0"),
        "below",
        unit="nats",
        above=(
            "Right reports of people outside training become *more* likely, although the pairs "
            "differ in a single token. Not every pair of similar answers leads to displacement: "
            "here the model knows the right town, and what it learns is to use it. Pal et al.'s "
            "argument needs answers whose later tokens lose more than the differing one gains."
        ),
        below=(
            "Right reports become *less* likely, although they are the preferred ones: likelihood "
            "displacement. The loss sees only the difference. The figure says what the wrong "
            "reports did, and the right ones in other words."
        ),
        none=("Right reports have moved neither way that this many runs could show."),
    ),
    Claim(
        "distance",
        "log π − log π_ref of right reports, pairs reworded throughout − pairs that differ in one "
        "token",
        difference("chosen", "level 3", "level 0"),
        "above",
        unit="nats",
        above=(
            "Right reports end higher after the unlike pairs, on the same probe and with nothing "
            "else changed. This is Pal et al.'s finding."
        ),
        below=(
            "Here right reports end lower after the *unlike* pairs, against Pal et "
            "al.'s finding: edit distance alone does not decide. Whether that is a smaller gain or "
            "a loss is in the list above: a number above 0 is a gain."
        ),
        none=(
            "The distance between chosen and rejected makes no difference to the probe that this "
            "many runs could show: no support for Pal et al.'s finding on these pairs."
        ),
    ),
    Claim(
        "pushed",
        "log π − log π_ref of right reports, the same pairs pushed hard − at DPO's best rate",
        difference("chosen", "level 0, hard", "level 0"),
        "below",
        unit="nats",
        above=("Pushed harder, the right reports gain more."),
        below=(
            "Pushed harder, at twice the rate, the same pairs leave the right reports less likely "
            "than at DPO's best rate. Where the list above has them below 0, that is displacement, "
            "a matter of how far one goes as well as of the pairs."
        ),
        none=("Pushing harder moves the right reports neither way that this many runs could show."),
    ),
    Claim(
        "learnt",
        "margin of right over wrong reports of the probe, pairs reworded throughout − pairs that "
        "differ in one token",
        difference("probe margin", "level 3", "level 0"),
        "below",
        unit="nats",
        above=(
            "The unlike pairs teach the fact better. The wordings do not distract; they give the "
            "gradient more to hold on to."
        ),
        below=(
            "Pairs that differ in nothing but the fact teach the fact with the larger margin. "
            "Where the wording differs as well, a part of the training may go into wordings; that "
            "part is not measured here. Pairs that differ in what matters and in nothing else are "
            "the better ones by this number, as long as the chosen answer's own probability is "
            "watched."
        ),
        none=("Which kind of pair teaches the fact better is not shown."),
    ),
)


NOISE = (
    Claim(
        "smaller margin",
        "mean margin of pairs of the training pool, cDPO − plain, 30% of the labels swapped",
        difference("margin", "cDPO", "plain"),
        "below",
        unit="nats",
        above=(
            "cDPO's margins are larger, against the derivation. Neither loss can be near its "
            "optimum, and what is seen is how they begin."
        ),
        below=(
            "cDPO ranks with smaller margins. Its optimum is nearer to 0, since it smooths a "
            "second time what the swapped labels have already smoothed. But a policy that has "
            "moved less has smaller margins too, whatever its optimum: read the KLs beside the "
            "margins above. These runs do not separate the two."
        ),
        none=(
            "No difference between the margins is shown. The line above says how far they are "
            "from the optima."
        ),
    ),
    Claim(
        "cDPO",
        "win rate, cDPO − plain, 30% of the labels swapped",
        difference("win", "cDPO", "plain"),
        "below",
        above=("Smoothing wins more often, although its optimum lies nearer to 0."),
        below=(
            "Smoothing loses wins at the same rate. Its optimum lies nearer to 0 than that of "
            "plain DPO on the same noisy labels, whose own is finite already; and where the KLs "
            "above are smaller it has also moved less, for which a higher rate might make up. Each "
            "pair is seen once here, so no label can be learnt by heart, which is what smoothing "
            "would prevent."
        ),
        none=(
            "Smoothing makes no difference to wins that this many runs could show, whatever it "
            "does to the margins. Each pair is seen once here, so that none can be learnt by heart."
        ),
    ),
    Claim(
        "rDPO",
        "win rate, rDPO − plain, 30% of the labels swapped",
        difference("win", "rDPO", "plain"),
        "above",
        above=(
            "Taking the noise out of the loss wins more often: rDPO's mean is the loss on the "
            "labels as they should be, so that its optimum is not drawn towards 0. Where its KL in "
            "the line above is larger, having moved further may be a part of it. It needs to know "
            "ε, which is known here and must be estimated elsewhere."
        ),
        below=(
            "rDPO loses wins. It is right on average, but its weights are larger and of both "
            "signs, so that its gradient is noisier."
        ),
        none=(
            "rDPO makes no difference to wins that this many runs could show. It is right on "
            "average and noisier in each step."
        ),
    ),
    Claim(
        "cost of noise",
        "win rate, plain DPO with 30% of the labels swapped − with none",
        difference("win", "plain", "clean"),
        "below",
        above="With swapped labels plain DPO wins *more* often, which nobody would expect.",
        below=(
            "Swapped labels cost plain DPO wins, at the rate that is best for clean ones. That is "
            "what a cure could win back."
        ),
        none=(
            "What 30% of swapped labels cost plain DPO is not shown, so that there is little for a "
            "cure to win back."
        ),
    ),
)


LENGTH = (
    Claim(
        "longer",
        "words in an answer, pairs whose chosen answer is always longer − lengths matched",
        difference("words", "chosen longer", "matched"),
        "above",
        unit="words",
        above=(
            "The same preference for polite answers gives longer answers than matched pairs do if "
            "the preferred answer was always the longer one: the labels fit “longer” as well as "
            "“politer”. What makes these answers longer is a single thing, named above: so these "
            "runs cannot say whether the policy has learnt length or that thing. Either way: match "
            "lengths before you train (`ft.balance_length`), and report the length beside every "
            "win rate."
        ),
        below=(
            "Answers are shorter after pairs whose chosen answer is longer. Something else than "
            "length was learnt: read samples."
        ),
        none=("No difference in length is shown in so few steps."),
    ),
)
