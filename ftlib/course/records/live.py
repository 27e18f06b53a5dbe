"""An experiment in a notebook: one seed runs live with the student's own functions, and its results
are laid over the recorded ones.

    experiments = open_experiments("3.1.1")
    rates = experiments.run("rates", lora_forward=lora_forward)
    say(rates.summary("loss"))
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftlib.core.profiles import Profile, get_profile
from ftlib.core.seeds import over_seeds
from ftlib.core.stats import Interval, mean_interval, prediction_interval
from ftlib.course.records.claims import Decision, decide
from ftlib.course.records.compute import run_trial
from ftlib.course.records.experiment import LIVE_SEED, Experiment, Metric, find_experiment
from ftlib.course.records.store import NOT_COMPUTED, Entry, Record, read_record, to_compute

LEVEL = 0.95
ANOTHER_MODEL = "this model or data"  # of FTLIB_MODEL or FTLIB_ROWS, in the profile tiny
ROUNDING = (
    1e-3  # relative: what another processor's rounding may change in a trained model's result
)


@dataclass(frozen=True)
class Inside:
    """Whether a live result lies where a further run is expected, given the recorded ones."""

    arm: str
    live: float
    expected: Interval

    @property
    def holds(self) -> bool:
        return not self.expected.excludes(self.live)


@dataclass(frozen=True)
class Result:
    """What an experiment gave: the runs of `record`, and the live runs `live`, {arm: metrics}.

    `is_recorded` is False where the runs of `record` were made here and now, because the profile
    has no record that fits, or because FTLIB_LIVE=1 asked for it; then `live` is empty. `profile`
    is the one whose runs these are: tiny, where the session's profile or model has none recorded.
    """

    experiment: Experiment
    profile: Profile
    record: Record
    live: dict[str, dict[str, Any]]
    is_recorded: bool
    why: str  # there is no record that fits; else empty
    seconds: float  # that the runs of this session took
    shown_in: str = ""  # the profile or model that has none, where the runs are tiny's

    @property
    def arms(self) -> list[str]:
        """The arms that have runs, in the experiment's order."""
        return [arm for arm in self.experiment.arms(self.profile) if self.record.seeds_of(arm)]

    @property
    def seeds(self) -> list[int]:
        """The seeds that every arm has."""
        return self.record.seeds_of(*self.arms)

    def has(self, arm: str) -> bool:
        """Whether the arm has runs."""
        return arm in self.arms

    def settings(self, arm: str) -> dict[str, Any]:
        return dict(self.experiment.arms(self.profile)[arm])

    def values(self, arm: str, metric: str) -> np.ndarray:
        """The metric of every run, (seeds,), or (seeds, items)."""
        return self.record.values(arm, metric)

    def means(self, arm: str, metric: str) -> np.ndarray:
        """The metric's mean of every run, (seeds,)."""
        return self.record.means(arm, metric)

    def interval(self, arm: str, metric: str) -> Interval:
        """Mean over runs with Student's t interval at 95%."""
        return mean_interval(self.means(arm, metric))

    def live_mean(self, arm: str, metric: str) -> float:
        return float(np.mean(self.live[arm][metric]))

    def sample(self, arm: str, name: str) -> Any:
        """What one run left under this name, such as an answer: the live run's, else the first."""
        if arm in self.live:
            return self.live[arm][name]
        return self.record.entries[arm, self.seeds[0]].metrics[name]

    # --- the live runs beside the recorded ones ---------------------------------------------------
    def inside(self, metric: str) -> list[Inside]:
        """Each live arm's result with the prediction interval for a further run, at a level by
        which all of them lie inside together in 95% of cases (Bonferroni).
        """
        level = 1 - (1 - LEVEL) / max(1, len(self.live))
        wanted = self.experiment.metric(metric)
        found = []
        for arm in self.live:
            expected = prediction_interval(self.means(arm, metric), level)
            found.append(Inside(arm, self.live_mean(arm, metric), _widened(expected, wanted)))
        return found

    def live_line(self, metric: str) -> str:
        """A sentence on whether the live runs are what the record leads one to expect."""
        if not self.arms:
            return self.why
        if not self.is_recorded:
            return f"{self.why} {len(self.seeds)} seeds ran here, in {self.seconds:.0f} s."
        compared = self.inside(metric)
        if self.shown_in:
            return (
                f"From the record of tiny, a model of 4M parameters: {len(self.seeds)} seeds per "
                f"arm. There is no record of this experiment for {self.shown_in}."
            )
        if not compared:
            return f"From the record: {len(self.seeds)} seeds per arm, none of them run here."
        found = self.experiment.metric(metric)
        name = found.spoken or found.text
        outside = [one for one in compared if not one.holds]
        several = len(compared) > 1
        lie = "lies" if len(outside) == 1 else "lie"
        lead = (
            f"Live, at seed {LIVE_SEED}, in {self.seconds:.0f} s: {len(compared)} "
            f"{'runs' if several else 'run'} beside {len(self.seeds)} recorded ones per arm."
        )
        if not outside:
            subject = "all lie" if several else "it lies"
            level = "prediction intervals, 95% for all together" if several else "95%"
            return (
                f"{lead} By {name} {subject} inside the interval in which a further run is "
                f"expected ({level})."
            )
        listed = "; ".join(f"{one.arm}: {one.live:.3g}, expected {one.expected}" for one in outside)
        return (
            f"{lead} By {name} **{len(outside)} {lie} outside** the interval in which a further "
            f"run is expected (95% for all together): {listed}. Something differs from the "
            f"recorded runs: a function, a version ({_versions(self.record)} there), or chance, "
            "once in twenty notebooks."
        )

    # --- claims -----------------------------------------------------------------------------------
    def decisions(self) -> dict[str, Decision]:
        """What the runs say of each of the experiment's claims."""
        runs: dict[int, dict[str, dict[str, Any]]] = {}
        for entry in self.record.entries.values():
            runs.setdefault(entry.seed, {})[entry.arm] = entry.metrics
        return decide(self.experiment, runs)

    def outcome(self, claim: str) -> str:
        """ "above", "below" or "none"; "open" below five seeds. Where these runs do not measure the
        claim it is tiny's, as in `conclude`, and "open" where tiny's do not either.
        """
        if not self._measures(claim):
            there = self._in_tiny(claim)
            return there.outcome(claim) if there else "open"
        decision = self.decisions().get(claim)
        return decision.outcome if decision else "open"

    def conclude(self, claim: str) -> str:
        """The claim's number with its interval, and the reading that the runs choose."""
        if not self._measures(claim):
            text = self.experiment.claim(claim).text
            there = self._in_tiny(claim)
            elsewhere = there.conclude(claim) if there else ""
            said = [f"{text}: not measured here.", self.why, elsewhere]
            return " ".join(part for part in said if part)
        place = "In tiny, a model of 4M parameters: " if self.shown_in else ""
        return place + self.decisions()[claim].sentence

    def _measures(self, claim: str) -> bool:
        """Whether every arm that the claim compares has runs; an unknown claim is refused."""
        return set(self.experiment.claim(claim).contrast.arms) <= set(self.arms)

    def _in_tiny(self, claim: str) -> Result | None:
        """The runs of tiny, in a session of another profile, where they measure the claim."""
        tiny = get_profile("tiny")
        if self.profile.name == tiny.name:
            return None
        record = read_record(self.record.lab, self.experiment.name, tiny)
        there = Result(self.experiment, tiny, record, {}, True, "", 0.0, self.profile.name)
        return there if there._measures(claim) else None


