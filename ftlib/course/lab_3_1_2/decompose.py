"""Lab 3.1.2, DoRA, exercise 1: length and direction."""

from __future__ import annotations

from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_2.tensors import randn


def decompose(weight: Tensor) -> tuple[Tensor, Tensor]:
    """m (out,), the length of every output row, and the rows at length 1 (out, in)."""
    m = weight.norm(dim=1)
    return m, weight / m[:, None]


def _weight_cases(g):
    for n_out, n_in in [(5, 7), (6, 6), (9, 3), (1, 8)]:
        yield (randn(g, n_out, n_in),)


def _by_column(W):
    m = W.norm(dim=0)
    return m, W / m


def _by_matrix(W):
    m = W.norm()
    return m.expand(len(W)).clone(), W / m


def _by_sum(W):
    m = W.abs().sum(1)
    return m, W / m[:, None]


DECOMPOSE = Exercise(
    name="decompose",
    title="Length and direction",
    minutes=5,
    difficulty=1,
    reference=decompose,
    cases=_weight_cases,
    hints=(
        "PyTorch stores a linear layer's weight as (out, in): row i holds what output i reads. "
        "One length for every row.",
        "`weight.norm(dim=d)` sums over dimension d. Which d leaves one number for each output?",
        "m has shape (out,), the weight (out, in): divide by `m[:, None]`, so that row i is "
        "divided by m_i.",
        "m = weight.norm(dim=1); return m, weight / m[:, None]",
    ),
    wrong=(
        Wrong(
            "input axis",
            _by_column,
            "Norm over the wrong axis: you have one length for each input (dim=0). DoRA has one "
            "for each output row, dim=1.",
        ),
        Wrong(
            "whole matrix",
            _by_matrix,
            "That is one length for the whole matrix (Frobenius): each output row has its own.",
        ),
        Wrong(
            "squared",
            lambda W: (W.square().sum(1), W / W.square().sum(1)[:, None]),
            "Your lengths are squared: take the root of Σw².",
        ),
        Wrong("sum of sizes", _by_sum, "You added up |w|: the length is √Σw², the 2-norm."),
        Wrong(
            "direction not divided",
            lambda W: (W.norm(dim=1), W),
            "The lengths are right, but the direction still has them: divide every row by its own "
            "length.",
        ),
        Wrong(
            "column vector",
            lambda W: (W.norm(dim=1, keepdim=True), W / W.norm(dim=1, keepdim=True)),
            "m has shape (out, 1): return it as (out,), the shape of a bias and of PEFT's "
            "magnitude vector.",
        ),
    ),
)
