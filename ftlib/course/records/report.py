"""Tables over records: what is there and what is missing, and what every claim came to."""

from __future__ import annotations

from collections.abc import Iterator

from ftlib.core.profiles import get_profile
from ftlib.course.records.claims import Decision
from ftlib.course.records.compute import plan
from ftlib.course.records.empty_folder import in_empty_folder
from ftlib.course.records.experiment import experiments_of
from ftlib.course.records.live import open_experiments


def state_table(labs: list[str], profile: str | None = None) -> str:
    """A line an experiment of the profile: arms, seeds, entries there, entries to compute and why.

    Experiments whose record does not belong to the profile are left out: their rows may not exist
    there.
    """
    chosen = get_profile(profile)
    lines = [
        "| lab | experiment | arms | seeds | entries | to compute |",
        "|---|---|---|---|---|---|",
    ]
    for lab in labs:
        for experiment in experiments_of(lab):
            if not experiment.is_run_in(chosen):
                continue
            with in_empty_folder():
                planned = plan(lab, experiment, chosen)
            reasons = sorted({job.why for job in planned.waiting})
            left = f"{len(planned.waiting)}: {'; '.join(reasons)}" if reasons else "0"
            lines.append(
                f"| {lab} | {experiment.name} | {len(experiment.arms(chosen))} | "
                f"{experiment.seeds_of(chosen)} | {len(planned.record.entries)} | {left} |"
            )
    return "\n".join(lines)


def claims_table(labs: list[str], profile: str | None = None) -> Iterator[str]:
    """The lines of a table, a line a claim, each as soon as it is known: what was expected, what
    came, over how many seeds, with the interval; of the experiments whose record belongs to the
    profile and is complete.
    """
    yield "| lab | experiment | claim | expected | result | seeds | as expected |"
    yield "|---|---|---|---|---|---|---|"
    for lab in labs:
        experiments = open_experiments(lab, profile)
        for experiment in experiments_of(lab):
            if not experiment.claims or not experiment.is_run_in(experiments.profile):
                continue
            if plan(lab, experiment, experiments.profile).waiting:
                continue
            result = experiments.show(experiment.name)
            for decision in result.decisions().values():
                yield _claim_line(lab, experiment.name, decision)


def _claim_line(lab: str, experiment: str, decision: Decision) -> str:
    claim = decision.claim
    unit = f" {claim.unit}" if claim.unit else ""
    return (
        f"| {lab} | {experiment} | {claim.text} | {claim.expected} | "
        f"{decision.outcome}: {decision.interval}{unit} | {len(decision.values)} | "
        f"{'yes' if decision.as_expected else 'no'} |"
    )
