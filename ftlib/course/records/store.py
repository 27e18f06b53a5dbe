"""A record: what every arm of an experiment gave, seed by seed, in one small JSON file.

    labs/records/tiny/3.1.1-rates.json
    {"lab": "3.1.1", "experiment": "rates", "profile": "tiny", "title": "…",
     "metrics": {"loss": "held-out loss (nats per token)"},
     "made": [{"device": …, "torch": …, "commit": …, "code": …, "inputs": {…}}],
     "entries": [
      {"arm": "LoRA 4e-3", "seed": 0, "settings": {…}, "metrics": {…}, "seconds": 3.1, "made": 0},
      …]}

One line an entry, so that a change of the file reads like a change of code. Entries that were
computed under the same conditions share one item of `made`. In pandas:

    pd.DataFrame(read_record("3.1.1", "rates").table())

or, without ftlib, `pd.json_normalize(json.load(open(file))["entries"])`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ftlib.core.atomic import replacing
from ftlib.core.errors import DataError
from ftlib.core.locks import locked
from ftlib.core.paths import LABS
from ftlib.core.profiles import Profile, get_profile
from ftlib.course.records.digest import code_digest, input_digests, profile_values
from ftlib.course.records.experiment import Experiment, find_experiment

RECORDS = LABS / "records"
NOT_COMPUTED = "not computed yet"
DIGITS = 6  # significant digits of a number that is kept


@dataclass(frozen=True)
class Entry:
    """One arm at one seed. `made`: device, versions and commit; digests of code and inputs."""

    arm: str
    seed: int
    settings: dict[str, Any]
    metrics: dict[str, Any]
    seconds: float
    made: dict[str, Any]

    @property
    def key(self) -> tuple[str, int]:
        return self.arm, self.seed


@dataclass
class Record:
    """The entries of one experiment in one profile."""

    lab: str
    experiment: str
    profile: str
    title: str = ""
    metrics: dict[str, str] = field(default_factory=dict)
    entries: dict[tuple[str, int], Entry] = field(default_factory=dict)

    def table(self) -> list[dict[str, Any]]:
        """A flat row an entry, for pandas: arm, seed, settings and metrics by their names,
        seconds, device.
        """
        rows = []
        for entry in self.entries.values():
            own = {
                "arm": entry.arm,
                "seed": entry.seed,
                "seconds": entry.seconds,
                "device": entry.made.get("device", ""),
            }
            row = own | entry.settings | entry.metrics | own  # own columns first, and kept
            rows.append(row)
        return rows

    def seeds_of(self, *arms: str) -> list[int]:
        """The seeds that all of the arms have."""
        common = None
        for arm in arms:
            seeds = {seed for name, seed in self.entries if name == arm}
            common = seeds if common is None else common & seeds
        return sorted(common or ())

    def values(self, arm: str, metric: str) -> np.ndarray:
        """One value a seed, or (seeds, items); DataError where an entry lacks the metric, or where
        seeds have unlike numbers of items.
        """
        found = self._of_runs(arm, metric)
        counts = sorted({np.size(value) for value in found})
        if len(counts) > 1:
            raise DataError(
                f"{self.name}: {metric!r} of {arm} has {counts[0]} to {counts[-1]} items a seed: "
                "use means()"
            )
        return np.array(found, dtype=float)

    def means(self, arm: str, metric: str) -> np.ndarray:
        """Each run's mean of the metric, (seeds,), whatever its number of items."""
        return np.array([np.mean(value) for value in self._of_runs(arm, metric)], dtype=float)

    def _of_runs(self, arm: str, metric: str) -> list[Any]:
        found = []
        for seed in self.seeds_of(arm):
            metrics = self.entries[arm, seed].metrics
            if metric not in metrics:
                raise DataError(f"{self.name}: {arm}, seed {seed} has no {metric!r}")
            found.append(metrics[metric])
        return found

    @property
    def name(self) -> str:
        return f"{self.lab} {self.experiment} ({self.profile})"


def record_path(lab: str, experiment: str, profile: str) -> Path:
    return RECORDS / profile / f"{lab}-{experiment}.json"


# --- reading --------------------------------------------------------------------------------------
def read_record(lab: str, experiment: str, profile: str | Profile | None = None) -> Record:
    """The record of an experiment; without entries where there is none. DataError for a file that
    is none.
    """
    profile_name = get_profile(profile).name
    record = Record(lab, experiment, profile_name)
    path = record_path(lab, experiment, profile_name)
    if not path.exists():
        return record
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record.title = content["title"]
        record.metrics = content["metrics"]
        for line in content["entries"]:
            entry = Entry(**{**line, "made": content["made"][line["made"]]})
            record.entries[entry.key] = entry
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{path} is no record ({type(error).__name__}: {error}): take it from the repository "
            "again, or delete it and compute it with `ftlib record`"
        ) from None
    return record


# --- writing --------------------------------------------------------------------------------------
def rounded(value: Any) -> Any:
    """Numbers to `DIGITS` significant digits, in lists and dicts too, as plain JSON values.
    DataError for a NaN or an infinity: a run that diverged is reported by a finite number.
    """
    if isinstance(value, Mapping):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, (bool, str, int)) or value is None:
        return value
    array = np.asarray(value)
    if array.ndim:
        return [rounded(item) for item in array.tolist()]
    number = float(array)
    if not np.isfinite(number):
        raise DataError(f"a metric is {number}: give a finite number, or leave the metric out")
    return float(f"{number:.{DIGITS}g}")


