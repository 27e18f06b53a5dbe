"""Lab E6, exercise: clipping by the norm of all gradients together."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong

GUARD = 1e-6  # as PyTorch's clip_grad_norm_ has it


def clip_factor(gradients: list[Tensor], max_norm: float) -> Tensor:
    """What every gradient is multiplied by, (): min(1, max_norm/(n + 1e-6)), n the Euclidean norm
    of all gradients as one long vector (Pascanu et al. 2013, arXiv 1211.5063).
    """
    squares = [gradient.square().sum() for gradient in gradients]
    norm = torch.stack(squares).sum().sqrt()
    return (max_norm / (norm + GUARD)).clamp(max=1.0)


def _cases(g):
    for size, max_norm in ((0.1, 1.0), (3.0, 1.0), (10.0, 0.5), (1.0, 4.0), (1e-7, 1e-7)):
        shapes = ((4, 3), (2, 4), (5,))
        gradients = [size * torch.randn(shape, generator=g) for shape in shapes]
        yield gradients, max_norm


def _norms(gradients):
    return torch.stack([gradient.norm() for gradient in gradients])


def _factor(norm_of, clamp=True, guard=GUARD):
    def factor(gradients, max_norm):
        found = max_norm / (norm_of(gradients) + guard)
        return found.clamp(max=1.0) if clamp else found

    return factor


def _whole(gradients):
    return _norms(gradients).square().sum().sqrt()


CLIP = Exercise(
    name="clip_factor",
    title="Gradient clipping",
    minutes=6,
    difficulty=2,
    reference=clip_factor,
    cases=_cases,
    points=1,
    hints=(
        "One norm for all: the root of the sum of the squares of every entry of every gradient.",
        "The factor is max_norm over that norm, but never above 1: small gradients stay as they "
        "are.",
        "norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt(); "
        "return (max_norm / (norm + 1e-6)).clamp(max=1.0)",
    ),
    wrong=(
        Wrong(
            "never clamped",
            _factor(_whole, clamp=False),
            "Where the norm is below max_norm your factor is above 1: it makes small gradients "
            "large. Clipping only ever shrinks.",
        ),
        Wrong(
            "sum of norms",
            _factor(lambda gradients: _norms(gradients).sum()),
            "You added the norms of the parameters: the norm of the whole is the root of the sum "
            "of their squares.",
        ),
        Wrong(
            "largest norm",
            _factor(lambda gradients: _norms(gradients).max()),
            "You took the largest parameter's norm: all gradients together are one vector.",
        ),
        Wrong(
            "no root",
            _factor(lambda gradients: _norms(gradients).square().sum()),
            "The root is missing: you divide by the squared norm.",
        ),
        Wrong(
            "largest entry",
            _factor(lambda gradients: torch.stack([g.abs().max() for g in gradients]).max()),
            "That is clipping by the largest entry; max_grad_norm uses the Euclidean norm.",
        ),
        Wrong(
            "no guard",
            _factor(_whole, guard=0.0),
            "The 1e-6 in the denominator is missing: with gradients of 0 you divide 0 by 0.",
        ),
        Wrong(
            "mean square",
            _factor(lambda gradients: torch.cat([g.flatten() for g in gradients]).std()),
            "You divide by the root mean square of the entries: the norm should grow with their "
            "number.",
        ),
    ),
)
