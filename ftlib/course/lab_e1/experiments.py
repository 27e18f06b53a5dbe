"""The experiments of lab E1: reward models from many and from few judgements; rates of PPO;
PPO with and without a price of going away, beside DPO.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_7 import experiments as dpo_lab
from ftlib.course.lab_3_1_7.starts import TEST, TRAIN, VALIDATION
from ftlib.course.lab_e1 import readings
from ftlib.course.lab_e1.readings import COIN, DPO, FEW, MANY, NEAR, kl_arm
from ftlib.course.lab_e1.settings import settings_of
from ftlib.course.lab_e1.trials import CHANCE, method_trial, reward_model_trial
from ftlib.course.records.experiment import Experiment, Metric
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm

LAB = "E1"
FACTORS = (0.5, 1.0, 2.0)  # of a middle rate
LOOKS = (0.25, 0.5, 1.0)  # shares of DPO's steps at which it is measured

PROXY = "reward model's score"
TRUE = "true reward"
POLICY = (
    Metric(
        "proxy gain",
        f"{PROXY} above the start's",
        "its units",
        spoken=f"the gain in the {PROXY}",
    ),
    Metric("true gain", f"{TRUE} above the start's", "fewer faults per answer"),
    Metric("kl", "KL to the start", "nats per answer"),
    Metric("hacked", "proxy above and truth below the start's", "0 or 1", resolution=1.0),
    Metric("distinct", "different answers", "share", resolution=1 / 32),
)
COURSES = (
    Metric("proxy on the way", PROXY, "its units"),
    Metric("true on the way", TRUE, "minus faults per answer"),
    Metric("kl on the way", "KL to the start", "nats per answer"),
    Metric("missing on the way", "facts left out", "an answer", lower_is_better=True),
    Metric("wrong on the way", "false facts", "an answer", lower_is_better=True),
    Metric("unwanted on the way", "sentences nobody asked for", "an answer", lower_is_better=True),
)
COSTS = (
    Metric("seconds", "training", "seconds", lower_is_better=True, of_machine=True),
    Metric("passes", "tokens through a model, a training step thrice", "tokens", True),
)


def _inputs(profile: Profile) -> dict[str, Any]:
    return {
        "train": rows_of(profile, TRAIN),
        "validation": rows_of(profile, VALIDATION),
        "test": rows_of(profile, TEST),
        "base": model_folder(profile.model),
    }


# --- reward models --------------------------------------------------------------------------------
def judge_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """As many steps on different pairs, and on few pairs again and again."""
    settings = settings_of(profile)
    return {MANY: {"pairs": settings.judgements}, FEW: {"pairs": settings.few}}


# --- rates ----------------------------------------------------------------------------------------
def rates_of(profile: Profile) -> dict[float, str]:
    """{rate: arm} of PPO, as a sweep's figure takes it."""
    middle = settings_of(profile).policy_lr
    return {factor * middle: f"rate {factor * middle:.2g}" for factor in FACTORS}


def rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """PPO with its price, judged on validation people."""
    common = {"method": "ppo", "kl_coef": NEAR, "split": VALIDATION, "is_swept": True}
    return {arm: {**common, "lr": lr} for lr, arm in rates_of(profile).items()}


def best_rate(profile: Profile) -> float:
    """The rate with the highest true reward on validation people; the middle one before there is a
    record.
    """
    rates = rates_of(profile)
    names = list(rates.values())
    best = best_arm(LAB, "rates", "true gain", names, names[len(names) // 2], profile)
    return next(lr for lr, name in rates.items() if name == best)


def dpo_settings(profile: Profile) -> dict[str, Any]:
    """DPO's rate at the usual beta, which lab 3.1.7 has chosen on the same validation people, from
    the same start, on the same pairs.
    """
    own = dpo_lab.tuned(profile, dpo_lab.beta_name(dpo_lab.USUAL_BETA))
    return {"lr": own["lr"], "beta": own["beta"]}


# --- policies -------------------------------------------------------------------------------------
def method_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """PPO without and with a price, the same against judgements by coin, and DPO."""
    common = {"method": "ppo", "lr": best_rate(profile)}
    return {
        kl_arm(0.0): {**common, "kl_coef": 0.0},
        kl_arm(NEAR): {**common, "kl_coef": NEAR},
        DPO: {
            "method": "dpo",
            **dpo_settings(profile),
            "looks": list(LOOKS),
        },
        COIN: {**common, "kl_coef": NEAR, "turned": CHANCE},
    }


EXPERIMENTS = (
    Experiment(
        name="judges",
        title="Reward models on held-out judgements: accuracy and calibration",
        trial=reward_model_trial,
        arms=judge_arms,
        metrics=(
            Metric(
                "accuracy",
                "held-out pairs ranked right",
                "share",
                resolution=1 / 100,
                spoken="the share of held-out pairs ranked right",
            ),
            Metric("confidence", "mean confidence", "share"),
            Metric("calibration error", "expected calibration error", "share", True),
            Metric("too sure", "mean confidence − accuracy", "share"),
            Metric("gaps", "r_chosen − r_rejected", "of each held-out pair"),
        ),
        inputs=_inputs,
        claims=readings.JUDGES,
        live=(MANY,),
    ),
    Experiment(
        name="rates",
        title="PPO's true reward on validation people over the rate",
        trial=method_trial,
        arms=rate_arms,
        metrics=POLICY,
        inputs=_inputs,
        seeds=1,
        live=(),
    ),
    Experiment(
        name="methods",
        title="PPO against a reward model with and without a price, DPO, and judgements by coin",
        trial=method_trial,
        arms=method_arms,
        metrics=(*POLICY, *COURSES, *COSTS),
        inputs=_inputs,
        claims=readings.METHODS,
        live=(kl_arm(0.0),),
    ),
)
