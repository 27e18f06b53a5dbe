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
            f"At about the same number of parameters no difference between {method} and LoRA is "
            "shown. The interval says how large one may still be."
        ),
    )


def _forgot(method: str, expected: str, above: str = "") -> Claim:
    """On what a method forgets; `above` goes on where it forgets more."""
    name = method[0].upper() + method[1:]  # it begins a sentence
    return Claim(
        f"forgotten, {method}",
        f"forgotten, {method} − LoRA, each at its best rate",
        difference("forgotten", method, "LoRA"),
        expected,
        unit=NATS,
        above=f"{name} forgets more of the base's own domain than LoRA.{above}",
        below=f"{name} forgets less of the base's own domain than LoRA.",
        none=f"No difference between {method} and LoRA in forgetting is shown.",
    )


# What the papers let one expect: ReFT and (IA)³ report better results than LoRA with fewer
# parameters; a prefix of a few tokens is a narrow way in; a bottleneck is LoRA's neighbour.
METHODS = (
    _learnt(
        "LoReFT",
        "below",
        above=(
            " The paper suggests the opposite. Two reasons can be tested: its slightly fewer "
            "parameters (next line) and its few positions (section 8). A third is only a guess: a "
            "small model's states may hold less that an edit can use."
        ),
    ),
    Claim(
        "one more rank",
        "test loss, LoReFT with one rank more − LoRA",
        difference("loss", MORE, "LoRA"),
        "none",
        unit=NATS,
        above=(
            "With one rank more LoReFT trains more parameters than LoRA and still learns less: the "
            "count is not the reason. (Its learning rate is the one chosen for the lower rank.)"
        ),
        below="With one rank more LoReFT learns more than LoRA: the count was the reason.",
        none=(
            "With one rank more, and then more parameters than LoRA, no difference from LoRA is "
            "shown: part of the difference may have been the count."
        ),
    ),
    _learnt(
        "(IA)³",
        "below",
        above=(
            " It has one factor per channel, and nothing that mixes channels. "
            "(The paper's comparison is few-shot, on a model of billions of parameters.)"
        ),
    ),
    _learnt("prefix", "above"),
    _learnt("bottleneck", "none"),
    _forgot(
        "LoReFT",
        "below",
        above=(
            " It leaves weights and generated tokens untouched, but everything after the edited "
            "positions attends to them. Section 8 asks which positions cause it."
        ),
    ),
    _forgot("(IA)³", "none"),
    _forgot("prefix", "above"),
    _forgot(
        "bottleneck",
        "none",
        above=(
            " Its learning rate was chosen for learning, not for forgetting; a lower one may well "
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
            "helps training, not only interpretation."
        ),
        below=(
            "Without the constraint LoReFT learns *more*, at the best rate of each: the constraint "
            "gives the edit a meaning and makes high rates safer, but does not lower the loss."
        ),
        none=(
            "At the best rate of each no difference is shown: a free R can train as well. It loses "
            "the edit's *meaning* (next line), and some tolerance for a wrong rate."
        ),
    ),
    Claim(
        "missed",
        "distance of R h' from W h + b, as a share of the change wanted, free R − Q factor",
        difference("missed", FREE, FACTOR),
        "above",
        above=(
            "With a free R the edited state no longer *has* W h + b along R's rows: R Rᵀ is not "
            "the identity, so the edit over- or undershoots. W h + b can then not be read as the "
            "values that the edit sets."
        ),
        below="With a free R the edit hits its own values better: impossible, look for a bug.",
        none="A free R stays so near to orthonormal here that its edits hit their values.",
    ),
    Claim(
        "high rate",
        "test loss at eight times the middle rate, free R − Q factor",
        difference("loss", too_high(FREE), too_high(FACTOR)),
        "above",
        unit=NATS,
        above=(
            "At a rate that is too high a free R ends worse: its rows can grow, and the edit grows "
            "with their square. In the Q factor only the directions can change."
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
        above="Retracting R after every step learns less than a gradient through the QR.",
        below=(
            "Retracting R after every step learns *more* than a gradient through the QR, and needs "
            "no gradient of a decomposition. Compare the size with what a neighbouring rate costs "
            "in section 6: it may still be the rate."
        ),
        none=(
            "No difference is shown between the two ways to keep the rows orthonormal, a gradient "
            "through the QR and retraction."
        ),
    ),
    Claim(
        "turned",
        "test loss with the edits rotated at random − as trained (Q factor)",
        within(FACTOR, "turned_loss", "loss"),
        "above",
        unit=NATS,
        above="Equally large edits in random directions do worse: R has learnt its directions.",
        below="Equally large edits in random directions are *better*: R has learnt nothing.",
        none="No difference from equally large edits in random directions is shown.",
    ),
    Claim(
        "turned, base",
        "test loss with the edits rotated at random − the base's (Q factor)",
        within(FACTOR, "turned_loss", "base_loss"),
        "above",
        unit=NATS,
        above="Edits of this size in random directions do harm: the base is better without them.",
        below=(
            "Edits of this size in random directions are *better* than none. So part of the gain "
            "over the base comes from any disturbance of that size at these positions, wherever "
            "it points. A comparison with the base alone would have credited that part to LoReFT."
        ),
        none="No effect of edits of this size in random directions is shown.",
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
            "the first have read almost nothing, so their edit can hardly depend on the question."
        ),
        below="The first positions are worth more than the last, though they have read so little.",
        none="No difference between first and last positions is shown.",
    ),
    _position(
        "first beside last",
        BOTH_ENDS,
        "last 4",
        "below",
        above="Editing the first positions too makes it worse.",
        below=(
            "Editing the first positions too helps. Each choice ran at its own rate, chosen by one "
            "run per rate: the next line has both at one rate."
        ),
        none="No gain from editing the first positions too is shown.",
    ),
    _position(
        "first beside last, one rate",
        BOTH_ENDS,
        ONE_RATE,
        "below",
        above="At one rate editing the first positions too makes it worse.",
        below="At one rate, too, editing the first positions as well helps.",
        none=(
            "At one rate no difference is shown: if the line above shows one, it may be the rate."
        ),
    ),
    _position(
        "whole",
        WHOLE,
        BOTH_ENDS,
        "none",
        above="Editing every prompt token learns less than editing eight.",
        below=(
            "Editing every prompt token learns more than editing eight. It costs no parameters, "
            "but one edit per token while the prompt is read."
        ),
        none="No difference between editing every prompt token and editing eight is shown.",
    ),
    Claim(
        "where it forgets",
        "forgotten, first 4 − last 4",
        difference("forgotten", "first 4", "last 4"),
        "none",
        unit=NATS,
        above=(
            "Editing the first positions forgets more (their rates differ: see the table). A "
            "likely reason, not tested here: the first states hardly depend on the text, so their "
            "edit acts on every text alike."
        ),
        below="Editing the last positions forgets more.",
        none="No difference in forgetting between first and last positions is shown.",
    ),
)
