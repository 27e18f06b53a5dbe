"""The experiments of lab 3.1.9: rates are chosen on questions set aside; then KTO, DPO and SFT
learn from the same judgements, right ones and partly wrong ones; thumbs are made uneven; and the
reference point is set right and wrong, near the reference and far from it.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_9 import (
    readings,
    readings_of_points,
    readings_of_rates,
    readings_of_uneven,
)
from ftlib.course.lab_3_1_9.reference_points import (
    MATCHED,
    MATCHED_WITH_GRADIENT,
    RIGHT,
    ZERO,
)
from ftlib.course.lab_3_1_9.trials import judgement_trial, point_trial, uneven_trial
from ftlib.course.records.experiment import (
    RECORDED,
    Experiment,
    Metric,
    fewer_where_runs_are_long,
)
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm
from ftlib.course.start import sft_adapter

LAB = "3.1.9"
METHODS = ("KTO", "DPO", "SFT")
FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # of the profile's rate
MIDDLE = 2.0  # the factor taken while nothing is recorded
TIE = 0.1  # share of the best gain over the start within which the lowest rate is taken
START = 0.5  # win rate of the start over itself
AROUND = (0.5, 1.0, 2.0)  # of the best rate of the method, for each uneven set of thumbs
NOISE = (0.0, 0.2, 0.4)
RATIOS = (1, 10)
HIGHEST = RATIOS[-1]
LOW_TARGET = 1.0  # the lower end of the advised range of w_D·n_D/(w_U·n_U)
LOOSE = "KTO, loose thumbs"
SHUFFLED = "KTO, shuffled thumbs"
LOOSE_AT_ZERO = "KTO, loose thumbs, z0 always 0"
SFT_ON_UPS = "SFT on the ups"
WEIGHTED = f"1:{HIGHEST}, weighted 1"
FAR_BETA = 0.5  # z0 counts by β·z0: 4 nats are 0.4 at β = 0.1, where the curve is still straight

WINS = Metric("wins", "win rate over the start", resolution=1 / 96)
POLITE = Metric("polite", "polite answers", "share", resolution=1 / 48)
RIGHT_FACTS = Metric("right", "answers with right facts", "share", resolution=1 / 48)
WORDS = Metric("words", "words per answer")
DISTANCE = Metric("kl", "KL from the reference", "nats per answer")
SAMPLED_POLITE = Metric("polite_sampled", "polite sampled answers", "share", resolution=1 / 48)
ANSWERED = (WINS, POLITE, RIGHT_FACTS, WORDS)
BEFORE = (  # one number a batch, from short rows to long ones, before the first step
    Metric("lengths", "tokens per row"),
    Metric("z0_before", "z0", "nats"),
    Metric("pull_right", "pull on all rows, z0 right"),
    Metric("pull_zero", "pull on all rows, z0 always 0"),
    Metric("up_right", "pull on thumbs up, z0 right"),
    Metric("up_zero", "pull on thumbs up, z0 always 0"),
)
COURSES = (
    Metric("mismatched", "mean log-ratio of mismatched pairs", "nats"),
    Metric("ups", "mean log-ratio of thumbs up", "nats"),
    Metric("downs", "mean log-ratio of thumbs down", "nats"),
)


def _inputs(profile: Profile) -> dict[str, Any]:
    adapter = sft_adapter(profile, train=False)
    return {
        "pairs": rows_of(profile, "preferences"),
        "thumbs": rows_of(profile, "feedback"),
        "test": rows_of(profile, "preferences_test"),
        "base": model_folder(profile.model),
        "adapter": "none" if adapter is None else adapter,
    }


# --- choosing rates -------------------------------------------------------------------------------
def rate_arm(name: str, lr: float) -> str:
    return f"{name}, rate {lr:.2g}"


def _by_rate(name: str, rates: list[float]) -> dict[float, str]:
    """{rate: arm} of a method or a set of thumbs, as a sweep's figure takes it."""
    return {lr: rate_arm(name, lr) for lr in rates}


def rates_of(profile: Profile, method: str) -> dict[float, str]:
    """{rate: arm} of a method: the same rates for every one."""
    return _by_rate(method, [factor * profile.preference.lr for factor in FACTORS])


def uneven_rates_of(profile: Profile, name: str) -> dict[float, str]:
    """{rate: arm} of a set of thumbs: around the rate that is best for its method."""
    centre = best_rate(profile, UNEVEN[name]["method"])
    return _by_rate(name, [factor * centre for factor in AROUND])


