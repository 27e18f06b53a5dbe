"""Lab E2, forgetting, exercise 4: elastic weight consolidation's penalty."""

from __future__ import annotations

from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_e2.tensors import normal, positive


def ewc_penalty(theta: Tensor, anchor: Tensor, fisher: Tensor, weight: float) -> Tensor:
    """``λ/2·Σ_i F_i·(θ_i − θ*_i)²``, () (Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3): theta,
    anchor θ* and fisher F of one shape, weight λ.
    """
    return weight / 2 * (fisher * (theta - anchor).square()).sum()


def _cases(g):
    for shape, weight in (((4,), 1.0), ((3, 5), 10.0), ((2, 3, 2), 0.5)):
        yield normal(g, *shape), normal(g, *shape), positive(g, *shape), weight
    same = normal(g, 3, 3)
    yield same, same.clone(), positive(g, 3, 3), 2.0


def _penalty(formula):
    def ewc_penalty(theta, anchor, fisher, weight):
        return formula(theta - anchor, theta, fisher, weight)

    return ewc_penalty


PENALTY = Exercise(
    name="ewc_penalty",
    title="The EWC penalty",
    minutes=6,
    difficulty=1,
    reference=ewc_penalty,
    cases=_cases,
    gradient_of=("theta",),
    tolerance=1e-5,
    hints=(
        "Imagine a spring at every weight: its stiffness is λ·F_i, its rest position θ*_i.",
        "The energy of a spring is half its stiffness times the square of how far it is stretched.",
        "return weight / 2 * (fisher * (theta - anchor) ** 2).sum()",
    ),
    wrong=(
        Wrong(
            "no half",
            _penalty(lambda moved, theta, F, w: w * (F * moved.square()).sum()),
            "It is twice the penalty of the paper: λ/2, so that the gradient is λ·F·(θ − θ*).",
        ),
        Wrong(
            "to zero",
            _penalty(lambda moved, theta, F, w: w / 2 * (F * theta.square()).sum()),
            "You pull the weights to zero, as weight decay does. The spring's rest position is "
            "θ*, where the old task was learnt.",
        ),
        Wrong(
            "mean",
            _penalty(lambda moved, theta, F, w: w / 2 * (F * moved.square()).mean()),
            "You take the mean over the weights: it is a sum. A mean makes λ depend on the size "
            "of each tensor, and holds large matrices too loosely.",
        ),
        Wrong(
            "no Fisher",
            _penalty(lambda moved, theta, F, w: w / 2 * moved.square().sum()),
            "Every weight is held equally: F is missing. (That is L2 towards the start, the "
            "control of section 5.)",
        ),
        Wrong(
            "Fisher squared",
            _penalty(lambda moved, theta, F, w: w / 2 * (F * moved).square().sum()),
            "Your F is inside the square: it multiplies the squared distance. It is a mean of "
            "squared gradients already.",
        ),
        Wrong(
            "not squared",
            _penalty(lambda moved, theta, F, w: w / 2 * (F * moved.abs()).sum()),
            "The distance is not squared: a spring's force must grow with the distance.",
        ),
        Wrong(
            "other sign",
            _penalty(lambda moved, theta, F, w: -w / 2 * (F * moved.square()).sum()),
            "The sign is wrong: moving away must cost, and your penalty rewards it.",
        ),
    ),
)
