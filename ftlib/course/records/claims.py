"""Decide the claims of an experiment from its runs, all of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ftlib.core.stats import Interval, holm, mean_interval
from ftlib.course.records.experiment import LOGS, Claim, Experiment

FEWEST = 5  # seeds below which nothing is decided
LEVEL = 0.95


@dataclass(frozen=True)
class Decision:
    """What the runs say of one claim.

    `values`: the contrast, one a seed; `interval`: Student's t at 95%, of this claim alone; `p`:
    two-sided t-test against 0, by Holm's method over the `compared` claims of the experiment.
    `outcome`: "above", "below", "none"; "open" below five seeds.
    """

    claim: Claim
    values: np.ndarray
    interval: Interval
    p: float
    compared: int

    @property
    def outcome(self) -> str:
        if len(self.values) < FEWEST:
            return "open"
        if self.p >= 1 - LEVEL:
            return "none"
        return "above" if self.interval.mean > 0 else "below"

    @property
    def as_expected(self) -> bool:
        return self.outcome == self.claim.expected

    @property
    def figure(self) -> str:
        """The contrast in numbers, with the test and the count of seeds named."""
        unit = f" {self.claim.unit}" if self.claim.unit else ""
        seeds = len(self.values)
        if seeds < FEWEST:
            return (
                f"{self.claim.text}: {self.interval.mean:.3g}{unit} over {seeds} seeds, too few "
                f"for a conclusion ({FEWEST} at least)"
            )
        family = f", Holm over {self.compared} comparisons" if self.compared > 1 else ""
        if self.claim.unit == LOGS:
            unit += f", a factor of {as_factor(self.interval)},"
        return (
            f"{self.claim.text}: {self.interval}{unit} over {seeds} seeds "
            f"({self.interval.test}{family}: p {_p_text(self.p)})"
        )

    @property
    def sentence(self) -> str:
        """The figure and what to conclude from it."""
        if self.outcome == "open":
            return f"{self.figure}."
        return f"**{self.figure}.** {self.claim.reading(self.outcome)}{self._hint}"

    @property
    def _hint(self) -> str:
        """A word where the claim's own interval excludes 0 and the adjusted test does not."""
        leaves_zero_out = self.interval.low > 0 or self.interval.high < 0
        if self.outcome != "none" or not leaves_zero_out:
            return ""
        return (
            f" (On its own the interval excludes 0. But of {self.compared} comparisons one may do "
            "so by chance alone, so this is a hint, not a conclusion.)"
        )


def as_factor(interval: Interval) -> Interval:
    """The factor whose natural logarithm the interval is of: e to its mean and to its bounds."""
    bounds = np.exp([interval.mean, interval.low, interval.high])
    return Interval(*bounds.tolist())


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def decide(
    experiment: Experiment, runs: Mapping[int, Mapping[str, Mapping[str, Any]]]
) -> dict[str, Decision]:
    """Every claim of the experiment by its name, but those of whose arms one has no run at all (a
    profile may record fewer arms). `runs`: {seed: {arm: metrics}}.
    """
    there = {arm for by_arm in runs.values() for arm in by_arm}
    claims = [claim for claim in experiment.claims if there.issuperset(claim.contrast.arms)]
    if not claims:
        return {}
    contrasts = [_contrast(claim, runs) for claim in claims]
    intervals = [mean_interval(values) for values in contrasts]
    adjusted = holm([cast(float, interval.p_value) for interval in intervals])
    decisions = {}
    for claim, values, interval, p in zip(claims, contrasts, intervals, adjusted, strict=True):
        decisions[claim.name] = Decision(claim, values, interval, p, len(adjusted))
    return decisions


def _contrast(claim: Claim, runs: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> np.ndarray:
    """The claim's number of each seed that has all arms it needs, (seeds,)."""
    found = []
    for by_arm in runs.values():
        if all(arm in by_arm for arm in claim.contrast.arms):
            found.append(claim.contrast(by_arm))
    if len(found) < 2:
        raise ValueError(
            f"claim {claim.name!r} needs two seeds with {', '.join(claim.contrast.arms)}; "
            f"{len(found)} are there"
        )
    return np.array(found)
