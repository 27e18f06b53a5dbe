"""The experiments of lab 3.1.7: rates are chosen on validation prompts; then betas, methods and
controls are compared on test prompts; and distance, noise and length are varied one at a time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_7 import readings, readings_of_pairs
from ftlib.course.lab_3_1_7.sharpened import sharpened_trial
from ftlib.course.lab_3_1_7.starts import TRAIN, VALIDATION
from ftlib.course.lab_3_1_7.trials import (
    distance_trial,
    draws_trial,
    length_trial,
    preference_trial,
)
from ftlib.course.records.experiment import (
    RECORDED,
    Experiment,
    Metric,
    fewer_where_runs_are_long,
)
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm, read_record

LAB = "3.1.7"
BETAS = (0.01, 0.1, 1.0, 5.0)
USUAL_BETA = 0.1  # in the paper's experiments and most libraries
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the profile's rate for preferences
DRIFT_FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5)  # for pairs that move a policy far
IPO_BETA = 0.05  # its target is 1/(2·0.05) = 10 nats
VALIDATION_DRAWS = 3  # answers to each validation prompt
NOISE = 0.3  # share of the labels that are swapped
NOISE_BETA = 1.0  # at which margins of few nats are enough to reach the losses' optima
LEVELS = (0, 1, 3)  # of distance_train: 2 lies between 1 and 3
HARD = 2.0  # times the best rate: pairs that are pushed far
SHORT = 0.75  # of the steps: runs that only watch log-probabilities or words
FAST = 3.0  # times the profile's rate, with the smallest beta: beyond what is best
LONGER = 4.0  # times the steps: whether imitation only needs more of them
TEMPERATURES = (0.7, 0.3)  # at which the start itself is drawn, besides 1
COOL = TEMPERATURES[-1]  # at which the trained policies are drawn too

WIN = Metric("win", "win rate over the start", "share", resolution=1 / 96)
KL = Metric("kl", "KL to the start", "nats per answer")
RATIO = Metric("right by ratio", "held-out pairs ranked right by log π − log π_ref", "share")
RAW = Metric("right by log p", "held-out pairs ranked right by log π", "share")
MARGIN = Metric("margin", "mean margin of training pairs, labels as they should be", "nats")
WINS = Metric("win by step", "win rate over the start", "share")
KLS = Metric("kl by step", "KL to the start", "nats per answer")
LOSSES = Metric("loss by step", "loss on pairs not seen before", "nats", lower_is_better=True)
POLICY = (WIN, KL, RATIO, RAW, MARGIN, WINS, KLS, LOSSES)


def _inputs(profile: Profile) -> dict[str, Any]:
    return {
        "train": rows_of(profile, TRAIN),
        "irrelevant": rows_of(profile, "faults_irrelevant"),
        "validation": rows_of(profile, VALIDATION),
        "test": rows_of(profile, "faults_test"),
        "base": model_folder(profile.model),
    }


def _distance_inputs(profile: Profile) -> dict[str, Any]:
    return {
        "train": rows_of(profile, "distance_train"),
        "probe": rows_of(profile, "distance_probe"),
        "start": rows_of(profile, TRAIN),
        "base": model_folder(profile.model),
    }


def _length_inputs(profile: Profile) -> dict[str, Any]:
    return {
        "long": rows_of(profile, "preferences_long"),
        "matched": rows_of(profile, "preferences_matched"),
        "test": rows_of(profile, "preferences_test"),
        "base": model_folder(profile.model),
    }


# --- choosing rates -------------------------------------------------------------------------------
def beta_name(beta: float) -> str:
    return f"beta {beta:g}"


def swept_methods() -> dict[str, dict[str, Any]]:
    """{method: settings} of what has a rate to be chosen."""
    methods: dict[str, dict[str, Any]] = {}
    for beta in BETAS:
        methods[beta_name(beta)] = {"loss": "DPO", "beta": beta}
    methods["IPO"] = {"loss": "IPO", "beta": IPO_BETA}
    methods["SFT on chosen"] = {"loss": "SFT"}
    return methods


def _rates(
    name: str, profile: Profile, settings: dict, factors: tuple[float, ...]
) -> dict[str, Any]:
    """Arms of one method, measured at the end on the validation prompts."""
    arms: dict[str, dict[str, Any]] = {}
    for factor in factors:
        lr = factor * profile.preference.lr
        arms[f"{name}, rate {lr:.2g}"] = {
            **settings,
            "lr": lr,
            "split": VALIDATION,
            "samples": VALIDATION_DRAWS,
            "looks": [1.0],
            "is_swept": True,
        }
    return arms


def rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Five rates for every method."""
    arms: dict[str, dict[str, Any]] = {}
    for name, settings in swept_methods().items():
        arms |= _rates(name, profile, settings, FACTORS)
    return arms


