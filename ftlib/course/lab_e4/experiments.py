"""The experiments of lab E4: a rate for every kind of student, chosen on validation rows; then the
students side by side, with and without a teacher, on given text and on their own.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_e4 import readings
from ftlib.course.lab_e4.names import (
    AGAIN,
    ARMS,
    AT_ROWS,
    FORWARD,
    GIVEN,
    OWN,
    OWN_SHARE,
    PHASES,
    REVERSE,
    ROWS_ALONE,
    THEN,
)
from ftlib.course.lab_e4.second_phase import phase_trial, tune_phase_trial
from ftlib.course.lab_e4.settings import settings_of
from ftlib.course.lab_e4.trials import student_trial, tune_trial
from ftlib.course.records.experiment import Experiment, Metric
from ftlib.course.records.kit import model_folder, rows_of
from ftlib.course.records.store import best_arm
from ftlib.course.start import sft_adapter

LAB = "E4"
FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)  # of a middle rate
PHASE_FACTORS = (0.125, 0.25, 0.5, 1.0)  # of the same, in a second phase
RATE_SEEDS = 2  # of the sweep

GAINS = ("gain", "gain, one rate", "nearer", "nearer, one rate", "answers", "logits", "shuffled")

NATS = "nats per token"
LOSS = Metric("loss", "test loss", NATS, lower_is_better=True)
OF_OWN = Metric("reverse", "KL(student‖teacher), own answers", NATS, lower_is_better=True)


def _inputs(profile: Profile) -> dict[str, Any]:
    found: dict[str, Any] = {
        "train": rows_of(profile, "train"),
        "base": model_folder(profile.study.model),
    }
    if profile.name == "tiny":
        found["adapter"] = sft_adapter(profile, train=False)
    return found


# --- rates ----------------------------------------------------------------------------------------
def rate_arm(student: str, lr: float) -> str:
    return f"{student}, rate {lr:.2g}"


def rates_of(profile: Profile, student: str) -> dict[float, str]:
    """{rate: arm} of a kind of student on given text, as a sweep's figure takes it."""
    middle = settings_of(profile).rate
    return {factor * middle: rate_arm(student, factor * middle) for factor in FACTORS}


def _settings(profile: Profile, student: str) -> dict[str, Any]:
    """What all runs of a kind of student have."""
    return {
        "objective": student.removesuffix(OWN).removesuffix(AT_ROWS),
        "steps": settings_of(profile).steps,
        "on_policy": OWN_SHARE if student.endswith(OWN) else 0.0,
    }


def rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """As many rates for each."""
    arms = {}
    for student in GIVEN:
        for lr, arm in rates_of(profile, student).items():
            arms[arm] = {**_settings(profile, student), "lr": lr}
    return arms


def measure_of(student: str) -> str:
    """By which measure a rate is chosen: the loss on rows, or for the reverse KL itself, which does
    not mind what rows say that the student would not.
    """
    return "reverse" if student == REVERSE else "loss"


def best_rate(profile: Profile, student: str) -> float:
    """The rate that is best by the student's measure; the middle one before there is a record. On
    own text that of the same objective on given text.
    """
    student = ROWS_ALONE if student.endswith(AT_ROWS) else student.removesuffix(OWN)
    arms = rates_of(profile, student)
    middle = arms[settings_of(profile).rate]
    best = best_arm(LAB, "rates", measure_of(student), list(arms.values()), middle, profile)
    return next(lr for lr, name in arms.items() if name == best)


# --- students -------------------------------------------------------------------------------------
def student_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Every kind of student at its best rate."""
    arms = {}
    for student in ARMS:
        arms[student] = {**_settings(profile, student), "lr": best_rate(profile, student)}
    return arms


# --- second phases --------------------------------------------------------------------------------
def _phase_settings(profile: Profile, phase: str) -> dict[str, Any]:
    return {
        "objective": FORWARD if phase == AGAIN else REVERSE,
        "first_lr": best_rate(profile, FORWARD),
        "steps": settings_of(profile).steps,
        "on_policy": 0.0,
    }


def phase_rates_of(profile: Profile, phase: str) -> dict[float, str]:
    """{rate: arm} of a second phase."""
    middle = settings_of(profile).rate
    return {factor * middle: rate_arm(phase, factor * middle) for factor in PHASE_FACTORS}


def phase_rate_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """As many rates for the forward as for the reverse KL."""
    arms = {}
    for phase in (AGAIN, THEN):
        for lr, arm in phase_rates_of(profile, phase).items():
            arms[arm] = {**_phase_settings(profile, phase), "lr": lr}
    return arms


def phase_rate(profile: Profile, phase: str) -> float:
    """The rate of a second phase that is best by its measure."""
    arms = phase_rates_of(profile, phase)
    first = next(iter(arms.values()))
    measure = "loss" if phase == AGAIN else "reverse"
    best = best_arm(LAB, "second-rates", measure, list(arms.values()), first, profile)
    return next(lr for lr, name in arms.items() if name == best)


def phase_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Every second phase at its best rate."""
    arms = {}
    for phase in PHASES:
        arms[phase] = {**_phase_settings(profile, phase), "lr": phase_rate(profile, phase)}
    return arms


MEASURED = (
    LOSS,
    Metric("forward", "KL(teacher‖student), teacher's answers", NATS, True),
    OF_OWN,
    Metric("entropy", "student's entropy, own answers", NATS),
    Metric("surprise", "teacher's surprise at the student's answers", NATS, True),
    Metric("clear", "answers in one of the two manners", "share"),
    Metric("polite", "polite among those", "share"),
)
EXPERIMENTS = (
    Experiment(
        name="rates",
        title="Learning rates of every kind of student, on validation rows",
        trial=tune_trial,
        arms=rate_arms,
        metrics=(LOSS, OF_OWN),
        inputs=_inputs,
        seeds=RATE_SEEDS,
        live=(),
    ),
    Experiment(
        name="students",
        title="Small students with and without a teacher, on given text and on their own",
        trial=student_trial,
        arms=student_arms,
        metrics=MEASURED,
        inputs=_inputs,
        claims=readings.STUDENTS,
        live=(ROWS_ALONE, FORWARD),
    ),
    Experiment(
        name="second-rates",
        title="Learning rates of a second phase, after one of the forward KL",
        trial=tune_phase_trial,
        arms=phase_rate_arms,
        metrics=(LOSS, OF_OWN),
        inputs=_inputs,
        seeds=1,
        live=(),
    ),
    Experiment(
        name="second",
        title="After a phase of the forward KL: the forward KL again, or the reverse KL",
        trial=phase_trial,
        arms=phase_arms,
        metrics=MEASURED,
        inputs=_inputs,
        claims=readings.SECOND,
        live=(),
    ),
)
