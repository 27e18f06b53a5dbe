"""The experiments of lab E3: a rate for each method, chosen on validation rows; five methods at
about equal numbers of parameters; LoReFT with and without orthonormal rows; and its positions.
"""

from __future__ import annotations

import functools
from typing import Any

from transformers import AutoConfig

from ftlib.core.profiles import Profile
from ftlib.course.lab_e3 import readings
from ftlib.course.lab_e3.layer import FACTOR, FREE, RETRACTED
from ftlib.course.lab_e3.readings import BOTH_ENDS, WHOLE, too_high
from ftlib.course.lab_e3.settings import settings_of, sizes_of
from ftlib.course.lab_e3.trials import (
    ASKED,
    WHOLE_PROMPT,
    method_trial,
    position_trial,
    row_trial,
    tune_trial,
)
from ftlib.course.records.experiment import Experiment, Metric
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm

LAB = "E3"
METHODS = ("LoRA", *readings.OTHERS)
KINDS = (FACTOR, FREE, RETRACTED)
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of a middle rate
FEW_FACTORS = (0.5, 1.0, 2.0)
TOO_HIGH = 8.0  # times the middle rate
RATE_SEEDS = 2  # of a sweep
COUNTS = {  # of first and last positions
    BOTH_ENDS: (4, 4),
    "last 4": (0, 4),
    "first 4": (4, 0),
    WHOLE: (WHOLE_PROMPT, 0),
}

VALIDATION = Metric("validation_loss", "validation loss", "nats per token", lower_is_better=True)
TRAINING = Metric("training_loss", "training loss", "nats per token", lower_is_better=True)
LOSS = Metric("loss", "test loss", "nats per token", lower_is_better=True)
FORGOTTEN = Metric("forgotten", "forgotten", "nats per token", lower_is_better=True)


def _inputs(profile: Profile) -> dict[str, Any]:
    return {
        "train": rows_of(profile, "train"),
        "validation": rows_of(profile, "validation"),
        "golden": rows_of(profile, "golden"),
        "base": model_folder(profile.study.model),
    }


@functools.cache
def method_sizes(profile: Profile) -> dict[str, int]:
    """{method: its size} at about equal numbers of parameters."""
    config = AutoConfig.from_pretrained(model_folder(profile.study.model))
    return sizes_of(config, settings_of(profile).targets)


def _common(profile: Profile, method: str) -> dict[str, Any]:
    """What all runs of a method have: size and length."""
    settings = settings_of(profile)
    return {
        "size": method_sizes(profile)[method],
        "steps": settings.steps,
        "batch": settings.batch,
    }


def _with_targets(profile: Profile, method: str) -> dict[str, Any]:
    targets = list(settings_of(profile).targets)
    return {"method": method, "targets": targets, **_common(profile, method)}


# --- rates ----------------------------------------------------------------------------------------
def rate_arm(name: str, lr: float) -> str:
    return f"{name}, rate {lr:.2g}"


def swept(profile: Profile) -> dict[str, dict[str, Any]]:
    """{name: settings without a rate} of what is swept: the methods, and LoReFT with its R free or
    retracted.
    """
    found = {method: _with_targets(profile, method) for method in METHODS}
    for kind in (FREE, RETRACTED):
        found[kind] = {**found["LoReFT"], "kind_of_rows": kind}
    return found


def middle_rate(profile: Profile, name: str) -> float:
    rates = settings_of(profile).rates
    return rates.get(name, rates["LoReFT"])


def rates_of(profile: Profile, name: str) -> dict[float, str]:
    """{rate: arm} of a method or a kind of R, as a sweep's figure takes it."""
    rates = [factor * middle_rate(profile, name) for factor in FACTORS]
    return {lr: rate_arm(name, lr) for lr in rates}


def rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """As many rates for each."""
    arms = {}
    for name, settings in swept(profile).items():
        for lr, arm in rates_of(profile, name).items():
            arms[arm] = {**settings, "lr": lr}
    return arms


def best_rate(profile: Profile, name: str) -> float:
    """The rate with the lowest validation loss; the middle one before there is a record."""
    name = "LoReFT" if name == FACTOR else name
    return _best(profile, "rates", rates_of(profile, name), middle_rate(profile, name))


def _best(profile: Profile, experiment: str, arms: dict[float, str], middle: float) -> float:
    names = list(arms.values())
    best = best_arm(LAB, experiment, "validation_loss", names, arms[middle], profile)
    return next(lr for lr, name in arms.items() if name == best)


