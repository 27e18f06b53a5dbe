"""Keep the entries of a record whose trial was rewritten without a change of what it gives.

An edit of a trial's code makes its entries stale, and an edit of what trials share makes all of
them stale. Where entries that are computed again come out as recorded, the edit has changed no
result: then the others need no recomputing, only the new digest.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ftlib.core.profiles import Profile, get_profile
from ftlib.core.rehearsal import refuse_in_rehearsal
from ftlib.course.records.again import Drawn, compute_again, disagreements
from ftlib.course.records.compute import RecordingError
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
    to_compute,
)

CHECKED = 2  # entries an experiment that are computed again


def restamp_labs(
    labs: list[str],
    profile: str | None = None,
    names: list[str] | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Of each experiment whose entries are stale by their code alone, compute `CHECKED` again, and
    give all of them the new digest where those agree with the record. RecordingError, after all
    others, names the experiments where they do not: those are to be recorded again.
    """
    refuse_in_rehearsal("ftlib record --restamp")
    chosen = get_profile(profile)
    failed = []
    for lab in labs:
        for experiment in experiments_of(lab):
            if names and experiment.name not in names:
                continue
            record = read_record(lab, experiment.name, chosen)
            with in_empty_folder():
                stale = stale_by_code(record, experiment, chosen)
            if not stale:
                continue
            faults = _faults(record, experiment, chosen, stale)
            if faults:
                failed.extend(faults)
                continue
            _restamp(record, experiment, chosen, stale)
            say(f"{record.name}: {len(stale)} entries keep their results")
    if failed:
        raise RecordingError("\n".join(failed))


def stale_by_code(record: Record, experiment: Experiment, profile: Profile) -> list[Entry]:
    """The entries whose settings and inputs are those of today, but not their trial's code, or what
    it reads of the profile beside what it read before.
    """
    now = conditions(experiment, profile)
    found = []
    for job in to_compute(record, experiment, profile):
        entry = record.entries.get((job.arm, job.seed))
        if entry and _only_code_differs(entry, job, now):
            found.append(entry)
    return found


def _only_code_differs(entry: Entry, job: Job, now: dict[str, Any]) -> bool:
    before = entry.made.get("profile", {})
    is_same = all(now["profile"].get(name, value) == value for name, value in before.items())
    return is_same and entry.settings == job.settings and entry.made["inputs"] == now["inputs"]


def _faults(
    record: Record, experiment: Experiment, profile: Profile, stale: list[Entry]
) -> list[str]:
    """Where entries of `CHECKED` arms, drawn by lot, come out otherwise than recorded. Another
    version of the code draws others. Arms that measure rounding are drawn where there are no
    others.
    """
    lot = random.Random(conditions(experiment, profile)["code"])
    all_arms = {entry.arm for entry in stale}
    arms = sorted(all_arms - set(experiment.rounded)) or sorted(all_arms)
    drawn = []
    for arm in lot.sample(arms, min(CHECKED, len(arms))):
        drawn.append(lot.choice([entry for entry in stale if entry.arm == arm]))
    faults = []
    for entry in drawn:
        one = Drawn(experiment, record, entry)
        faults.extend(disagreements(one, compute_again(one, profile)))
    return faults


def _restamp(record: Record, experiment: Experiment, profile: Profile, stale: list[Entry]) -> None:
    """Give the entries today's digests, and say with which commit: it did not compute them."""
    with in_empty_folder():
        now = conditions(experiment, profile)
    renewed = {"code": now["code"], "profile": now["profile"]}
    kept = []
    for entry in stale:
        made = {**entry.made, **renewed, "restamped": provenance()["commit"]}
        kept.append(replace(entry, made=made))
    add_entries(record, experiment, kept)
