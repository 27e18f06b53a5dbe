"""What the experiments of lab E3 are to show, and what to conclude from each outcome."""

from __future__ import annotations

from ftlib.course.lab_e3.layer import FACTOR, FREE, RETRACTED
from ftlib.course.records.experiment import Claim, difference, within

NATS = "nats a token"
OTHERS = ("LoReFT", "(IA)³", "prefix", "bottleneck")
BOTH_ENDS = "first 4, last 4"
WHOLE = "whole prompt"
AT_A_HIGH_RATE = (FACTOR, FREE)  # the kinds of R that run at a rate that is too high too


def too_high(kind_of_rows: str) -> str:
    """The arm of a kind of R at the rate that is too high."""
    return f"{kind_of_rows}, high rate"


def _learnt(method: str, expected: str) -> Claim:
    return Claim(
        f"learnt, {method}",
        f"test loss, {method} − LoRA, each at its best rate",
        difference("loss", method, "LoRA"),
        expected,
        unit=NATS,
        above=(
            f"At about the same number of parameters {method} learns less than LoRA from the same "
            "rows in the same steps. It says nothing of longer runs, nor of larger budgets."
        ),
        below=(
            f"At about the same number of parameters {method} learns more than LoRA from the same "
            "rows in the same steps. A budget of rank one leaves LoRA little to choose from."
        ),
        none=(
            f"At about the same number of parameters {method} is not told apart from LoRA. The "
            "interval holds what may have been missed."
        ),
    )


def _forgot(method: str, expected: str) -> Claim:
    return Claim(
        f"forgotten, {method}",
        f"forgotten, {method} − LoRA, each at its best rate",
        difference("forgotten", method, "LoRA"),
        expected,
        unit=NATS,
        above=f"{method} forgets more of the base's own domain than LoRA.",
        below=f"{method} forgets less of the base's own domain than LoRA.",
        none=f"By what it forgets {method} is not told apart from LoRA.",
    )


# What the papers let one expect: ReFT and (IA)³ report better results than LoRA with fewer
# parameters; a prefix of a few tokens is a narrow way in; a bottleneck is LoRA's neighbour.
METHODS = (
    _learnt("LoReFT", "below"),
    _learnt("(IA)³", "below"),
    _learnt("prefix", "above"),
    _learnt("bottleneck", "none"),
    _forgot("LoReFT", "below"),
    _forgot("(IA)³", "none"),
    _forgot("prefix", "above"),
    _forgot("bottleneck", "none"),
)

ROWS = (
    Claim(
        "free",
        "test loss, free R − Q factor, each at its best rate",
        difference("loss", FREE, FACTOR),
        "none",
        unit=NATS,
        above=(
            "Without the constraint LoReFT learns less, at the best rate of each: the constraint "
            "helps the run and not only its description."
        ),
        below=(
            "Without the constraint LoReFT learns *more*, at the best rate of each: what the "
            "constraint buys is the meaning of the edit and safety at high rates, not a lower "
            "loss."
        ),
        none=(
            "At the best rate of each no difference is shown: a free R can train as well. What is "
            "lost is what the edit *means* (next line), and how far a rate may be off."
        ),
    ),
    Claim(
        "missed",
        "R h' apart from W h + b, as a share of the change wanted, free R − Q factor",
        difference("missed", FREE, FACTOR),
        "above",
        above=(
            "With a free R the edited state no longer *has* W h + b along R's rows: R Rᵀ is not "
            "the identity, so the edit over- or undershoots. W h + b can then not be read as the "
            "values that the edit sets."
        ),
        below="With a free R the edit hits its own values better: it cannot be, look for a bug.",
        none="A free R stays so near to orthonormal here that its edits hit their values.",
    ),
    Claim(
        "high rate",
        "test loss at eight times the middle rate, free R − Q factor",
        difference("loss", too_high(FREE), too_high(FACTOR)),
        "above",
        unit=NATS,
        above=(
            "At a rate that is too high a free R ends worse: its rows may grow, and the edit grows "
            "with their square. The Q factor has only directions to lose."
        ),
        below="At a rate that is too high a free R ends *better*.",
        none="At a rate that is too high no difference is shown.",
    ),
    Claim(
        "retracted",
        "test loss, retracted − Q factor, each at its best rate",
        difference("loss", RETRACTED, FACTOR),
        "none",
        unit=NATS,
        above="Setting R back after every step learns less than a gradient through the QR.",
        below=(
            "Setting R back after every step learns *more* than a gradient through the QR, and it "
            "costs no gradient of a decomposition."
        ),
        none=(
            "Two ways to keep the rows orthonormal, a gradient through the QR and a step that is "
            "set back, are not told apart."
        ),
    ),
    Claim(
        "turned",
        "test loss with the edits turned at random − as trained (Q factor)",
        within(FACTOR, "turned_loss", "loss"),
        "above",
        unit=NATS,
        above="As large an edit in a random direction loses: the directions carry what was learnt.",
        below="As large an edit in a random direction is *better*: nothing was learnt in R.",
        none="As large an edit in a random direction is as good: R's directions do not matter.",
    ),
    Claim(
        "turned, base",
        "test loss with the edits turned at random − the base's (Q factor)",
        within(FACTOR, "turned_loss", "base_loss"),
        "above",
        unit=NATS,
        above="Edits of this size in random directions do harm: the base is better without them.",
        below=(
            "Edits of this size in random directions are *better* than none. So not all of the "
            "gain over the base is owed to what the edits say: part of it comes with any "
            "disturbance of these positions. A comparison with the base alone would have credited "
            "that part to LoReFT too."
        ),
        none="Edits of this size in random directions do neither harm nor good that is shown.",
    ),
)


def _position(name: str, first: str, second: str, expected: str, **readings: str) -> Claim:
    return Claim(
        name,
        f"test loss, {first} − {second}",
        difference("loss", first, second),
        expected,
        unit=NATS,
        **readings,
    )


POSITIONS = (
    _position(
        "ends",
        "first 4",
        "last 4",
        "above",
        above=(
            "The last positions are worth more than the first. They have read the whole prompt; "
            "the first have read nothing, so that their edit can hardly depend on the question."
        ),
        below="The first positions are worth more than the last, though they have read nothing.",
        none="First and last positions are not told apart.",
    ),
    _position(
        "first beside last",
        BOTH_ENDS,
        "last 4",
        "below",
        above="The first positions beside the last make it worse.",
        below="The first positions add something to the last.",
        none="What the first positions add to the last is not shown.",
    ),
    _position(
        "whole",
        WHOLE,
        BOTH_ENDS,
        "none",
        above="An edit of every prompt token learns less than one of eight.",
        below=(
            "An edit of every prompt token learns more than one of eight. It costs no parameter; "
            "it costs an edit a token while the prompt is read."
        ),
        none="An edit of every prompt token is not told apart from one of eight.",
    ),
    Claim(
        "where it forgets",
        "forgotten, first 4 − last 4",
        difference("forgotten", "first 4", "last 4"),
        "none",
        unit=NATS,
        above=(
            "Edits of the first positions forget more: every later token attends to them, "
            "whatever the text is about."
        ),
        below="Edits of the last positions forget more.",
        none="By what they forget first and last positions are not told apart.",
    ),
)
