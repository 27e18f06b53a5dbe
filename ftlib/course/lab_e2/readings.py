"""What the experiments of lab E2 are to show, and what to conclude from each outcome."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ftlib.course.lab_e2.curves import LEAST, ByArm, log_ratio_at
from ftlib.course.lab_e2.settings import HALF, RATES, REPLAYED, THRESHOLDS, WAYS, WEIGHTS
from ftlib.course.lab_e2.trials import FULL
from ftlib.course.records.experiment import LOGS, Claim, Contrast, difference, level

NATS = "nats per token"
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


def _worth(
    method: str, expected: str, above: str = "", below: str = "", none: str = "", forgets: str = ""
) -> Claim:
    """On whether a method beats smaller rates. `forgets`: how the reading begins where the method
    forgets more, in place of the usual words; `above`, `below` and `none` go on after a reading.
    """
    usual = f"For the same learning {method} forgets *more* than full fine-tuning at a smaller rate"
    return Claim(
        f"worth, {method}",
        f"ln(forgotten by {method} / by {SMALLER}) at equal loss on the new task",
        at_equal_loss(CURVES[method], CURVES[SMALLER]),
        expected,
        unit=LOGS,
        above=f"{forgets or usual}: here it is not worth the trouble.{above}",
        below=(
            f"For the same learning {method} forgets less than full fine-tuning at a smaller "
            f"rate.{below}"
        ),
        none=(
            f"At equal loss no difference is shown between {method} and a smaller rate, which "
            f"costs nothing. The interval says which factors remain possible.{none}"
        ),
    )


METHODS: tuple[Claim, ...] = (
    Claim(
        "half, learnt",
        f"test loss, full fine-tuning at rate × {HALF:g} − at its best rate",
        difference("loss", SLOW, FULL),
        "above",
        unit=NATS,
        above="Half the rate learns less: that is its price. Compare with the next line.",
        below="Half the rate learns *more* on the test rows: the best rate was not the best there.",
        none=(
            "On the test rows no difference is shown between half the rate and the best one, which "
            "validation rows have chosen. Compare with the next line."
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
            "Half the rate forgets less. Near the best rate the loss is flat and forgetting is "
            "steep, so tuning by the loss alone costs what it does not measure."
        ),
        none="No difference in forgetting is shown at half the rate.",
    ),
    Claim(
        "learnt, LoRA",
        "test loss, LoRA − full fine-tuning, each at its best rate",
        difference("loss", LORA, FULL),
        "above",
        unit=NATS,
        above="LoRA learns less in so few steps, as in Biderman et al.'s title.",
        below="LoRA learns more than full fine-tuning, against Biderman et al.'s title.",
        none="No difference in learning between the two is shown.",
    ),
    Claim(
        "forgotten, LoRA",
        "ln(forgotten by LoRA / by full fine-tuning), each at its best rate",
        _log_forgotten(LORA, FULL),
        "below",
        unit=LOGS,
        above=(
            "LoRA forgets more, against the second half of Biderman et al.'s title. They trained "
            "models of billions of parameters, for long, on many rows, at much lower rates than a "
            "small model takes. And both rates were chosen for learning alone, near where "
            "forgetting is steepest: the next line compares at equal learning."
        ),
        below=(
            "LoRA forgets less, as in Biderman et al.'s title. Both rates were chosen for learning "
            "alone: the next line compares at equal learning."
        ),
        none=(
            "No difference in forgetting is shown. Both rates were chosen for learning alone: the "
            "next line compares at equal learning."
        ),
    ),
    _worth(
        LORA,
        "below",
        forgets=(
            "LoRA forgets *more* than full fine-tuning at a smaller rate, which had learnt at "
            "least as much"
        ),
        above=(
            " One possible reason, not tested here: a low rank limits in how many directions a "
            "weight moves, not how far. (Where LoRA never reaches the reference run's loss, it is "
            "compared at its own lowest loss with the baseline's gentlest run, which had learnt "
            "more already. That favours LoRA.)"
        ),
    ),
    _worth(
        REPLAY,
        "below",
        above=(
            " It does protect (the next lines), but it takes steps from the task, and where "
            "forgetting falls with a high power of the rate, a slightly smaller rate buys the same "
            "protection for less. Few texts in few steps are also its hardest case: between two "
            "batches of texts the model has moved far."
        ),
        below=(
            " It needs a few rows of the old data. For most downloaded models nobody has them, and "
            "the nearest substitute has to do."
        ),
    ),
    _worth(
        EWC,
        "below",
        above=(
            " The diagonal is a local, axis-parallel picture of the old valley, drawn from few "
            "texts. Adam's steps have about the same size however small the gradient is, so they "
            "push against the springs at the full rate."
        ),
        below=(
            " It needs no old rows while it trains, but memory for θ* and F beside the weights. "
            "(Would any springs do? The flat springs answer that.)"
        ),
    ),
    _worth(
        INTERPOLATION,
        "below",
        below=" It costs nothing: no second run, no old rows, and t is chosen afterwards.",
        none=" It has one advantage: t is chosen afterwards, without another run.",
    ),
    _worth(
        STOP,
        "above",
        above=(
            " A run that is cut off has had the schedule's high rates, and misses its last small "
            "steps, in which a run settles."
        ),
        none=(
            " But look at the plot: a stopped run does not even reach the loss of the smallest "
            "rate, with whose forgetting it is compared. In its favour: it limits the damage "
            "without knowing the right rate beforehand (section 7 says how well)."
        ),
    ),
    Claim(
        "price of replay",
        f"test loss, {replay_arm(MOST)} − full fine-tuning, both at one rate and as many steps",
        difference("loss", replay_arm(MOST), FULL),
        "none",
        unit=NATS,
        above="Replay costs learning: in the same steps, part of the rows are not of the task.",
        below=(
            "With replay the task is learnt *better*, from fewer of its rows: replay also "
            "preserves what the new task builds on (or it tames a rate that is too high)."
        ),
        none="No cost of replay in learning is shown.",
    ),
    Claim(
        "facts",
        f"questions still answered, {replay_arm(MOST)} − full fine-tuning",
        difference("known", replay_arm(MOST), FULL),
        "above",
        unit="of the questions",
        above=(
            "Replay preserves facts, not only the loss on text. (In one small world a replayed "
            "text may state the answer to a question, as pretraining data may.)"
        ),
        below="Replay loses facts: the loss on text has hidden it.",
        none="No difference in the facts still known is shown.",
    ),
    Claim(
        "shuffled",
        f"ln(forgotten by {shuffled_arm(MOST)} / by {replay_arm(MOST)})",
        _log_forgotten(shuffled_arm(MOST), replay_arm(MOST)),
        "above",
        unit=LOGS,
        above=(
            "The same texts with shuffled words protect less: replay works by what the texts "
            "*say*, not only because some rows are of another kind."
        ),
        below="The same texts with shuffled words protect *more*: their content does not help.",
        none=(
            "No difference between texts and shuffled words is shown, so nor is it shown that it "
            "matters what the texts say. Replay may work as a brake, or by its words alone."
        ),
    ),
    Claim(
        "flat",
        f"ln(forgotten by EWC / by flat springs of the same sum) at equal loss, rate × {HALF:g}",
        at_equal_loss([ewc_arm(weight, HALF) for weight in WEIGHTS], CONTROLS[FLAT]),
        "below",
        unit=LOGS,
        above=(
            "Flat springs, of one strength on all weights, do *better* than the Fisher diagonal's: "
            "EWC's gain came from springs as such, not from knowing which weights matter."
        ),
        below="The Fisher diagonal knows which weights matter: flat springs forget more.",
        none=(
            "No difference between flat springs and the Fisher diagonal's is shown, so nor is it "
            "shown that F knows which weights matter."
        ),
    ),
    Claim(
        "overshoot",
        f"forgotten, {stop_arm(LIMIT)} − {LIMIT:g}",
        level("forgotten", stop_arm(LIMIT), LIMIT),
        "above",
        unit=NATS,
        above=(
            "On texts that did not decide the stop, a stopped run has forgotten more than its "
            "threshold: it measures every few steps and stops only once it is *above*."
        ),
        below="A stopped run has forgotten less than its threshold on other texts.",
        none=(
            "On texts that did not decide the stop, no difference between the mean forgetting and "
            "the threshold is shown; single runs may lie on either side."
        ),
    ),
)