def _swept(rates: dict[float, str], settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings at every rate, on the validation rows."""
    return {arm: {**settings, "lr": lr, "split": "validation"} for lr, arm in rates.items()}


def _best(
    profile: Profile, experiment: str, rates: dict[float, str], default: float, tie: float
) -> float:
    """The lowest rate whose gain over the start on the validation rows is within `tie` of the best;
    `default` while nothing is recorded.
    """
    arms = list(rates.values())
    best = best_arm(LAB, experiment, "wins", arms, rates[default], profile, tie, START)
    return next(lr for lr, arm in rates.items() if arm == best)


def method_rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    arms = {}
    for method in METHODS:
        arms.update(_swept(rates_of(profile, method), {"method": method}))
    return arms


def _method_rate(profile: Profile, method: str, tie: float) -> float:
    middle = MIDDLE * profile.preference.lr
    return _best(profile, "rates", rates_of(profile, method), middle, tie)


def best_rate(profile: Profile, method: str) -> float:
    """The rate with the best mean."""
    return _method_rate(profile, method, 0.0)


def chosen_rate(profile: Profile, method: str) -> float:
    """The rate that a method is compared at: the lowest one that is as good as the best."""
    return _method_rate(profile, method, TIE)


UNEVEN: dict[str, dict[str, Any]] = {
    "1:1": {"method": "KTO", "ratio": 1},
    f"1:{HIGHEST}": {"method": "KTO", "ratio": HIGHEST},
    WEIGHTED: {"method": "KTO", "ratio": HIGHEST, "target": LOW_TARGET},
    SFT_ON_UPS: {"method": "SFT"},
}


def uneven_rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    arms = {}
    for name, settings in UNEVEN.items():
        arms.update(_swept(uneven_rates_of(profile, name), settings))
    return arms


# --- comparing ------------------------------------------------------------------------------------
def noise_arm(method: str, noise: float) -> str:
    return f"{method}, {noise:.0%} wrong"


def at_rate_of(method: str, noise: float, owner: str) -> str:
    """The arm of a method at the rate that was chosen for another."""
    return f"{noise_arm(method, noise)}, {owner}'s rate"


def judgement_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Three methods on the same judgements, with more and more of them wrong, each at its own rate;
    two of them at another's rate as well, so that methods are compared at one rate and a method at
    two; and KTO on loose thumbs: with their labels, with labels dealt anew, and without a reference
    point.
    """
    rates = {method: chosen_rate(profile, method) for method in METHODS}
    arms: dict[str, dict[str, Any]] = {}
    for noise in NOISE:
        for method in METHODS:
            settings = {"method": method, "lr": rates[method], "noise": noise}
            arms[noise_arm(method, noise)] = settings
    for method, noise, owner in (
        ("DPO", 0.0, "KTO"),
        ("DPO", NOISE[-1], "KTO"),
        ("KTO", 0.0, "SFT"),
    ):
        own = arms[noise_arm(method, noise)]
        arms[at_rate_of(method, noise, owner)] = {**own, "lr": rates[owner]}
    thumbs = {"method": "KTO", "lr": rates["KTO"], "source": "thumbs"}
    arms[LOOSE] = thumbs
    arms[SHUFFLED] = {**thumbs, "source": "shuffled thumbs"}
    arms[LOOSE_AT_ZERO] = {**thumbs, "point": ZERO}
    return arms


def uneven_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """One number of thumbs up, more and more thumbs down, with and without weights; SFT on the
    thumbs up alone.
    """
    arms = {}
    for name, settings in UNEVEN.items():
        rates = uneven_rates_of(profile, name)
        middle = best_rate(profile, settings["method"])
        lr = _best(profile, "uneven-rates", rates, middle, TIE)
        arms[name] = {**settings, "lr": lr}
    return arms


def point_arm(point: str) -> str:
    return f"far: {point}"


def point_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """The reference point right and wrong, far from the reference and at a large β."""
    lr = chosen_rate(profile, "KTO")
    arms = {}
    for point in (RIGHT, ZERO, MATCHED, MATCHED_WITH_GRADIENT):
        arms[point_arm(point)] = {"point": point, "beta": FAR_BETA, "lr": lr}
    return arms


EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Validation win rate over the rate: KTO, DPO, SFT on liked answers",
        trial=judgement_trial,
        arms=fewer_where_runs_are_long(method_rate_arms, "KTO,", "DPO,", "SFT,", every=2),
        metrics=(*ANSWERED, DISTANCE, SAMPLED_POLITE),
        inputs=_inputs,
        seeds=4,
        live=(),
        profiles=RECORDED,
        seeds_in={"pocket": 3},
    ),
    Experiment(
        name="uneven-rates",
        title="Validation win rate over the rate, thumbs even and uneven",
        trial=uneven_trial,
        arms=uneven_rate_arms,
        metrics=ANSWERED,
        inputs=_inputs,
        seeds=4,
        live=(),
    ),
    Experiment(
        name="judgements",
        title="KTO, DPO and SFT on the same judgements, of which a share is wrong",
        trial=judgement_trial,
        arms=fewer_where_runs_are_long(
            judgement_arms,
            "KTO, 0% wrong",
            "DPO, 0% wrong",
            "SFT, 0% wrong",
        ),
        metrics=(*ANSWERED, DISTANCE, SAMPLED_POLITE),
        inputs=_inputs,
        claims=(*readings.JUDGEMENTS, *readings_of_rates.RATES, *readings_of_points.USUAL),
        live=(noise_arm("KTO", 0.0),),
        profiles=RECORDED,
        seeds_in={"pocket": 5},
    ),
    Experiment(
        name="uneven",
        title="The same thumbs up, more and more thumbs down",
        trial=uneven_trial,
        arms=uneven_arms,
        metrics=(*ANSWERED, Metric("share_up", "share of the pull that is on thumbs up")),
        inputs=_inputs,
        claims=readings_of_uneven.UNEVEN,
        live=("1:1",),
    ),
    Experiment(
        name="points",
        title="The reference point right and wrong, far from the reference",
        trial=point_trial,
        arms=point_arms,
        metrics=(*ANSWERED, *BEFORE, *COURSES),
        inputs=_inputs,
        claims=readings_of_points.POINTS,
        live=(point_arm(RIGHT), point_arm(ZERO)),
    ),
)
