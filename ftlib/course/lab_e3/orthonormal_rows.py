"""Lab E3, ReFT and its relatives, exercise 2: rows at right angles and of length one."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_e3.tensors import randn, rotation


def orthonormal_rows(X: Tensor) -> Tensor:
    """R (r, d) of X (r, d): Gram and Schmidt's rows, by a QR decomposition of Xᵀ whose S has a
    positive diagonal.
    """
    Q, S = torch.linalg.qr(X.T)  # (d, r), (r, r): Xᵀ = Q S
    signs = torch.where(S.diagonal() < 0, -1.0, 1.0).to(X.dtype)
    return (Q * signs).T


def _cases(g):
    for r, d in [(2, 5), (1, 6), (4, 4), (3, 9)]:
        yield (randn(g, r, d),)
    yield (rotation(g, 3, 6),)


def _unsigned(X):
    return torch.linalg.qr(X.T)[0].T


def _lengths_only(X):
    return X / X.norm(dim=1, keepdim=True)


def _undivided(X):
    """Right angles, but every row as long as what was left of it."""
    R = orthonormal_rows(X)
    return R * (R * X).sum(1, keepdim=True)


def _nearest(X):
    U, _, V = torch.linalg.svd(X, full_matrices=False)
    return U @ V


def _from_below(X):
    return orthonormal_rows(X.flip(0)).flip(0)


def _principal(X):
    return torch.linalg.svd(X, full_matrices=False)[2]


ORTHONORMAL = Exercise(
    name="orthonormal_rows",
    title="Rows that stay orthonormal",
    minutes=10,
    difficulty=2,
    reference=orthonormal_rows,
    cases=_cases,
    gradient_of=("X",),
    tolerance=1e-4,
    hints=(
        "Gram–Schmidt: from each row of X subtract its parts along the rows of R that you already "
        "have; scale the rest to length 1. Keep gradients: no in-place writes.",
        "`torch.linalg.qr` of Xᵀ does the same at once: the columns of Q (d, r) are orthonormal "
        "and span the rows of X.",
        "QR does not fix the signs. Gram–Schmidt gives those for which the diagonal of the "
        "triangular factor is positive: flip each column of Q whose diagonal entry is negative.",
        "Q, S = torch.linalg.qr(X.T); return (Q * S.diagonal().sign()).T",
    ),
    wrong=(
        Wrong(
            "signs left open",
            _unsigned,
            "Some rows point the other way: QR does not fix the signs, and a sign that jumps "
            "between two steps would reverse the edit. Make the diagonal of the triangular factor "
            "positive.",
        ),
        Wrong(
            "lengths only",
            _lengths_only,
            "The rows have length 1 but are not orthogonal: subtract each row's parts along the "
            "rows before it.",
        ),
        Wrong(
            "lengths left",
            _undivided,
            "The rows are orthogonal, but not of length 1: divide each by its own length.",
        ),
        Wrong(
            "nearest",
            _nearest,
            "That is the *nearest* matrix of orthonormal rows (the polar factor): a good choice "
            "too, but not the one wanted here. Row 1 of R must point where row 1 of X does.",
        ),
        Wrong(
            "last row first",
            _from_below,
            "You start with the last row: it keeps its direction instead of the first one.",
        ),
        Wrong(
            "singular vectors",
            _principal,
            "Those are the right singular vectors of X: they span the same, but row 1 does not "
            "point where row 1 of X does, and they swap places when two singular values cross.",
        ),
    ),
)
