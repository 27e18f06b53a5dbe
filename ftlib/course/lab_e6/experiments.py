"""The experiments of lab E6: what each default costs that is switched back, in SFT and in DPO."""

from __future__ import annotations

from typing import Any

from ftlib.core.paths import DATA
from ftlib.core.profiles import Profile
from ftlib.course.lab_e6 import arms, readings
from ftlib.course.lab_e6.start import TEST, TRAIN
from ftlib.course.lab_e6.trials import dpo_trial, sft_trial
from ftlib.course.records.experiment import Experiment, Metric
from ftlib.course.records.kit import model_folder, rows_of

ROUNDING = 1e-5  # nats: what the order of sums may change in a step's loss elsewhere

APART = (
    Metric("apart", "largest difference in a step", "nats", True, resolution=ROUNDING),
    Metric("parted", "step at which they part", resolution=1),
    Metric("gaps", "gap of a step", "nats", True, resolution=ROUNDING),
)


def sft_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return arms.SFT


def dpo_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return arms.DPO


def _sft_inputs(profile: Profile) -> dict[str, Any]:
    return {
        "base": model_folder(profile.study.model),
        "train": rows_of(profile, TRAIN),
        "test": rows_of(profile, TEST),
    }


def _dpo_inputs(profile: Profile) -> dict[str, Any]:
    return {
        "base": model_folder(profile.model),
        "adapter": DATA / "sft-adapter",
        "train": rows_of(profile, "preferences"),
        "test": rows_of(profile, "preferences_test"),
    }


EXPERIMENTS = (
    Experiment(
        name="sft",
        title="SFT with one default switched back",
        trial=sft_trial,
        arms=sft_arms,
        metrics=(*APART, Metric("test_loss", "held-out loss", "nats per token", True)),
        inputs=_sft_inputs,
        claims=readings.SFT,
        live=(arms.BY_HAND,),
        rounded=(arms.BF16,),
    ),
    Experiment(
        name="dpo",
        title="DPO with one default switched back",
        trial=dpo_trial,
        arms=dpo_arms,
        metrics=(
            *APART,
            Metric("test_loss", "held-out DPO loss", "nats", True),
            Metric("right", "held-out pairs ranked rightly", resolution=1 / 24),
        ),
        inputs=_dpo_inputs,
        claims=readings.DPO,
        live=(),
        rounded=(arms.BF16,),
    ),
)
