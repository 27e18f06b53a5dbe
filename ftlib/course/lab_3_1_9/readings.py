"""The claims of lab 3.1.9 on judgements, with what to conclude in each case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.course.records.experiment import Claim, Contrast, difference

SHARE = "of the questions"
KTO_RATE = ", KTO's rate"
SFT_RATE = ", SFT's rate"
TIE_OF_START = 0.5  # win rate of the start against itself

ByArm = Mapping[str, Mapping[str, Any]]


def fall(method: str, others: str, rate: str = "") -> Contrast:
    """What 40% wrong judgements cost `method`, less what they cost `others`, in win rate: above 0,
    it loses less. `rate`: what the names of the others' arms end in.
    """
    own = (f"{method}, 0% wrong", f"{method}, 40% wrong")
    arms = (*own, f"{others}, 0% wrong{rate}", f"{others}, 40% wrong{rate}")

    def compare(by_arm: ByArm) -> float:
        right, wrong, other_right, other_wrong = (by_arm[arm]["wins"] for arm in arms)
        return (wrong - right) - (other_wrong - other_right)

    return Contrast(arms, compare)


def over_start(arm: str) -> Contrast:
    """The arm's win rate over the start, less that of the start against itself."""

    def subtract(by_arm: ByArm) -> float:
        return by_arm[arm]["wins"] - TIE_OF_START

    return Contrast((arm,), subtract)


def hidden_by_greedy(method: str) -> Contrast:
    """Share of polite answers when the most likely token is taken, less that when one is drawn: by
    how much more this is at 40% wrong than at 0%.
    """
    arms = (f"{method}, 40% wrong", f"{method}, 0% wrong")

    def compare(by_arm: ByArm) -> float:
        noisy, clean = (by_arm[arm]["polite"] - by_arm[arm]["polite_sampled"] for arm in arms)
        return noisy - clean

    return Contrast(arms, compare)


# --- the same judgements --------------------------------------------------------------------------
CLEAN = (
    Claim(
        "same judgements",
        "win rate, KTO − DPO, the same judgements",
        difference("wins", "KTO, 0% wrong", "DPO, 0% wrong"),
        "none",
        unit=SHARE,
        above=(
            "At the rates that the rule took KTO is ahead of DPO on the very same judgements, "
            "split into thumbs. Look at the line of distances: at these rates the two may move "
            "unequally far. The next line says whether it is a lead of methods or of rates. β was "
            "0.1 for both and not tuned."
        ),
        below=(
            "At the rates that the rule took DPO is ahead on the very same judgements. Look at the "
            "line of distances: at these rates the two may move unequally far. The next line says "
            "whether it is a lead of methods or of rates. β was 0.1 for both and not tuned."
        ),
        none=(
            "No difference is shown on the very same judgements. That is not the same as equal: "
            "any difference inside the interval fits these runs. A narrower one needs more seeds "
            "and more prompts."
        ),
    ),
    Claim(
        "against SFT",
        "win rate, KTO − SFT on the liked answers",
        difference("wins", "KTO, 0% wrong", "SFT, 0% wrong"),
        "above",
        unit=SHARE,
        above=(
            "At the rates taken KTO, which also sees the thumbs down, beats imitation of the liked "
            "answers; whether it does at one rate, the next line says. Without this baseline a "
            "win over the start would say nothing about the thumbs down."
        ),
        below=(
            "At the rates taken plain imitation of the liked answers does better than KTO; whether "
            "it does at one rate, the next line says. If liked answers are at hand and the wanted "
            "manner is in their words, have SFT as a baseline, with a rate chosen as carefully. "
            "Section 9 measures how it goes where most of what you have is thumbs down."
        ),
        none=(
            "No difference to plain imitation of the liked answers is shown, so these runs do not "
            "show what the thumbs down are worth. Try the baseline before you build anything on "
            "thumbs."
        ),
    ),
    Claim(
        "thumbs",
        "win rate, KTO on loose thumbs − on shuffled ones",
        difference("wins", "KTO, loose thumbs", "KTO, shuffled thumbs"),
        "above",
        unit=SHARE,
        above=(
            "The labels carry this difference: texts, steps, rate and the numbers of thumbs are "
            "the same. The next line and the table say whether the right labels help or the "
            "shuffled ones harm."
        ),
        below=(
            "Shuffled labels do better than the given ones. Then what wins here is not the "
            "judgement but any training on these texts; look at the answers in the table."
        ),
        none=(
            "No difference to shuffled labels is shown, so nothing here may be credited to the "
            "judgements. More thumbs or a higher rate would have to show it."
        ),
    ),
    Claim(
        "shuffled",
        "win rate, KTO on shuffled thumbs − the start (one half)",
        over_start("KTO, shuffled thumbs"),
        "none",
        unit=SHARE,
        above=(
            "Even with shuffled labels KTO beats the start: that much of a win over the start "
            "comes from training on these texts, not from the judgements."
        ),
        below=(
            "With shuffled labels KTO does worse than the start: the control is harmful, "
            "and a part of the lead over it is the harm. The table shows what the answers have "
            "lost. Judge what right labels are worth by the lead over the start as well."
        ),
        none=(
            "The win rate shows neither harm nor gain from shuffled labels. It is only one number: "
            "other columns of the table may still have moved."
        ),
    ),
)

