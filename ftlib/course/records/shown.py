"""Tiny's runs of the arms that the record of another profile leaves out."""

from __future__ import annotations

from dataclasses import replace

from ftlib.core.profiles import get_profile
from ftlib.course.records.live import Result
from ftlib.course.records.store import read_record


def with_arms(result: Result, *arms: str) -> Result:
    """The result itself if it has all of these arms; else tiny's recorded runs, shown in the
    result's profile, where tiny has recorded the arms. `shown_in` says which of the two it is.
    """
    tiny = get_profile("tiny")
    if all(result.has(arm) for arm in arms) or result.profile == tiny:
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


def place(result: Result) -> str:
    """How a sentence begins that tells of tiny's runs in another profile; empty for its own."""
    return "In tiny: " if result.shown_in else ""
