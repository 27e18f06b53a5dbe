"""A student with one bump before a teacher with two, with handles for the divergence, the distance
and the teacher's preference. Every fit is an exact search.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.course.explorable import Explorable, slider
from ftlib.course.lab_e4.toy import SPOTS, Fit, best_bump, covered, two_bumps, unheard_of

BETAS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
DISTANCES = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
LEFT = (0.1, 0.3, 0.45, 0.5, 0.7)
NAMES = {0.0: "forward KL", 0.5: "JSD", 1.0: "reverse KL"}


def name_of(beta: float) -> str:
    return NAMES.get(beta, f"generalised JSD, β = {beta:g}")


class DivergenceExplorer(Explorable):
    """One teacher, one divergence."""

    def __init__(self) -> None:
        super().__init__(
            self.draw,
            self.describe,
            beta=slider("β", BETAS, 0.0),
            distance=slider("distance of the bumps", DISTANCES, 6.0),
            left=slider("share of the left bump", LEFT, 0.45),
        )

    def describe(self, beta: float, distance: float, left: float) -> str:
        """Where the student stands, and what it misses and invents."""
        teacher = two_bumps(distance, left)
        fit = best_bump(teacher, beta)
        return (
            f"{name_of(beta)}: centre {fit.centre:.1f}, width {fit.width:.1f}; "
            f"{covered(teacher, fit.student):.0%} of the teacher is covered, "
            f"{unheard_of(teacher, fit.student):.0%} of the student is unheard of"
        )

    def draw(self, beta: float, distance: float, left: float) -> Figure:
        """Teacher filled, student as a line; closed, so that a cell shows it once."""
        teacher = two_bumps(distance, left)
        figure, ax = plt.subplots(figsize=(6.4, 2.8))
        draw_fit(ax, teacher, best_bump(teacher, beta), name_of(beta))
        plt.close(figure)
        return figure


def draw_fit(ax: Axes, teacher, fit: Fit, title: str) -> None:
    """A teacher and the student nearest to it."""
    ax.fill_between(SPOTS, teacher, color="0.8", label="teacher")
    ax.plot(SPOTS, fit.student, color="black", label="student, one bump")
    ax.set(title=title, xlabel="what is said", ylabel="probability")
    ax.legend(fontsize="small")


def draw_divergences(distance: float = 6.0, left: float = 0.45) -> Figure:
    """Forward KL, JSD and reverse KL before the same teacher."""
    teacher = two_bumps(distance, left)
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.7), sharey=True)
    for ax, beta in zip(axes, NAMES, strict=True):
        draw_fit(ax, teacher, best_bump(teacher, beta), name_of(beta))
        if ax is not axes[0]:
            ax.set_ylabel("")
            ax.get_legend().remove()
    plt.close(figure)
    return figure
