"""Lines over the record of lab 3.1.5 beside its claims: differences at one rate each, which were
not stated beforehand, the doses that the measure has seen, and how the four ways of merging differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ftlib.core.stats import Interval, holm, paired_difference
from ftlib.course.lab_3_1_5 import experiments, readings
from ftlib.course.lab_3_1_5.bases import WHOLE
from ftlib.course.records.claims import FEWEST, LEVEL
from ftlib.course.records.live import Result

LOSS = "loss"
SAME = 1e-4  # errors of the weights that differ by less are equal
DOSES = {"three": "3 bits", "coarse": readings.THREE_COARSE, "two": "2 bits"}  # claim -> base
MERGED = (  # (way, the way it is compared with, what that says)
    ("once", "beside", "way 4 − beside"),
    ("once", "original", "way 4 − way 3"),
)


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


def _gaps(intervals: Mapping[str, Interval]) -> list[Gap]:
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


# --- one rate at a time ---------------------------------------------------------------------------
def by_rate(result: Result, claim: str) -> list[Gap]:
    """The differences that a claim of `bases` takes the mean of; empty where an arm has no runs."""
    arms = result.experiment.claim(claim).contrast.arms
    if not set(arms) <= set(result.arms):
        return []
    intervals = {}
    # `readings.over_rates` has the arms in pairs: at each rate one kind of base and the other.
    for one, other in zip(arms[::2], arms[1::2], strict=True):
        rate = f"{result.settings(one)['lr']:.2g}"
        intervals[rate] = paired_difference(result.means(one, LOSS), result.means(other, LOSS))
    return _gaps(intervals)


def outcome(gaps: Sequence[Gap]) -> str:
    """ "above" or "below" where at least one difference is shown, all of one sign; "both", "none";
    "open" below five seeds.
    """
    if not gaps or (gaps[0].interval.runs or 0) < FEWEST:
        return "open"
    signs = {gap.sign for gap in gaps} - {0}
    if len(signs) == 2:
        return "both"
    if not signs:
        return "none"
    return "above" if 1 in signs else "below"


def rate_line(result: Result, claim: str) -> str:
    """The claim's difference at each rate, and where one is shown."""
    gaps = by_rate(result, claim)
    if not gaps:
        return ""
    listed = "; ".join(str(gap) for gap in gaps)
    shown = outcome(gaps)
    if shown == "open":
        return f"By rate: {listed}."
    higher = ", ".join(gap.place for gap in gaps if gap.sign > 0)
    lower = ", ".join(gap.place for gap in gaps if gap.sign < 0)
    ending = {
        "none": "Shown at none of them.",
        "above": f"Higher beyond chance at {higher}.",
        "below": f"Lower beyond chance at {lower}.",
        "both": (
            f"**Higher beyond chance at {higher} and lower at {lower}: opposite signs, which "
            "cancel in the mean.**"
        ),
    }
    return f"*By rate (not stated beforehand, Holm over {len(gaps)}):* {listed}. {ending[shown]}"


# --- all bases ------------------------------------------------------------------------------------
def base_error(result: Result, kind: str) -> float:
    """Relative error of a base's weights."""
    return float(experiments.over_rates(result, kind, "weight_error").mean())


def _error_of(row: dict[str, Any]) -> float:
    return float(row["error of the weights"])


def cost_rows(result: Result, profile) -> list[dict[str, Any]]:
    """Loss minus that over the whole base at each rate, a row a base, smallest error first."""
    whole = experiments.shared_rates(profile, WHOLE)
    rows = []
    for kind in experiments.COMPARED:
        if kind == WHOLE:
            continue
        row: dict[str, Any] = {"base": kind}
        row["error of the weights"] = f"{base_error(result, kind):.3f}"
        for rate, arm in experiments.shared_rates(profile, kind).items():
            gap = paired_difference(result.means(arm, LOSS), result.means(whole[rate], LOSS))
            row[f"at {rate:.2g}"] = f"{gap.mean:+.4f} ± {gap.high - gap.mean:.4f}"
        rows.append(row)
    return sorted(rows, key=_error_of)


def cost_falls(result: Result, profile) -> str:
    """At which rates the cost falls although the error of the weights grows."""
    whole = experiments.shared_rates(profile, WHOLE)
    sentences = []
    for rate, whole_arm in whole.items():
        points = {}
        for kind in experiments.COMPARED:
            arm = experiments.shared_rates(profile, kind)[rate]
            cost = result.means(arm, LOSS).mean() - result.means(whole_arm, LOSS).mean()
            points[kind] = (base_error(result, kind), float(cost))
        found = falls(points)
        if found:
            sentences.append(f"at {rate:.2g}: {' | '.join(found)}")
    if not sentences:
        return "At every rate the mean cost grows with the error of the weights."
    return (
        "The mean cost does not simply grow with the error of the weights. In the order of the "
        f"errors it falls {'; '.join(sentences)}. (Means; these steps are not tested.)"
    )


