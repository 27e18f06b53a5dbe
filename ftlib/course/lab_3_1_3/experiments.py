"""The experiments of lab 3.1.3: the rate is chosen on validation rows without noise, the strengths
of noise and of dropout at four times that rate. Then, on test rows: noise by alpha at the best one;
noise beside other cures at the fast rate; its controls; and what its answers are like.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_3 import answer_readings, control_readings, readings
from ftlib.course.lab_3_1_3.trials import (
    ASKED,
    compare_trial,
    course_trial,
    cure_trial,
    tune_trial,
)
from ftlib.course.records.experiment import (
    RECORDED,
    Experiment,
    Metric,
    fewer_where_runs_are_long,
)
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm

LAB = "3.1.3"
FACTORS = (0.25, 0.5, 1.0, 2.0)  # of the profile's rate
MIDDLE = 0.5  # of these: what is taken while the rates have no record
TIE = 0.02  # of the lowest validation loss: rates that come as near count as equally good
FAST = 4.0  # times the best rate: where fine-tuning overfits before it ends
SHORT = 0.4  # of the steps of a run: four of ten epochs
SWEEP_SEEDS = 4
CURE_SEEDS = 20  # runs at the fast rate differ much, and the headline is decided there
STRENGTHS: dict[str, tuple[float, ...]] = {
    "alpha": (5.0, 10.0, 20.0, 40.0),
    "dropout": (0.1, 0.2, 0.4, 0.6),
}
DEFAULTS = {"alpha": 10.0, "dropout": 0.2}  # while the strengths have no record
UNREGULARISED = "none"  # the arm of the strengths with neither
NOISE_ALPHAS = (1.0, 5.0, 10.0)  # beside 0, at the best rate

LOSS = Metric("loss", "test loss", "nats per token", lower_is_better=True)
OWN = Metric("own_loss", "loss on the rows trained on", "nats per token", lower_is_better=True)
VALIDATION = Metric("validation_loss", "validation loss", "nats per token", lower_is_better=True)
UNSHIFTED = Metric("loss_without_shift", "test loss without the shift", "nats per token", True)


def _inputs(profile: Profile) -> dict[str, Any]:
    return {
        "train": rows_of(profile, "open_train"),
        "validation": rows_of(profile, "open_validation"),
        "test": rows_of(profile, "open_test"),
        "base": model_folder(profile.model),
    }


# --- choosing settings ----------------------------------------------------------------------------
def rate_arm(lr: float) -> str:
    return f"rate {lr:.2g}"


def rates(profile: Profile) -> list[float]:
    return [factor * profile.open.lr_lora for factor in FACTORS]


def rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Four rates without noise."""
    return {rate_arm(lr): {"lr": lr} for lr in rates(profile)}


def best_rate(profile: Profile) -> float:
    """The lowest rate within `TIE` of the lowest validation loss, without noise."""
    arms = rate_arms(profile)
    middle = rate_arm(MIDDLE * profile.open.lr_lora)
    best = best_arm(LAB, "rates", "validation_loss", list(arms), middle, profile, TIE)
    return arms[best]["lr"]


def fast_rate(profile: Profile) -> float:
    """The rate at which noise and the other cures are compared."""
    return FAST * best_rate(profile)


def strength_arm(setting: str, strength: float) -> str:
    return f"{setting} {strength:g}"


def strength_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """No regulariser, and four strengths of each, at the fast rate."""
    lr = fast_rate(profile)
    arms: dict[str, dict[str, Any]] = {UNREGULARISED: {"lr": lr, "alpha": 0.0, "dropout": 0.0}}
    for setting, strengths in STRENGTHS.items():
        for strength in strengths:
            arms[strength_arm(setting, strength)] = {"lr": lr, setting: strength}
    return arms


def best_strength(profile: Profile, setting: str) -> float:
    """Of the strengths above 0 the one with the lowest validation loss. Where none at all is better
    still, the notebook says so: an arm that is the same as its baseline would compare nothing.
    """
    strengths = {strength_arm(setting, strength): strength for strength in STRENGTHS[setting]}
    default = strength_arm(setting, DEFAULTS[setting])
    best = best_arm(LAB, "strengths", "validation_loss", list(strengths), default, profile)
    return strengths[best]


def best_strengths(profile: Profile) -> dict[str, float]:
    """The chosen strength of each regulariser."""
    return {setting: best_strength(profile, setting) for setting in STRENGTHS}


