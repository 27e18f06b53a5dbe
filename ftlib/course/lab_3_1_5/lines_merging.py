"""Lines over the record of lab 3.1.5 on how the four ways of merging differ."""

from __future__ import annotations

import numpy as np

from ftlib.core.stats import paired_difference
from ftlib.course.lab_3_1_5.lines import Gap, judged
from ftlib.course.records.live import Result

MERGED = (  # (way, the way it is compared with, what that says)
    ("once", "beside", "way 4 − beside"),
    ("once", "original", "way 4 − way 3"),
)


def merged_gaps(result: Result) -> dict[str, list[Gap]]:
    """The ways of merging in pairs at each rate, {what: gaps}, Holm over all of them together."""
    intervals = {}
    for first, second, text in MERGED:
        for arm in result.arms:
            here = paired_difference(result.means(arm, first), result.means(arm, second))
            intervals[f"{text}|{arm}"] = here
    by_text: dict[str, list[Gap]] = {}
    for gap in judged(intervals):
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
