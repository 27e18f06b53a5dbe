"""Lab E2, forgetting, exercise 5: weights between two states of a model."""

from __future__ import annotations

from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_e2.tensors import state


def interpolate_states(
    before: dict[str, Tensor], after: dict[str, Tensor], t: float
) -> dict[str, Tensor]:
    """``(1 − t)·θ₀ + t·θ₁`` of every tensor (Wortsman et al. 2021, arXiv 2109.01903, section 3):
    {name: tensor} before and after the training -> the same names. t = 0 is the model before.
    """
    return {name: (1 - t) * before[name] + t * after[name] for name in before}


def _cases(g):
    for t in (0.3, 0.75, 0.0, 1.0):
        yield state(g), state(g), t


def _by(formula):
    def interpolate_states(before, after, t):
        return {name: formula(before[name], after[name], t) for name in before}

    return interpolate_states


def _matrices_only(before, after, t):
    mixed = {}
    for name, tensor in before.items():
        is_matrix = tensor.dim() > 1
        mixed[name] = (1 - t) * tensor + t * after[name] if is_matrix else after[name].clone()
    return mixed


INTERPOLATE = Exercise(
    name="interpolate_states",
    title="Interpolating the weights",
    minutes=5,
    difficulty=1,
    reference=interpolate_states,
    cases=_cases,
    tolerance=1e-9,
    points=1,
    hints=(
        "A straight line in the space of all weights: at t = 0 it is at `before`, at t = 1 at "
        "`after`.",
        "Make a new dict; the tensors that you were given are still needed for the next t.",
        "return {name: (1 - t) * before[name] + t * after[name] for name in before}",
    ),
    wrong=(
        Wrong(
            "ends swapped",
            _by(lambda a, b, t: t * a + (1 - t) * b),
            "The ends are swapped: t = 0 must give the model before the training.",
        ),
        Wrong(
            "not taken away",
            _by(lambda a, b, t: a + t * b),
            "You add a part of `after` without removing as much of `before`: at t = 1 that is the "
            "sum of two models. It is before + t·(after − before).",
        ),
        Wrong(
            "backwards",
            _by(lambda a, b, t: a + t * (a - b)),
            "You move away from `after`, to the other side: it is before + t·(after − before).",
        ),
        Wrong(
            "matrices only",
            _matrices_only,
            "You leave biases and norms as they are after training: interpolate every tensor.",
        ),
        Wrong(
            "geometric",
            _by(lambda a, b, t: a.abs() ** (1 - t) * b.abs() ** t),
            "That is a geometric mean, which loses the signs: the path is a straight line.",
        ),
    ),
)
