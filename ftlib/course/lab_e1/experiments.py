"""The experiments of lab E1: reward models from many and from few judgements; rates of PPO and DPO;
PPO at several prices of going away; and what stands beside it on the same judgements.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_7.starts import TEST, TRAIN, VALIDATION
from ftlib.course.lab_e1 import readings
from ftlib.course.lab_e1.readings import COEFFICIENTS, COIN, DPO, FEW, MANY, NEAR, kl_arm
from ftlib.course.lab_e1.settings import settings_of
from ftlib.course.lab_e1.trials import (
    CHANCE,
    dpo_trial,
    policy_trial,
    reward_model_trial,
)
from ftlib.course.records.experiment import Experiment, Metric
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm

LAB = "E1"
FACTORS = (0.5, 1.0, 2.0)  # of a middle rate
RATE_SEEDS = 2  # of a sweep
BETA = 0.1  # of DPO; its rate is swept
DPO_PASSES = 2  # over the judgements, so that its course passes PPO's KL
LOOKS = (0.125, 0.25, 0.5, 1.0)  # shares of DPO's steps at which it is measured

PROXY_GAIN = Metric("proxy gain", "reward model's score above the start's", "its units")
TRUE_GAIN = Metric("true gain", "true reward above the start's", "faults fewer an answer")
KL = Metric("kl", "KL to the start", "nats an answer")
DISTINCT = Metric("distinct", "different answers", "share")
PROXIES = Metric("reward by rollout", "reward model's score", "its units")
TRUES = Metric("true by rollout", "true reward", "minus faults an answer")
KLS = Metric("kl by rollout", "KL to the start", "nats an answer")
ENTROPIES = Metric("entropy by rollout", "entropy", "nats a token")
PROXY_RISE = Metric("proxy rise", "score, last two rollouts − the first", "its units")
TRUE_RISE = Metric("true rise", "true reward, last two rollouts − the first", "faults fewer")
SECONDS = Metric("seconds", "training", "seconds", lower_is_better=True, of_machine=True)
PASSES = Metric("passes", "tokens through a model", "a training step counts three times", True)
POLICY = (PROXY_GAIN, TRUE_GAIN, KL, DISTINCT)
COURSES = (PROXIES, TRUES, KLS, ENTROPIES, PROXY_RISE, TRUE_RISE)


def _inputs(profile: Profile) -> dict[str, Any]:
    return {
        "train": rows_of(profile, TRAIN),
        "validation": rows_of(profile, VALIDATION),
        "test": rows_of(profile, TEST),
        "base": model_folder(profile.model),
    }


# --- reward models --------------------------------------------------------------------------------
def judge_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """As many steps on different pairs, on few pairs again and again, and on judgements by coin."""
    settings = settings_of(profile)
    return {
        MANY: {"pairs": settings.judgements},
        FEW: {"pairs": settings.few},
        COIN: {"pairs": settings.judgements, "turned": CHANCE},
    }


# --- rates ----------------------------------------------------------------------------------------
def rate_arm(method: str, lr: float) -> str:
    return f"{method}, rate {lr:.2g}"


def rates_of(profile: Profile, method: str) -> dict[float, str]:
    """{rate: arm} of PPO or DPO, as a sweep's figure takes it."""
    settings = settings_of(profile)
    middle = settings.dpo_lr if method == DPO else settings.policy_lr
    return {factor * middle: rate_arm(method, factor * middle) for factor in FACTORS}


def ppo_rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    common = {"method": "ppo", "kl_coef": NEAR, "split": VALIDATION, "is_swept": True}
    return {arm: {**common, "lr": lr} for lr, arm in rates_of(profile, "PPO").items()}


def dpo_rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    common = {"beta": BETA, "split": VALIDATION, "is_swept": True}
    return {arm: {**common, "lr": lr} for lr, arm in rates_of(profile, DPO).items()}


def best_rate(profile: Profile, method: str) -> float:
    """The rate with the highest true reward on validation people; the middle one before there is a
    record.
    """
    rates = rates_of(profile, method)
    names = list(rates.values())
    experiment = "rates-dpo" if method == DPO else "rates-ppo"
    best = best_arm(LAB, experiment, "true gain", names, names[len(names) // 2], profile)
    return next(lr for lr, name in rates.items() if name == best)


# --- policies -------------------------------------------------------------------------------------
def kl_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """PPO at every price, and at the highest against judgements by coin."""
    common = {"method": "ppo", "lr": best_rate(profile, "PPO")}
    arms: dict[str, dict[str, Any]] = {}
    for coefficient in COEFFICIENTS:
        arms[kl_arm(coefficient)] = {**common, "kl_coef": coefficient}
    arms[COIN] = {**common, "kl_coef": NEAR, "turned": CHANCE}
    return arms


def dpo_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return {
        DPO: {
            "lr": best_rate(profile, DPO),
            "beta": BETA,
            "passes": DPO_PASSES,
            "looks": list(LOOKS),
        }
    }


def group_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """What needs no value head, at PPO's rate and price."""
    common = {"lr": best_rate(profile, "PPO"), "kl_coef": NEAR}
    return {name: {**common, "method": name.lower()} for name in readings.GROUPED}


EXPERIMENTS = (
    Experiment(
        name="judges",
        title="Reward models on held-out judgements: accuracy and calibration",
        trial=reward_model_trial,
        arms=judge_arms,
        metrics=(
            Metric("accuracy", "held-out pairs ranked right", "share", resolution=1 / 200),
            Metric("confidence", "mean confidence", "share"),
            Metric("calibration error", "expected calibration error", "share", True),
            Metric("training accuracy", "accuracy in the last step", "share"),
        ),
        inputs=_inputs,
        claims=readings.JUDGES,
        live=(MANY,),
    ),
    Experiment(
        name="rates-ppo",
        title="PPO's true reward on validation people over the rate",
        trial=policy_trial,
        arms=ppo_rate_arms,
        metrics=POLICY,
        inputs=_inputs,
        seeds=RATE_SEEDS,
        live=(),
    ),
    Experiment(
        name="rates-dpo",
        title="DPO's true reward on validation people over the rate",
        trial=dpo_trial,
        arms=dpo_rate_arms,
        metrics=POLICY,
        inputs=_inputs,
        seeds=RATE_SEEDS,
        live=(),
    ),
    Experiment(
        name="price",
        title="PPO against a reward model at several prices of going away",
        trial=policy_trial,
        arms=kl_arms,
        metrics=(*POLICY, *COURSES, SECONDS, PASSES),
        inputs=_inputs,
        claims=readings.PRICE,
        live=(kl_arm(0.0),),
    ),
    Experiment(
        name="dpo",
        title="DPO on the same judgements, measured on its way",
        trial=dpo_trial,
        arms=dpo_arms,
        metrics=(
            *POLICY,
            Metric("kl by look", "KL to the start", "nats an answer"),
            Metric("true gain by look", "true reward above the start's", "faults fewer an answer"),
            SECONDS,
            PASSES,
        ),
        inputs=_inputs,
        claims=readings.DPO_CLAIMS,
        live=(),
    ),
    Experiment(
        name="groups",
        title="RLOO and GRPO at PPO's rate and price",
        trial=policy_trial,
        arms=group_arms,
        metrics=(*POLICY, *COURSES, SECONDS, PASSES),
        inputs=_inputs,
        claims=readings.GROUPS,
        live=(),
    ),
)
