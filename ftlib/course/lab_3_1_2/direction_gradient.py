"""Lab 3.1.2, DoRA, exercise 5: the gradient of the direction, with the norm detached or not."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_2.tensors import positive, randn


def direction_gradient(grad_w: Tensor, V: Tensor, m: Tensor, detach: bool) -> Tensor:
    """∂L/∂V (out, in) from ∂L/∂W' where W' = m·V/‖V‖ by row: eq. 11 with the norm detached, else
    eq. 6.
    """
    norm = V.norm(dim=1, keepdim=True)
    scaled = grad_w * m[:, None] / norm
    if detach:
        return scaled
    unit = V / norm
    return scaled - (scaled * unit).sum(1, keepdim=True) * unit


def _direction_cases(g):
    for n_out, n_in in [(4, 6), (5, 5), (7, 3)]:
        for detach in (True, False):
            yield randn(g, n_out, n_in), randn(g, n_out, n_in), positive(g, n_out), detach


def _unprojected_length(G, V, m, detach):
    scaled = direction_gradient(G, V, m, True)
    return scaled if detach else scaled - (scaled * V).sum(1, keepdim=True) * V


def _radial_part(G, V, m, detach):
    scaled = direction_gradient(G, V, m, True)
    return scaled if detach else scaled - direction_gradient(G, V, m, False)


def _whole_projection(G, V, m, detach):
    scaled = direction_gradient(G, V, m, True)
    return scaled if detach else scaled - (scaled * V).sum() / V.square().sum() * V


DIRECTION_GRADIENT = Exercise(
    name="direction_gradient",
    title="What detaching leaves out",
    minutes=15,
    difficulty=3,
    reference=direction_gradient,
    cases=_direction_cases,
    keywords=("detach",),
    tolerance=1e-4,
    hints=(
        "Take one row: w' = m·v/‖v‖. With ‖v‖ a constant C the derivative is m/C, a number: eq. "
        "11.",
        "With ‖v‖ not constant: moving v along itself changes nothing in w', so the gradient has "
        "no part along v. "
        "Eq. 6 takes that part off.",
        "The part of a vector a along v is (a·u)u with u = v/‖v‖. Both forms share the factor "
        "m/‖v‖.",
        "scaled = grad_w * m[:, None] / norm; detached: that. Else: scaled - (scaled * "
        "unit).sum(1, keepdim=True) * unit",
    ),
    wrong=(
        Wrong(
            "always detached",
            lambda G, V, m, d: direction_gradient(G, V, m, True),
            "`detach` is ignored: without detaching, the part along each row of V has to come off "
            "(eq. 6).",
        ),
        Wrong(
            "always projected",
            lambda G, V, m, d: direction_gradient(G, V, m, False),
            "`detach` is ignored: with the norm a constant nothing is taken off (eq. 11).",
        ),
        Wrong(
            "flag reversed",
            lambda G, V, m, d: direction_gradient(G, V, m, not d),
            "The switch is the wrong way round: detached means the norm is a constant, so *no* "
            "projection.",
        ),
        Wrong(
            "m left out",
            lambda G, V, m, d: direction_gradient(G, V, torch.ones_like(m), d),
            "The factor m is missing: both equations have m/‖V‖ in front.",
        ),
        Wrong(
            "norm left out",
            lambda G, V, m, d: direction_gradient(G, V, m * V.norm(dim=1), d),
            "The factor 1/‖V‖ is missing: a longer V turns less for the same step.",
        ),
        Wrong(
            "direction not at length one",
            _unprojected_length,
            "You project on V as it is: divide each row by its length first, or the part along it "
            "is taken off ‖V‖² times.",
        ),
        Wrong(
            "radial part",
            _radial_part,
            "You return the part along V: that is what eq. 6 takes away, keep the rest.",
        ),
        Wrong(
            "whole matrix",
            _whole_projection,
            "You projected the whole matrix on V: each row has its own norm, so each row is "
            "projected by itself.",
        ),
    ),
)
