"""The experiments of lab E7: two processes equal one, up to rounding; and what two of the usual
mistakes cost, in the gradient and on held-out rows.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_e7 import readings
from ftlib.course.lab_e7.settings import at_scale
from ftlib.course.lab_e7.steps import MEANS, TOKENS
from ftlib.course.lab_e7.trials import (
    AVERAGED_MEANS,
    NOT_AVERAGED,
    ONE,
    RIGHT,
    SAME_ROWS,
    SPLIT,
    equality_trial,
    fault_trial,
)
from ftlib.course.records.experiment import Experiment, Metric
from ftlib.course.records.kit import model_folder, rows_of

LAB = "E7"
FAULTS = (RIGHT, AVERAGED_MEANS, SAME_ROWS, NOT_AVERAGED, ONE)
# {arm: (method, shard, dtype, how the processes' losses are averaged)}
EQUAL: dict[str, tuple[str, str, str, str]] = {
    readings.DDP: ("lora", "ddp", "float32", TOKENS),
    readings.ZERO2: ("lora", "zero2", "float32", TOKENS),
    readings.FSDP2: ("lora", "full", "float32", TOKENS),
    readings.FSDP2_64: ("lora", "full", "float64", TOKENS),
    readings.FULL: ("full", "full", "float32", TOKENS),
    readings.FULL_64: ("full", "full", "float64", TOKENS),
    readings.NF4: ("qlora", "full", "float32", TOKENS),
    readings.CONTROL: ("lora", "ddp", "float32", MEANS),
}
# Rounding differs between processors, by a factor rather than by a share.
A_THIRD = 0.3  # decades: a factor of two
GAPS = (
    Metric(
        "gradient",
        "first gradient, distance from one process",
        "log₁₀",
        resolution=A_THIRD,
        spoken="the first gradient's distance from that of one process",
    ),
    Metric("loss", "losses, largest distance", "log₁₀", resolution=A_THIRD),
    Metric("weights", "trained weights, distance", "log₁₀ of the way gone", resolution=A_THIRD),
    Metric("first_loss", "first loss", "nats per token"),
    Metric("last_loss", "last loss", "nats per token"),
)
COSTS = (
    Metric("gap", "first gradient, distance from one process", "share of its length"),
    Metric("held_out", "held-out loss", "nats per token", lower_is_better=True),
    Metric("read", "different rows read", "share"),
    Metric("last_loss", "training loss, last five steps", "nats per token"),
)


def _inputs(profile: Profile) -> dict[str, Any]:
    profile = at_scale(profile)
    return {
        "rows": rows_of(profile, SPLIT),
        "held_out": rows_of(profile, "validation"),
        "model": model_folder(profile.model),
    }


def equality_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    arms = {}
    for name, (method, shard, dtype, average) in EQUAL.items():
        arms[name] = {"method": method, "shard": shard, "dtype": dtype, "average": average}
    return arms


def fault_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return {fault: {"fault": fault} for fault in FAULTS}


EXPERIMENTS = (
    Experiment(
        name="equality",
        title="Two processes against one: gradients, losses, weights",
        trial=equality_trial,
        arms=equality_arms,
        metrics=GAPS,
        inputs=_inputs,
        claims=readings.EQUALITY,
        live=(readings.FSDP2,),
    ),
    Experiment(
        name="faults",
        title="What the usual mistakes of two processes cost",
        trial=fault_trial,
        arms=fault_arms,
        metrics=COSTS,
        inputs=_inputs,
        claims=readings.FAULTS,
        live=(RIGHT,),
    ),
)