def _widened(interval: Interval, metric: Metric) -> Interval:
    """With room for one step of the metric, and for rounding: recorded runs may all be equal."""
    size = max(abs(interval.low), abs(interval.high))
    room = max(metric.resolution, ROUNDING * size)
    return Interval(interval.mean, interval.low - room, interval.high + room)


def _versions(record: Record) -> str:
    found = {entry.made.get("torch", "unknown") for entry in record.entries.values()}
    return f"torch {', '.join(sorted(found))}"


# --- running --------------------------------------------------------------------------------------
class Experiments:
    """A lab's experiments in the session's profile."""

    def __init__(self, lab: str, profile: str | Profile | None = None):
        self.lab = lab
        self.profile = get_profile(profile)

    def run(self, name: str, **functions: Callable) -> Result:
        """The experiment's recorded runs, and its live arms at one seed with these functions in
        the place of ftlib's. All seeds run here with FTLIB_LIVE=1; a few where there is no record
        of this profile, model and data; none where the profile does not run the experiment.
        """
        experiment = find_experiment(self.lab, name)
        record = read_record(self.lab, name, self.profile)
        why, seeds = _why_live(record, experiment, self.profile)
        if why and not seeds:
            return self._tinys(experiment) or self._nothing(experiment, why)
        start = time.perf_counter()
        if why:
            live = {}
            record = self._all_here(experiment, seeds, functions)
        else:
            live = self._one_seed(experiment, functions)
        seconds = time.perf_counter() - start
        return Result(experiment, self.profile, record, live, not why, why, seconds)

    def show(self, name: str) -> Result:
        """The experiment's recorded runs alone: for a sweep of many runs, which nobody waits for.
        Where there is no record that fits, tiny's runs, and where there are none a result without
        runs; lines and figures say so.
        """
        experiment = find_experiment(self.lab, name)
        record = read_record(self.lab, name, self.profile)
        why, _ = _why_live(record, experiment, self.profile)
        if os.environ.get("FTLIB_LIVE") == "1":
            return self.run(name)
        if why:
            return self._tinys(experiment) or self._nothing(experiment, why)
        return Result(experiment, self.profile, record, {}, True, "", 0.0)

    def _tinys(self, experiment: Experiment) -> Result | None:
        """Tiny's recorded runs, for a profile or a model that has none of its own; None where tiny
        has none either.
        """
        tiny = get_profile("tiny")
        record = read_record(self.lab, experiment.name, tiny)
        if not record.entries:
            return None
        is_tiny = self.profile.name == tiny.name
        shown_in = ANOTHER_MODEL if is_tiny else self.profile.name
        return Result(experiment, tiny, record, {}, True, "", 0.0, shown_in)

    def _nothing(self, experiment: Experiment, why: str) -> Result:
        """A result without runs, which says how they are made, where the profile makes them."""
        if experiment.is_run_in(self.profile):
            runs = experiment.seeds_of(self.profile) * len(experiment.arms(self.profile))
            asked = f"{self.lab} --experiment {experiment.name} --profile {self.profile.name}"
            why += f" `ftlib record {asked}` makes its {runs} runs."
        record = Record(self.lab, experiment.name, self.profile.name)
        return Result(experiment, self.profile, record, {}, False, why, 0.0)

    def _one_seed(self, experiment: Experiment, functions: dict) -> dict[str, dict[str, Any]]:
        arms = experiment.live_arms(self.profile)
        jobs = [(arm, LIVE_SEED) for arm in arms]
        results = self._run(experiment, jobs, functions)
        return dict(zip(arms, results, strict=True))

    def _all_here(self, experiment: Experiment, seeds: Sequence[int], functions: dict) -> Record:
        """A record in memory of runs that are made now."""
        arms = experiment.arms(self.profile)
        jobs = [(arm, seed) for seed in seeds for arm in arms]
        results = self._run(experiment, jobs, functions)
        record = Record(self.lab, experiment.name, self.profile.name, experiment.title)
        for (arm, seed), metrics in zip(jobs, results, strict=True):
            record.entries[arm, seed] = Entry(arm, seed, dict(arms[arm]), metrics, 0.0, {})
        return record

    def _run(self, experiment: Experiment, jobs: list[tuple], functions: dict) -> list[dict]:
        arms = experiment.arms(self.profile)
        if experiment.prepare and jobs:
            experiment.prepare(self.profile)

        def one(job: tuple) -> dict:
            arm, seed = job
            return run_trial(experiment, self.profile, seed, dict(arms[arm]), **functions)

        return over_seeds(one, jobs, self.profile.run_gb)


