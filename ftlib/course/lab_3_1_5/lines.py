"""What the lines over the records of lab 3.1.5 share: differences judged together, numbers as they
are written, and whose runs these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from matplotlib.axes import Axes

from ftlib.core.profiles import get_profile
from ftlib.core.stats import Interval, holm
from ftlib.course.records.claims import FEWEST, LEVEL
from ftlib.course.records.live import Result
from ftlib.course.records.store import read_record

SAME = 1e-4  # errors of the weights that differ by less are equal


@dataclass(frozen=True)
class Gap:
    """A paired difference at one setting, with its p value by Holm over those beside it."""

    place: str  # of the difference: a rate
    interval: Interval
    p: float

    @property
    def sign(self) -> int:
        """1 or −1 where a difference is shown, else 0; 0 too below five seeds."""
        runs = self.interval.runs or 0
        if runs < FEWEST or self.p >= 1 - LEVEL:
            return 0
        return 1 if self.interval.mean > 0 else -1

    def __str__(self) -> str:
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.2g}"
        return f"{self.place}: {self.interval} ({p})"


def judged(intervals: Mapping[str, Interval]) -> list[Gap]:
    """The differences of one family, {place: interval}, judged together."""
    adjusted = holm([cast(float, interval.p_value) for interval in intervals.values()])
    found = []
    for (place, interval), p in zip(intervals.items(), adjusted, strict=True):
        found.append(Gap(place, interval, p))
    return found


def percent(interval: Interval, digits: int = 1) -> str:
    """A share in per cent: "2.9% [2.6, 3.1]"."""
    numbers = []
    for value in (interval.mean, interval.low, interval.high):
        numbers.append(f"{100 * value:.{digits}f}")
    mean, low, high = numbers
    return f"{mean}% [{low}, {high}]"


def off_by(wanted: float, found: float) -> str:
    """A prediction against a measurement, in per cent with a sign; zero is "+0.0%"."""
    change = round(100 * (wanted / found - 1), 1)
    return f"{change + 0.0:+.1f}%"


def falls(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Where y falls although x grows, between neighbours in the order of x: "A → B".

    points: {label: (x, y)}; two of equal x, up to rounding, are no step.
    """
    ordered = sorted(points.items(), key=_first_number)
    found = []
    for i in range(len(ordered) - 1):
        label, (x, y) = ordered[i]
        next_label, (next_x, next_y) = ordered[i + 1]
        if next_y < y and next_x > x + SAME:
            found.append(f"{label} → {next_label}")
    return found


def _first_number(item: tuple[str, tuple[float, float]]) -> float:
    return item[1][0]


def time_span(low: float, high: float) -> str:
    """Two times in seconds, in minutes where both have two at least: "2 to 5 minutes"."""
    if low < 120:
        return f"{low:.0f} to {high:.0f} seconds"
    return f"{low / 60:.0f} to {high / 60:.0f} minutes"


# --- whose runs these are -------------------------------------------------------------------------
def whose(result: Result) -> str:
    """How a sentence begins on runs that are tiny's in another profile's session; else empty."""
    return "In tiny: " if result.shown_in else ""


def mark(ax: Axes, result: Result) -> None:
    """The same in the corner of a figure."""
    if result.shown_in:
        ax.annotate(
            "runs of tiny", (1, 0), (-4, 4), "axes fraction", "offset points", ha="right", size=7
        )


def elsewhere(result: Result) -> Result | None:
    """Tiny's record of the same experiment, for what the result's own profile has no runs of."""
    tiny = get_profile("tiny")
    name = result.experiment.name
    record = read_record(result.record.lab, name, tiny)
    if result.profile.name == tiny.name or not record.entries:
        return None
    return Result(result.experiment, tiny, record, {}, True, "", 0.0, result.profile.name)
