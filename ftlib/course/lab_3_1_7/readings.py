"""What the experiments of lab 3.1.7 on betas and methods are to show, and what to conclude from
each outcome.

The expectations are the papers' and the derivation's. Each claim has a reading for the outcome that
contradicts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.course.records.experiment import (
    Claim,
    Contrast,
    difference,
    level,
    log_ratio,
    within,
)

Runs = Mapping[str, Mapping[str, Any]]
LARGE_AT_SHARED = "beta 5, rate of 0.01"
LONG_SFT = "SFT, four times as long"


def _since(arm: str, look: int) -> Contrast:
    """The arm's win rate at the end minus that at an earlier look."""

    def fall(by_arm: Runs) -> float:
        course = by_arm[arm]["win by step"]
        return course[-1] - course[look]

    return Contrast((arm,), fall)


BETA = (
    Claim(
        "drift",
        "ln(KL to the start, beta 0.01 / beta 5), at the same rate",
        log_ratio("kl", "beta 0.01", LARGE_AT_SHARED),
        "above",
        above=(
            "Beta is the price of a nat of KL, and at one rate the cheaper one buys more of it. It "
            "does not follow that beta *limits* the KL: the objective is never solved to its end "
            "here. How far each beta has gone at its own rate is in the list above."
        ),
        below="At one rate the smaller beta stays *nearer* to the start, against its price.",
        none=("At one rate no difference in KL is shown, though one price is 500 times the other."),
    ),
    Claim(
        "large beta",
        "win rate, beta 0.1 − beta 5, each at its best rate",
        difference("win", "beta 0.1", "beta 5"),
        "above",
        above=(
            "The large beta wins less often. What beta sets is the weight of a pair, "
            "σ(−beta·margin): where beta is large only pairs that are ranked wrong, or barely "
            "right, still pull. That is not the same as staying near the start: see margin and KL "
            "in the next line. Why a run weighted like this wins less is not measured here."
        ),
        below=(
            "The large beta wins more often. The small one needs to be stopped: look at its course "
            "on the plane, and at whether an earlier look wins as much."
        ),
        none=("A fiftyfold beta costs no wins that this many runs can show, each at its own rate."),
    ),
    Claim(
        "over-optimised",
        "win rate of the run that is too fast, at its end − halfway",
        _since("too fast", 1),
        "below",
        above=(
            "The fast run still gains. It has not come to the point where more KL costs wins; more "
            "steps or a higher rate would be needed to see Gao et al.'s turn."
        ),
        below=(
            "Answers get worse while the training goes on. Gao et al. find such a turn against a "
            "learnt reward, Rafailov et al. (2024) for DPO, whose pairs play the reward's part. At "
            "three times the best rate it may also be plain damage by large steps: read the sample "
            "in section 5. What to do in either case: stop by win rate on validation prompts, "
            "never by the loss."
        ),
        none=(
            "Between halfway and its end the fast run neither gains nor loses wins that "
            "this many runs can show."
        ),
    ),
    Claim(
        "ratio",
        "held-out pairs ranked right: by log π − log π_ref, minus by log π, beta 5 at the rate of "
        "0.01",
        within(LARGE_AT_SHARED, "right by ratio", "right by log p"),
        "above",
        above=(
            "A policy with small margins ranks pairs right by the trained ratio, and still makes "
            "the worse answer the more likely one in some of them: where the reference preferred "
            "it strongly, the log-ratio must first make up for that (Chen et al. 2024). So "
            "`rewards/accuracies` need not be what the model would say."
        ),
        below=(
            "The probabilities rank better than the ratios that were trained. The reference "
            "ranks many pairs right already, and that part is in log π but not in the ratio."
        ),
        none=(
            "No difference between ratio and probability is shown, even where margins are small. "
            "DPO trains the first alone, so it need not stay so."
        ),
    ),
)


