"""How many questions tell two models apart: the power of a paired and of an unpaired comparison,
with handles.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ftlib.course.explorable import Explorable, slider
from ftlib.course.lab_e5.questions_needed import questions_needed
from ftlib.course.plots import style

LEVEL = 0.05
POWER = 0.8
DIFFERENCES = (1, 2, 3, 5, 10)  # points
DISAGREEMENTS = (2, 5, 10, 20, 30, 50)  # per cent of the questions
SCORES = (25, 50, 70, 80, 90)  # per cent
LEAST_MORE = 1  # per cent by which models disagree beyond their difference, at least
# Questions of the parts that are usually scored: ARC-Challenge's test, HellaSwag's validation.
SIZES = {"ARC-Challenge": 1172, "HellaSwag": 10_042}
MOST = 30_000
NORMAL = NormalDist()


def power_paired(n: float, difference: float, disagreement: float) -> float:
    """Probability that the paired test at 5% finds the difference with n questions."""
    z = NORMAL.inv_cdf(1 - LEVEL / 2)
    spread = math.sqrt(disagreement - difference**2)
    return NORMAL.cdf((difference * math.sqrt(n) - z * math.sqrt(disagreement)) / spread)


def power_unpaired(n: float, difference: float, score: float) -> float:
    """The same with n other questions for each model, whose shares lie around `score`."""
    z = NORMAL.inv_cdf(1 - LEVEL / 2)
    low = score - difference / 2
    high = score + difference / 2
    spread = math.sqrt(low * (1 - low) + high * (1 - high))
    alike = math.sqrt(2 * score * (1 - score))
    return NORMAL.cdf((difference * math.sqrt(n) - z * alike) / spread)


def unpaired_needed(difference: float, score: float) -> int:
    """Questions for each model that reach `POWER`."""
    low = score - difference / 2
    high = score + difference / 2
    root = NORMAL.inv_cdf(1 - LEVEL / 2) * math.sqrt(2 * score * (1 - score))
    root += NORMAL.inv_cdf(POWER) * math.sqrt(low * (1 - low) + high * (1 - high))
    return math.ceil(root**2 / difference**2)


def shares(points: int, disagree: int, score: int) -> tuple[float, float, float]:
    """The handles as shares; models disagree by more than their difference."""
    disagree = max(disagree, points + LEAST_MORE)
    return points / 100, disagree / 100, score / 100


def points_text(points: int) -> str:
    """ "1 point", "2 points"."""
    return "1 point" if points == 1 else f"{points} points"


class QuestionPlanner(Explorable):
    """Handles for the difference, how often the models disagree, and where their scores lie."""

    def __init__(self, points: int = 2, disagree: int = 10, score: int = 70):
        super().__init__(
            self.draw,
            self.describe,
            points=slider("difference, points", DIFFERENCES, points),
            disagree=slider("disagree in, %", DISAGREEMENTS, disagree),
            score=slider("scores near, %", SCORES, score),
        )

    def describe(self, points: int, disagree: int, score: int) -> str:
        """How many questions either comparison needs."""
        difference, apart, middle = shares(points, disagree, score)
        paired = questions_needed(difference, apart, LEVEL, POWER)
        return (
            f"{points_text(points)} with {POWER:.0%} probability at {LEVEL:.0%}: {paired:,} "
            f"questions if both answer the same ones and disagree in {apart:.0%} of them; "
            f"{unpaired_needed(difference, middle):,} each if the questions differ."
        )

    def draw(self, points: int, disagree: int, score: int) -> Figure:
        """Power over the number of questions; closed, so that a cell shows it once."""
        difference, apart, middle = shares(points, disagree, score)
        counts = np.geomspace(20, MOST, 80)
        figure, ax = plt.subplots(figsize=(7.4, 3.3))
        paired = [100 * power_paired(n, difference, apart) for n in counts]
        unpaired = [100 * power_unpaired(n, difference, middle) for n in counts]
        ax.plot(counts, paired, label="the same questions", markevery=10, **style(0))
        ax.plot(counts, unpaired, label="different questions", markevery=10, **style(1))
        ax.axhline(100 * POWER, color="grey", linestyle=":")
        for name, size in SIZES.items():
            ax.axvline(size, color="black", linewidth=0.8, linestyle="--")
            ax.annotate(
                name, (size, 4), (3, 0), textcoords="offset points", fontsize=8, rotation=90
            )
        ax.set(
            title=f"Finding {points_text(points)} between two models",
            xlabel="questions",
            ylabel="found in % of comparisons",
            xscale="log",
            ylim=(0, 102),
        )
        ax.legend(fontsize="small", loc="upper left")
        plt.close(figure)
        return figure