def add_entries(record: Record, experiment: Experiment, new: list[Entry]) -> None:
    """Add entries to the record and to its file, which another process may have written meanwhile.

    The file is written beside and renamed: after a kill it is the old one or the new one.
    """
    path = record_path(record.lab, record.experiment, record.profile)
    with locked(path, "record"):
        record.entries = read_record(record.lab, record.experiment, record.profile).entries
        for entry in new:
            record.entries[entry.key] = entry
        _drop_undefined(record, experiment)
        with replacing(path) as temporary:
            temporary.write_text(_as_text(record, experiment), encoding="utf-8")


def _drop_undefined(record: Record, experiment: Experiment) -> None:
    """Leave out entries of arms that the experiment does not have any more."""
    arms = experiment.arms(get_profile(record.profile))
    record.entries = {key: e for key, e in record.entries.items() if e.arm in arms}


def _as_text(record: Record, experiment: Experiment) -> str:
    made: list[dict] = []
    lines = []
    order = list(experiment.arms(get_profile(record.profile)))
    for entry in sorted(record.entries.values(), key=lambda e: (order.index(e.arm), e.seed)):
        if entry.made not in made:
            made.append(entry.made)
        line = {
            "arm": entry.arm,
            "seed": entry.seed,
            "settings": entry.settings,
            "metrics": entry.metrics,
            "seconds": entry.seconds,
            "made": made.index(entry.made),
        }
        lines.append(json.dumps(line, ensure_ascii=False))
    head = {
        "lab": record.lab,
        "experiment": record.experiment,
        "profile": record.profile,
        "title": experiment.title,
        "metrics": {metric.name: metric.label for metric in experiment.metrics},
        "made": made,
    }
    opened = json.dumps(head, ensure_ascii=False, indent=1)
    entries = ",\n  ".join(lines)
    return f'{opened.removesuffix("}").rstrip()},\n "entries": [\n  {entries}\n ]\n}}\n'


# --- stale or missing -----------------------------------------------------------------------------
@dataclass(frozen=True)
class Job:
    """An entry to compute, and why: "not computed yet", "the trial's code has changed", …"""

    arm: str
    seed: int
    settings: dict[str, Any]
    why: str


def conditions(experiment: Experiment, profile: Profile) -> dict[str, Any]:
    """What an entry's result depends on besides its settings: digests of the trial's code and of
    its inputs, and what the code reads of the profile.
    """
    return {
        "code": code_digest(experiment.trial),
        "profile": rounded(profile_values(experiment.trial, profile)),
        "inputs": input_digests(experiment.inputs(profile)),
    }


def _why_stale(entry: Entry, settings: dict[str, Any], now: dict[str, Any]) -> str:
    if entry.made.get("code") != now["code"]:
        return "the trial's code has changed"
    before = entry.made.get("inputs", {})
    for name, digest in now["inputs"].items():
        if before.get(name) != digest:
            return f"its input {name!r} has changed"
    return _changed("profile's", entry.made.get("profile", {}), now["profile"]) or _changed(
        "setting", entry.settings, settings
    )


def _changed(what: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first value that differs, in words; empty where none does."""
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            return f"its {what} {name!r} was {before.get(name)!r} and is {now.get(name)!r}"
    return ""


def to_compute(
    record: Record, experiment: Experiment, profile: Profile, seeds: int | None = None
) -> list[Job]:
    """The jobs whose entries are missing or stale, seed by seed: an interrupted recording then has
    all arms of the first seeds.
    """
    now = conditions(experiment, profile)
    arms = experiment.arms(profile)
    jobs = []
    for seed in range(experiment.seeds_of(profile) if seeds is None else seeds):
        for arm, given in arms.items():
            settings = rounded(given)
            entry = record.entries.get((arm, seed))
            why = _why_stale(entry, settings, now) if entry else NOT_COMPUTED
            if why:
                jobs.append(Job(arm, seed, settings, why))
    return jobs


# --- choosing by a record -------------------------------------------------------------------------
def best_arm(
    lab: str,
    experiment: str,
    metric: str,
    arms: list[str],
    default: str,
    profile: str | Profile | None = None,
    tie: float = 0.0,
    zero: float = 0.0,
) -> str:
    """The arm whose mean of the metric over the recorded seeds is best: how one experiment takes
    the rate that another has found. `default` where one of the arms has no entry yet.

    Arms that are worse by at most `tie`, a share of the best mean's distance from `zero` (one half
    for a win rate), count as equally good, and the first of them in `arms` is taken. With rates
    from low to high that is the lowest one: near its best a loss is flat in the rate while what is
    forgotten is steep, so that a bare minimum would be a toss that decides what is forgotten.
    """
    record = read_record(lab, experiment, profile)
    found = find_experiment(lab, experiment)
    wanted = found.metric(metric)
    had = found.arms(get_profile(profile))  # a profile may have fewer
    costs = {}
    for arm in [arm for arm in arms if arm in had]:
        means = record.means(arm, metric)
        if not len(means):
            return default
        mean = means.mean() - zero
        costs[arm] = mean if wanted.lower_is_better else -mean
    if not costs:
        return default
    lowest = min(costs.values())
    enough = lowest + tie * abs(lowest)
    return next(arm for arm in costs if costs[arm] <= enough)
