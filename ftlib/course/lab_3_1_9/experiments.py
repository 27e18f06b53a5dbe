"""The experiments of lab 3.1.9: rates are chosen on questions set aside; then KTO, DPO and SFT
learn from the same judgements, right ones and partly wrong ones; thumbs are made uneven; and the
reference point is set right and wrong, near the reference and far from it.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_9 import readings
from ftlib.course.lab_3_1_9.reference_points import (
    MATCHED_WITH_GRADIENT,
    RIGHT,
    ZERO,
)
from ftlib.course.lab_3_1_9.trials import BETA, judgement_trial, point_trial, uneven_trial
from ftlib.course.records.experiment import Experiment, Metric
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm
from ftlib.course.start import sft_adapter

LAB = "3.1.9"
METHODS = ("KTO", "DPO", "SFT")
FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # of the profile's rate
MIDDLE = 2.0  # the factor taken while nothing is recorded
NOISE = (0.0, 0.2, 0.4)
RATIOS = (1, 3, 10)
HIGHEST = RATIOS[-1]
LOW_TARGET = 1.0  # ends of the advised range of w_D·n_D/(w_U·n_U)
HIGH_TARGET = 4 / 3
SFT_ON_UPS = "SFT on the ups"
WEIGHTED = f"1:{HIGHEST}, weighted 1"
WEIGHTED_MORE = f"1:{HIGHEST}, weighted 4/3"
FAR_BETA = 0.5  # z0 counts by β·z0: 4 nats are 0.4 at β = 0.1, where the curve is still straight

WINS = Metric("wins", "win rate over the start", resolution=1 / 96)
POLITE = Metric("polite", "polite answers", "share", resolution=1 / 48)
RIGHT_FACTS = Metric("right", "answers with right facts", "share", resolution=1 / 48)
WORDS = Metric("words", "words an answer")
DISTANCE = Metric("kl", "KL from the reference", "nats an answer")
SAMPLED_POLITE = Metric("polite_sampled", "polite sampled answers", "share", resolution=1 / 24)
ANSWERED = (WINS, POLITE, RIGHT_FACTS, WORDS)


def _inputs(profile: Profile) -> dict[str, Any]:
    inputs = {
        "pairs": rows_of(profile, "preferences"),
        "thumbs": rows_of(profile, "feedback"),
        "test": rows_of(profile, "preferences_test"),
        "base": model_folder(profile.model),
    }
    adapter = sft_adapter(profile, train=False)
    if adapter is not None:
        inputs["adapter"] = str(adapter)
    return inputs


# --- choosing rates -------------------------------------------------------------------------------
def _rates(profile: Profile) -> list[float]:
    return [factor * profile.preference.lr for factor in FACTORS]


def rate_arm(name: str, lr: float) -> str:
    return f"{name}, rate {lr:.2g}"


def rates_of(profile: Profile, name: str) -> dict[float, str]:
    """{rate: arm} of a method or a set of thumbs, as a sweep's figure takes it."""
    return {lr: rate_arm(name, lr) for lr in _rates(profile)}


