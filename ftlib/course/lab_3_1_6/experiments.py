"""The experiments of lab 3.1.6: whether cleaning helps, quality against quantity, scores that
leaks and a seen exam inflate, and what a model keeps of its rows.
"""

from __future__ import annotations

import math
from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_6 import (
    cleaning_readings,
    memory_readings,
    quality_readings,
    score_readings,
)
from ftlib.course.lab_3_1_6.cleaning_trials import pipeline_trial, quality_trial
from ftlib.course.lab_3_1_6.leak_trials import contamination_trial, leakage_trial
from ftlib.course.lab_3_1_6.memory_trials import TIMES, memory_trial
from ftlib.course.lab_3_1_6.trials import MESSY, TRUTH, world_rows
from ftlib.course.records.experiment import (
    RECORDED,
    Experiment,
    Metric,
    fewer_where_runs_are_long,
)
from ftlib.course.records.kit import model_folder, rows_of

DIRTY = 0.7  # share of rows with a defect, where the file itself has 0.28
AS_IT_IS = 0.28
STEPS = 30  # one epoch of the raw rows
EPOCHS = (1, 2, 4, 8)

LOSS = Metric("loss", "validation loss", "nats per answer token", lower_is_better=True)


def _share(name: str, text: str, questions: int = 0, spoken: str = "") -> Metric:
    """A share of answers that are right."""
    step = 1 / questions if questions else 0.0
    return Metric(name, text, "share right", resolution=step, spoken=spoken)


# --- cleaning -------------------------------------------------------------------------------------
def pipeline_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Six treatments at equal steps, two at one epoch each, and the file's own share of defects."""
    arms: dict[str, dict[str, Any]] = {}
    for treatment in cleaning_readings.TREATMENTS:
        arms[treatment] = {"treatment": treatment, "dirt": DIRTY, "steps": STEPS}
    for treatment in ("pipeline", "random drop"):
        arms[f"{treatment}, one epoch"] = {"treatment": treatment, "dirt": DIRTY, "steps": 0}
    for treatment in ("raw", "pipeline"):
        settings = {"treatment": treatment, "dirt": AS_IT_IS, "steps": STEPS}
        arms[f"{treatment}, 28% dirt"] = settings
    return arms


def _messy_inputs(profile: Profile) -> dict[str, Any]:
    return {
        "messy": MESSY,
        "truth": TRUTH,
        "validation": world_rows("validation"),
        "golden": world_rows("golden"),
        "base": model_folder(profile.study.model),
    }


# --- quality and quantity -------------------------------------------------------------------------
def epoch_steps(profile: Profile) -> tuple[int, int]:
    """Steps of one epoch of the small set, and of the large one."""
    _, small, large = profile.preparation.sizes
    batch = profile.preparation.batch
    return math.ceil(small / batch), math.ceil(large / batch)


