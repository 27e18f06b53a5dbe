"""What the experiments of lab E3 are to show, and what to conclude from each outcome."""

from __future__ import annotations

from ftlib.course.lab_e3.layer import FACTOR, FREE, RETRACTED
from ftlib.course.records.experiment import Claim, difference, within

NATS = "nats per token"
OTHERS = ("LoReFT", "(IA)³", "prefix", "bottleneck")
MORE = "LoReFT, one rank more"
BOTH_ENDS = "first 4, last 4"
WHOLE = "whole prompt"
ONE_RATE = "last 4, at both ends' rate"
AT_A_HIGH_RATE = (FACTOR, FREE)  # the kinds of R that run at a rate that is too high too


def too_high(kind_of_rows: str) -> str:
    """The arm of a kind of R at the rate that is too high."""
    return f"{kind_of_rows}, high rate"


def _learnt(method: str, expected: str, above: str = "", below: str = "") -> Claim:
    """On what a method learns; `above` and `below` go on where it learns less, and more."""
    return Claim(
        f"learnt, {method}",
        f"test loss, {method} − LoRA, each at its best rate",
        difference("loss", method, "LoRA"),
        expected,
        unit=NATS,
        above=(
            f"At about the same number of parameters {method} learns less than LoRA from the same "
            f"rows in the same steps.{above}"
        ),
        below=(
            f"At about the same number of parameters {method} learns more than LoRA from the same "
            f"rows in the same steps.{below}"
        ),
        none=(
            f"At about the same number of parameters {method} is not told apart from LoRA. The "
            "interval holds what may have been missed."
        ),
    )


def _forgot(method: str, expected: str, above: str = "") -> Claim:
    """On what a method forgets; `above` goes on where it forgets more."""
    return Claim(
        f"forgotten, {method}",
        f"forgotten, {method} − LoRA, each at its best rate",
        difference("forgotten", method, "LoRA"),
        expected,
        unit=NATS,
        above=f"{method} forgets more of the base's own domain than LoRA.{above}",
        below=f"{method} forgets less of the base's own domain than LoRA.",
        none=f"By what it forgets {method} is not told apart from LoRA.",
    )


# What the papers let one expect: ReFT and (IA)³ report better results than LoRA with fewer
# parameters; a prefix of a few tokens is a narrow way in; a bottleneck is LoRA's neighbour.
METHODS = (
    _learnt(
        "LoReFT",
        "below",
        above=(
            " That is not what the paper lets one expect. Two suspects can be tried: its somewhat "
            "smaller count (next line) and its few positions (section 8). A third can not, here: "
            "a small model holds less that could be steered by."
        ),
    ),
    Claim(
        "one more rank",
        "test loss, LoReFT with one rank more − LoRA",
        difference("loss", MORE, "LoRA"),
        "none",
        unit=NATS,
        above=(
            "With a rank more LoReFT trains more numbers than LoRA and still learns less: the "
            "count is not the reason. (Its rate is the one that was chosen a rank lower.)"
        ),
        below="With a rank more LoReFT learns more than LoRA: the count was the reason.",
        none=(
            "With a rank more, and then with more numbers than LoRA, LoReFT is not told apart "
            "from LoRA: a part of the difference may have been the count."
        ),
    ),
    _learnt(
        "(IA)³",
        "below",
        above=(
            " Its numbers are tied to places: one factor a channel, nothing that mixes channels. "
            "(The paper's comparison is few-shot, on a model of billions of parameters.)"
        ),
    ),
    _learnt("prefix", "above"),
    _learnt("bottleneck", "none"),
    _forgot(
        "LoReFT",
        "below",
        above=(
            " That weights and generated tokens are untouched does not save it: whatever comes "
            "after the edited positions reads them. Section 8 asks which positions do it."
        ),
    ),
    _forgot("(IA)³", "none"),
    _forgot("prefix", "above"),
    _forgot(
        "bottleneck",
        "none",
        above=(
            " Its rate was chosen by what is learnt, not by what is kept; a lower one may well "
            "forget less, and was not run here."
        ),
    ),
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
            "costs no gradient of a decomposition. Hold the size against what a neighbouring rate "
            "costs in section 6: it may still be the rate."
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
            "gain over the base is owed to what the edits say: part of it comes with a "
            "disturbance of that size at these positions, wherever it points. A comparison with "
            "the base alone would have credited that part to LoReFT too."
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
        below=(
            "The first positions add something to the last. Each ran at its own rate, which one "
            "run has chosen: the next line has both at one rate."
        ),
        none="What the first positions add to the last is not shown.",
    ),
    _position(
        "first beside last, one rate",
        BOTH_ENDS,
        ONE_RATE,
        "below",
        above="At one rate the first positions beside the last make it worse.",
        below="At one rate the first positions add something to the last as well.",
        none=(
            "At one rate no difference is shown: where the line above shows one, it was the rate."
        ),
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
