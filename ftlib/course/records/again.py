"""Compute entries of a record again, and hold the results against what is recorded."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftlib.core.profiles import Profile
from ftlib.course.records.compute import run_trial
from ftlib.course.records.empty_folder import in_empty_folder
from ftlib.course.records.experiment import Experiment, Metric, experiments_of
from ftlib.course.records.store import Entry, Record, read_record

# What may differ on another processor, whose other order of summation grows over the steps of a
# run: a share of the value, a share of the spread over seeds (where training is chaotic, rounding
# moves a run as another seed would), or a few steps of a metric that has steps.
SHARE = 0.02
DEVIATIONS = 1.5
STEPS = 2


@dataclass(frozen=True)
class Drawn:
    """An entry with what it takes to compute it again."""

    experiment: Experiment
    record: Record
    entry: Entry

    @property
    def name(self) -> str:
        return f"{self.record.name}, {self.entry.arm}, seed {self.entry.seed}"


def draw_entries(
    labs: Sequence[str], profile: Profile, count: int, seed: str, seconds: float
) -> list[Drawn]:
    """`count` recorded entries, others for another `seed`; each of another experiment as long as
    there are such, none that took more than `seconds`, and none of an arm that measures rounding.
    """
    by_experiment: dict[str, list[Drawn]] = {}
    for lab in labs:
        for experiment in experiments_of(lab):
            record = read_record(lab, experiment.name, profile)
            for entry in record.entries.values():
                if entry.seconds <= seconds and entry.arm not in experiment.rounded:
                    drawn = Drawn(experiment, record, entry)
                    by_experiment.setdefault(record.name, []).append(drawn)
    rng = random.Random(seed)
    names = sorted(by_experiment)
    rng.shuffle(names)
    return [rng.choice(by_experiment[name]) for name in names[:count]]


def compute_again(drawn: Drawn, profile: Profile) -> dict[str, Any]:
    """The trial's result, now and here."""
    with in_empty_folder():
        return run_trial(drawn.experiment, profile, drawn.entry.seed, drawn.entry.settings)


def disagreements(drawn: Drawn, metrics: Mapping[str, Any]) -> list[str]:
    """A sentence for each metric that differs from the record by more than rounding explains; times
    are left out.
    """
    found = []
    for metric in drawn.experiment.metrics:
        if metric.of_machine:
            continue
        before = float(np.mean(drawn.entry.metrics[metric.name]))
        now = float(np.mean(metrics[metric.name]))
        allowed = _allowed(drawn, metric, before)
        if abs(now - before) > allowed:
            found.append(
                f"{drawn.name}: {metric.text} is {now:.4g}, {before:.4g} is recorded, "
                f"{allowed:.2g} may lie between them"
            )
    return found


def _allowed(drawn: Drawn, metric: Metric, value: float) -> float:
    means = drawn.record.means(drawn.entry.arm, metric.name)
    spread = float(means.std(ddof=1)) if len(means) > 1 else 0.0
    return max(SHARE * abs(value), DEVIATIONS * spread, STEPS * metric.resolution)
