"""The claims of lab 3.1.9 on rates, with what to conclude in each case: two methods at one rate,
and one method at two.
"""

from __future__ import annotations

from ftlib.course.lab_3_1_9.readings import KTO_RATE, SFT_RATE, SHARE
from ftlib.course.records.experiment import Claim, difference

ONE_RATE = (
    Claim(
        "one rate",
        "win rate, KTO − DPO, both at KTO's rate",
        difference("wins", "KTO, 0% wrong", f"DPO, 0% wrong{KTO_RATE}"),
        "none",
        unit=SHARE,
        above="At one rate, KTO's, KTO is ahead of DPO, so the rate is not the reason.",
        below=(
            "At one rate, KTO's, DPO is ahead. If the line above says the opposite, it compared "
            "two rates."
        ),
        none=(
            "At one rate, KTO's, no difference between the two is shown: any difference inside the "
            "interval fits these runs. If the line above shows one, it is one of methods *with the "
            "rates that the rule took for them*. The lines on two rates say what a rate does by "
            "itself."
        ),
    ),
    Claim(
        "SFT, one rate",
        "win rate, KTO − SFT on the liked answers, both at SFT's rate",
        difference("wins", f"KTO, 0% wrong{SFT_RATE}", "SFT, 0% wrong"),
        "above",
        unit=SHARE,
        above="At one rate, SFT's, KTO is ahead of imitation.",
        below="At one rate, SFT's, imitation is ahead as well.",
        none=(
            "At one rate, SFT's, no difference between KTO and imitation is shown: what the line "
            "above shows, if it shows something, rests on the rates that were taken. Imitation "
            "reads the liked answers alone, KTO the others too."
        ),
    ),
)

TWO_RATES = (
    Claim(
        "two rates, DPO",
        "win rate of DPO, at KTO's rate − at the rate taken for it",
        difference("wins", f"DPO, 0% wrong{KTO_RATE}", "DPO, 0% wrong"),
        "none",
        unit=SHARE,
        above=(
            "Two rates that the rule counted as tied on the validation questions are not tied on "
            "these: the one that it took is the worse one for DPO. The comparison of KTO with DPO "
            "at the rates taken has this price in it."
        ),
        below="The rate that the rule took is the better one for DPO on these questions too.",
        none=(
            "On these questions no difference between the two rates is shown for DPO: any "
            "difference inside the interval fits."
        ),
    ),
    Claim(
        "two rates, KTO",
        "win rate of KTO, at SFT's rate − at the rate taken for it",
        difference("wins", f"KTO, 0% wrong{SFT_RATE}", "KTO, 0% wrong"),
        "none",
        unit=SHARE,
        above=(
            "For KTO too the rate that the rule took is the worse one on these questions, and "
            "the comparison with SFT at the rates taken has this price in it. Taking the lowest of "
            "tied rates is a rule, but it is not free."
        ),
        below="The rate that the rule took is the better one for KTO on these questions too.",
        none=(
            "On these questions no difference between the two rates is shown for KTO: any "
            "difference inside the interval fits."
        ),
    ),
)

RATES = (*ONE_RATE, *TWO_RATES)