METHODS = (
    Claim(
        "wins",
        "win rate over the start − one half, DPO",
        level("win", "DPO", 0.5),
        "above",
        above=(
            "On prompts that it never saw, DPO's answers have fewer faults than the start's more "
            "often than more of them. That the preferences are the reason is not said yet: more "
            "training of any kind, any drift, or a sharper policy might do it."
        ),
        below=(
            "DPO's answers lose against the start's. The rate was chosen on other prompts, of "
            "which there are few: look whether the sweep's best rate was a lucky one."
        ),
        none=(
            "No gain over the start is shown. The pairs may be too few, or the steps: look at the "
            "margin on the training pairs, which says whether anything was learnt."
        ),
    ),
    Claim(
        "DPO and SFT",
        "win rate, DPO − SFT on the chosen answers, each at its best rate",
        difference("win", "DPO", "SFT on chosen"),
        "above",
        above=(
            "At temperature 1 the pairs bring wins that as many steps of imitation do not, on the "
            "same prompts and chosen answers and at its own best rate. Whether DPO's answers are "
            "better or only surer, and what imitation has learnt instead, is measured at a low "
            "temperature: “Better, or only surer?”, below."
        ),
        below=(
            "Imitating the chosen answers wins more often than comparing. Then preferences are not "
            "worth their trouble on these pairs: the start had not yet learnt all that the chosen "
            "answers hold."
        ),
        none=(
            "No difference between imitating and comparing is shown: these runs are no argument "
            "for collecting rejected answers, nor against it beyond the interval."
        ),
    ),
    Claim(
        "DPO and long SFT",
        "win rate, DPO − SFT on the chosen answers, four times as long",
        difference("win", "DPO", LONG_SFT),
        "above",
        above=(
            "Nor do four times as many steps of imitation make up for it, which see four times as "
            "many chosen answers."
        ),
        below="Four times as many steps of imitation win more often than DPO.",
        none="Against four times as many steps of imitation no difference is shown.",
    ),
    Claim(
        "equal drift",
        "KL to the start, DPO − the irrelevant preference",
        difference("kl", "DPO", "irrelevant"),
        "none",
        unit="nats",
        above=(
            "The control has not gone as far as DPO, so the next comparison is not at equal "
            "drift: part of the difference in wins may be the drift's. Its rate was set on "
            "validation prompts and ends lower here."
        ),
        below=(
            "The control has gone further than DPO, so it had more drift to win with, and more to "
            "be damaged by. Read the next comparison with that in mind."
        ),
        none=(
            "It is not shown that one has gone further than the other; the interval says how "
            "unequal they might still be, and so how fair the next comparison is."
        ),
    ),
    Claim(
        "irrelevant",
        "win rate, DPO − a preference for certain sentences, at about the same KL",
        difference("win", "DPO", "irrelevant"),
        "above",
        above=(
            "Pairs on the same people, with as many steps and about the same KL, but chosen for "
            "their wording, do not bring these wins. What was preferred matters, and not only that "
            "something was trained. The next line says whether the control itself does harm: then "
            "part of the difference is its harm."
        ),
        below=(
            "A preference that the judge does not see wins more than the one it does see. Then the "
            "wins come from something both share, such as firmer format, and the claim above "
            "about preferences has no support."
        ),
        none=(
            "No difference is shown. The wins of DPO may then come from drift alone, and the claim "
            "has no support here."
        ),
    ),
    Claim(
        "irrelevant itself",
        "win rate over the start − one half, the preference for certain sentences",
        level("win", "irrelevant", 0.5),
        "none",
        above="The irrelevant preference wins too: part of DPO's wins may be what both share.",
        below=(
            "The irrelevant preference *loses*: so much drift for the wording's sake harms the "
            "facts. Its reports also have other numbers of faults than DPO's pairs, the same on "
            "both sides."
        ),
        none=(
            "At its end, drift for the wording's sake alone is not shown to win or to lose. The "
            "way there is another matter: see the line and the figure of its halves."
        ),
    ),
    Claim(
        "swapped",
        "win rate over the start − one half, all labels swapped",
        level("win", "swapped", 0.5),
        "below",
        above="Training for the *worse* answers wins too, so the sign of the labels is not all.",
        below=(
            "With every label swapped, the same pairs, steps and rate make answers worse. How far "
            "this policy has gone, the figure shows."
        ),
        none=(
            "Swapped labels are not shown to make answers worse. The policy "
            "may already give the kind of answer that is rejected."
        ),
    ),
    Claim(
        "IPO",
        "win rate, IPO − DPO, each at its best rate",
        difference("win", "IPO", "DPO"),
        "none",
        above=(
            "IPO wins more often, with one β tried against the best of four for DPO. Whether its "
            "target, a margin of 1/(2β), was reached is printed above."
        ),
        below=(
            "IPO wins less often. One β was tried for it and the best of four for DPO, so that "
            "this says little about the loss itself."
        ),
        none=("No difference to DPO is shown, one β of IPO against the best of four of DPO."),
    ),
)


COOL_DPO, COOL_SFT = "DPO, T 0.3", "SFT, T 0.3"
SHARPENED = (
    Claim(
        "cooler",
        "win rate over the start at T 1 − one half, the start at T 0.3",
        level("win", "T 0.3", 0.5),
        "above",
        above=(
            "The start wins over itself if it is only sampled at a lower temperature, without any "
            "training. So part of what a policy wins at temperature 1 may be that it has become "
            "surer. The next line takes that part out."
        ),
        below="A lower temperature makes the start's answers worse.",
        none="A lower temperature alone is not shown to win.",
    ),
    Claim(
        "DPO, cool",
        "win rate over the start − one half, DPO and the start both at T 0.3",
        level("win alike", COOL_DPO, 0.5),
        "above",
        above=(
            "At a low temperature, where slips count for less, DPO still wins. It has changed what "
            "the model considers most likely, and not only how sure it is."
        ),
        below=(
            "With both at a low temperature, DPO *loses*. What it won at temperature 1 it won by "
            "being surer."
        ),
        none=(
            "With both at a low temperature, no win is shown. What DPO wins at temperature 1 may "
            "then be sureness alone, which a lower temperature gives for nothing."
        ),
    ),
    Claim(
        "DPO and SFT, cool",
        "win rate over the start, all at T 0.3, DPO − SFT on the chosen answers",
        difference("win alike", COOL_DPO, COOL_SFT),
        "above",
        above=(
            "The advantage over imitation is not sureness either: it remains at a low temperature. "
            "The chosen answers have faults, and imitation learns those too; comparison teaches "
            "that fewer are better. Where faults can be counted, the next line compares them. "
            "Where chosen answers are perfect, SFT can be as good."
        ),
        below="At a low temperature imitation wins more often than DPO.",
        none="At a low temperature no difference between DPO and imitation is shown.",
    ),
)
