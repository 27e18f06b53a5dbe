"""Lab 3.1.2, DoRA, exercise 7: how far a weight has moved."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_2.tensors import randn


def weight_change(before: Tensor, after: Tensor) -> tuple[float, float]:
    """(ΔM, ΔD): mean over output rows of the change in length, in size, and of 1 − cosine (eqs. 3
    and 4).
    """
    before = before.double()
    after = after.double()
    lengths = (after.norm(dim=1) - before.norm(dim=1)).abs()
    return lengths.mean().item(), (1 - F.cosine_similarity(before, after, dim=1)).mean().item()


def _change_cases(g):
    for n_out, n_in, size in [(5, 7, 0.3), (6, 6, 1.0), (9, 4, 0.1), (3, 8, 2.0)]:
        W = randn(g, n_out, n_in)
        yield W, W + size * randn(g, n_out, n_in)
    yield W, 2 * W


def _change_by(length, cosine):
    def change(W, V):
        W = W.double()
        V = V.double()
        return length(W, V).item(), cosine(W, V).item()

    return change


def _length(W, V):
    return (V.norm(dim=1) - W.norm(dim=1)).abs().mean()


def _turn(W, V):
    return (1 - F.cosine_similarity(W, V, dim=1)).mean()


WEIGHT_CHANGE = Exercise(
    name="weight_change",
    title="How far, and which way",
    minutes=10,
    difficulty=2,
    reference=weight_change,
    cases=_change_cases,
    hints=(
        "Two numbers for a pair of matrices, each a mean over the output rows. Begin with the "
        "lengths of the rows, before and "
        "after.",
        "Eq. 3 has bars: rows that grow and rows that shrink must not cancel.",
        "Eq. 4: `F.cosine_similarity(before, after, dim=1)` gives one cosine a row; 0 change "
        "means cosine 1.",
        "Return two floats: (…).abs().mean().item() and (1 - cosine).mean().item()",
    ),
    wrong=(
        Wrong(
            "signed",
            _change_by(lambda W, V: (V.norm(dim=1) - W.norm(dim=1)).mean(), _turn),
            "ΔM is signed: growing and shrinking rows cancel. Eq. 3 takes the size of each row's "
            "change.",
        ),
        Wrong(
            "norm of the difference",
            _change_by(lambda W, V: (V - W).norm(dim=1).mean(), _turn),
            "Your ΔM is ‖ΔW‖ by row, which a mere turn makes large too: take the difference of "
            "the norms.",
        ),
        Wrong(
            "cosine",
            _change_by(_length, lambda W, V: 1 - _turn(W, V)),
            "ΔD is the cosine itself: no change must give 0, so 1 − cos.",
        ),
        Wrong(
            "input axis",
            _change_by(
                lambda W, V: (V.norm(dim=0) - W.norm(dim=0)).abs().mean(),
                lambda W, V: (1 - F.cosine_similarity(W, V, dim=0)).mean(),
            ),
            "Norm over the input axis: compare output rows, dim=1.",
        ),
        Wrong(
            "whole matrix",
            _change_by(
                lambda W, V: (V.norm() - W.norm()).abs(),
                lambda W, V: 1 - F.cosine_similarity(W.flatten(), V.flatten(), dim=0),
            ),
            "You treat the matrix as one long vector: measure each output row, then take the mean.",
        ),
        Wrong(
            "sum",
            _change_by(lambda W, V: _length(W, V) * len(W), lambda W, V: _turn(W, V) * len(W)),
            "Sums instead of means: a layer with more outputs would seem to move more.",
        ),
    ),
)
