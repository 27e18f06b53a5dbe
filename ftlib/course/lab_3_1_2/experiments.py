"""The experiments of lab 3.1.2: a rate for each method, chosen on validation rows in two stages;
LoRA and DoRA at their best and off it; DoRA taken apart; ranks, each with a rate of its own.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_2 import readings
from ftlib.course.lab_3_1_2.readings import RANKS_NAMED, TUNED_ALIKE, too_high
from ftlib.course.lab_3_1_2.trials import compare_trial, parts_trial, rank_trial, tune_trial
from ftlib.course.records.experiment import (
    RECORDED,
    Experiment,
    Metric,
    fewer_where_runs_are_long,
)
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm

METHODS = (*TUNED_ALIKE, "m only", "full")
FACTORS = tuple(2 ** (step / 2) for step in range(-4, 5))  # of a middle rate: steps of √2
NEAR_FACTORS = FACTORS[3:7]  # around the best of a first, coarse look
FEW_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
M_ALONE = 8.0  # m alone is tried around this multiple of the profile's rate
TOO_HIGH = 2**1.5  # times the profile's rate: too high for LoRA and DoRA, and one of `FACTORS`

VALIDATION = Metric("validation_loss", "validation loss", "nats per token", lower_is_better=True)
TRAINING = Metric("training_loss", "training loss", "nats per token", lower_is_better=True)
LOSS = Metric("loss", "test loss", "nats per token", lower_is_better=True)
RESET = Metric("reset_loss", "test loss, lengths reset", "nats per token", lower_is_better=True)
WORDS = Metric("words", "right words", "share", resolution=1 / 160)
TURN = Metric("turn", "turn of a row", "degrees")


def _inputs(profile: Profile) -> dict[str, Any]:
    return {
        "train": rows_of(profile, profile.study.train),
        "test": rows_of(profile, profile.study.test),
        "base": model_folder(profile.study.model),
    }


# --- rates ----------------------------------------------------------------------------------------
def _size(profile: Profile, r: int | None = None) -> dict[str, Any]:
    """Rank and alpha; alpha stays where it is when the rank changes (lab 1)."""
    return {"r": r or profile.rank, "alpha": 2 * profile.rank}


def _grids(profile: Profile) -> dict[str, list[float]]:
    """{method: its rates}."""
    lora = profile.study.lr_lora
    grids = {name: [lora * factor for factor in FACTORS] for name in TUNED_ALIKE}
    grids["m only"] = [M_ALONE * lora * factor for factor in FEW_FACTORS]
    grids["full"] = [profile.study.lr_full * factor for factor in FEW_FACTORS]
    return grids


def rate_arm(method: str, lr: float) -> str:
    return f"{method}, rate {lr:.2g}"


def rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    arms = {}
    for method, rates in _grids(profile).items():
        for lr in rates:
            arms[rate_arm(method, lr)] = {"method": method, "lr": lr, **_size(profile)}
    return arms


def arms_of(profile: Profile, method: str) -> dict[float, str]:
    """{rate: arm} of a method in the experiment `rates`, as a sweep's figure takes it."""
    return {lr: rate_arm(method, lr) for lr in _grids(profile)[method]}


def near_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """The rates around the best ones once more, for as many seeds as a conclusion takes: three
    seeds place a best rate no better than the seeds differ.
    """
    arms = {}
    for method in TUNED_ALIKE:
        for lr in near_arms_of(profile, method):
            arms[rate_arm(method, lr)] = {"method": method, "lr": lr, **_size(profile)}
    return arms


def near_arms_of(profile: Profile, method: str) -> dict[float, str]:
    """{rate: arm} of a method in the experiment `near-rates`."""
    rates = [profile.study.lr_lora * factor for factor in NEAR_FACTORS]
    return {lr: rate_arm(method, lr) for lr in rates}


def best_rate(profile: Profile, method: str) -> float:
    """The rate that validation has chosen: from the second stage where there is one; a profile
    whose runs take minutes has the first alone.
    """
    if method in TUNED_ALIKE and profile.runs_unrecorded:
        return _best(profile, "near-rates", near_arms_of(profile, method))
    return _best(profile, "rates", arms_of(profile, method))