# --- wrong judgements -----------------------------------------------------------------------------
NOISY = (
    Claim(
        "40%, DPO",
        "win rate with 40% wrong, KTO − DPO",
        difference("wins", "KTO, 40% wrong", "DPO, 40% wrong"),
        "none",
        unit=SHARE,
        above=(
            "With 40% of the judgements wrong KTO is ahead of DPO. This is the level; what the "
            "noise has cost each of them is the next comparison. Rates were chosen without noise."
        ),
        below=(
            "With 40% of the judgements wrong DPO is ahead of KTO. This is the level; what the "
            "noise has cost each of them is the next comparison. Rates were chosen without noise."
        ),
        none=(
            "With 40% of the judgements wrong no difference between KTO and DPO is shown. That is "
            "not the same as equal: any difference inside the interval fits these runs."
        ),
    ),
    Claim(
        "40%, start",
        "win rate with 40% wrong, KTO − the start (one half)",
        over_start("KTO, 40% wrong"),
        "above",
        unit=SHARE,
        above=(
            "With 40% of its thumbs wrong KTO still beats the start: three right judgements for "
            "two wrong ones are enough to learn something from."
        ),
        below=(
            "With 40% of its thumbs wrong KTO does worse than the start, although most judgements "
            "are right: at the rate chosen without noise such data do harm."
        ),
        none=(
            "With 40% of its thumbs wrong no gain of KTO over the start is shown. A comparison of "
            "what noise costs is then one of methods that may have nothing left to lose."
        ),
    ),
    Claim(
        "noise, DPO",
        "loss of win rate from 0% to 40% wrong, DPO's − KTO's",
        fall("KTO", "DPO"),
        "above",
        unit=SHARE,
        above=(
            "Wrong judgements cost KTO less than DPO. Whether the saturating slope is the reason "
            "is another question: it can only act on rows that are many nats on the wrong side, "
            "and the line below has counted them. The noise here is blind to the answers."
        ),
        below=(
            "Wrong judgements cost KTO more than DPO: the saturating slope does not protect it "
            "here. It can only act on rows that are many nats on the wrong side; the line below "
            "has counted them. Rates were chosen without noise; with noise in the choice too the "
            "order may change."
        ),
        none=(
            "No difference in what wrong judgements cost is shown. The argument from the slope is "
            "about rows that are many nats on the wrong side; the line below has counted them. A "
            "claim of robustness needs this measurement in your own regime; the curve of the "
            "slope is no substitute."
        ),
    ),
    Claim(
        "noise, one rate",
        "loss of win rate from 0% to 40% wrong, DPO's − KTO's, both at KTO's rate",
        fall("KTO", "DPO", KTO_RATE),
        "above",
        unit=SHARE,
        above="At one rate wrong judgements cost KTO less than DPO.",
        below="At one rate wrong judgements cost KTO more than DPO.",
        none="At one rate no difference to DPO is shown in what wrong judgements cost.",
    ),
    Claim(
        "noise, SFT",
        "loss of win rate from 0% to 40% wrong, SFT's − KTO's",
        fall("KTO", "SFT"),
        "above",
        unit=SHARE,
        above=(
            "Wrong judgements cost KTO less than imitation, which copies whatever has a thumb up "
            "and never learns what has a thumb down. Compare the levels in the figure too: who "
            "has won little has little to lose."
        ),
        below=(
            "Wrong judgements cost imitation less than KTO, against what the saturating slope "
            "promises. Before you credit imitation, read the next line: a greedy answer takes the "
            "more frequent of two manners, and up to 50% wrong that is the right one. Compare the "
            "levels in the figure too: who has won little has little to lose."
        ),
        none=(
            "No difference to imitation is shown in what wrong judgements cost. Compare the "
            "levels in the figure too: who has won little has little to lose."
        ),
    ),
    Claim(
        "greedy hides noise",
        "polite answers of SFT, greedy − sampled, at 40% wrong − at 0%",
        hidden_by_greedy("SFT"),
        "above",
        unit="of the answers",
        above=(
            "Noise widens the gap between greedy and sampled answers to the same questions: a "
            "part of what it has done does not show in a greedy answer. So judge by the decoding "
            "that you will serve with."
        ),
        below=(
            "Noise narrows the gap between greedy and sampled answers: greedy ones lose more of "
            "their politeness than sampled ones. Greedy decoding does not hide the noise here."
        ),
        none=(
            "It is not shown that noise widens the gap between greedy and sampled answers. A gap "
            "there may be all the same: without noise too sampling draws less likely openers."
        ),
    ),
)

JUDGEMENTS = (*CLEAN, *NOISY)
