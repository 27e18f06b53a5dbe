"""Words about results that several labs share: whose runs they are and how many, which learning
rate a sweep chooses, and tiny's runs of the arms that a profile's record leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ftlib.core.profiles import get_profile
from ftlib.course.records.live import Result, open_experiments
from ftlib.course.records.store import read_record

COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 10: "ten", 20: "twenty"}


def whose(result: Result) -> str:
    """The beginning of a sentence on runs of tiny in a session of another profile; else empty."""
    return "In tiny: " if result.shown_in else ""


def seeds_of(result: Result) -> str:
    """How many seeds every arm has, such as "ten seeds"."""
    count = len(result.seeds)
    noun = "seed" if count == 1 else "seeds"
    return f"{COUNTS.get(count, count)} {noun}"


def grid_line(
    result: Result,
    series: Mapping[str, Mapping[float, str]],
    metrics: Mapping[str, str] | None = None,
) -> str:
    """The best learning rate of each series among those that have run, with the mean of its metric
    there, and whether it is at the grid's edge; empty where nothing has run.

    series: {name: {rate: arm}}. metrics: by which metric a series is judged, the lower the better;
    a series that is not named there by "validation_loss".
    """
    texts = []
    for name, arms in series.items():
        metric = (metrics or {}).get(name, "validation_loss")
        means = {}
        for rate in sorted(arms):
            if result.has(arms[rate]):
                means[rate] = float(result.means(arms[rate], metric).mean())
        if not means:
            continue
        best = min(means, key=means.__getitem__)
        edge = ", **at the grid's edge**" if best in (min(means), max(means)) else ""
        texts.append(f"{name} {means[best]:.3f} at {best:.2g}{edge}")
    return "; ".join(texts)


def with_arms(result: Result, *arms: str) -> Result:
    """The result itself if it has all of these arms; else tiny's recorded runs, shown in the
    result's profile, where tiny has recorded the arms. `shown_in` says which of the two it is.
    """
    tiny = get_profile("tiny")
    if not result.arms or all(result.has(arm) for arm in arms) or result.profile == tiny:
        return result
    record = read_record(result.record.lab, result.experiment.name, tiny)
    there = replace(
        result,
        profile=tiny,
        record=record,
        live={},
        is_recorded=True,
        why="",
        shown_in=result.shown_in or result.profile.name,
    )
    return there if all(there.has(arm) for arm in arms) else result


def alongside(other: Result, result: Result) -> Result:
    """`other` as it can be compared with `result`: its recorded runs of the profile whose runs
    `result` shows.
    """
    if other.profile.name == result.profile.name:
        return other
    there = open_experiments(other.record.lab, result.profile).show(other.experiment.name)
    return replace(there, shown_in=result.shown_in)


def fewer_line(result: Result, arms: Sequence[str]) -> str:
    """Which of the arms a profile has not run; empty where it has all of them, or shows tiny's."""
    absent = [arm for arm in arms if not result.has(arm)]
    if not absent or not result.arms:
        return ""
    return f"Not run in {result.profile.name}: {', '.join(absent)}."
