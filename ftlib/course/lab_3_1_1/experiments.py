"""The experiments of lab 3.1.1: the settings of LoRA and of full fine-tuning are chosen on
validation rows; then the two are compared, short and long, with controls; and LoRA's start,
scaling, rank and relatives are looked at.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from transformers import AutoConfig

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_1 import readings
from ftlib.course.lab_3_1_1.layer import PISSA, STARTS, TARGETS
from ftlib.course.lab_3_1_1.shapes import layer_shapes
from ftlib.course.lab_3_1_1.trials import (
    capacity_trial,
    compare_trial,
    length_trial,
    scaling_trial,
    start_trial,
    tune_trial,
)
from ftlib.course.records.experiment import (
    RECORDED,
    Experiment,
    Metric,
    fewer_where_runs_are_long,
)
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import Record, best_arm, read_record

ALPHAS: tuple[float, ...] = (16, 256, 4096, 65536)
FALL = 0.75  # power with which the middle rate falls as alpha grows, between ½ and 1
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of a middle rate
GRID_FACTORS = (*FACTORS, 8.0)  # a high rank's best rate lies higher
SHIFTED = {"q, v": 4.0, "MLP": 2.0}  # times the middle: fewer places have a higher best rate
GRID_TIE = 0.1  # of the lowest validation loss: the map has one seed a point
LONG = 3.0  # times the steps of the profile
ROWS = (20, 60, 160)
SHORT_RATE_OF_LONG = 0.5  # middle of the long sweep: its rates are lower
TIE = 0.05  # of the lowest validation loss: rates that come as near count as equally good

LOSS = Metric("loss", "test loss", "nats per token", lower_is_better=True)
VALIDATION = Metric("validation_loss", "validation loss", "nats per token", lower_is_better=True)
TRAINING = Metric("training_loss", "training loss", "nats per token", lower_is_better=True)
FORGOTTEN = Metric("forgotten", "forgotten", "nats per token", True)
NORM = Metric("norm", "‖ΔW‖ of all linear layers")
WORDS = Metric("words", "right words", "share", resolution=1 / 160)


def _inputs(profile: Profile) -> dict[str, Any]:
    return {
        "train": rows_of(profile, profile.study.train),
        "test": rows_of(profile, profile.study.test),
        "base": model_folder(profile.study.model),
    }


# --- choosing settings ----------------------------------------------------------------------------
def middle_rate(profile: Profile, alpha: float) -> float:
    """The rate around which an alpha is tried: the profile's at the smallest alpha, and falling
    with `FALL`. If only B moved, ΔW = s·BA would grow like s·rate, if A moved as much, like
    s·rate²: the best rate then falls like 1/alpha, or like 1/√alpha.
    """
    return profile.study.lr_lora * (ALPHAS[0] / alpha) ** FALL


def grid_arm(r: int, alpha: float, lr: float) -> str:
    return f"r={r}, alpha={alpha:g}, rate {lr:.2g}"


def grid_ranks(profile: Profile) -> tuple[int, ...]:
    """The lowest, the profile's and the highest."""
    return profile.study.ranks[0], profile.rank, profile.study.ranks[-1]


def grid_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Every rank, every alpha, six rates for each alpha."""
    arms = {}
    for r in grid_ranks(profile):
        for alpha in ALPHAS:
            for factor in GRID_FACTORS:
                lr = factor * middle_rate(profile, alpha)
                settings = {"method": "LoRA", "r": r, "alpha": alpha, "lr": lr}
                arms[grid_arm(r, alpha, lr)] = settings
    return arms


def best_of_grid(profile: Profile, r: int) -> dict[str, Any]:
    """r, alpha and lr of a rank: the lowest alpha at whose best rate the validation loss is within
    `GRID_TIE` of the lowest of all alphas, and that rate.
    """
    record = read_record("3.1.1", "grid", profile)
    best_rates: dict[float, tuple[float, float]] = {}  # alpha: (loss, rate)
    for name, settings in grid_arms(profile).items():
        if settings["r"] != r:
            continue
        values = record.values(name, "validation_loss")
        if not len(values):  # not recorded yet
            middle = ALPHAS[1]
            return {"r": r, "alpha": middle, "lr": middle_rate(profile, middle)}
        found = (float(values.mean()), settings["lr"])
        alpha = settings["alpha"]
        best_rates[alpha] = min(best_rates.get(alpha, found), found)
    enough = (1 + GRID_TIE) * min(best_rates.values())[0]
    alpha = min(alpha for alpha, (loss, _) in best_rates.items() if loss <= enough)
    return {"r": r, "alpha": alpha, "lr": best_rates[alpha][1]}


@functools.cache
def _parameters_of_rank_one(model: str, targets: tuple[str, ...]) -> int:
    shapes = layer_shapes(AutoConfig.from_pretrained(model).to_dict())
    return sum(sum(shapes[name]) for name in targets)


def rank_within_budget(profile: Profile, place: str) -> int:
    """The rank at which a place trains about as many numbers as the profile's on all layers."""
    model = model_folder(profile.study.model)
    budget = profile.rank * _parameters_of_rank_one(model, TARGETS["all linear"])
    return round(budget / _parameters_of_rank_one(model, TARGETS[place]))


