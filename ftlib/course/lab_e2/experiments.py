"""The experiments of lab E2: a rate for full fine-tuning and for LoRA, chosen on validation rows;
then every method at several strengths, as curves of what was learnt and what was forgotten.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_e2 import readings
from ftlib.course.lab_e2.settings import (
    HALF,
    RATES,
    REPLAYED,
    THRESHOLDS,
    WAYS,
    WEIGHTS,
    settings_of,
)
from ftlib.course.lab_e2.trials import FULL, rate_trial, strength_trial
from ftlib.course.records.experiment import (
    RECORDED,
    Experiment,
    Metric,
    fewer_where_runs_are_long,
)
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm
from ftlib.data.load import load_base_text

LAB = "E2"
RATE_SEEDS = 2  # of the sweep

VALIDATION = Metric("validation_loss", "validation loss", "nats per token", lower_is_better=True)
LOSS = Metric("loss", "test loss", "nats per token", lower_is_better=True)
FORGOTTEN = Metric("forgotten", "forgotten", "nats per token", lower_is_better=True)
KNOWN = Metric("known", "still answered", "share of the questions", resolution=0.02)
TRAINING = Metric("training_loss", "training loss", "nats per token", lower_is_better=True)


def _inputs(profile: Profile) -> dict[str, Any]:
    texts = [{"text": text} for text in load_base_text(profile, 300)]
    return {
        "train": rows_of(profile, profile.study.train),
        "test": rows_of(profile, profile.study.test),
        "texts": texts,
        "base": model_folder(profile.study.model),
    }


# --- rates ----------------------------------------------------------------------------------------
def rates_of(profile: Profile, method: str) -> dict[float, str]:
    """{rate: arm} of full fine-tuning or LoRA, as a sweep's figure takes it."""
    settings = settings_of(profile)
    rates = settings.rates if method == FULL else settings.lora_rates
    return {lr: f"{method}, rate {lr:.2g}" for lr in rates}


def _common(profile: Profile, method: str) -> dict[str, Any]:
    """What all runs of full fine-tuning, or of LoRA, have."""
    settings = settings_of(profile)
    common = {"method": method, "steps": settings.steps, "batch": settings.batch}
    return common | {"alpha": settings.lora_alpha} if method == readings.LORA else common


def rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """As many rates for each."""
    arms = {}
    for method in (FULL, readings.LORA):
        for lr, arm in rates_of(profile, method).items():
            arms[arm] = {"lr": lr, **_common(profile, method)}
    return arms


def best_rate(profile: Profile, method: str) -> float:
    """The rate with the lowest validation loss; the middle one before there is a record."""
    rates = rates_of(profile, method)
    arms = list(rates.values())
    best = best_arm(LAB, "rates", "validation_loss", arms, arms[len(arms) // 2], profile)
    return next(lr for lr, arm in rates.items() if arm == best)


# --- curves ---------------------------------------------------------------------------------------
def curve_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Every method at four settings, and two controls."""
    rate = best_rate(profile, FULL)
    full = {"lr": rate, **_common(profile, FULL)}
    slow = {**full, "lr": HALF * rate}
    lora_rate = best_rate(profile, readings.LORA)
    arms: dict[str, dict[str, Any]] = {}
    for share in RATES:
        arms[readings.at_rate(FULL, share)] = {**full, "lr": share * rate}
    for share in RATES:
        lora = {"lr": share * lora_rate, **_common(profile, readings.LORA)}
        arms[readings.at_rate(readings.LORA, share)] = lora
    for share in REPLAYED:
        arms[readings.replay_arm(share)] = {**full, "share": share}
    arms[readings.replay_arm(readings.MOST, HALF)] = {**slow, "share": readings.MOST}
    shuffled = {"share": readings.MOST, "shuffle": True}
    arms[readings.shuffled_arm(readings.MOST)] = {**full, **shuffled}
    return arms | _held_arms(full, slow) | _back_arms(profile, full, slow)


def _held_arms(full: dict[str, Any], slow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """EWC at both rates, and flat springs at the lower one."""
    arms = {}
    for weight in WEIGHTS:
        arms[readings.ewc_arm(weight)] = {**full, "weight": weight}
        arms[readings.ewc_arm(weight, HALF)] = {**slow, "weight": weight}
        flat = {"weight": weight, "is_flat": True}
        arms[readings.flat_arm(weight, HALF)] = {**slow, **flat}
    return arms


def _back_arms(
    profile: Profile, full: dict[str, Any], slow: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Interpolation, one rate after the other, since its runs are kept; and early stops."""
    arms = {}
    for rate, start in ((1.0, full), (HALF, slow)):
        for t in WAYS:
            arms[readings.way_arm(t, rate)] = {**start, "t": t}
    every = settings_of(profile).every
    for threshold in THRESHOLDS:
        arms[readings.stop_arm(threshold)] = {**full, "threshold": threshold, "every": every}
    least = min(THRESHOLDS)
    arms[readings.stop_arm(least, HALF)] = {**slow, "threshold": least, "every": every}
    return arms


EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Validation loss over the learning rate, full fine-tuning and LoRA",
        trial=rate_trial,
        arms=rate_arms,
        metrics=(VALIDATION, TRAINING),
        inputs=_inputs,
        seeds=RATE_SEEDS,
        live=(),
        profiles=RECORDED,
        seeds_in={"pocket": 1},
    ),
    Experiment(
        name="curves",
        title="Learnt and forgotten: every method at several strengths",
        trial=strength_trial,
        arms=fewer_where_runs_are_long(
            curve_arms,
            FULL,
            readings.SLOW,
            readings.LORA,
            readings.replay_arm(readings.MOST),
            readings.way_arm(WAYS[-1]),
        ),
        metrics=(LOSS, FORGOTTEN, KNOWN),
        inputs=_inputs,
        claims=readings.METHODS,
        live=(readings.replay_arm(readings.MOST), readings.ewc_arm(WEIGHTS[1], HALF)),
        profiles=RECORDED,
        seeds_in={"pocket": 5},
    ),
)
