"""Compute the entries of a record that are missing or stale: `ftlib record`.

One process a core, each with one thread, or one process on a GPU. Every entry is in the file as
soon as it is computed, so an end at any moment costs the entries that were being computed and
nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, cast

import torch
from tqdm import tqdm

from ftlib.core.profiles import Profile, get_profile
from ftlib.core.rehearsal import refuse_in_rehearsal
from ftlib.core.runtime import configure
from ftlib.core.seeds import workers
from ftlib.course.records.empty_folder import in_empty_folder
from ftlib.course.records.experiment import Experiment, experiments_of
from ftlib.course.records.provenance import provenance
from ftlib.course.records.store import (
    Entry,
    Job,
    Record,
    add_entries,
    conditions,
    read_record,
    rounded,
    to_compute,
)

NICE = 10  # a recording gives way to whatever else the machine is asked for

log = logging.getLogger("ftlib")


class RecordingError(ValueError):
    """Some entries could not be computed; the message names them and says why."""


def run_trial(
    experiment: Experiment, profile: Profile, seed: int, settings: dict[str, Any], **functions: Any
) -> dict[str, Any]:
    """The trial's result as it is kept: rounded, with every metric that the experiment names."""
    result = experiment.trial(profile, seed, **settings, **functions)
    return _kept(result, tuple(metric.name for metric in experiment.metrics))


def _kept(result: dict[str, Any], metrics: tuple[str, ...]) -> dict[str, Any]:
    missing = [name for name in metrics if name not in result]
    if missing:
        raise ValueError(
            f"the trial returns no {', '.join(missing)}: it returns {', '.join(result)}"
        )
    return rounded(result)


@dataclass(frozen=True)
class _Task:
    """What a worker needs for one entry; the trial travels as its module's name and its own."""

    trial: Callable[..., dict]
    metrics: tuple[str, ...]
    profile: Profile
    job: Job
    conditions: dict[str, Any]

    def compute(self) -> Entry:
        job = self.job
        start = time.perf_counter()
        metrics = _kept(self.trial(self.profile, job.seed, **job.settings), self.metrics)
        seconds = round(time.perf_counter() - start, 2)
        made = {**provenance(), **self.conditions}
        return Entry(job.arm, job.seed, job.settings, metrics, seconds, made)


