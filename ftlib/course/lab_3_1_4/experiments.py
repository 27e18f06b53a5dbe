"""The experiments of lab 3.1.4: every method's rate is chosen on validation rows; then the methods
are compared at their best rates, LoRA and full fine-tuning at lower ones as well; form is told from
content, the markers of a template are crossed, and a few rows are read many times.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_4 import form_readings, marker_readings, readings
from ftlib.course.lab_3_1_4.form_trials import few_trial, form_trial
from ftlib.course.lab_3_1_4.marker_trials import marker_rate_trial, marker_trial
from ftlib.course.lab_3_1_4.trials import (
    BOTTLENECK,
    FULL,
    PREFIX,
    cost_trial,
    method_trial,
    rate_trial,
)
from ftlib.course.records.experiment import (
    RECORDED,
    Experiment,
    Metric,
    fewer_where_runs_are_long,
)
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm

LAB = "3.1.4"
FACTORS = (0.5, 1.0, 2.0, 4.0)  # of a middle rate
RATE_SEEDS = 4  # of a sweep
TIE = 0.05  # of the lowest validation loss: rates that come as near count as equally good
METHODS = (FULL, "LoRA", "DoRA", "QLoRA", PREFIX, BOTTLENECK)
# QLoRA is LoRA on a rounded base and takes LoRA's rate: the question is what the rounding costs.
SWEPT = (FULL, "LoRA", "DoRA", PREFIX, BOTTLENECK)
FEW_FACTOR = 2  # of the profile's LoRA rate: high, so that two dozen rows are soon learnt by heart

LOSS = Metric("loss", "golden loss", "nats per token", lower_is_better=True)
VALIDATION = Metric("validation_loss", "validation loss", "nats per token", lower_is_better=True)
TRAINING = Metric("training_loss", "training loss", "nats per token", lower_is_better=True)
FORGOTTEN = Metric("forgotten", "forgotten", "nats per token", True)
RIGHT = Metric(
    "right",
    "right",
    "share of the questions",
    resolution=1 / 50,
    spoken="the share of right answers",
)
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


def swept_methods(profile: Profile) -> list[str]:
    """The methods whose rates are swept."""
    return [method for method in methods_of(profile) if method in SWEPT]


def middle_rate(profile: Profile, method: str) -> float:
    """The rate around which a method's are tried: the profile's; for a prefix and for full
    fine-tuning a quarter of it, as these runs are short and their batches small and of all lengths.
    """
    own = {
        FULL: profile.lr_full / 4,
        PREFIX: profile.lr_prefix / 4,
        BOTTLENECK: profile.lr_bottleneck,
    }
    return own.get(method, profile.lr_lora)


def rates_of(profile: Profile, method: str) -> dict[float, str]:
    """{rate: arm} of a method, as a sweep's figure takes it."""
    rates = [factor * middle_rate(profile, method) for factor in FACTORS]
    return {rate: f"{method}, rate {rate:.2g}" for rate in rates}


def rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Four rates for every method that is swept."""
    arms = {}
    for method in swept_methods(profile):
        for rate, arm in rates_of(profile, method).items():
            arms[arm] = {"method": method, "lr": rate}
    return arms


def best_rate(profile: Profile, method: str) -> float:
    """The method's lowest rate within `TIE` of its lowest validation loss; QLoRA's is LoRA's."""
    method = "LoRA" if method == "QLoRA" else method
    rates = rates_of(profile, method)
    middle = rates[middle_rate(profile, method)]
    best = best_arm(LAB, "rates", "validation_loss", list(rates.values()), middle, profile, TIE)
    return next(rate for rate, arm in rates.items() if arm == best)


# --- arms -----------------------------------------------------------------------------------------
def method_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Every method at its best rate, LoRA and full fine-tuning at lower ones as well."""
    arms = {}
    for method in methods_of(profile):
        arms[method] = {"method": method, "lr": best_rate(profile, method)}
    for method in readings.TWO:
        if method not in arms:
            continue
        best = best_rate(profile, method)
        for name, share in zip(readings.frontier_arms(method), readings.SHARES, strict=True):
            arms[name] = {"method": method, "lr": share * best}
    return arms


def cost_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return {method: {"method": method} for method in methods_of(profile)}


def form_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """The base after three prompts, and LoRA after four sets of rows."""
    lr = best_rate(profile, "LoRA")
    return {
        form_readings.BARE: {"shown": "none"},
        form_readings.OTHERS_SHOWN: {"shown": "others"},
        form_readings.OWN_SHOWN: {"shown": "own"},
        form_readings.FEW_TRAINED: {"trained": "few", "lr": lr},
        form_readings.SHUFFLED: {"trained": "shuffled", "lr": lr},
        form_readings.OTHERS_TRAINED: {"trained": "others", "lr": lr},
        form_readings.ALL_TRAINED: {"trained": "all", "lr": lr},
    }


def spare_rates(profile: Profile) -> dict[float, str]:
    """{rate: arm} of the sweep with spare markers, at the rates of LoRA's own sweep."""
    return {rate: f"spare markers, rate {rate:.2g}" for rate in rates_of(profile, "LoRA")}


