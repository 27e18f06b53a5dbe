"""What the experiment of lab 3.1.4 on the markers of a template is to show, and what to conclude
from each outcome.
"""

from __future__ import annotations

from ftlib.course.records.experiment import Claim, difference

UNTIED = "spare turns, spare stop, known output row"


def marker_arm(turns: str, stop: str) -> str:
    return f"{turns} turns, {stop} stop"


_OWN = marker_arm("own", "own")
_TURNS = marker_arm("spare", "own")
_STOP = marker_arm("own", "spare")
_BOTH = marker_arm("spare", "spare")

MARKERS = (
    Claim(
        "turns",
        "right, spare markers of the turns − own ones, own stop",
        difference("right", _TURNS, _OWN),
        "below",
        unit="of the questions",
        above="Spare markers of the turns do better. Nothing explains that; look at the rows.",
        below=(
            "Right answers are fewer with spare markers going *in*, at one rate for all arms "
            "(twice the own markers' best in `tiny`). Their embedding rows were never trained and "
            "stay frozen; whether it is that, or that they are alike, or longer than trained ones, "
            "was not separated. The closer the upper end of the interval is to 0, the less firm "
            "this is; if the golden loss's interval below contains 0, it does not confirm it. This "
            "part does not need a tied head; it can happen to any model."
        ),
        none=(
            "It is not shown that spare markers going *in* cost right answers. The interval says "
            "how many they could."
        ),
    ),
    Claim(
        "stop",
        "ended by itself, spare stop − own stop, own markers of the turns",
        difference("stopped", _STOP, _OWN),
        "below",
        unit="of the answers",
        above="With a spare stop more answers end. Nothing explains that; look at the answers.",
        below=(
            "With a spare *stop* fewer answers end, although all that goes in is the same: the "
            "spare token is only ever said. Its score is the product of the last hidden state and "
            "its row, which never won in pretraining and is frozen. The share of answers that end "
            "flatters it: a stop that wins narrowly counts in full, and so does one that comes "
            "after other text. The golden loss below says more."
        ),
        none=(
            "It is not shown that fewer answers end with a spare stop. The interval says how many "
            "fewer it could be."
        ),
    ),
    Claim(
        "output row",
        "ended by itself, both spare with a known output row for the stop − both spare",
        difference("stopped", UNTIED, _BOTH),
        "above",
        unit="of the answers",
        above=(
            "With a head of its own, in which the stop has a trained row, more answers end: what a "
            "spare stop costs is due to its *output* row alone. That had to come out, since the "
            "exchange only renames the stop; the number is what a spare stop costs where the turns "
            "are spare as well. Here the output row is the input row, because the two are tied. "
            "Llama-3.1-8B is not tied: there the input rows and the output rows of spare tokens "
            "are two things, and each has to be looked at."
        ),
        below="With the known output row fewer answers end: it is not the row that is missing.",
        none=(
            "It is not shown that a trained output row for the stop changes how many answers end. "
            "Where nearly all end already, it could not."
        ),
    ),
)