def _tuned_methods(profile: Profile) -> dict[str, dict[str, Any]]:
    """What has a rate to be chosen, and its middle rate as `lr`."""
    best = best_of_grid(profile, profile.rank)
    alpha = best["alpha"]
    methods: dict[str, dict[str, Any]] = {
        "full": {"method": "full", "lr": profile.study.lr_full},
        "LoRA": {"method": "LoRA", "r": profile.rank, "alpha": alpha},
        "PiSSA": {"method": "LoRA", "r": profile.rank, "alpha": profile.rank, "start": PISSA},
    }
    methods["PiSSA"]["lr"] = profile.study.lr_lora
    for place, shift in SHIFTED.items():
        settings = {"method": "LoRA", "alpha": alpha, "targets": place}
        settings["r"] = rank_within_budget(profile, place)
        settings["lr"] = shift * middle_rate(profile, alpha)
        methods[place] = settings
    for settings in methods.values():
        settings.setdefault("lr", middle_rate(profile, alpha))
    return methods


def rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Five rates for every method."""
    arms = {}
    for name, settings in _tuned_methods(profile).items():
        for factor in FACTORS:
            lr = factor * settings["lr"]
            arms[f"{name}, rate {lr:.2g}"] = {**settings, "lr": lr}
    return arms


def arms_of(arms: dict[str, dict[str, Any]], method: str) -> dict[float, str]:
    """{rate: arm} of a method in `rate_arms` or `long_rate_arms`, as a sweep's figure takes it."""
    return {
        settings["lr"]: name for name, settings in arms.items() if name.startswith(f"{method},")
    }


def best_rate(profile: Profile, method: str) -> dict[str, Any]:
    """Settings of a method at its best rate, by validation loss."""
    arms = rate_arms(profile)
    return arms[lowest_of_best("rates", arms_of(arms, method), profile)]


