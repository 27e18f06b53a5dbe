"""Words for a result that a profile shows and has not made (`Result.shown_in`): whose runs it has,
and how many.
"""

from __future__ import annotations

from ftlib.course.records.live import Result

COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 10: "ten", 20: "twenty"}


def whose(result: Result) -> str:
    """The beginning of a sentence on runs of tiny in a session of another profile; else empty."""
    return "In tiny: " if result.shown_in else ""


def seeds_of(result: Result) -> str:
    """How many seeds every arm has, such as "ten seeds"."""
    count = len(result.seeds)
    noun = "seed" if count == 1 else "seeds"
    return f"{COUNTS.get(count, count)} {noun}"
