"""The experiments of lab 3.1.5: a learning rate for every kind of base, adapters over these bases
at each one's best, on a task that needs the base's knowledge and on one that does not, and where an
adapter trained over four bits can be merged.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_5 import readings
from ftlib.course.lab_3_1_5.bases import NF4_SHUFFLED, SHUFFLED, WHOLE
from ftlib.course.lab_3_1_5.trials import TASKS, base_trial, merge_trial, tune_trial
from ftlib.course.records.experiment import Experiment, Metric
from ftlib.course.records.kit import model_folder
from ftlib.course.records.store import best_arm

KINDS = (WHOLE, "NF4", "FP4", "NVFP4", "3 bits")  # bases that have a rate of their own
NEW_KINDS = (WHOLE, "3 bits")  # likewise, on the new language
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the task's middle rate
SLOWER = {"best rate": 1.0, "half": 0.5, "a quarter": 0.25}  # of NF4's best rate
SWEEPS = {"skills": "rates", "olm": "new-rates"}  # the sweep of each task

NATS = "nats per answer token"
LOSS = Metric("loss", "test loss", NATS, lower_is_better=True)
ERROR = Metric("weight_error", "relative error of the weights", "", True)
UNTRAINED = Metric("untrained", "test loss before training", NATS, True)
TRAINING = Metric("training_loss", "training loss", NATS, True)
VALIDATION = Metric("validation_loss", "validation loss", NATS, True)


def _inputs_of(task: str):
    def inputs(profile: Profile) -> dict[str, Any]:
        rows = TASKS[task](profile)
        base = model_folder(profile.study.model)
        return {"train": rows.train, "validation": rows.validation, "test": rows.test, "base": base}

    return inputs


# --- a rate for every base ------------------------------------------------------------------------
def rate_arm(kind: str, lr: float) -> str:
    return f"{kind}, rate {lr:.2g}"


def rates_of(profile: Profile, kind: str, task: str = "skills") -> dict[float, str]:
    """{rate: arm} of one kind of base, as a sweep's figure takes it."""
    middle = TASKS[task](profile).lr
    return {factor * middle: rate_arm(kind, factor * middle) for factor in FACTORS}


def _rate_arms(profile: Profile, task: str, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Five rates for every kind of base."""
    arms = {}
    for kind in kinds:
        for lr, arm in rates_of(profile, kind, task).items():
            arms[arm] = {"task": task, "kind": kind, "lr": lr}
    return arms


def rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return _rate_arms(profile, "skills", KINDS)


def new_rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return _rate_arms(profile, "olm", NEW_KINDS)


def best_rate(profile: Profile, kind: str, task: str = "skills") -> float:
    """The rate with the lowest validation loss; the middle one where none is recorded yet."""
    rates = rates_of(profile, kind, task)
    arms = list(rates.values())
    middle = arms[len(arms) // 2]
    best = best_arm("3.1.5", SWEEPS[task], "validation_loss", arms, middle, profile)
    return next(lr for lr, arm in rates.items() if arm == best)


# --- bases compared, and merging ------------------------------------------------------------------
def _at_best(profile: Profile, kinds: tuple[str, ...], task: str) -> dict[str, dict[str, Any]]:
    arms = {}
    for kind in kinds:
        arms[kind] = {"task": task, "kind": kind, "lr": best_rate(profile, kind, task)}
    return arms


def base_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Every kind of base at its best rate; the control is NF4's in all but the place of errors."""
    arms = _at_best(profile, KINDS, "skills")
    arms[NF4_SHUFFLED] = {**arms["NF4"], "kind": NF4_SHUFFLED}
    return arms


def new_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """The whole base, 3 bits, and errors of 3 bits' size that are tied to nothing."""
    arms = _at_best(profile, NEW_KINDS, "olm")
    control = "3 bits" + SHUFFLED
    arms[control] = {**arms["3 bits"], "kind": control}
    return arms


def merge_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """NF4's best rate and two lower ones: smaller updates over the same grid."""
    best = best_rate(profile, "NF4")
    return {arm: {"lr": factor * best} for arm, factor in SLOWER.items()}


def _place(name: str, text: str) -> Metric:
    return Metric(name, text, NATS, lower_is_better=True)


COMPARED = (LOSS, ERROR, UNTRAINED, TRAINING)
EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Validation loss over the learning rate, for each kind of base",
        trial=tune_trial,
        arms=rate_arms,
        metrics=(VALIDATION, TRAINING),
        inputs=_inputs_of("skills"),
        seeds=2,
        live=(),
    ),
    Experiment(
        name="new-rates",
        title="The same on a new language",
        trial=tune_trial,
        arms=new_rate_arms,
        metrics=(VALIDATION, TRAINING),
        inputs=_inputs_of("olm"),
        seeds=2,
        live=(),
    ),
    Experiment(
        name="bases",
        title="Adapters over bases of different kinds, each at its best rate",
        trial=base_trial,
        arms=base_arms,
        metrics=COMPARED,
        inputs=_inputs_of("skills"),
        claims=readings.BASES,
        live=(WHOLE, "NF4"),
    ),
    Experiment(
        name="new-language",
        title="The same on a new language, of which the base knows nothing",
        trial=base_trial,
        arms=new_arms,
        metrics=COMPARED,
        inputs=_inputs_of("olm"),
        claims=readings.NEW_LANGUAGE,
        live=(),
    ),
    Experiment(
        name="merging",
        title="One adapter over NF4, merged into different weights",
        trial=merge_trial,
        arms=merge_arms,
        metrics=(
            _place("beside", "beside the NF4 base"),
            _place("again", "merged, in NF4 again"),
            _place("original", "merged into the original base"),
            _place("once", "merged into the original base, in NF4 once"),
            _place("shrunken", "as much of the update, not rounded"),
            _place("untrained", "untrained"),
            Metric("left", "share of the update that is left"),
            Metric("left_once", "the same over the original base"),
            Metric("gain_kept", "share of the gain that is kept"),
            Metric("update_over_step", "‖ΔW‖ / ‖Ŵ − W‖"),
            Metric("moved", "‖rounding‖ / ‖ΔW‖"),
        ),
        inputs=_inputs_of("skills"),
        claims=readings.MERGING,
        live=(),
    ),
)