def marker_rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return {arm: {"lr": rate} for rate, arm in spare_rates(profile).items()}


def spare_rate(profile: Profile) -> float:
    """The best rate with spare markers, by the rule of `best_rate`."""
    rates = spare_rates(profile)
    middle = rates[middle_rate(profile, "LoRA")]
    arms = list(rates.values())
    best = best_arm(LAB, "marker-rates", "validation_loss", arms, middle, profile, TIE)
    return next(rate for rate, arm in rates.items() if arm == best)


def marker_rate(profile: Profile) -> float:
    """One rate for all markers: the higher of the best ones with own and with spare markers."""
    return max(best_rate(profile, "LoRA"), spare_rate(profile))


def marker_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Markers of the turns by markers of the stop, and a stop whose output row is a known one."""
    lr = marker_rate(profile)
    arms: dict[str, dict[str, Any]] = {}
    for turns in ("own", "spare"):
        for stop in ("own", "spare"):
            name = marker_readings.marker_arm(turns, stop)
            arms[name] = {"turns": turns, "stop": stop, "lr": lr}
    arms[marker_readings.UNTIED] = {"turns": "spare", "stop": "spare", "lr": lr, "head": "own row"}
    return arms


def few_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return {readings.FEW_ROWS: {"lr": FEW_FACTOR * profile.lr_lora}}


EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Validation loss over the rate, for each method",
        trial=rate_trial,
        arms=fewer_where_runs_are_long(rate_arms, "full fine-tuning,", "LoRA,"),
        metrics=(VALIDATION, TRAINING, FORGOTTEN),
        inputs=_inputs,
        seeds=RATE_SEEDS,
        live=(),
        profiles=RECORDED,
        seeds_in={"pocket": 1},
    ),
    Experiment(
        name="methods",
        title="Six methods at their best rates, and two at lower ones: learnt and forgotten",
        trial=method_trial,
        arms=fewer_where_runs_are_long(
            method_arms,
            "full fine-tuning",
            "LoRA",
            "QLoRA",
        ),
        metrics=(
            LOSS,
            FORGOTTEN,
            RIGHT,
            Metric("loss_by_step", "golden loss", "nats per token", lower_is_better=True),
            Metric("forgotten_by_step", "forgotten", "nats per token", True),
            Metric("training_by_step", "training loss", "nats per token", lower_is_better=True),
        ),
        inputs=_inputs,
        claims=readings.METHODS,
        live=("LoRA",),
        profiles=RECORDED,
        seeds_in={"pocket": 5},
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
            Metric("step_ms", "time of a step", "ms", of_machine=True),
        ),
        inputs=_inputs,
        seeds=1,
        live=(),
    ),
    Experiment(
        name="form",
        title="Form and content: prompts and rows of several kinds",
        trial=form_trial,
        arms=fewer_where_runs_are_long(
            form_arms,
            "base, no example",
            "base, 3 of its family",
            "LoRA, shuffled answers",
            "LoRA, other families",
            "LoRA, all of its family",
        ),
        metrics=(RIGHT, UNCUT, FORM, STOPPED),
        inputs=_inputs,
        claims=form_readings.FORM,
        live=(form_readings.FEW_TRAINED,),
        profiles=RECORDED,
        seeds_in={"pocket": 5},
    ),
    Experiment(
        name="marker-rates",
        title="Validation loss over the rate, with spare markers",
        trial=marker_rate_trial,
        arms=marker_rate_arms,
        metrics=(VALIDATION, TRAINING),
        inputs=_inputs,
        seeds=2,
        live=(),
    ),
    Experiment(
        name="markers",
        title="A template of markers that pretraining never used",
        trial=marker_trial,
        arms=marker_arms,
        metrics=(RIGHT, STOPPED, LOSS, TRAINING),
        inputs=_inputs,
        claims=marker_readings.MARKERS,
        live=(),
    ),
    Experiment(
        name="few",
        title="Two dozen rows, read over and over",
        trial=few_trial,
        arms=few_arms,
        metrics=(
            Metric("own_loss", "loss on the training rows", "nats per token", lower_is_better=True),
            Metric("held_out_loss", "validation loss", "nats per token", lower_is_better=True),
            Metric("choosing_loss", "loss on rows that choose", "nats per token", True),
            Metric("held_out_right", "validation rows answered right", "share"),
        ),
        inputs=_inputs,
        claims=readings.FEW,
        live=(readings.FEW_ROWS,),
    ),
)
