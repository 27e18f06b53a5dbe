"""What the experiments of lab E2 are to show, and what to conclude from each outcome."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ftlib.course.lab_e2.curves import LEAST, ByArm, log_ratio_at
from ftlib.course.lab_e2.settings import HALF, RATES, REPLAYED, THRESHOLDS, WAYS, WEIGHTS
from ftlib.course.lab_e2.trials import FULL
from ftlib.course.records.experiment import Claim, Contrast, difference, level

NATS = "nats per token"
LOGS = "in logarithms"
LORA = "LoRA"
SMALLER = "smaller rates"
REPLAY = "replay"
EWC = "EWC"
FLAT = "flat springs"
INTERPOLATION = "interpolation"
STOP = "early stop"
OTHERS = (LORA, REPLAY, EWC, INTERPOLATION, STOP)  # than smaller rates


# --- arms -----------------------------------------------------------------------------------------
def at_rate(arm: str, rate: float) -> str:
    """An arm at a share of the best rate."""
    return arm if rate == 1 else f"{arm}, rate × {rate:g}"


def replay_arm(share: float, rate: float = 1.0) -> str:
    return at_rate(f"replay {100 * share:g}%", rate)


def ewc_arm(weight: float, rate: float = 1.0) -> str:
    return at_rate(f"EWC λ = {weight:g}", rate)


def flat_arm(weight: float, rate: float = 1.0) -> str:
    return at_rate(f"flat λ = {weight:g}", rate)


def way_arm(t: float, rate: float = 1.0) -> str:
    return at_rate(f"t = {t:g}", rate)


def stop_arm(threshold: float, rate: float = 1.0) -> str:
    return at_rate(f"stop at {threshold:g}", rate)


def shuffled_arm(share: float) -> str:
    return f"{replay_arm(share)}, words shuffled"


MOST = max(REPLAYED)
LIMIT = THRESHOLDS[1]  # of an early stop, whose overshoot is asked for
SLOW = at_rate(FULL, HALF)
REFERENCE = SLOW  # the run at whose loss forgetting is compared
# As many settings for each method; its curve goes through those that no other of them dominates.
CURVES: dict[str, tuple[str, ...]] = {
    SMALLER: tuple(at_rate(FULL, rate) for rate in RATES),
    LORA: tuple(at_rate(LORA, rate) for rate in RATES),
    REPLAY: (*map(replay_arm, REPLAYED), replay_arm(MOST, HALF)),
    EWC: (*map(ewc_arm, WEIGHTS), *(ewc_arm(weight, HALF) for weight in WEIGHTS)),
    INTERPOLATION: (*map(way_arm, WAYS), *(way_arm(t, HALF) for t in WAYS)),
    STOP: (*map(stop_arm, THRESHOLDS), stop_arm(min(THRESHOLDS), HALF)),
}
CONTROLS: dict[str, tuple[str, ...]] = {
    FLAT: tuple(flat_arm(weight, HALF) for weight in WEIGHTS),
}


def all_arms() -> list[str]:
    """The arms of all methods, full fine-tuning first, without the controls."""
    return [arm for curve in CURVES.values() for arm in curve]


# --- contrasts ------------------------------------------------------------------------------------
def at_equal_loss(method: Sequence[str], other: Sequence[str]) -> Contrast:
    """ln(forgotten by one curve / by the other) at the loss of `REFERENCE` in the same seed, or at
    the lowest that both reach.
    """

    def compare(by_arm: ByArm) -> float:
        return log_ratio_at(by_arm, method, other, REFERENCE)

    return Contrast(tuple(dict.fromkeys([*method, *other, REFERENCE])), compare)


def _log_forgotten(first: str, second: str) -> Contrast:
    """ln(forgotten by one run / by the other)."""

    def compare(by_arm: ByArm) -> float:
        one, other = (max(LEAST, by_arm[arm]["forgotten"]) for arm in (first, second))
        return float(np.log(one / other))

    return Contrast((first, second), compare)


def _worth(method: str, expected: str, above: str = "", below: str = "", none: str = "") -> Claim:
    """On whether a method beats smaller rates."""
    return Claim(
        f"worth, {method}",
        f"ln(forgotten by {method} / by {SMALLER}) at equal loss on the new task",
        at_equal_loss(CURVES[method], CURVES[SMALLER]),
        expected,
        unit=LOGS,
        above=(
            f"For the same learning {method} forgets *more* than full fine-tuning at a smaller "
            f"rate: here it is not worth its trouble.{above}"
        ),
        below=(
            f"For the same learning {method} forgets less than full fine-tuning at a smaller rate; "
            f"e to this number is the factor.{below}"
        ),
        none=(
            f"At equal loss {method} is not told apart from a smaller rate, which costs nothing. "
            f"The interval, put through e to the x, says which factor may have been missed.{none}"
        ),
    )


METHODS: tuple[Claim, ...] = (
    Claim(
        "half, learnt",
        f"test loss, full fine-tuning at rate × {HALF:g} − at its best rate",
        difference("loss", SLOW, FULL),
        "above",
        unit=NATS,
        above="Half the rate learns less: that is its price. Hold it against the next line.",
        below="Half the rate learns *more* on the test rows: the best rate was no best one there.",
        none=(
            "On the test rows half the rate is not told apart from the best one, which validation "
            "rows have chosen. Hold this against the next line."
        ),
    ),
    Claim(
        "half, forgotten",
        f"ln(forgotten by full fine-tuning at rate × {HALF:g} / at its best rate)",
        _log_forgotten(SLOW, FULL),
        "below",
        unit=LOGS,
        above="Half the rate forgets *more*: that would be the first time; look for a mistake.",
        below=(
            "Half the rate forgets less; e to this number is the factor. Near its best a loss is "
            "flat in the rate while forgetting is steep, so whoever tunes by the loss alone pays "
            "with what nobody measures."
        ),
        none="What half the rate forgets is not told apart.",
    ),
    Claim(
        "learnt, LoRA",
        "test loss, LoRA − full fine-tuning, each at its best rate",
        difference("loss", LORA, FULL),
        "above",
        unit=NATS,
        above="LoRA learns less: the first half of Biderman et al.'s title, in so few steps.",
        below="LoRA learns more than full fine-tuning, against Biderman et al.'s title.",
        none="What the two learn is not told apart.",
    ),
    Claim(
        "forgotten, LoRA",
        "ln(forgotten by LoRA / by full fine-tuning), each at its best rate",
        _log_forgotten(LORA, FULL),
        "below",
        unit=LOGS,
        above=(
            "LoRA forgets more, against the second half of Biderman et al.'s title. Theirs are "
            "models of billions of parameters, long runs and many rows, and rates much lower "
            "beside what a small model takes. And both rates were chosen for learning alone, "
            "near where forgetting is steepest: the next lines ask at equal learning."
        ),
        below=(
            "LoRA forgets less, as in Biderman et al.'s title. Both rates were chosen for learning "
            "alone: the next lines ask at equal learning."
        ),
        none=(
            "What the two forget is not told apart. Both rates were chosen for learning alone: "
            "the next lines ask at equal learning."
        ),
    ),
    _worth(
        LORA,
        "below",
        above=(
            " A low rank limits in how many directions a weight moves, not how far, and to learn "
            "as much in as few steps it has to move further along those it has. (Where LoRA never "
            "gets as low as the reference run, its own lowest loss is compared, at which the "
            "baseline's gentlest run had learnt more already: that is in LoRA's favour.)"
        ),
    ),
    _worth(
        REPLAY,
        "below",
        above=(
            " It does protect (the next lines), but it takes steps from the task, and where "
            "forgetting falls with a high power of the rate, a rate a little smaller buys the same "
            "protection for less. Few texts in few steps are also the hardest case for it: between "
            "two batches of them the model has moved on."
        ),
        below=(
            " It costs a few rows of the old data, which one must have: for most models that are "
            "downloaded one has not, and takes the nearest that there is."
        ),
    ),
    _worth(
        EWC,
        "below",
        above=(
            " The diagonal is a local, axis-parallel picture of the old valley, drawn from few "
            "texts; Adam's steps take no notice of how small a gradient is, and run against the "
            "spring at full rate."
        ),
        below=(
            " It needs no old rows while it trains, but memory for θ* and F beside the weights. "
            "(Whether that is F's doing or that of any spring is what the flat springs ask.)"
        ),
    ),
    _worth(
        INTERPOLATION,
        "below",
        below=" It costs nothing: no second run, no old rows, and t is chosen afterwards.",
        none=" It has one thing for it: t is chosen afterwards, without another run.",
    ),
    _worth(
        STOP,
        "above",
        above=(
            " A run that is cut off has had the high rate and not its end: the schedule's small "
            "steps, in which a run settles, are what it misses."
        ),
        none=(
            " But look at the plane: a stopped run does not get as low as even the smallest of the "
            "rates, whose forgetting is compared though it has learnt far more. In its favour: "
            "damage is limited without knowing the right rate before (section 7 says how well)."
        ),
    ),
    Claim(
        "price of replay",
        f"test loss, {replay_arm(MOST)} − full fine-tuning, both at one rate and as many steps",
        difference("loss", replay_arm(MOST), FULL),
        "none",
        unit=NATS,
        above="Replay costs learning: a part of the rows in the same steps is not of the task.",
        below=(
            "With replay the task is learnt *better*, from fewer of its rows: what keeps the old "
            "together also keeps what the new builds on (or it tames a rate that is too high)."
        ),
        none="A price of replay, in learning, is not shown.",
    ),
    Claim(
        "facts",
        f"questions still answered, {replay_arm(MOST)} − full fine-tuning",
        difference("known", replay_arm(MOST), FULL),
        "above",
        unit="of the questions",
        above=(
            "Replay keeps facts, not only nats. (Texts of one small world: what is replayed may "
            "state what is asked, as pretraining data would.)"
        ),
        below="Replay loses facts: the loss on text has hidden it.",
        none="By the facts that are still known, no difference is shown.",
    ),
    Claim(
        "shuffled",
        f"ln(forgotten by {shuffled_arm(MOST)} / by {replay_arm(MOST)})",
        _log_forgotten(shuffled_arm(MOST), replay_arm(MOST)),
        "above",
        unit=LOGS,
        above=(
            "The same words in no order protect less: what replay keeps is what the texts *say*, "
            "not that some rows were of another kind."
        ),
        below="The same words in no order protect *more*: then it is not what the texts say.",
        none=(
            "The same words in no order are not told apart from the texts: that it matters what "
            "the texts say is not shown. Replay may work as a brake, or by its words alone."
        ),
    ),
    Claim(
        "flat",
        f"ln(forgotten by EWC / by flat springs of the same sum) at equal loss, rate × {HALF:g}",
        at_equal_loss([ewc_arm(weight, HALF) for weight in WEIGHTS], CONTROLS[FLAT]),
        "below",
        unit=LOGS,
        above=(
            "Springs of one strength on all weights do *better* than the Fisher diagonal's: then "
            "it was the springs, and not the knowledge of which weights matter."
        ),
        below="The Fisher diagonal knows which weights matter: flat springs forget more.",
        none=(
            "Springs of one strength on all weights are not told apart from the Fisher diagonal's: "
            "that it knows which weights matter is not shown."
        ),
    ),
    Claim(
        "overshoot",
        f"forgotten, {stop_arm(LIMIT)} − {LIMIT:g}",
        level("forgotten", stop_arm(LIMIT), LIMIT),
        "above",
        unit=NATS,
        above=(
            "A stopped run has forgotten more than its threshold, on texts that the watch did not "
            "see: it stops at the first look *above*, and looks every few steps."
        ),
        below="A stopped run has forgotten less than its threshold on other texts.",
        none=(
            "On average a stopped run has forgotten as much as its threshold, on texts that the "
            "watch did not see; single runs lie on both sides."
        ),
    ),
)
