"""The experiments of lab 3.1.3: rates, alphas and the strengths of two ordinary regularisers are
chosen on validation rows; then NEFTune is compared on test rows with none, with its controls and
with those regularisers.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_3 import readings
from ftlib.course.lab_3_1_3.trials import ASKED, compare_trial, course_trial, tune_trial
from ftlib.course.records.experiment import Experiment, Metric
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm

LAB = "3.1.3"
FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0)  # of the profile's rate
FAST = 4.0  # times the best rate: where fine-tuning overfits before it ends
ALPHAS = (0.5, 1.0, 2.0, 5.0, 10.0)
CONTROL_ALPHAS = (5.0, 10.0)  # of Gaussian and frozen noise: less does nothing to control
STRENGTHS: dict[str, tuple[float, ...]] = {
    "alpha": ALPHAS,
    "dropout": (0.05, 0.1, 0.2, 0.4, 0.6),
    "weight_decay": (0.1, 0.3, 1.0, 3.0, 10.0),
}
SIGNS = {"alpha": "alpha", "dropout": "dropout", "weight_decay": "weight decay"}
MIDDLE = 2  # of five: what is taken while a sweep has no record

LOSS = Metric("loss", "test loss", "nats a token", lower_is_better=True)
OWN = Metric("own_loss", "loss on the rows trained on", "nats a token", lower_is_better=True)
VALIDATION = Metric("validation_loss", "validation loss", "nats a token", lower_is_better=True)


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
    """Five rates without noise."""
    return {rate_arm(lr): {"lr": lr, "alpha": 0.0} for lr in rates(profile)}


def _best(profile: Profile, experiment: str, arms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Settings of the arm with the lowest validation loss; of the middle one without a record."""
    names = list(arms)
    chosen = best_arm(LAB, experiment, "validation_loss", names, names[MIDDLE], profile)
    return arms[chosen]


def best_rate(profile: Profile) -> float:
    """The rate that is best without noise."""
    return _best(profile, "rates", rate_arms(profile))["lr"]


def strength_arm(setting: str, strength: float) -> str:
    return f"{SIGNS[setting]} {strength:g}"


def arms_of_setting(profile: Profile, setting: str) -> dict[str, dict[str, Any]]:
    """Five strengths of a regulariser, at the rate that is best without any."""
    lr = best_rate(profile)
    arms = {}
    for strength in STRENGTHS[setting]:
        arms[strength_arm(setting, strength)] = {"lr": lr, setting: strength}
    return arms


def strength_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Five strengths of each regulariser."""
    arms: dict[str, dict[str, Any]] = {}
    for setting in STRENGTHS:
        arms |= arms_of_setting(profile, setting)
    return arms


def best_strength(profile: Profile, setting: str) -> float:
    """The strength with the lowest validation loss."""
    return _best(profile, "strengths", arms_of_setting(profile, setting))[setting]


def noised_rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Five rates at the best alpha."""
    alpha = best_strength(profile, "alpha")
    return {rate_arm(lr): {"lr": lr, "alpha": alpha} for lr in rates(profile)}


def best_noised_rate(profile: Profile) -> float:
    """The rate that is best at the best alpha."""
    return _best(profile, "noised-rates", noised_rate_arms(profile))["lr"]


# --- comparing ------------------------------------------------------------------------------------
def fast_rate(profile: Profile) -> float:
    """A rate at which the run without noise overfits."""
    return FAST * best_rate(profile)


def course_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Without noise at its best rate; without and with noise where fine-tuning overfits."""
    fast = fast_rate(profile)
    return {
        "best rate": {"lr": best_rate(profile), "alpha": 0.0},
        "fast": {"lr": fast, "alpha": 0.0},
        "fast, alpha 10": {"lr": fast, "alpha": 10.0},
    }


def alpha_arm(alpha: float, kind: str = "uniform") -> str:
    """The arm of `compare_arms` with noise of this kind."""
    if alpha == 0:
        return "no noise"
    return f"alpha {alpha:g}" if kind == "uniform" else f"{kind}, alpha {alpha:g}"


def compare_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Every alpha, the controls, the best alpha with its own rate and the ordinary regularisers;
    and noise where fine-tuning overfits.
    """
    lr = best_rate(profile)
    best = best_strength(profile, "alpha")
    arms: dict[str, dict[str, Any]] = {alpha_arm(0): {"lr": lr}}
    for alpha in ALPHAS:
        arms[alpha_arm(alpha)] = {"lr": lr, "alpha": alpha}
    for kind in ("Gaussian", "frozen"):
        for alpha in CONTROL_ALPHAS:
            arms[alpha_arm(alpha, kind)] = {"lr": lr, "alpha": alpha, "kind": kind}
    arms["hidden"] = {"lr": lr, "alpha": best, "kind": "hidden"}
    arms["best alpha"] = {"lr": best_noised_rate(profile), "alpha": best}
    for setting in ("dropout", "weight_decay"):
        arms[SIGNS[setting]] = {"lr": lr, setting: best_strength(profile, setting)}
    fast = fast_rate(profile)
    arms["fast"] = {"lr": fast}
    arms["fast, alpha 10"] = {"lr": fast, "alpha": 10.0}
    return arms


SWEPT = (VALIDATION, OWN)
EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Validation loss over the rate, without noise",
        trial=tune_trial,
        arms=rate_arms,
        metrics=SWEPT,
        inputs=_inputs,
        seeds=4,
        live=(),
    ),
    Experiment(
        name="strengths",
        title="Validation loss over alpha, dropout and weight decay",
        trial=tune_trial,
        arms=strength_arms,
        metrics=SWEPT,
        inputs=_inputs,
        seeds=2,
        live=(),
    ),
    Experiment(
        name="noised-rates",
        title="Validation loss over the rate, at the best alpha",
        trial=tune_trial,
        arms=noised_rate_arms,
        metrics=SWEPT,
        inputs=_inputs,
        seeds=4,
        live=(),
    ),
    Experiment(
        name="courses",
        title="Both losses on the way, at the best rate and where fine-tuning overfits",
        trial=course_trial,
        arms=course_arms,
        metrics=(
            Metric("own_by_step", "loss on the rows trained on", "nats a token", True),
            Metric("validation_by_step", "validation loss", "nats a token", True),
            Metric("lowest", "lowest validation loss on the way", "nats a token", True),
            Metric("end", "validation loss at the end", "nats a token", True),
        ),
        inputs=_inputs,
        claims=readings.COURSES,
        live=(),
    ),
    Experiment(
        name="noise",
        title="NEFTune by alpha, with its controls and two ordinary regularisers",
        trial=compare_trial,
        arms=compare_arms,
        metrics=(
            LOSS,
            OWN,
            Metric("rise", "rise of the test loss under noise", "nats a token", True),
            Metric("own_rise", "rise of the loss on rows trained on, under noise", "nats a token"),
            Metric("loss_without_shift", "test loss without the shift", "nats a token", True),
            Metric("score", "score of an answer", resolution=1 / ASKED),
            Metric("right", "facts right", "an answer", resolution=1 / ASKED),
            Metric("wrong", "facts wrong", "an answer", True, resolution=1 / ASKED),
            Metric("copied", "copied runs of five words", "share", True),
            Metric("distinct", "different runs of three words", "share"),
            Metric("words", "length of an answer", "words", resolution=1 / ASKED),
        ),
        inputs=_inputs,
        claims=readings.NOISE,
        live=("no noise", "alpha 5"),
    ),
)