def _swept(profile: Profile, named: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every entry at every rate, on the validation rows."""
    arms = {}
    for name, settings in named.items():
        for lr in _rates(profile):
            arms[rate_arm(name, lr)] = {**settings, "lr": lr, "split": "validation"}
    return arms


def _best(profile: Profile, experiment: str, name: str) -> float:
    """The rate with the highest win rate on the validation rows."""
    rates = rates_of(profile, name)
    middle = rates[MIDDLE * profile.preference.lr]
    best = best_arm(LAB, experiment, "wins", list(rates.values()), middle, profile)
    return next(lr for lr, arm in rates.items() if arm == best)


def method_rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return _swept(profile, {method: {"method": method} for method in METHODS})


def best_rate(profile: Profile, method: str) -> float:
    return _best(profile, "rates", method)


UNEVEN: dict[str, dict[str, Any]] = {
    "1:1": {"method": "KTO", "ratio": 1},
    f"1:{HIGHEST}": {"method": "KTO", "ratio": HIGHEST},
    WEIGHTED: {"method": "KTO", "ratio": HIGHEST, "target": LOW_TARGET},
    SFT_ON_UPS: {"method": "SFT"},
}


def uneven_rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return _swept(profile, UNEVEN)


# --- comparing ------------------------------------------------------------------------------------
def noise_arm(method: str, noise: float) -> str:
    return f"{method}, {noise:.0%} wrong"


def judgement_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Three methods on the same judgements, with more and more of them wrong; and KTO on loose
    thumbs, with their labels and with labels dealt anew.
    """
    rates = {method: best_rate(profile, method) for method in METHODS}
    arms: dict[str, dict[str, Any]] = {}
    for noise in NOISE:
        for method in METHODS:
            settings = {"method": method, "lr": rates[method], "noise": noise}
            arms[noise_arm(method, noise)] = settings
    thumbs = {"method": "KTO", "lr": rates["KTO"], "source": "thumbs"}
    arms["KTO, loose thumbs"] = thumbs
    arms["KTO, shuffled thumbs"] = {**thumbs, "source": "shuffled thumbs"}
    return arms


def uneven_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """One number of thumbs up, more and more thumbs down, with and without weights; SFT on the
    thumbs up alone. 1:3 takes the rate of 1:1, the heavier weight that of the lighter.
    """
    arms = {}
    for name, settings in UNEVEN.items():
        arms[name] = {**settings, "lr": _best(profile, "uneven-rates", name)}
    arms["1:3"] = {**arms["1:1"], "ratio": 3}
    arms[WEIGHTED_MORE] = {**arms[WEIGHTED], "target": HIGH_TARGET}
    order = ("1:1", "1:3", f"1:{HIGHEST}", WEIGHTED, WEIGHTED_MORE, SFT_ON_UPS)
    return {name: arms[name] for name in order}


def point_arm(place: str, point: str) -> str:
    return f"{place}: {point}"


def point_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """The reference point right and wrong: in the usual regime, at a large β from the reference on,
    and far from it.
    """
    lr = best_rate(profile, "KTO")
    every = (RIGHT, ZERO, MATCHED_WITH_GRADIENT)
    regimes: dict[str, tuple[str, float, tuple[str, ...]]] = {
        "usual": ("near", BETA, (RIGHT, ZERO)),
        "near": ("near", FAR_BETA, every),
        "far": ("far", FAR_BETA, every),
    }
    arms = {}
    for name, (place, beta, tried) in regimes.items():
        for point in tried:
            settings = {"place": place, "point": point, "beta": beta, "lr": lr}
            arms[point_arm(name, point)] = settings
    return arms


EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Validation win rate over the rate: KTO, DPO, SFT on liked answers",
        trial=judgement_trial,
        arms=method_rate_arms,
        metrics=(*ANSWERED, DISTANCE, SAMPLED_POLITE),
        inputs=_inputs,
        seeds=4,
        live=(),
    ),
    Experiment(
        name="uneven-rates",
        title="Validation win rate over the rate, thumbs even and uneven",
        trial=uneven_trial,
        arms=uneven_rate_arms,
        metrics=ANSWERED,
        inputs=_inputs,
        seeds=2,
        live=(),
    ),
    Experiment(
        name="judgements",
        title="KTO, DPO and SFT on the same judgements, of which a share is wrong",
        trial=judgement_trial,
        arms=judgement_arms,
        metrics=(*ANSWERED, DISTANCE, SAMPLED_POLITE),
        inputs=_inputs,
        claims=readings.JUDGEMENTS,
        live=(noise_arm("KTO", 0.0),),
    ),
    Experiment(
        name="uneven",
        title="The same thumbs up, more and more thumbs down",
        trial=uneven_trial,
        arms=uneven_arms,
        metrics=(*ANSWERED, Metric("share_up", "share of the pull that is on thumbs up")),
        inputs=_inputs,
        claims=readings.UNEVEN,
        live=("1:1",),
    ),
    Experiment(
        name="points",
        title="The reference point right and wrong, near the reference and far from it",
        trial=point_trial,
        arms=point_arms,
        metrics=(
            *ANSWERED,
            Metric("share_up", "share of the pull that is on thumbs up"),
            Metric("mismatched", "mean log-ratio of mismatched pairs", "nats"),
            Metric("ups", "mean log-ratio of thumbs up", "nats"),
            Metric("downs", "mean log-ratio of thumbs down", "nats"),
        ),
        inputs=_inputs,
        claims=readings.POINTS,
        live=(point_arm("far", RIGHT), point_arm("far", ZERO)),
    ),
)
