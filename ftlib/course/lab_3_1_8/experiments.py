"""The experiments of lab 3.1.8: rate and settings of every loss are chosen on validation prompts
with the same number of trials; then the losses are compared on test prompts, shuffled labels are
tried with and without a reference, and sums are compared with means on pairs of unequal length.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_8 import readings, readings_of_controls
from ftlib.course.lab_3_1_8.length import length_trial
from ftlib.course.lab_3_1_8.runs import BASE, IMITATED, TEST, TRAIN, VALIDATION
from ftlib.course.lab_3_1_8.trials import compare_trial, shuffle_trial, tune_trial
from ftlib.course.records.experiment import (
    RECORDED,
    Experiment,
    Metric,
    fewer_where_runs_are_long,
)
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm, read_record

LAB = "3.1.8"
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of a middle rate
FINER = (0.6, 0.8, 1.25, 1.6)  # of the best rate: SFT has nothing else to choose
BETAS = (0.02, 0.05, 0.3, 1.0)  # of DPO, besides its 0.1
SIMPO_SETTINGS = ((2.0, 0.0), (2.0, 1.5), (0.5, 0.5), (8.0, 0.5))  # β, γ/β
LAMBDAS = (0.1, 0.3, 3.0, 10.0)  # of ORPO, besides its 1

METHODS: dict[str, dict[str, Any]] = {  # with the settings that the rates are tried with
    "SFT on chosen": {"method": "SFT", "start": IMITATED},
    "DPO": {"method": "DPO", "start": IMITATED, "beta": 0.1},
    "SimPO": {"method": "SimPO", "start": IMITATED, "beta": 2.0, "ratio": 0.5},
    "ORPO": {"method": "ORPO", "start": BASE, "lam": 1.0},
    "SFT from the base": {"method": "SFT", "start": BASE},
}
SFT_FACTORS = {"SFT on chosen": 4.0, "SFT from the base": 2.0}  # SFT stands higher rates

FAULTS = Metric("faults", "faults per answer", lower_is_better=True, resolution=1 / 100)
VALIDATION_FAULTS = Metric(
    "faults", "faults per answer, validation prompts", lower_is_better=True, resolution=1 / 24
)
FORGOTTEN = Metric("forgotten", "forgotten", "nats per token", lower_is_better=True)
RIGHT = Metric("right", "facts right", "share", resolution=1 / 400)
WRONG = Metric("wrong", "facts wrong, an answer", lower_is_better=True, resolution=1 / 100)
MISSING = Metric("missing", "facts left out, an answer", lower_is_better=True, resolution=1 / 100)
UNWANTED = Metric("unwanted", "breaks of form, an answer", "", True, resolution=1 / 100)
WORDS = Metric("words", "words per answer", resolution=1 / 100)
CHOSEN = Metric("chosen", "log p of chosen answers", "nats per token")
REJECTED = Metric("rejected", "log p of rejected answers", "nats per token")
APART = Metric("apart", "|margin of means|", "nats per token")
ACCURACY = Metric("accuracy", "pairs ranked right", "share", resolution=1 / 50)


def _inputs(profile: Profile) -> dict[str, Any]:
    return {
        "train": rows_of(profile, TRAIN),
        "validation": rows_of(profile, VALIDATION),
        "test": rows_of(profile, TEST),
        "model": model_folder(profile.model),
        "base": model_folder(profile.preference.base),
    }


# --- choosing settings ----------------------------------------------------------------------------
def middle_rate(profile: Profile, name: str) -> float:
    """The rate around which a method is tried."""
    preference = profile.preference
    rate = preference.orpo_lr if METHODS[name]["start"] == BASE else preference.lr
    return SFT_FACTORS.get(name, 1.0) * rate


def rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Five rates for every method."""
    arms = {}
    for name, settings in METHODS.items():
        for factor in FACTORS:
            lr = factor * middle_rate(profile, name)
            arms[f"{name}, rate {lr:.2g}"] = {**settings, "lr": lr}
    return arms


def arms_of(arms: dict[str, dict[str, Any]], name: str) -> list[str]:
    """The arms of one method in a sweep."""
    return [arm for arm in arms if arm.startswith(f"{name},")]


def rates_of(profile: Profile, name: str) -> dict[float, str]:
    """{rate: arm} of a method in the sweep over rates, as a figure takes it."""
    arms = rate_arms(profile)
    return {arms[arm]["lr"]: arm for arm in arms_of(arms, name)}


def _best_of(profile: Profile, experiment: str, arms: list[str]) -> str:
    """The arm with the fewest validation faults, the first of those that tie; empty until all of
    them are recorded.
    """
    return best_arm(LAB, experiment, "faults", arms, "", profile)


def _validation_faults(profile: Profile, experiment: str, arm: str) -> float:
    return float(read_record(LAB, experiment, profile).values(arm, "faults").mean())


def best_rate(profile: Profile, name: str) -> dict[str, Any]:
    """Settings of a method at its best rate; the middle rate until all are recorded."""
    arms = rate_arms(profile)
    best = _best_of(profile, "rates", arms_of(arms, name))
    if not best:
        return {**METHODS[name], "lr": middle_rate(profile, name)}
    return arms[best]