# --- methods --------------------------------------------------------------------------------------
def method_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Every method at its best rate, and LoReFT with one rank more at its own."""
    arms = {}
    for method in METHODS:
        settings = _with_targets(profile, method)
        arms[method] = {**settings, "lr": best_rate(profile, method)}
    arms[readings.MORE] = {**arms["LoReFT"], "size": arms["LoReFT"]["size"] + 1}
    return arms


# --- R's rows -------------------------------------------------------------------------------------
def high_rate(profile: Profile) -> float:
    """A rate that is too high, the same for both kinds of R."""
    return TOO_HIGH * middle_rate(profile, "LoReFT")


def row_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Three kinds of R, each at its best rate, and two of them at one that is too high."""
    arms = {}
    for kind in KINDS:
        settings = {"kind_of_rows": kind, **_common(profile, "LoReFT")}
        arms[kind] = {**settings, "lr": best_rate(profile, kind)}
        if kind in readings.AT_A_HIGH_RATE:
            arms[too_high(kind)] = {**settings, "lr": high_rate(profile)}
    return arms


# --- positions ------------------------------------------------------------------------------------
def position_rates_of(profile: Profile, place: str) -> dict[float, str]:
    """{rate: arm} of a choice of positions in the experiment `position-rates`."""
    rates = [factor * middle_rate(profile, "LoReFT") for factor in FEW_FACTORS]
    return {lr: rate_arm(place, lr) for lr in rates}


def position_rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    arms = {}
    for place, counts in COUNTS.items():
        settings = {**_with_targets(profile, "LoReFT"), "counts": list(counts)}
        for lr, arm in position_rates_of(profile, place).items():
            arms[arm] = {**settings, "lr": lr}
    return arms


def position_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Every choice of positions at its best rate, and the last ones at that of both ends too."""
    arms = {}
    middle = middle_rate(profile, "LoReFT")
    for place, counts in COUNTS.items():
        rates = position_rates_of(profile, place)
        lr = _best(profile, "position-rates", rates, middle)
        arms[place] = {"counts": list(counts), "lr": lr, **_common(profile, "LoReFT")}
    arms[readings.ONE_RATE] = {**arms["last 4"], "lr": arms[BOTH_ENDS]["lr"]}
    return arms


EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Validation loss over the learning rate, for each method and each kind of R",
        trial=tune_trial,
        arms=rate_arms,
        metrics=(VALIDATION, TRAINING),
        inputs=_inputs,
        seeds=RATE_SEEDS,
        live=(),
    ),
    Experiment(
        name="methods",
        title="Five methods at about equal numbers of parameters, each at its best rate",
        trial=method_trial,
        arms=method_arms,
        metrics=(
            LOSS,
            FORGOTTEN,
            Metric("forgotten_whole", "forgotten, whole texts", "nats per token", True),
            Metric("right", "right answers", "share of the questions", resolution=1 / ASKED),
            Metric("trainable", "trained parameters"),
        ),
        inputs=_inputs,
        claims=readings.METHODS,
        live=("LoReFT", "bottleneck"),
    ),
    Experiment(
        name="rows",
        title="LoReFT with R's rows orthonormal, free, and set back after every step",
        trial=row_trial,
        arms=row_arms,
        metrics=(
            LOSS,
            Metric("turned_loss", "test loss, edits turned at random", "nats per token", True),
            Metric("base_loss", "the base's test loss", "nats per token", True),
            Metric("missed", "R h' apart from W h + b", "share of the change", True),
            Metric("apart", "largest entry of |R Rᵀ − I|"),
            Metric("apart_last", "largest entry of |R Rᵀ − I| at the end"),
        ),
        inputs=_inputs,
        claims=readings.ROWS,
        live=(),
    ),
    Experiment(
        name="position-rates",
        title="Validation loss over the learning rate, for each choice of positions",
        trial=tune_trial,
        arms=position_rate_arms,
        metrics=(VALIDATION, TRAINING),
        inputs=_inputs,
        seeds=1,
        live=(),
    ),
    Experiment(
        name="positions",
        title="LoReFT's positions, each choice at its best rate, the same parameters",
        trial=position_trial,
        arms=position_arms,
        metrics=(LOSS, FORGOTTEN),
        inputs=_inputs,
        claims=readings.POSITIONS,
        live=(),
    ),
)
