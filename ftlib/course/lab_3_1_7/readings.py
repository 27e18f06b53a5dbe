"""What the experiments of lab 3.1.7 on betas and methods are to show, and what to conclude from
each outcome.

The expectations are the papers' and the derivation's. Each claim has a reading for the outcome that
contradicts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.course.records.experiment import Claim, Contrast, difference

Runs = Mapping[str, Mapping[str, Any]]


def above_half(arm: str) -> Contrast:
    """The arm's win rate over the start, minus one half."""

    def over(by_arm: Runs) -> float:
        return by_arm[arm]["win"] - 0.5

    return Contrast((arm,), over)


def _since(arm: str, look: int) -> Contrast:
    """The arm's win rate at the end minus that at an earlier look."""

    def fall(by_arm: Runs) -> float:
        course = by_arm[arm]["win by step"]
        return course[-1] - course[look]

    return Contrast((arm,), fall)


def _ratio_over_raw(by_arm: Runs) -> float:
    own = by_arm["beta 5"]
    return own["right by ratio"] - own["right by log p"]


BETA = (
    Claim(
        "drift",
        "KL to the start, beta 0.01 − beta 5, each at its best rate",
        difference("kl", "beta 0.01", "beta 5"),
        "above",
        unit="nats",
        above=(
            "Beta is the price of a nat of KL, and the cheaper one buys more of it, even after "
            "each beta was given the rate that is best for it. It does not follow that beta "
            "*limits* the KL: the objective is never solved to its end here, and steps and rate "
            "limit the drift as well."
        ),
        below=(
            "The smaller beta stays nearer to the start: the best rate for it is so much lower "
            "that this outweighs the price. In a short run beta and rate are two handles on one "
            "thing, and the rate is the stronger one."
        ),
        none=(
            "At their best rates no difference in KL is shown, though one price is 500 times the "
            "other. Where a run is stopped before its objective is solved, rate and steps decide "
            "the drift as well."
        ),
    ),
    Claim(
        "large beta",
        "win rate, beta 0.1 − beta 5, each at its best rate",
        difference("win", "beta 0.1", "beta 5"),
        "above",
        above=(
            "A high price on KL costs wins: with beta 5 a pair counts as solved, and stops "
            "pulling, as soon as its margin is a fraction of a nat. So the best beta lies inside "
            "the grid and not at its upper edge."
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
            "Answers get worse while the training goes on: that is over-optimisation. Gao et al. "
            "find it against a learnt reward, Rafailov et al. (2024) for DPO, whose pairs play the "
            "reward's part. What to do: stop by win rate on validation prompts, never by the loss."
        ),
        none=(
            "Between halfway and its end the fast run neither gains nor loses wins that "
            "this many runs can show, although it goes on drifting: all that KL bought nothing."
        ),
    ),
    Claim(
        "ratio",
        "held-out pairs ranked right: by log π − log π_ref, minus by log π, beta 5",
        Contrast(("beta 5",), _ratio_over_raw),
        "above",
        above=(
            "A policy that beta holds near its start ranks pairs right by the ratio that was "
            "trained, and still holds the worse answer for the more likely one in some of them: "
            "where the reference preferred it strongly, the log-ratio must first make up for that "
            "(Chen et al. 2024). So `rewards/accuracies` is no statement on what the model would "
            "say."
        ),
        below=(
            "The probabilities rank better than the ratios that were trained. The reference "
            "ranks many pairs right already, and that part is in log π but not in the ratio."
        ),
        none=(
            "No difference between ratio and probability is shown, even where beta holds the "
            "policy near its start. DPO trains the first alone, so it need not stay so."
        ),
    ),
)


METHODS = (
    Claim(
        "wins",
        "win rate over the start − one half, DPO",
        above_half("DPO"),
        "above",
        above=(
            "On prompts that it never saw, DPO's answers have fewer faults than the start's more "
            "often than not. That DPO is the reason is not said yet: more training of any kind, or "
            "any drift, might do it. The next comparisons hold those fixed."
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
            "The rejected answers teach something. SFT saw the same prompts and chosen answers, as "
            "many times, at its own best rate; but the chosen answers have faults, and imitation "
            "learns those too. A comparison says which of two faulty reports is better, and so "
            "points beyond both. Where chosen answers are perfect, SFT can be as good."
        ),
        below=(
            "Imitating the chosen answers wins more often than comparing. Then preferences are not "
            "worth their trouble on these pairs: the start had not yet learnt all that the chosen "
            "answers hold."
        ),
        none=(
            "No difference between imitating and comparing is shown: these runs do not speak for "
            "collecting rejected answers, and not against it beyond the interval."
        ),
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
            "That one has gone further than the other is not shown; the interval says how unequal "
            "they might still be, and so how fair the next comparison is."
        ),
    ),
    Claim(
        "irrelevant",
        "win rate, DPO − a preference for certain sentences, at about the same KL",
        difference("win", "DPO", "irrelevant"),
        "above",
        above=(
            "Drift alone wins nothing: pairs on the same people, with as many steps and about the "
            "same KL, but chosen for their wording, do not bring these wins. What was preferred "
            "matters, and not that something was trained."
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
        "swapped",
        "win rate over the start − one half, all labels swapped",
        above_half("swapped"),
        "below",
        above=(
            "Training for the *worse* answers wins too. Then the sign of the labels does not "
            "matter, and neither do the labels."
        ),
        below=(
            "With every label turned round, the same pairs, steps and rate make answers worse: the "
            "sign of the labels decides, not the pairs' content."
        ),
        none=(
            "Turned labels do not make answers worse that this many runs could show. The policy "
            "may already give the kind of answer that is rejected."
        ),
    ),
    Claim(
        "IPO",
        "win rate, IPO − DPO, each at its best rate",
        difference("win", "IPO", "DPO"),
        "none",
        above=(
            "IPO wins more often. Its loss turns round at a margin of 1/(2β), so pairs that are "
            "ranked far enough are left alone, where DPO pushes on. One β was tried for it, and "
            "the best of four for DPO: the comparison even favours DPO."
        ),
        below=(
            "IPO wins less often. One β was tried for it and the best of four for DPO, so that "
            "this says little about the loss itself: its margin of 1/(2β) may be a wrong one."
        ),
        none=("No difference to DPO is shown, one β of IPO against the best of four of DPO."),
    ),
)