def arms_of(arms, method: str) -> dict[float, str]:
    """{rate: arm} of a method, as a sweep's figure takes it. `arms`: names with settings."""
    return {own["lr"]: name for name, own in arms.items() if name.startswith(f"{method}, rate")}


def _best(profile: Profile, method: str) -> str:
    """The arm of the sweep at a method's best rate."""
    rates = list(arms_of(rate_arms(profile), method).values())
    return best_arm(LAB, "rates", "win", rates, rates[len(rates) // 2], profile)


def tuned(profile: Profile, method: str) -> dict[str, Any]:
    """A method's settings at its best rate, to be measured on the test prompts on the way."""
    own = rate_arms(profile)[_best(profile, method)]
    return {name: value for name, value in own.items() if name in ("loss", "beta", "lr")}


def best_beta(profile: Profile) -> float:
    """The beta that wins most on the validation prompts, each at its own best rate. Of betas that
    win alike the usual one, 0.1, then its neighbours: Adam takes a small beta out of a step.
    """
    in_order = sorted(BETAS, key=_from_usual)
    arms = {_best(profile, beta_name(beta)): beta for beta in in_order}
    usual = next(iter(arms))
    return arms[best_arm(LAB, "rates", "win", list(arms), usual, profile)]


def _from_usual(beta: float) -> float:
    """How many factors of ten a beta is away from 0.1."""
    return abs(math.log10(beta / USUAL_BETA))


def drift_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Lower rates for the pairs whose preference is irrelevant, at the best beta, and DPO itself:
    the rate is taken at which both have gone equally far.
    """
    settings = {"loss": "DPO", "beta": best_beta(profile)}
    arms = _rates("irrelevant", profile, {**settings, "pairs": "faults_irrelevant"}, DRIFT_FACTORS)
    return arms


def recorded_mean(name: str, arm: str, metric: str, profile: Profile) -> float | None:
    values = read_record(LAB, name, profile).values(arm, metric)
    return float(values.mean()) if len(values) else None


def equal_drift(profile: Profile) -> dict[str, Any]:
    """Settings of the irrelevant preference at the rate whose KL lies nearest, by its logarithm, to
    that of DPO at its best, both on the validation prompts; between two rates of the sweep, at the
    rate that a line through their logarithms gives.
    """
    arms = drift_arms(profile)
    rates = sorted(arms_of(arms, "irrelevant").items())
    target = recorded_mean("rates", _best(profile, beta_name(best_beta(profile))), "kl", profile)
    kls = [recorded_mean("drift", arm, "kl", profile) for _, arm in rates]
    lr = rates[len(rates) // 2][0]
    if target is not None and all(kl is not None for kl in kls):
        xs = np.maximum.accumulate(np.log(np.maximum(1e-3, np.array(kls, dtype=float))))
        ys = np.log([rate for rate, _ in rates])
        lr = float(f"{math.exp(np.interp(math.log(max(1e-3, target)), xs, ys)):.3g}")
    settings = {"loss": "DPO", "beta": best_beta(profile), "pairs": "faults_irrelevant"}
    return {**settings, "lr": lr}


# --- comparing ------------------------------------------------------------------------------------
def beta_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Every beta at its best rate, the largest one also at the smallest one's, and the smallest one
    at a rate that is too high.
    """
    arms = {beta_name(beta): tuned(profile, beta_name(beta)) for beta in BETAS}
    shared = arms[beta_name(BETAS[0])]["lr"]
    arms[readings.LARGE_AT_SHARED] = {**arms[beta_name(BETAS[-1])], "lr": shared}
    fast = FAST * profile.preference.lr
    arms["too fast"] = {"loss": "DPO", "beta": BETAS[0], "lr": fast}
    return arms


def method_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    best = tuned(profile, beta_name(best_beta(profile)))
    arms = {
        "DPO": best,
        "SFT on chosen": tuned(profile, "SFT on chosen"),
        readings.LONG_SFT: {**tuned(profile, "SFT on chosen"), "length": LONGER},
        "IPO": tuned(profile, "IPO"),
        "irrelevant": equal_drift(profile),
        "swapped": {**best, "swapped": 1.0},
    }
    return {name: {**own, "looks": [0.5, 1.0]} for name, own in arms.items()}


def noise_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Three losses on pairs of which 30% are swapped, and plain DPO on none, all at DPO's own rate
    on clean labels: Adam takes a gradient's size out of a step, so that the losses' different
    scales need no rates of their own.
    """
    best = tuned(profile, beta_name(NOISE_BETA))
    noisy = {**best, "swapped": NOISE, "looks": [1.0]}
    return {
        "plain": noisy,
        "cDPO": {**noisy, "label_smoothing": NOISE},
        "rDPO": {**noisy, "loss": "rDPO", "label_smoothing": NOISE},
        "clean": {**noisy, "swapped": 0.0},
    }


def level_name(level: int) -> str:
    return f"level {level}"


def distance_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    best = tuned(profile, beta_name(best_beta(profile)))
    arms = {}
    for level in LEVELS:
        own = {"level": level, "lr": best["lr"], "beta": best["beta"], "length": SHORT}
        arms[level_name(level)] = own
    hard = {**arms[level_name(LEVELS[0])], "lr": HARD * best["lr"]}
    arms[f"{level_name(LEVELS[0])}, hard"] = hard
    return arms


def length_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    settings = {"lr": profile.preference.lr, "beta": 0.1, "length": SHORT}
    return {
        "chosen longer": {**settings, "pairs": "preferences_long"},
        "matched": {**settings, "pairs": "preferences_matched"},
    }


def draw_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return {"the start": {}}


def sharpened_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """The start at lower temperatures, without any training; and at the lowest of them what DPO and
    SFT made of it, each at its best rate.
    """
    arms: dict[str, dict[str, Any]] = {}
    for temperature in TEMPERATURES:
        arms[f"T {temperature:g}"] = {"temperature": temperature}
    best = {"DPO": beta_name(best_beta(profile)), "SFT": "SFT on chosen"}
    for name, method in best.items():
        arms[f"{name}, T {COOL:g}"] = {"temperature": COOL, **tuned(profile, method)}
    return arms


EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Win rate on validation prompts over the rate, for each beta and method",
        trial=preference_trial,
        arms=fewer_where_runs_are_long(rate_arms, "beta 0.1,", "SFT on chosen,", every=2),
        metrics=(WIN, KL),
        inputs=_inputs,
        seeds=2,
        live=(),
        profiles=RECORDED,
        seeds_in={"pocket": 1},
    ),
    Experiment(
        name="drift",
        title="How far an irrelevant preference moves the policy, over the rate",
        trial=preference_trial,
        arms=drift_arms,
        metrics=(WIN, KL),
        inputs=_inputs,
        seeds=2,
        live=(),
    ),
    Experiment(
        name="beta",
        title="Betas at their best rates: win rate and KL while training",
        trial=preference_trial,
        arms=beta_arms,
        metrics=POLICY,
        inputs=_inputs,
        claims=readings.BETA,
        live=(),
    ),
    Experiment(
        name="methods",
        title="DPO against SFT on chosen answers, IPO and two controls",
        trial=preference_trial,
        arms=fewer_where_runs_are_long(method_arms, "DPO", "SFT on chosen"),
        metrics=POLICY,
        inputs=_inputs,
        claims=readings.METHODS,
        live=("DPO", "SFT on chosen"),
        profiles=RECORDED,
        seeds_in={"pocket": 5},
    ),
    Experiment(
        name="draws",
        title="Faults of the start's own answers",
        trial=draws_trial,
        arms=draw_arms,
        metrics=(Metric("faults", "faults per answer", lower_is_better=True),),
        inputs=_inputs,
        live=(),
    ),
    Experiment(
        name="sharpened",
        title="Wins of the start itself, and of what was trained from it, at lower temperatures",
        trial=sharpened_trial,
        arms=sharpened_arms,
        metrics=(
            Metric("win", "win rate over the start at T 1", "share", resolution=1 / 96),
            Metric("win alike", "win rate over the start at the same T", "share"),
            Metric("faults", "faults per answer", lower_is_better=True),
        ),
        inputs=_inputs,
        claims=readings.SHARPENED,
        live=(),
    ),
    Experiment(
        name="distance",
        title="Log-probability of fixed answers, by how alike the trained pairs are",
        trial=distance_trial,
        arms=distance_arms,
        metrics=(
            Metric("chosen", "log π − log π_ref of right reports", "nats"),
            Metric("rejected", "log π − log π_ref of wrong reports", "nats"),
            Metric("probe margin", "right minus wrong reports, log π − log π_ref", "nats"),
            Metric("own margin", "mean margin of the pairs trained on", "nats"),
        ),
        inputs=_distance_inputs,
        claims=readings_of_pairs.DISTANCE,
        live=(level_name(LEVELS[0]), level_name(LEVELS[-1])),
        without=("small", "spark"),  # no pair of the Hub differs in one fact alone
    ),
    Experiment(
        name="noise",
        title="Three losses where 30% of the labels are swapped",
        trial=preference_trial,
        arms=noise_arms,
        metrics=POLICY,
        inputs=_inputs,
        claims=readings_of_pairs.NOISE,
        live=(),
    ),
    Experiment(
        name="length",
        title="Words in an answer after pairs whose chosen answer is longer",
        trial=length_trial,
        arms=length_arms,
        metrics=(Metric("words", "words in an answer"), KL),
        inputs=_length_inputs,
        claims=readings_of_pairs.LENGTH,
        live=(),
    ),
)