# --- comparing ------------------------------------------------------------------------------------
def course_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Without noise, at the best rate and at the fast one."""
    return {"best rate": {"lr": best_rate(profile)}, "fast": {"lr": fast_rate(profile)}}


def alpha_arm(alpha: float) -> str:
    """The arm of `noise_arms` with this alpha."""
    return "no noise" if alpha == 0 else f"alpha {alpha:g}"


def noise_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """No noise and three alphas, at the rate that is best without noise."""
    lr = best_rate(profile)
    arms: dict[str, dict[str, Any]] = {alpha_arm(0): {"lr": lr}}
    for alpha in NOISE_ALPHAS:
        arms[alpha_arm(alpha)] = {"lr": lr, "alpha": alpha}
    return arms


def fast_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """The fast rate without and with noise, its alpha chosen on validation rows."""
    fast = fast_rate(profile)
    return {
        "fast": {"lr": fast},
        "fast, noise": {"lr": fast, "alpha": best_strength(profile, "alpha")},
    }


def cure_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """The fast rate without and with noise, and beside the noise the ordinary cures: dropout, fewer
    steps, half the rate, the best rate.
    """
    fast = fast_rate(profile)
    return {
        **fast_arms(profile),
        "fast, dropout": {"lr": fast, "dropout": best_strength(profile, "dropout")},
        "fast, short": {"lr": fast, "part": SHORT},
        "half fast": {"lr": fast / 2},
        "best rate": {"lr": best_rate(profile)},
    }


def control_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """The fast rate without and with noise, and noise of the same size of two other kinds."""
    arms = fast_arms(profile)
    for kind in ("Gaussian", "frozen"):
        arms[f"fast, {kind}"] = {**arms["fast, noise"], "kind": kind}
    return arms


ANSWERS = (
    LOSS,
    OWN,
    Metric(
        "rise",
        "rise of the test loss under noise",
        "nats per token",
        lower_is_better=True,
        spoken="the rise of the test loss under noise",
    ),
    Metric("own_rise", "rise of the loss on rows trained on, under noise", "nats per token"),
    Metric("score", "score of an answer", resolution=1 / ASKED),
    Metric("right", "facts right", "per answer", resolution=1 / ASKED),
    Metric("wrong", "facts wrong", "per answer", True, resolution=1 / ASKED),
    Metric("copied", "copied runs of five words", "share", True),
    Metric("distinct", "different runs of three words", "share"),
    Metric("words", "length of an answer", "words", resolution=1 / ASKED),
    Metric("cut", "cut by the limit of tokens", "share of the answers", True, 1 / ASKED),
)
EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Validation loss over the rate, without noise",
        trial=tune_trial,
        arms=rate_arms,
        metrics=(VALIDATION, OWN),
        inputs=_inputs,
        seeds=SWEEP_SEEDS,
        live=(),
        profiles=RECORDED,
        seeds_in={"pocket": 1},
    ),
    Experiment(
        name="strengths",
        title="Validation loss over alpha and dropout, at the fast rate",
        trial=tune_trial,
        arms=strength_arms,
        metrics=(VALIDATION, OWN),
        inputs=_inputs,
        seeds=SWEEP_SEEDS,
        live=(),
    ),
    Experiment(
        name="courses",
        title="Both losses on the way, without noise, at the best rate and at the fast one",
        trial=course_trial,
        arms=course_arms,
        metrics=(
            Metric("own_by_step", "loss on the rows trained on", "nats per token", True),
            Metric("validation_by_step", "validation loss", "nats per token", True),
        ),
        inputs=_inputs,
        claims=readings.COURSES,
        live=(),
    ),
    Experiment(
        name="noise",
        title="NEFTune by alpha, at the rate that is best without it",
        trial=compare_trial,
        arms=fewer_where_runs_are_long(noise_arms, "no noise", "alpha 5"),
        metrics=ANSWERS,
        inputs=_inputs,
        claims=readings.NOISE,
        live=("alpha 5", "no noise"),  # where there is time for one, that with the student's noise
        profiles=RECORDED,
        seeds_in={"pocket": 5},
    ),
    Experiment(
        name="cure",
        title="NEFTune at the fast rate, beside other cures",
        trial=cure_trial,
        arms=cure_arms,
        metrics=(LOSS, OWN),
        inputs=_inputs,
        claims=readings.CURE,
        seeds=CURE_SEEDS,
        live=(),
    ),
    Experiment(
        name="controls",
        title="Fresh, Gaussian and frozen noise of one size, at the fast rate",
        trial=cure_trial,
        arms=control_arms,
        metrics=(LOSS, OWN, UNSHIFTED),
        inputs=_inputs,
        claims=control_readings.CONTROLS,
        live=(),
    ),
    Experiment(
        name="answers",
        title="Answers at the fast rate, with and without noise",
        trial=compare_trial,
        arms=fast_arms,
        metrics=ANSWERS,
        inputs=_inputs,
        claims=answer_readings.ANSWERS,
        seeds=CURE_SEEDS,
        live=(),
    ),
)