def _best(profile: Profile, experiment: str, arms: dict[float, str]) -> float:
    """The rate with the lowest validation loss; the middle one before there is a record."""
    rates = list(arms)
    middle = arms[rates[len(rates) // 2]]
    best = best_arm("3.1.2", experiment, "validation_loss", list(arms.values()), middle, profile)
    return next(lr for lr, name in arms.items() if name == best)


# --- methods --------------------------------------------------------------------------------------
def high_rate(profile: Profile) -> float:
    """A rate that nobody has tuned, the same for all."""
    return TOO_HIGH * profile.study.lr_lora


def method_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Every method at its best rate, and three of them at one rate that is too high."""
    arms = {}
    for method in METHODS:
        lr = best_rate(profile, method)
        arms[method] = {"method": method, "lr": lr, **_size(profile)}
    for method in TUNED_ALIKE:
        arms[too_high(method)] = {**arms[method], "lr": high_rate(profile)}
    return arms


def part_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """DoRA at its best rate, with one thing changed."""
    common = {"lr": best_rate(profile, "DoRA"), **_size(profile)}
    changes: dict[str, dict[str, Any]] = {
        "m trained": {},
        "m frozen": {"speed": 0.0},
        "m first half": {"last": 0.5},
        "m second half": {"first": 0.5},
        "m × 10": {"speed": 10.0},
        "norm's gradient": {"method": "norm with gradient"},
    }
    return {name: {**common, **change} for name, change in changes.items()}


# --- ranks ----------------------------------------------------------------------------------------
def ranks_of(profile: Profile) -> dict[str, int]:
    """The lowest rank, the profile's, and the highest, by their names."""
    ranks = (profile.study.ranks[0], profile.rank, profile.study.ranks[-1])
    return dict(zip(RANKS_NAMED, ranks, strict=True))


def rank_arm(method: str, place: str) -> str:
    return f"{method}, {place}"


def rank_rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Five rates for each method at the lowest and the highest rank; those at the middle one are in
    the experiment `rates`.
    """
    arms = {}
    for method in ("LoRA", "DoRA"):
        for place, r in ranks_of(profile).items():
            if r == profile.rank:
                continue
            for factor in FEW_FACTORS:
                lr = factor * profile.study.lr_lora
                settings = {"method": method, "lr": lr, **_size(profile, r)}
                arms[f"{rank_arm(method, place)}, rate {lr:.2g}"] = settings
    return arms


def rank_arms_of(profile: Profile, method: str, place: str) -> dict[float, str]:
    """{rate: arm} of a method at a rank in the experiment `rank-rates`."""
    start = f"{rank_arm(method, place)}, rate"
    arms = rank_rate_arms(profile).items()
    return {settings["lr"]: name for name, settings in arms if name.startswith(start)}


def best_rate_of_rank(profile: Profile, method: str, place: str) -> float:
    if ranks_of(profile)[place] == profile.rank:
        return best_rate(profile, method)
    return _best(profile, "rank-rates", rank_arms_of(profile, method, place))


def rank_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """LoRA and DoRA at three ranks, each at its own best rate."""
    arms = {}
    for place, r in ranks_of(profile).items():
        for method in ("LoRA", "DoRA"):
            lr = best_rate_of_rank(profile, method, place)
            arms[rank_arm(method, place)] = {"method": method, "lr": lr, **_size(profile, r)}
    return arms


EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Validation loss over the learning rate, for each method",
        trial=tune_trial,
        arms=fewer_where_runs_are_long(rate_arms, "LoRA,", "DoRA,", every=4),
        metrics=(VALIDATION, TRAINING),
        inputs=_inputs,
        seeds=3,
        live=(),
        profiles=RECORDED,
        seeds_in={"pocket": 1},
    ),
    Experiment(
        name="near-rates",
        title="Validation loss at four rates around the best, for the methods compared",
        trial=tune_trial,
        arms=near_arms,
        metrics=(VALIDATION, TRAINING),
        inputs=_inputs,
        live=(),
    ),
    Experiment(
        name="methods",
        title="LoRA against DoRA, each at its best rate, and at one that is too high",
        trial=compare_trial,
        arms=fewer_where_runs_are_long(
            method_arms,
            "LoRA",
            "DoRA",
        ),
        metrics=(
            LOSS,
            WORDS,
            RESET,
            Metric("scrambled_loss", "test loss, lengths scrambled", "nats per token", True),
            TURN,
            Metric("longer", "change of a row's length", "share of it"),
            Metric("rows_longer", "change of a row's length in V", "share of it"),
            Metric("r_query", "r of ΔM and ΔD, queries, on the way"),
            Metric("r_query_turned", "the same, of the turned update"),
            Metric("r_last", "r of ΔM and ΔD, all matrices, at the end"),
            Metric("r_last_turned", "the same, of the turned update"),
            Metric("path", "ΔM and ΔD of the queries, on the way"),
            Metric("moved", "ΔM and ΔD of all matrices, at the end"),
        ),
        inputs=_inputs,
        claims=readings.METHODS,
        live=("DoRA", "LoRA"),  # where there is time for one, that with the student's functions
        profiles=RECORDED,
        seeds_in={"pocket": 5},
    ),
    Experiment(
        name="parts",
        title="What m and the detached norm do",
        trial=parts_trial,
        arms=part_arms,
        metrics=(LOSS, RESET, TURN, Metric("longer", "change of a row's length", "share of it")),
        inputs=_inputs,
        claims=readings.PARTS,
        live=(),
    ),
    Experiment(
        name="rank-rates",
        title="Validation loss over the learning rate, at the lowest and the highest rank",
        trial=tune_trial,
        arms=rank_rate_arms,
        metrics=(VALIDATION, TRAINING),
        inputs=_inputs,
        seeds=2,
        live=(),
    ),
    Experiment(
        name="ranks",
        title="LoRA against DoRA by rank, each at its own best rate",
        trial=rank_trial,
        arms=rank_arms,
        metrics=(LOSS,),
        inputs=_inputs,
        claims=readings.RANKS,
        live=(),
    ),
)
