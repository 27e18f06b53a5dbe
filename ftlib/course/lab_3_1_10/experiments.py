"""The experiments of lab 3.1.10: what quantising, merging, templates and files cost a trained
model.

Nothing is trained, so a seed is a sample of held-out prompts of its own, and an order of the
model's numbers, by which the rounding is drawn anew (`held_out`); where an importance matrix is
collected, also a sample of calibration texts. The intervals speak of prompts of this kind and of
roundings, for this one model.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_10.claims_of_faults import FAULT_CLAIMS
from ftlib.course.lab_3_1_10.claims_of_files import FILE_CLAIMS, MERGE_CLAIMS
from ftlib.course.lab_3_1_10.claims_of_types import (
    IMPORTANCE_CLAIMS,
    KIND_CLAIMS,
    MIX_CLAIMS,
    WAY_CLAIMS,
)
from ftlib.course.lab_3_1_10.faults import (
    FILE_FAULTS,
    QUANTISED,
    RUNTIME_FAULTS,
    TEMPLATE_FAULTS,
    fault_trial,
)
from ftlib.course.lab_3_1_10.held_out import adapter_folder, adapter_inputs, held_out_rows
from ftlib.course.lab_3_1_10.merging import merge_trial
from ftlib.course.lab_3_1_10.trials import (
    WAYS,
    file_trial,
    importance_trial,
    kinds_trial,
    mix_trial,
    way_trial,
)
from ftlib.course.records.experiment import (
    RECORDED,
    Experiment,
    Metric,
)
from ftlib.course.records.kit import model_folder, rows_of

KIND_TYPES = ("Q6_K", "Q4_K_M", "Q2_K")  # that one kind of matrix gets at a time
MIXES = ("plain", "recipe", "elsewhere", "other layers")
CALIBRATIONS = {  # by what is quantised with them
    "Q2_K": ("none", "own", "other", "shuffled"),
    "Q4_K_M": ("none", "own", "shuffled"),
}
STRENGTHS = {"": 1.0, ", alpha/16": 1 / 16, ", alpha/256": 1 / 256}  # of the adapter's own alpha

ANSWER_KL = Metric("answer_kl", "KL on answers", "nats per token", True)
PROMPT_KL = Metric("prompt_kl", "KL on prompts", "nats per token", True)


def _share(name: str, text: str, spoken: str = "") -> Metric:
    return Metric(name, text, "share of prompts", resolution=1 / 24, spoken=spoken)


def _inputs(profile: Profile) -> dict[str, Any]:
    return {
        "held out": held_out_rows(profile),
        "base": model_folder(profile.model),
        **adapter_inputs(profile),
    }


def _importance_inputs(profile: Profile) -> dict[str, Any]:
    return {**_inputs(profile), "train": rows_of(profile, "train")}


# --- arms -----------------------------------------------------------------------------------------
def _file_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    names = ("F16", *profile.export.quantizations)
    return {name: {"quantization": name} for name in names}


def _kind_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return {name.removesuffix("_M"): {"quantization": name} for name in KIND_TYPES}


def _mix_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return {mix: {"mix": mix} for mix in MIXES}


def _importance_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    arms = {}
    for name, calibrations in CALIBRATIONS.items():
        for calibration in calibrations:
            settings = {"quantization": name, "calibration": calibration}
            arms[f"{name}, {calibration}"] = settings
    return arms


def _merge_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    arms: dict[str, dict[str, Any]] = {}
    for suffix, strength in STRENGTHS.items():
        for form in ("bf16", "f16"):
            arms[f"{form}{suffix}"] = {"form": form, "strength": strength}
    for form in ("bf16 sum", "Q8_0"):
        arms[form] = {"form": form, "strength": 1.0}
    return arms


def _fault_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    names = ("as trained", *QUANTISED, *TEMPLATE_FAULTS, *FILE_FAULTS, *RUNTIME_FAULTS)
    return {name: {"fault": name} for name in names}


def _way_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return {way: {"way": way} for way in WAYS}


EXPERIMENTS = (
    Experiment(
        name="merge",
        title="Merging into 16 bits and 8, beside the sum in fp32",
        trial=merge_trial,
        arms=_merge_arms,
        metrics=(
            ANSWER_KL,
            Metric("lost_effect", "share of the update's effect that is lost", "", True),
            Metric("rounding", "‖rounding‖ / ‖update‖", "", True),
            Metric("kept", "update left in its own direction"),
            Metric("size", "‖update‖ / ‖weight‖"),
        ),
        inputs=_inputs,
        prepare=adapter_folder,
        claims=MERGE_CLAIMS,
        live=("bf16", "bf16, alpha/256"),
    ),
    Experiment(
        name="files",
        title="Quantisations beside the f16 file, on answers and on prompts",
        trial=file_trial,
        arms=_file_arms,
        metrics=(
            ANSWER_KL,
            PROMPT_KL,
            Metric("answer_loss", "log-loss of answers, minus f16's", "nats per token", True),
            Metric("prompt_loss", "log-loss of prompts, minus f16's", "nats per token", True),
            _share("same", "answers as f16"),
            _share("right", "right answers", "the share of right answers"),
        ),
        inputs=_inputs,
        prepare=adapter_folder,
        claims=FILE_CLAIMS,
        live=("Q4_K_M",),
        profiles=RECORDED,
        seeds_in={"pocket": 5},
    ),
    Experiment(
        name="kinds",
        title="One kind of matrix quantised at a time",
        trial=kinds_trial,
        arms=_kind_arms,
        metrics=(ANSWER_KL, PROMPT_KL),
        inputs=_inputs,
        prepare=adapter_folder,
        claims=KIND_CLAIMS,
        live=(),
    ),
    Experiment(
        name="mixes",
        title="The same bytes given to other matrices",
        trial=mix_trial,
        arms=_mix_arms,
        metrics=(ANSWER_KL, PROMPT_KL, Metric("megabytes", "weights", "MB", True)),
        inputs=_inputs,
        prepare=adapter_folder,
        claims=MIX_CLAIMS,
        live=(),
    ),
    Experiment(
        name="importance",
        title="Quantising with an importance matrix",
        trial=importance_trial,
        arms=_importance_arms,
        metrics=(
            ANSWER_KL,
            PROMPT_KL,
            Metric("rounding", "rounding weighted by held-out inputs", "share", True),
        ),
        inputs=_importance_inputs,
        prepare=adapter_folder,
        claims=IMPORTANCE_CLAIMS,
        live=(),
    ),
    Experiment(
        name="faults",
        title="Faults of the last mile",
        trial=fault_trial,
        arms=_fault_arms,
        metrics=(
            _share("right", "right answers", "the share of right answers"),
            _share("ended", "answers that end"),
        ),
        inputs=_inputs,
        prepare=adapter_folder,
        claims=FAULT_CLAIMS,
        live=("as trained", "turn not closed"),
    ),
    Experiment(
        name="ways",
        title="Ways to four bits with an adapter",
        trial=way_trial,
        arms=_way_arms,
        metrics=(ANSWER_KL, PROMPT_KL, Metric("megabytes", "size of the files", "MB")),
        inputs=_inputs,
        prepare=adapter_folder,
        claims=WAY_CLAIMS,
        live=(),
    ),
)
