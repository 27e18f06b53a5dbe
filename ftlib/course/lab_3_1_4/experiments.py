"""The experiments of lab 3.1.4: every method's rate is chosen on validation rows; then the methods
are compared on the way from the first step to the last; form is told from content, the markers of a
template are crossed, and a few rows are read many times.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_4 import readings
from ftlib.course.lab_3_1_4.form_trials import few_trial, form_trial
from ftlib.course.lab_3_1_4.marker_trials import marker_trial
from ftlib.course.lab_3_1_4.trials import (
    BOTTLENECK,
    FULL,
    PREFIX,
    cost_trial,
    method_trial,
    rate_trial,
)
from ftlib.course.records.experiment import Experiment, Metric
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm

LAB = "3.1.4"
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of a middle rate
TIE = 0.05  # of the lowest validation loss: rates that come as near count as equally good
METHODS = (FULL, "LoRA", "DoRA", "QLoRA", PREFIX, BOTTLENECK)

LOSS = Metric("loss", "golden loss", "nats a token", lower_is_better=True)
VALIDATION = Metric("validation_loss", "validation loss", "nats a token", lower_is_better=True)
TRAINING = Metric("training_loss", "training loss", "nats a token", lower_is_better=True)
FORGOTTEN = Metric("forgotten", "forgotten", "nats a token", True)
RIGHT = Metric("right", "right", "share of the questions", resolution=1 / 50)
UNCUT = Metric("right_uncut", "right as a whole", "share of the questions", resolution=1 / 50)
FORM = Metric("form", "in the family's form", "share of the answers", resolution=1 / 50)
STOPPED = Metric("stopped", "ended by itself", "share of the answers", resolution=1 / 50)


def _inputs(profile: Profile) -> dict[str, Any]:
    return {
        "train": rows_of(profile, "train"),
        "validation": rows_of(profile, "validation"),
        "golden": rows_of(profile, "golden"),
        "base": model_folder(profile.model),
    }


# --- rates ----------------------------------------------------------------------------------------
def methods_of(profile: Profile) -> list[str]:
    """What the profile's machine can train side by side: its own list, and LoRA on four bits."""
    return [method for method in METHODS if method == "QLoRA" or method in profile.methods]


def middle_rate(profile: Profile, method: str) -> float:
    """The rate around which a method's are tried: the profile's; for a prefix a quarter of it, as
    these batches are small and of all lengths, and for full fine-tuning half of it.
    """
    own = {
        FULL: profile.lr_full / 2,
        PREFIX: profile.lr_prefix / 4,
        BOTTLENECK: profile.lr_bottleneck,
    }
    return own.get(method, profile.lr_lora)


def rates_of(profile: Profile, method: str) -> dict[float, str]:
    """{rate: arm} of a method, as a sweep's figure takes it."""
    rates = [factor * middle_rate(profile, method) for factor in FACTORS]
    return {rate: f"{method}, rate {rate:.2g}" for rate in rates}


def rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Five rates for every method."""
    arms = {}
    for method in methods_of(profile):
        for rate, arm in rates_of(profile, method).items():
            arms[arm] = {"method": method, "lr": rate}
    return arms


def best_rate(profile: Profile, method: str) -> float:
    """The method's lowest rate within `TIE` of its lowest validation loss."""
    rates = rates_of(profile, method)
    middle = rates[middle_rate(profile, method)]
    best = best_arm(LAB, "rates", "validation_loss", list(rates.values()), middle, profile, TIE)
    return next(rate for rate, arm in rates.items() if arm == best)


# --- arms -----------------------------------------------------------------------------------------
def method_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return {
        method: {"method": method, "lr": best_rate(profile, method)}
        for method in methods_of(profile)
    }


def cost_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return {method: {"method": method} for method in methods_of(profile)}


def form_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """The base after three prompts, and LoRA after four sets of rows."""
    lr = best_rate(profile, "LoRA")
    return {
        readings.BARE: {"shown": "none"},
        readings.OTHERS_SHOWN: {"shown": "others"},
        readings.OWN_SHOWN: {"shown": "own"},
        readings.FEW_TRAINED: {"trained": "few", "lr": lr},
        readings.SHUFFLED: {"trained": "shuffled", "lr": lr},
        readings.OTHERS_TRAINED: {"trained": "others", "lr": lr},
        readings.ALL_TRAINED: {"trained": "all", "lr": lr},
    }


def marker_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Markers of the turns by markers of the stop, and a stop whose output row is a known one."""
    lr = best_rate(profile, "LoRA")
    arms: dict[str, dict[str, Any]] = {}
    for turns in ("own", "spare"):
        for stop in ("own", "spare"):
            arms[readings.marker_arm(turns, stop)] = {"turns": turns, "stop": stop, "lr": lr}
    arms[readings.UNTIED] = {"turns": "spare", "stop": "spare", "lr": lr, "head": "own row"}
    return arms


def few_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return {readings.FEW_ROWS: {"lr": best_rate(profile, "LoRA")}}


EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Validation loss over the rate, for each method",
        trial=rate_trial,
        arms=rate_arms,
        metrics=(VALIDATION, TRAINING, FORGOTTEN),
        inputs=_inputs,
        seeds=2,
        live=(),
    ),
    Experiment(
        name="methods",
        title="Six methods, each at its best rate: learnt and forgotten, step by step",
        trial=method_trial,
        arms=method_arms,
        metrics=(
            LOSS,
            FORGOTTEN,
            RIGHT,
            Metric("loss_by_step", "golden loss", "nats a token", lower_is_better=True),
            Metric("forgotten_by_step", "forgotten", "nats a token", True),
            Metric("training_by_step", "training loss", "nats a token", lower_is_better=True),
        ),
        inputs=_inputs,
        claims=readings.METHODS,
        live=("LoRA",),
    ),
    Experiment(
        name="costs",
        title="What one step of each method takes",
        trial=cost_trial,
        arms=cost_arms,
        metrics=(
            Metric("trainable", "trained numbers"),
            Metric("weights_mb", "weights", "MB"),
            Metric("optimizer_mb", "optimizer state", "MB"),
            Metric("step_mb", "made in a step, at most", "MB"),
            Metric("step_ms", "time of a step", "ms"),
        ),
        inputs=_inputs,
        seeds=2,
        live=(),
    ),
    Experiment(
        name="form",
        title="Form and content: prompts and rows of several kinds",
        trial=form_trial,
        arms=form_arms,
        metrics=(RIGHT, UNCUT, FORM, STOPPED),
        inputs=_inputs,
        claims=readings.FORM,
        live=(readings.FEW_TRAINED,),
    ),
    Experiment(
        name="markers",
        title="A template of markers that pretraining never used",
        trial=marker_trial,
        arms=marker_arms,
        metrics=(RIGHT, STOPPED, LOSS, TRAINING),
        inputs=_inputs,
        claims=readings.MARKERS,
        live=(),
    ),
    Experiment(
        name="few",
        title="Two dozen rows, read over and over",
        trial=few_trial,
        arms=few_arms,
        metrics=(
            Metric("own_loss", "loss on the rows trained on", "nats a token", lower_is_better=True),
            Metric("held_out_loss", "validation loss", "nats a token", lower_is_better=True),
            Metric("held_out_right", "validation rows answered right", "share"),
        ),
        inputs=_inputs,
        claims=readings.FEW,
        live=(readings.FEW_ROWS,),
    ),
)