def setting_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Four more trials for every method at its best rate: beta, β and γ/β, λ; SFT, which has no
    such setting, tries finer rates.
    """
    dpo = best_rate(profile, "DPO")
    simpo = best_rate(profile, "SimPO")
    orpo = best_rate(profile, "ORPO")
    arms = {}
    for name in ("SFT on chosen", "SFT from the base"):
        settings = best_rate(profile, name)
        for factor in FINER:
            lr = factor * settings["lr"]
            arms[f"{name}, rate {lr:.3g}"] = {**settings, "lr": lr}
    for beta in BETAS:
        arms[f"DPO, β {beta:g}"] = {**dpo, "beta": beta}
    for beta, ratio in SIMPO_SETTINGS:
        arms[f"SimPO, β {beta:g}, γ/β {ratio:g}"] = {**simpo, "beta": beta, "ratio": ratio}
    for lam in LAMBDAS:
        arms[f"ORPO, λ {lam:g}"] = {**orpo, "lam": lam}
    return arms


def best_trial(profile: Profile, name: str) -> tuple[str, str]:
    """(experiment, arm) with the fewest validation faults of all nine trials of a method, the
    sweep over rates first where they tie; two empty names until all nine are recorded.
    """
    of_rates = _best_of(profile, "rates", arms_of(rate_arms(profile), name))
    of_settings = _best_of(profile, "settings", arms_of(setting_arms(profile), name))
    if not of_rates or not of_settings:
        return "", ""
    first = _validation_faults(profile, "rates", of_rates)
    second = _validation_faults(profile, "settings", of_settings)
    if second < first:
        return "settings", of_settings
    return "rates", of_rates


def best_settings(profile: Profile, name: str) -> dict[str, Any]:
    """Settings of a method with the fewest validation faults of all nine trials."""
    experiment, arm = best_trial(profile, name)
    if experiment == "settings":
        return setting_arms(profile)[arm]
    return best_rate(profile, name)


# --- comparing ------------------------------------------------------------------------------------
def method_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Every method at its best; SimPO and DPO also at each other's rate, so that they can be
    compared at equal rates.
    """
    arms = {name: best_settings(profile, name) for name in METHODS}
    arms[readings.SIMPO_AT_DPO] = {**arms["SimPO"], "lr": arms["DPO"]["lr"]}
    arms[readings.DPO_AT_SIMPO] = {**arms["DPO"], "lr": arms["SimPO"]["lr"]}
    return arms


def shuffle_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """SimPO and DPO on labels that say nothing and on the real ones, all at SimPO's best rate."""
    simpo = best_settings(profile, "SimPO")
    dpo = {**best_settings(profile, "DPO"), "lr": simpo["lr"]}
    return {
        "SimPO, shuffled": simpo,
        "DPO, shuffled": dpo,
        "SimPO, real": {**simpo, "share": 0.0},
        "DPO, real": {**dpo, "share": 0.0},
    }


def length_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Means, sums with the same β, and sums with a β that makes them as steep as means, all at
    SimPO's best rate.
    """
    best = best_rate(profile, "SimPO")
    setting = {name: best[name] for name in ("lr", "beta", "ratio")}
    sums = {"score": "sum", **setting}
    return {
        "means": {"score": "mean", **setting},
        "sums": sums,
        "sums, small β": {**sums, "is_scaled": True},
    }


EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Faults over the rate, for each loss",
        trial=tune_trial,
        arms=fewer_where_runs_are_long(
            rate_arms, "SFT on chosen,", "DPO,", "SimPO,", "ORPO,", every=2
        ),
        metrics=(VALIDATION_FAULTS, RIGHT, WRONG),
        inputs=_inputs,
        seeds=2,
        live=(),
        profiles=RECORDED,
        seeds_in={"pocket": 1},
    ),
    Experiment(
        name="settings",
        title="Faults over β, γ/β and λ, each loss at its best rate",
        trial=tune_trial,
        arms=setting_arms,
        metrics=(VALIDATION_FAULTS, RIGHT, WRONG),
        inputs=_inputs,
        seeds=2,
        live=(),
    ),
    Experiment(
        name="methods",
        title="Four losses on the same pairs, each at its best",
        trial=compare_trial,
        arms=fewer_where_runs_are_long(method_arms, "SFT on chosen", "DPO", "SimPO", "ORPO"),
        metrics=(
            FAULTS,
            RIGHT,
            WRONG,
            MISSING,
            UNWANTED,
            WORDS,
            FORGOTTEN,
            CHOSEN,
            REJECTED,
            ACCURACY,
            APART,
        ),
        inputs=_inputs,
        claims=readings.METHODS,
        live=("SimPO", "ORPO"),
        profiles=RECORDED,
        seeds_in={"pocket": 5},
    ),
    Experiment(
        name="shuffled",
        title="Labels that say nothing, with a reference and without",
        trial=shuffle_trial,
        arms=shuffle_arms,
        metrics=(FAULTS, APART, CHOSEN, REJECTED, FORGOTTEN),
        inputs=_inputs,
        claims=readings_of_controls.SHUFFLED,
        live=(),
    ),
    Experiment(
        name="length",
        title="Sums and means on pairs of unequal length",
        trial=length_trial,
        arms=length_arms,
        metrics=(
            Metric("before", "r of margin and difference of length, before"),
            Metric("after", "r of margin and difference of length, after"),
            Metric("weight", "r of the pair's weight and difference of length, before"),
            Metric("idle", "pairs with a weight below 1%", "share", resolution=1 / 100),
            Metric("accuracy_longer", "ranked right where the chosen is longer", "share"),
            Metric("accuracy_shorter", "ranked right where the chosen is shorter", "share"),
            WORDS,
            FAULTS,
        ),
        inputs=_inputs,
        claims=readings_of_controls.LENGTH,
        live=(),
    ),
)
