"""Results that stand side by side are of one profile: where a profile has fewer runs than tiny, and
shows tiny's, what is compared with them must be tiny's too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ftlib.course.records.live import Result, open_experiments


def alongside(other: Result, result: Result) -> Result:
    """`other` as it can be compared with `result`: its recorded runs of the profile whose runs
    `result` shows.
    """
    if other.profile.name == result.profile.name:
        return other
    there = open_experiments(other.record.lab, result.profile).show(other.experiment.name)
    return replace(there, shown_in=result.shown_in)


def with_arms(result: Result, arms: Sequence[str]) -> Result:
    """The result, where it has runs of all these arms or of none at all; else tiny's recorded ones,
    if they have them.
    """
    if not result.arms or all(result.has(arm) for arm in arms):
        return result
    there = open_experiments(result.record.lab, "tiny").show(result.experiment.name)
    if not all(there.has(arm) for arm in arms):
        return result
    return replace(there, shown_in=result.profile.name)


def place(result: Result) -> str:
    """What a sentence begins with whose runs are tiny's in a session of another profile."""
    return "In tiny: " if result.shown_in else ""


def fewer_line(result: Result, arms: Sequence[str]) -> str:
    """Which of the arms a profile has not run; empty where it has all of them, or shows tiny's."""
    absent = [arm for arm in arms if not result.has(arm)]
    if not absent or not result.arms:
        return ""
    return f"Not run in {result.profile.name}: {', '.join(absent)}."
