"""A lab's experiments that take milliseconds, for the tests of records. Run as a module it records
them into the folder that is named: `python -m toy_experiments FOLDER`.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from ftlib.course import catalogue
from ftlib.course.records import store
from ftlib.course.records.compute import record_labs
from ftlib.course.records.experiment import Claim, Experiment, Metric, difference, slope

OFFSET = 1.0


def toy_module(number: str) -> str:
    return "toy_experiments"


def offset_of(arm: float) -> float:
    return OFFSET * arm


def measured(noise: float) -> float:
    """What a student would write."""
    return noise


def trial(profile, seed, arm: float, spread: float, measure=measured) -> dict:
    time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
    if os.environ.get("TOY_FAILS") == f"{arm} {seed}":
        raise RuntimeError("out of luck")
    if os.environ.get("TOY_DIES") == f"{arm} {seed}":
        os._exit(9)
    rng = np.random.default_rng(seed)
    common = rng.normal()
    loss = offset_of(arm) + common + spread * measure(rng.normal())
    return {
        "loss": loss,
        "shares": [0.0, 0.5, 1.0],
        "steps": profile.study.steps,
        "sees_own_runs": Path("runs").exists(),
    }


def arms(profile) -> dict:
    return {f"arm {arm:g}": {"arm": arm, "spread": 0.1} for arm in (0.0, 1.0, 2.0)}


def inputs(profile) -> dict:
    return {"rows": [{"text": "a"}, {"text": "b"}]}


READINGS = {"above": "It is above.", "below": "It is below.", "none": "Nothing is shown."}
EXPERIMENTS = (
    Experiment(
        name="offsets",
        title="Three arms that differ by one",
        trial=trial,
        arms=arms,
        metrics=(
            Metric("loss", "held-out loss", "nats", lower_is_better=True),
            Metric("shares", "right answers", resolution=1 / 3),
        ),
        inputs=inputs,
        claims=(
            Claim(
                "first", "loss, arm 1 − arm 0", difference("loss", "arm 1", "arm 0"), "above",
                unit="nats", **READINGS,
            ),
            Claim(
                "equal", "shares, arm 1 − arm 0", difference("shares", "arm 1", "arm 0"), "none",
                **READINGS,
            ),
            Claim(
                "trend", "loss per step of the arm",
                slope("loss", {"arm 0": 0, "arm 1": 1, "arm 2": 2}), "above", **READINGS,
            ),
        ),
        live=("arm 0", "arm 1"),
    ),
)  # fmt: skip

if __name__ == "__main__":
    catalogue.experiments_module = toy_module
    store.RECORDS = Path(sys.argv[1])
    record_labs(["3.1.1"], "tiny", processes=2)
