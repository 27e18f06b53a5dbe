"""The experiments of lab 3.1.5: where the best learning rates of all kinds of bases lie, adapters
over these bases at the same rates around them, and where an adapter trained over four bits can be
merged.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_5 import readings, readings_merging
from ftlib.course.lab_3_1_5.bases import NF4_16, NF4_SHUFFLED, WHOLE
from ftlib.course.lab_3_1_5.nvfp4 import NVFP4_BLOCK
from ftlib.course.lab_3_1_5.readings import THREE_COARSE, TWO_SHUFFLED
from ftlib.course.lab_3_1_5.trials import base_trial, merge_trial, task_of, tune_trial
from ftlib.course.records.experiment import (
    RECORDED,
    Experiment,
    Metric,
    fewer_where_runs_are_long,
)
from ftlib.course.records.kit import model_folder
from ftlib.course.records.live import Result
from ftlib.course.records.store import best_arm

KINDS = (WHOLE, "NF4", "FP4", "NVFP4", "3 bits", "2 bits")  # bases that have a rate of their own
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the profile's rate
COMPARED = (*KINDS, NF4_SHUFFLED, NF4_16, THREE_COARSE, TWO_SHUFFLED)
OTHER_BLOCKS = {NF4_16: ("NF4", NVFP4_BLOCK), THREE_COARSE: ("3 bits", None)}  # None: one scale
SHARED = dict(zip(readings.PLACES, (0.5, 1.0, 2.0), strict=True))  # factors, for all bases alike
SLOWER = {"best rate": 1.0, "half": 0.5, "a quarter": 0.25}  # of NF4's best rate

NATS = "nats per answer token"
LOSS = Metric("loss", "test loss", NATS, lower_is_better=True)
ERROR = Metric("weight_error", "relative error of the weights", "", True)
TRAINING = Metric("training_loss", "training loss", NATS, True)
VALIDATION = Metric("validation_loss", "validation loss", NATS, True)


def _inputs(profile: Profile) -> dict[str, Any]:
    task = task_of(profile)
    base = model_folder(profile.study.model)
    return {"train": task.train, "validation": task.validation, "test": task.test, "base": base}


# --- a rate for every base ------------------------------------------------------------------------
def rate_arm(kind: str, lr: float) -> str:
    return f"{kind}, rate {lr:.2g}"


def rates_of(profile: Profile, kind: str) -> dict[float, str]:
    """{rate: arm} of one kind of base, as a sweep's figure takes it."""
    rates = [factor * profile.lr_lora for factor in FACTORS]
    return {lr: rate_arm(kind, lr) for lr in rates}


def rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Five rates for every kind of base."""
    arms = {}
    for kind in KINDS:
        for lr, arm in rates_of(profile, kind).items():
            arms[arm] = {"kind": kind, "lr": lr}
    return arms


def best_rate(profile: Profile, kind: str) -> float:
    """The rate with the lowest validation loss; the profile's where none is recorded yet."""
    rates = rates_of(profile, kind)
    middle = rate_arm(kind, profile.lr_lora)
    best = best_arm("3.1.5", "rates", "validation_loss", list(rates.values()), middle, profile)
    return next(lr for lr, arm in rates.items() if arm == best)


# --- bases compared, and merging ------------------------------------------------------------------
def base_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Every kind of base at the same rates. Among them the controls, NF4's and 2 bits' in all but
    the place of errors; NF4 in NVFP4's blocks, which takes NVFP4's bits; and 3 bits with one scale
    a matrix, whose error lies between those of 3 and 2 bits.
    """
    arms: dict[str, dict[str, Any]] = {}
    for kind in COMPARED:
        settings: dict[str, Any] = {"kind": kind}
        if kind in OTHER_BLOCKS:
            own, block = OTHER_BLOCKS[kind]
            settings = {"kind": own, "block": block}
        for place, factor in SHARED.items():
            lr = factor * profile.lr_lora
            arms[readings.base_arm(kind, place)] = {**settings, "lr": lr}
    return arms


def shared_rates(profile: Profile, kind: str) -> dict[float, str]:
    """{rate: arm} of one kind of base in the experiment `bases`."""
    return {
        factor * profile.lr_lora: readings.base_arm(kind, place) for place, factor in SHARED.items()
    }


def measured_rates(result: Result, kind: str) -> dict[float, str]:
    """{rate: arm} of one kind of base in the profile whose runs these are, the arms with runs: a
    profile may have fewer than another.
    """
    rates = shared_rates(result.profile, kind)
    return {lr: arm for lr, arm in rates.items() if result.has(arm)}


def measured_kinds(result: Result) -> list[str]:
    """The kinds of base that have runs."""
    return [kind for kind in COMPARED if measured_rates(result, kind)]


def over_rates(result: Result, kind: str, metric: str) -> np.ndarray:
    """A kind's metric, mean over the shared rates that have runs, (seeds,)."""
    runs = [result.means(arm, metric) for arm in measured_rates(result, kind).values()]
    return np.mean(runs, axis=0)


def merge_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """NF4's best rate and two lower ones: smaller updates over the same grid."""
    best = best_rate(profile, "NF4")
    return {arm: {"lr": factor * best} for arm, factor in SLOWER.items()}


def _place(name: str, text: str) -> Metric:
    return Metric(name, text, NATS, lower_is_better=True)


EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Validation loss over the learning rate, for each kind of base",
        trial=tune_trial,
        arms=rate_arms,
        metrics=(VALIDATION, TRAINING),
        inputs=_inputs,
        seeds=2,
        live=(),
    ),
    Experiment(
        name="bases",
        title="Adapters over bases of different kinds, at the same three rates",
        trial=base_trial,
        arms=fewer_where_runs_are_long(
            base_arms,
            "16 bits, middle rate",
            "NF4, middle rate",
            "2 bits, middle rate",
        ),
        metrics=(LOSS, ERROR, TRAINING),
        inputs=_inputs,
        claims=readings.BASES,
        scale_claims=readings.BETWEEN_SCALES,
        live=(readings.base_arm("NF4", "middle"),),
        profiles=RECORDED,
        seeds_in={"pocket": 5},
    ),
    Experiment(
        name="merging",
        title="One adapter over NF4, merged into different weights",
        trial=merge_trial,
        arms=merge_arms,
        metrics=(
            _place("beside", "golden loss beside the NF4 base"),
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
        inputs=_inputs,
        claims=readings_merging.MERGING,
        live=(),
    ),
)