# --- in a worker ----------------------------------------------------------------------------------
def _serve(pipe: Connection, folder: str) -> None:
    """Compute in the folder what comes through the pipe until it closes. A worker whose parent was
    killed ends too.
    """
    os.chdir(folder)  # multiprocessing has gone to where the parent was started
    threading.Thread(target=_end_with_parent, daemon=True).start()
    configure(progress_bars=False, library_warnings=False)
    torch.set_num_threads(1)
    os.nice(NICE)
    log.setLevel(logging.WARNING)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            task = pipe.recv()
            try:
                pipe.send((task.compute(), ""))
            except Exception as error:
                pipe.send((None, f"{type(error).__name__}: {error}"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


class _Worker:
    """A process that computes one entry at a time."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # No daemon, which may start no processes itself, as the trials of lab E7 do; it ends with
        # its parent all the same.
        self.process = context.Process(target=_serve, args=(theirs, os.getcwd()), daemon=False)
        self.process.start()
        theirs.close()

    def result(self) -> tuple[Entry | None, str]:
        """What came of the entry; an error where the process has died."""
        try:
            return self.pipe.recv()
        except EOFError:
            self.process.join()
            return None, f"its process died (exit code {self.process.exitcode}; out of memory?)"

    def stop(self) -> None:
        self.pipe.close()
        self.process.terminate()


# --- scheduling -----------------------------------------------------------------------------------
@dataclass
class _Plan:
    """The jobs of one experiment, and what its entries have taken so far."""

    record: Record
    experiment: Experiment
    waiting: list[Job]
    seconds: dict[str, float] = field(default_factory=dict)  # by arm

    def note(self, entry: Entry) -> None:
        self.seconds[entry.arm] = entry.seconds

    def seconds_left(self) -> float:
        """Estimate of what the waiting entries take in one process; 0 where none was computed."""
        if not self.seconds:
            return 0.0
        mean = sum(self.seconds.values()) / len(self.seconds)
        return sum(self.seconds.get(job.arm, mean) for job in self.waiting)


def plan(lab: str, experiment: Experiment, profile: Profile, seeds: int | None = None) -> _Plan:
    """What there is to compute of an experiment."""
    record = read_record(lab, experiment.name, profile)
    jobs = to_compute(record, experiment, profile, seeds)
    planned = _Plan(record, experiment, jobs)
    for entry in record.entries.values():
        planned.note(entry)
    return planned


def record_experiment(
    lab: str,
    experiment: Experiment,
    profile: Profile,
    seeds: int | None = None,
    processes: int | None = None,
    show: bool = True,
) -> Record:
    """Compute what is missing or stale of one experiment, and return its record.

    `seeds`: how many instead of the experiment's own; `processes`: one a core by default, one on a
    GPU (FTLIB_WORKERS). RecordingError, after everything else is computed, names the entries that
    failed.
    """
    planned = plan(lab, experiment, profile, seeds)
    count = min(processes or workers(profile.run_gb), len(planned.waiting))
    name = planned.record.name
    failed = []
    total = len(planned.waiting)
    if experiment.prepare and total:
        experiment.prepare(profile)
    bar = tqdm(total=total, desc=name, unit="entry", mininterval=5, disable=not (show and total))
    with bar:
        for job, entry, error in _results(planned, profile, count):
            if entry is None:
                failed.append(f"{job.arm}, seed {job.seed}: {error}")
            else:
                planned.note(entry)
                add_entries(planned.record, experiment, [entry])
            bar.set_postfix_str(_time_left(planned, count), refresh=False)
            bar.update()
    if failed:
        raise RecordingError(f"{name}: {len(failed)} of {total} entries failed: {failed[0]}")
    return planned.record


def _time_left(planned: _Plan, count: int) -> str:
    minutes = planned.seconds_left() / count / 60
    return f"about {minutes:.1f} min left"


def _results(
    planned: _Plan, profile: Profile, count: int
) -> Iterator[tuple[Job, Entry | None, str]]:
    """(job, entry, error) of each waiting job, as they come from `count` processes."""
    experiment = planned.experiment
    metrics = tuple(metric.name for metric in experiment.metrics)
    now = conditions(experiment, profile)
    running: dict[Connection, tuple[_Worker, Job]] = {}
    idle = [_Worker() for _ in range(count)]
    try:
        while planned.waiting or running:
            while planned.waiting and idle:
                worker = idle.pop()
                job = planned.waiting.pop(0)
                worker.pipe.send(_Task(experiment.trial, metrics, profile, job, now))
                running[worker.pipe] = (worker, job)
            ready = multiprocessing.connection.wait(list(running))
            for pipe in cast(Sequence[Connection], ready):
                worker, job = running.pop(pipe)
                entry, error = worker.result()
                idle.append(worker if worker.process.is_alive() else _Worker())
                yield job, entry, error
    finally:
        for worker in idle:
            worker.stop()
        for worker, _ in running.values():
            worker.stop()


def record_labs(
    labs: list[str],
    profile: str | None = None,
    names: list[str] | None = None,
    seeds: int | None = None,
    processes: int | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Record the experiments of these labs, or those in `names`, in order: a later one may use
    what an earlier one has chosen. RecordingError, after all others, where some failed.
    """
    refuse_in_rehearsal("ftlib record")
    chosen = get_profile(profile)
    failed = []
    for lab, experiment in _chosen(labs, names, chosen):
        start = time.perf_counter()
        try:
            with in_empty_folder():
                record = record_experiment(lab, experiment, chosen, seeds, processes)
        except RecordingError as error:
            failed.append(str(error))
            continue
        minutes = (time.perf_counter() - start) / 60
        say(f"{record.name}: {len(record.entries)} entries, {minutes:.1f} min")
    if failed:
        raise RecordingError("\n".join(failed))


def _chosen(
    labs: list[str], names: list[str] | None, profile: Profile
) -> list[tuple[str, Experiment]]:
    """The experiments of these names; without names those that the profile runs."""
    found = [(lab, experiment) for lab in labs for experiment in experiments_of(lab)]
    if not names:
        return [(lab, experiment) for lab, experiment in found if experiment.is_run_in(profile)]
    known = {experiment.name for _, experiment in found}
    for name in names:
        if name not in known:
            raise ValueError(
                f"experiment {name!r} is unknown in {', '.join(labs)}: there are "
                f"{', '.join(sorted(known)) or 'none'}"
            )
    return [(lab, experiment) for lab, experiment in found if experiment.name in names]
