"""Lab E5, benchmarks and judges, exercise 4: how many questions a difference needs."""

from __future__ import annotations

import math
from statistics import NormalDist

from ftlib.course.exercise import Exercise, Wrong


def questions_needed(difference: float, disagreement: float, level: float, power: float) -> int:
    """Questions that a paired test at `level`, two-sided, needs to find a `difference` of two
    models' shares with probability `power`, where they disagree in a share `disagreement`:
    (z_level·√d + z_power·√(d - δ²))²/δ², rounded up (Connor 1987, "Sample size for testing
    differences in proportions for the paired-sample design", Biometrics 43).
    """
    z_level = NormalDist().inv_cdf(1 - level / 2)
    z_power = NormalDist().inv_cdf(power)
    by_chance = z_level * math.sqrt(disagreement)
    by_truth = z_power * math.sqrt(disagreement - difference**2)
    return math.ceil((by_chance + by_truth) ** 2 / difference**2)


def _needed_cases(g):
    yield from [
        (0.02, 0.10, 0.05, 0.8),
        (0.05, 0.10, 0.05, 0.8),
        (0.05, 0.30, 0.05, 0.9),
        (0.10, 0.20, 0.01, 0.8),
        (0.01, 0.05, 0.05, 0.95),
        (0.20, 0.50, 0.10, 0.5),
    ]


def _needed(quantile=lambda level: 1 - level / 2, with_power=True, paired=True, round_up=True):
    def needed(difference, disagreement, level, power):
        z_level = NormalDist().inv_cdf(quantile(level))
        z_power = NormalDist().inv_cdf(power) if with_power else 0.0
        truth = disagreement - difference**2 if paired else disagreement
        root = z_level * math.sqrt(disagreement) + z_power * math.sqrt(truth)
        count = root**2 / difference**2
        return math.ceil(count) if round_up else math.floor(count)

    return needed


def _independent(difference, disagreement, level, power):
    z = NormalDist().inv_cdf(1 - level / 2) + NormalDist().inv_cdf(power)
    return math.ceil(z**2 * 0.5 / difference**2)


def _not_squared(difference, disagreement, level, power):
    z_level = NormalDist().inv_cdf(1 - level / 2)
    z_power = NormalDist().inv_cdf(power)
    root = z_level * math.sqrt(disagreement) + z_power * math.sqrt(disagreement - difference**2)
    return math.ceil(root / difference)


NEEDED = Exercise(
    name="questions_needed",
    title="How many questions?",
    minutes=8,
    difficulty=2,
    reference=questions_needed,
    cases=_needed_cases,
    hints=(
        "z_level is the normal quantile at 1 − level/2, z_power that at the power: "
        "`NormalDist().inv_cdf(…)` of the module `statistics`.",
        "A question adds +1, −1 or 0 to the difference. Its variance is d where both are equally "
        "good, and d − δ² where the difference is δ.",
        "math.ceil((z_level * d ** 0.5 + z_power * (d - δ ** 2) ** 0.5) ** 2 / δ ** 2)",
    ),
    wrong=(
        Wrong(
            "one-sided level",
            _needed(quantile=lambda level: 1 - level),
            "z_level is taken at 1 − level: that is the one-sided test, which needs fewer "
            "questions than the two-sided one. Use 1 − level/2.",
        ),
        Wrong(
            "no power",
            _needed(with_power=False),
            "z_power is missing: with so few questions the difference is found in only half of "
            "all cases.",
        ),
        Wrong(
            "one variance",
            _needed(paired=False),
            "The second root is of d − δ²: if there is a difference δ, the variance is d − δ².",
        ),
        Wrong(
            "rounded down",
            _needed(round_up=False),
            "You rounded down: with one question fewer the power is not reached.",
        ),
        Wrong(
            "independent samples",
            _independent,
            "`disagreement` is not used: that is the number for two models that are asked "
            "*different* questions. On the same ones only disagreements count.",
        ),
        Wrong(
            "not squared",
            _not_squared,
            "The quotient is not squared: half the difference needs four times the questions, "
            "not twice.",
        ),
    ),
)