def lowest_of_best(experiment: str, rates: dict[float, str], profile: Profile) -> str:
    """The arm of the lowest rate whose validation loss is within `TIE` of the best one's; the
    middle arm where one is not recorded yet. `rates`: {rate: arm}.

    One rule for all methods (`records.store.best_arm` has the reason).
    """
    middle = list(rates.values())[len(rates) // 2]
    rising = [rates[rate] for rate in sorted(rates)]
    return best_arm("3.1.1", experiment, "validation_loss", rising, middle, profile, TIE)


def long_rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Five rates of LoRA and of full fine-tuning, for the longer run."""
    methods = _tuned_methods(profile)
    arms = {}
    for name in ("full", "LoRA"):
        for factor in FACTORS:
            lr = SHORT_RATE_OF_LONG * factor * methods[name]["lr"]
            arms[f"{name}, rate {lr:.2g}"] = {**methods[name], "lr": lr, "length": LONG}
    return arms


def best_long_rate(profile: Profile, method: str) -> dict[str, Any]:
    """Settings of a method at its best rate in the longer run."""
    arms = long_rate_arms(profile)
    return arms[lowest_of_best("long-rates", arms_of(arms, method), profile)]


# --- comparing ------------------------------------------------------------------------------------
def slower_full(profile: Profile) -> dict[str, Any]:
    """Full fine-tuning at that rate below its best at which its validation loss is nearest to
    LoRA's at LoRA's best: what both have learnt is about equal.
    """
    return _slower("rates", rate_arms(profile), best_rate(profile, "LoRA"), profile)


def _slower(
    experiment: str, arms: dict[str, dict], lora: dict[str, Any], profile: Profile
) -> dict[str, Any]:
    """Settings of full fine-tuning below its best rate, whose validation loss differs from LoRA's
    by the smallest factor.
    """
    rates = arms_of(arms, "full")
    highest = arms[lowest_of_best(experiment, rates, profile)]["lr"]
    record = read_record("3.1.1", experiment, profile)
    target = _mean_validation(record, arms, lora)
    gaps = {}
    for rate, arm in rates.items():
        if rate < highest:
            gaps[arm] = abs(math.log(_mean_validation(record, arms, arms[arm]) / target))
    return arms[min(gaps, key=gaps.__getitem__)]


def _mean_validation(record: Record, arms: dict, settings: dict) -> float:
    """Mean validation loss of the arm with these settings; 1 where it is not recorded yet."""
    arm = next(name for name, own in arms.items() if own == settings)
    values = record.values(arm, "validation_loss")
    return float(values.mean()) if len(values) else 1.0


def method_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    lora = best_rate(profile, "LoRA")
    return {
        "full": best_rate(profile, "full"),
        "full, slower": slower_full(profile),
        "LoRA": lora,
        "LoRA, shuffled": {**lora, "is_shuffled": True},
        "PiSSA": best_rate(profile, "PiSSA"),
    }


def long_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    lora = best_long_rate(profile, "LoRA")
    return {
        "full": best_long_rate(profile, "full"),
        "full, slower": _slower("long-rates", long_rate_arms(profile), lora, profile),
        "LoRA": lora,
    }


def scaling_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """The highest rank: α/r at its best settings, α/√r at the same, and at a lower rate."""
    best = best_of_grid(profile, profile.study.ranks[-1])
    slower = best["lr"] / math.sqrt(best["r"]) ** FALL  # as for an alpha that is √r times larger
    return {
        "α/r": {**best, "use_rslora": False},
        "α/√r": {**best, "use_rslora": True},
        "α/√r, lower rate": {**best, "use_rslora": True, "lr": slower},
    }


# --- starts and capacity --------------------------------------------------------------------------
def start_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """All starts at the usual alpha = 2r, and the two that work with their first steps made
    equal.
    """
    common = {"r": profile.rank, "alpha": 2 * profile.rank, "lr": profile.study.lr_lora}
    arms = {start: {**common, "start": start} for start in STARTS}
    config = AutoConfig.from_pretrained(model_folder(profile.study.model))
    smaller = profile.study.lr_lora * profile.rank / config.hidden_size
    arms["A zero, rate · r/d"] = {**common, "start": "A zero, B random", "lr": smaller}
    return arms


def capacity_arm(r: int, rows: int) -> str:
    return f"r={r}, {rows} rows"


def capacity_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Each rank of the map on each number of rows, at the settings that are best for this rank."""
    arms = {}
    for r in grid_ranks(profile):
        for rows in ROWS:
            arms[capacity_arm(r, rows)] = {**best_of_grid(profile, r), "rows": rows}
    return arms


SWEPT = (VALIDATION, TRAINING, FORGOTTEN, NORM)
EXPERIMENTS = (
    Experiment(
        name="grid",
        title="Validation loss over rank, alpha and rate",
        trial=tune_trial,
        arms=fewer_where_runs_are_long(
            grid_arms,
            "r=1, alpha=256,",
            "r=16, alpha=256,",
            "r=64, alpha=256,",
            every=2,
        ),
        metrics=SWEPT,
        inputs=_inputs,
        seeds=1,
        live=(),
        profiles=RECORDED,
        seeds_in={"pocket": 1},
    ),
    Experiment(
        name="rates",
        title="Validation loss over the rate, for each method",
        trial=tune_trial,
        arms=fewer_where_runs_are_long(rate_arms, "full,", "LoRA,", every=2),
        metrics=SWEPT,
        inputs=_inputs,
        seeds=2,
        live=(),
        profiles=RECORDED,
        seeds_in={"pocket": 1},
    ),
    Experiment(
        name="long-rates",
        title="Validation loss over the rate, three times the steps",
        trial=tune_trial,
        arms=long_rate_arms,
        metrics=SWEPT,
        inputs=_inputs,
        seeds=1,
        live=(),
    ),
    Experiment(
        name="methods",
        title="LoRA against full fine-tuning, each at its best rate, with controls",
        trial=compare_trial,
        arms=fewer_where_runs_are_long(method_arms, "full", "LoRA", "LoRA, shuffled"),
        metrics=(
            LOSS,
            WORDS,
            FORGOTTEN,
            TRAINING,
            NORM,
            Metric("rank", "rank that holds 90% of ‖ΔW‖², one block"),
            Metric("intruders", "intruder dimensions per matrix", "of 10"),
            Metric("random_loss", "test loss, random ΔW", "nats per token", lower_is_better=True),
            Metric("random_forgotten", "forgotten, random ΔW", "nats per token", True),
            Metric("norm_by_step", "‖ΔW‖ of one block"),
            Metric("rank_by_step", "rank that holds 90% of ‖ΔW‖², one block"),
        ),
        inputs=_inputs,
        claims=readings.METHODS,
        live=("LoRA",),
        profiles=RECORDED,
        seeds_in={"pocket": 5},
    ),
    Experiment(
        name="long",
        title="LoRA against full fine-tuning, three times the steps",
        trial=length_trial,
        arms=long_arms,
        metrics=(LOSS, WORDS, FORGOTTEN, NORM),
        inputs=_inputs,
        claims=readings.LONG,
        live=(),
    ),
    Experiment(
        name="starts",
        title="Four starts of the adapter",
        trial=start_trial,
        arms=start_arms,
        metrics=(
            VALIDATION,
            Metric("damage", "lost before the first step", "nats per token", True),
            Metric("curve", "training loss", "nats per token", lower_is_better=True),
        ),
        inputs=_inputs,
        claims=readings.STARTS,
        live=("A random, B zero", "A zero, B random"),
    ),
    Experiment(
        name="scaling",
        title="α/r and α/√r at the highest rank",
        trial=scaling_trial,
        arms=scaling_arms,
        metrics=(LOSS, FORGOTTEN),
        inputs=_inputs,
        claims=readings.SCALING,
        live=(),
    ),
    Experiment(
        name="capacity",
        title="Ranks against the number of rows",
        trial=capacity_trial,
        arms=capacity_arms,
        metrics=(
            Metric("own_loss", "loss on the training rows", "nats per token", lower_is_better=True),
            VALIDATION,
        ),
        inputs=_inputs,
        seeds=2,
        live=(),
    ),
)
