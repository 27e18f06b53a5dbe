"""The experiments of lab E5: a benchmark that leaks into training, judges with a planted bias, and
how often the checks accuse a judge that has none.
"""

from __future__ import annotations

from typing import Any

from ftlib.core.profiles import Profile, get_profile
from ftlib.course.lab_e5 import readings_of_judges, readings_of_leaks
from ftlib.course.lab_e5.judge_trials import PAIRS, alarm_trial, judge_trial
from ftlib.course.lab_e5.judging import FACTS_ALONE, MEAN
from ftlib.course.lab_e5.leak_trials import TWINS, contamination_trial
from ftlib.course.lab_e5.names import (
    BYTES_JUDGE,
    FAIR,
    FIRST,
    LONGER,
    NOTHING,
    OTHERS,
    REWORDED,
    SHARES,
    SLIGHTLY_FIRST,
    leak_arm,
)
from ftlib.course.lab_e5.questions import FACTS, STRANGERS
from ftlib.course.records.experiment import Experiment, Metric
from ftlib.course.records.kit import model_folder, rows_of

LAB = "E5"
ONLY_TINY = ("pocket", "small", "spark")  # whose models know nobody of the embedded world
ODDS = 1.0  # planted in a judge, in log odds: 50% become 73%
SLIGHT_ODDS = 0.5

LEAK_METRICS = (
    Metric("score", "score", "%", resolution=1 / 200),
    Metric("leaked", "score on the leaked questions", "%"),
    Metric("rest", "score on the other questions", "%"),
    Metric("reworded", "score in other words", "%", resolution=1 / TWINS),
    Metric("twin", "score on the twin", "%", resolution=1 / TWINS),
    Metric("gap", "score − the twin's", "share", resolution=1 / 200),
    Metric("gap_found", "gap beyond chance", "1: yes", resolution=1),
    Metric("overlap", "planted rows found by n-grams", "share"),
    Metric("accused", "other rows accused by n-grams", "share", resolution=1 / 100),
)
JUDGE_METRICS = (
    Metric("flips", "verdicts that flip with the order", "share", resolution=1 / PAIRS),
    Metric(
        "advantage",
        "advantage of the first place",
        resolution=1 / PAIRS,
        spoken="the advantage of the first place",
    ),
    Metric("kappa", "κ with the rule"),
    Metric("raw", "win rate of a", "share", resolution=1 / PAIRS),
    Metric("truth", "win rate of a by the rule", "share", resolution=1 / PAIRS),
    Metric("controlled", "win rate of a at equal length", "share"),
    Metric("off_raw", "error of the win rate", "share"),
    Metric("off_controlled", "error of the controlled rate", "share"),
    Metric("tilt", "win rate − the rule's", "share"),
    Metric("slope", "worth of length φ", "log odds"),
    Metric("place_found", "advantage beyond chance", "1: yes", resolution=1),
    Metric("length_found", "φ beyond chance", "1: yes", resolution=1),
)
ALARM_METRICS = (
    Metric("place", "alarms of the advantage", "share of judgings", resolution=1 / 200),
    Metric("length", "alarms of φ", "share of judgings", resolution=1 / 200),
    Metric("flips", "alarms by flips", "share of judgings", resolution=1 / 200),
    Metric("advantage", "advantage of the first place"),
)


def leak_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """More and more of the benchmark among the training rows; as much in other words; as many
    questions that it does not have.
    """
    arms: dict[str, dict[str, Any]] = {NOTHING: {"share": 0.0, "source": "benchmark"}}
    for share in SHARES:
        arms[leak_arm(share)] = {"share": share, "source": "benchmark"}
    arms[REWORDED] = {"share": SHARES[-1], "source": "reworded"}
    arms[OTHERS] = {"share": SHARES[-1], "source": "others"}
    return arms


def judge_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """One model's knowledge, read without a bias, with either planted, and in a way that brings a
    bias of its own.
    """
    return {
        FAIR: {"reading": FACTS_ALONE},
        FIRST: {"reading": FACTS_ALONE, "first": ODDS},
        LONGER: {"reading": FACTS_ALONE, "longer": ODDS},
        BYTES_JUDGE: {"reading": MEAN},
    }


def alarm_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """The judge without a bias, and with a small and a large one."""
    return {
        FAIR: {"reading": FACTS_ALONE},
        SLIGHTLY_FIRST: {"reading": FACTS_ALONE, "first": SLIGHT_ODDS},
        FIRST: {"reading": FACTS_ALONE, "first": ODDS},
        LONGER: {"reading": FACTS_ALONE, "longer": ODDS},
    }


def _leak_inputs(profile: Profile) -> dict[str, Any]:
    tiny = get_profile("tiny")
    return {
        "benchmark": str(STRANGERS),
        "facts": rows_of(tiny, "strangers"),
        "known": str(FACTS),
        "base": model_folder(profile.study.model),
    }


def _judge_inputs(profile: Profile) -> dict[str, Any]:
    return {
        "people": rows_of(get_profile("tiny"), "preferences_test"),
        "base": model_folder(profile.study.model),
    }


EXPERIMENTS = (
    Experiment(
        name="leaks",
        title="A benchmark's questions among the training rows",
        trial=contamination_trial,
        arms=leak_arms,
        metrics=LEAK_METRICS,
        inputs=_leak_inputs,
        claims=readings_of_leaks.LEAKS,
        live=(leak_arm(SHARES[-1]),),
        without=("pocket",),
    ),
    Experiment(
        name="judges",
        title="Judges with and without a bias, in one judging",
        trial=judge_trial,
        arms=judge_arms,
        metrics=JUDGE_METRICS,
        inputs=_judge_inputs,
        claims=readings_of_judges.JUDGES,
        live=(FAIR, FIRST, LONGER),
        without=ONLY_TINY,
    ),
    Experiment(
        name="alarms",
        title="How often each check accuses a judge",
        trial=alarm_trial,
        arms=alarm_arms,
        metrics=ALARM_METRICS,
        inputs=_judge_inputs,
        claims=readings_of_judges.ALARMS,
        live=(),
        without=ONLY_TINY,
    ),
)