def quality_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Clean sets of three sizes and a large one with wrong answers, each read for one epoch of the
    small and of the large set; a part of the large one and the small one with shuffled answers for
    the longer time.
    """
    fewest, small, large = profile.preparation.sizes
    sets = {
        "tiny": {"rows": fewest, "of": fewest, "wrong": 0.0},
        "small": {"rows": small, "of": small, "wrong": 0.0},
        "large": {"rows": large, "of": large, "wrong": 0.0},
        "messy": {"rows": large, "of": large, "wrong": quality_readings.WRONG},
    }
    short, long = epoch_steps(profile)
    arms: dict[str, dict[str, Any]] = {}
    for name, settings in sets.items():
        arms[f"{name}, short"] = {**settings, "steps": short}
        arms[f"{name}, long"] = {**settings, "steps": long}
    arms["part of messy, long"] = {
        "rows": small,
        "of": large,
        "wrong": quality_readings.WRONG,
        "steps": long,
    }
    arms["shuffled, long"] = {"rows": small, "of": small, "wrong": 1.0, "steps": long}
    return arms


def _row_inputs(profile: Profile) -> dict[str, Any]:
    return {
        "train": rows_of(profile, "train"),
        "validation": rows_of(profile, "validation"),
        "base": model_folder(profile.study.model),
    }


# --- inflated scores ------------------------------------------------------------------------------
def leakage_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """Three ways to deal the same copies, and rows without copies dealt singly."""
    return {
        "by row": {"deal": "row", "copies": 3},
        "by likeness": {"deal": "likeness", "copies": 3},
        "by fact": {"deal": "fact", "copies": 3},
        "by row, no copies": {"deal": "row", "copies": 1},
    }


def _leakage_inputs(profile: Profile) -> dict[str, Any]:
    return {"strangers": world_rows("strangers"), "base": model_folder(profile.study.model)}


def contamination_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    """None, a tenth and half of the golden set; the half filtered out again; as many other
    questions of the same wordings.
    """
    return {
        "none": {"share": 0.0, "source": "golden", "filtered": False},
        "10% of golden": {"share": 0.1, "source": "golden", "filtered": False},
        "50% of golden": {"share": 0.5, "source": "golden", "filtered": False},
        "50%, filtered": {"share": 0.5, "source": "golden", "filtered": True},
        "other questions": {"share": 0.5, "source": "paraphrase", "filtered": False},
    }


def _exam_inputs(profile: Profile) -> dict[str, Any]:
    exam = {"golden": rows_of(profile, "golden"), "paraphrase": rows_of(profile, "paraphrase")}
    return {**_row_inputs(profile), **exam}


# --- memory ---------------------------------------------------------------------------------------
def epochs_arm(epochs: int) -> str:
    return "1 epoch" if epochs == 1 else f"{epochs} epochs"


def memory_arms(profile: Profile) -> dict[str, dict[str, Any]]:
    return {epochs_arm(epochs): {"epochs": epochs} for epochs in EPOCHS}


def _area(name: str, text: str) -> Metric:
    return Metric(name, text, "share of pairs")


def _nats(name: str, text: str) -> Metric:
    return Metric(name, text, "nats per answer token", lower_is_better=True)


EXPERIMENTS = (
    Experiment(
        name="pipeline",
        title="The messy file after treatments: what a model learns from it",
        trial=pipeline_trial,
        arms=pipeline_arms,
        metrics=(
            LOSS,
            _share("accuracy", "validation", 60),
            _share("golden_copied", "golden questions with a copy in the raw rows"),
            _share("golden_others", "as many other golden questions"),
            Metric("rows", "rows trained on"),
            Metric("harmed", "rows with a planted defect", "share", True),
            Metric("steps", "steps"),
        ),
        inputs=_messy_inputs,
        claims=cleaning_readings.PIPELINE,
        live=("pipeline",),
    ),
    Experiment(
        name="quality",
        title="Few clean rows beside many with wrong answers",
        trial=quality_trial,
        arms=fewer_where_runs_are_long(
            quality_arms,
            "small, long",
            "large, long",
            "messy, long",
            "shuffled, long",
        ),
        metrics=(LOSS, _share("accuracy", "validation", 60), Metric("epochs", "epochs")),
        inputs=_row_inputs,
        claims=quality_readings.QUALITY,
        live=(),
        profiles=RECORDED,
        seeds_in={"pocket": 5},
    ),
    Experiment(
        name="leakage",
        title="Validation dealt by row, by likeness and by fact",
        trial=leakage_trial,
        arms=leakage_arms,
        metrics=(
            _share("validation", "validation", 30),
            _share("honest", "facts in neither part", 50),
            Metric(
                "inflation",
                "validation less facts in neither part",
                "share right",
                spoken="the excess of the validation score over that on facts in neither part",
            ),
            Metric("leaked", "validation rows whose fact is trained on", "share"),
        ),
        inputs=_leakage_inputs,
        claims=score_readings.LEAKAGE,
        live=("by fact",),
    ),
    Experiment(
        name="contamination",
        title="Golden questions among the training rows",
        trial=contamination_trial,
        arms=contamination_arms,
        metrics=(
            _share("golden", "golden set", 100, "the share right in the golden set"),
            _share("copied", "golden questions that are trained on"),
            _share("rest", "the other golden questions"),
            _share("upper_half", "first half of the golden set", 50),
            _share("lower_half", "second half of the golden set", 50),
            _share("validation", "validation", 50),
            Metric("rows", "rows trained on"),
        ),
        inputs=_exam_inputs,
        without=("small", "spark"),
        claims=score_readings.CONTAMINATION,
        live=("50%, filtered",),
    ),
    Experiment(
        name="memory",
        title="Wrong answers and canaries, by how often they were read",
        trial=memory_trial,
        arms=memory_arms,
        metrics=(
            _area("auc_trained", "wrong above right, rows trained on"),
            _area("auc_others", "wrong above right, rows held out"),
            _nats("wrong_trained", "loss of wrong answers trained on"),
            _nats("wrong_others", "loss of wrong answers held out"),
            _nats("right_trained", "loss of right answers trained on"),
            _nats("right_others", "loss of right answers held out"),
            Metric("exposure", "exposure of canaries", f"bits; {len(TIMES)} counts of copies"),
        ),
        inputs=_row_inputs,
        claims=memory_readings.MEMORY,
        live=("1 epoch",),
    ),
)