def share_of_loss(result: Result, profile, kind: str) -> str:
    """A base's cost at each rate in per cent of the loss over the whole base."""
    whole = experiments.shared_rates(profile, WHOLE)
    parts = []
    for rate, arm in experiments.shared_rates(profile, kind).items():
        before = result.means(whole[rate], LOSS).mean()
        after = result.means(arm, LOSS).mean()
        parts.append(f"{100 * (after / before - 1):+.1f}% at {rate:.2g}")
    return ", ".join(parts)


def dose_line(result: Result) -> str:
    """Which doses of damage the measure has seen, and what its silence below them is worth."""
    if not result.arms:
        return ""
    decisions = result.decisions()
    if len(result.seeds) < FEWEST:
        return "Too few seeds to say which doses the measure has seen."
    seen = {}
    unseen = []
    for claim, kind in DOSES.items():
        error = base_error(result, kind)
        if decisions[claim].outcome == "above":
            seen[kind] = error
        else:
            high = decisions[claim].interval.high
            unseen.append(f"{kind} (error {error:.2f}; up to {high:.2g} nats would be compatible)")
    if not seen:
        return "**No dose of damage was seen**: the measure is blind, and says nothing of NF4."
    listed = ", ".join(f"{kind} (error {error:.2f})" for kind, error in seen.items())
    missed = f" Not seen: {', '.join(unseen)}." if unseen else ""
    bound = decisions["qlora"].interval.high
    return (
        f"**Doses seen by the mean over rates: {listed}.**{missed} Below an error of "
        f'{min(seen.values()):.2f}, "no cost shown" in this mean is an upper bound and no absence: '
        f"for NF4 (error {base_error(result, 'NF4'):.2f}) a cost up to {bound:.2g} nats."
    )


# --- merging --------------------------------------------------------------------------------------
def merged_gaps(result: Result) -> dict[str, list[Gap]]:
    """The ways of merging in pairs at each rate, {what: gaps}, Holm over all of them together."""
    intervals = {}
    for first, second, text in MERGED:
        for arm in result.arms:
            here = paired_difference(result.means(arm, first), result.means(arm, second))
            intervals[f"{text}|{arm}"] = here
    by_text: dict[str, list[Gap]] = {}
    for gap in _gaps(intervals):
        text, arm = gap.place.split("|")
        by_text.setdefault(text, []).append(Gap(arm, gap.interval, gap.p))
    return by_text


def merged_line(result: Result) -> str:
    """Whether it is rounding as such that costs: way 4, rounded too, against ways 3 and beside."""
    if not result.arms:
        return ""
    gaps = merged_gaps(result)
    count = sum(len(family) for family in gaps.values())
    lines = [f"*Golden loss by rate (not stated beforehand, Holm over {count}):*"]
    for text, family in gaps.items():
        lines.append(f"- {text}: {'; '.join(str(gap) for gap in family)}")
    return "\n".join([*lines, "", _rounding_itself(gaps)])


def _rounding_itself(gaps: dict[str, list[Gap]]) -> str:
    better = [gap.place for gap in gaps["way 4 − beside"] if gap.sign < 0]
    worse = [gap.place for gap in gaps["way 4 − way 3"] if gap.sign > 0]
    if worse:
        return f"Rounding as such costs: way 4 is worse than way 3 ({', '.join(worse)})."
    if better:
        return (
            f"Way 4, whose base is rounded to NF4 as well, beats the adapter beside its own base "
            f"({', '.join(better)}), and is nowhere shown to be worse than way 3. So it is not "
            "rounding as such that costs. What is left as an explanation is this one rounding, "
            "beside which the adapter was trained: a fixed error that is tied to W. That it is the "
            "cause is not measured, and way 4 has part of it too, since an update smaller than "
            "the rounding error leaves many codes as they were."
        )
    return "Whether rounding as such costs, or only the one rounding in training, is not shown."


def drift_text(result: Result, arm: str) -> str:
    """How far the second rounding moves the weights, and what is left, of the gain and the loss."""
    moved = result.interval(arm, "moved").mean
    gain = result.interval(arm, "gain_kept").mean
    ratio = float(np.mean(result.means(arm, "again")) / np.mean(result.means(arm, "beside")))
    return (
        f"{arm} {moved:.2f} ({gain:.0%} of the gain kept, the loss {ratio:.1f} times that beside)"
    )