def open_experiments(lab: str, profile: str | Profile | None = None) -> Experiments:
    """The experiments of a lab such as "3.1.1"."""
    return Experiments(lab, profile)


def _why_live(
    record: Record, experiment: Experiment, profile: Profile
) -> tuple[str, Sequence[int]]:
    """Why all runs must be made now, and with which seeds (none where the profile's runs are too
    long to wait for); empty where the record serves.
    """
    if not experiment.is_run_in(profile):
        return f"The profile {profile.name} does not run this experiment.", ()
    if os.environ.get("FTLIB_LIVE") == "1":
        return "FTLIB_LIVE=1 asks for all runs to be made now.", range(experiment.seeds_of(profile))
    if not record.entries:
        return (
            f"There is no record of this experiment for the profile {profile.name}.",
            profile.live_seeds,
        )
    jobs = to_compute(record, experiment, profile)
    stale = [job for job in jobs if _is_another(job.why)]
    if stale:
        return f"The record does not fit: {stale[0].why}.", profile.live_seeds
    missing = [job for job in jobs if job.why == NOT_COMPUTED]
    if missing and not profile.runs_unrecorded:
        return f"The record for the profile {profile.name} lacks {len(missing)} of its runs.", ()
    return "", ()


def _is_another(why: str) -> bool:
    """Whether an entry is of another experiment than this one: of other data or another base
    (FTLIB_MODEL, FTLIB_ROWS), or of other settings. A changed trial is the tests' concern.
    """
    return why.startswith("its ")
