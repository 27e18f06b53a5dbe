"""Lab 3.1.10, export and Ollama, exercise 2: the rows of q and k."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def permute_rows(weight: Tensor, heads: int) -> Tensor:
    """Rows of q or k, (heads·d, in), from transformers' order to Llama's.

    transformers rotates row i of a head against row i + d/2; llama.cpp rotates row 2i against row
    2i + 1.
    """
    rows, inside = weight.shape
    return (
        weight.reshape(heads, 2, rows // heads // 2, inside).transpose(1, 2).reshape(rows, inside)
    )


def _rows_cases(g):
    for heads, d, inside in ((1, 8, 3), (2, 8, 4), (4, 16, 6), (3, 4, 5)):
        yield torch.randn(heads * d, inside, generator=g), heads


def _inverse(w, heads):
    return w.reshape(heads, -1, 2, w.shape[1]).transpose(1, 2).reshape(w.shape)


PERMUTE = Exercise(
    name="permute_rows",
    title="Neighbours or halves",
    minutes=12,
    difficulty=3,
    reference=permute_rows,
    cases=_rows_cases,
    hints=(
        "Write the rows of one head of d = 6 down: 0 1 2 | 3 4 5. Row 0 belongs with 3, 1 with 4, "
        "2 with 5.",
        "llama.cpp wants partners side by side: 0 3 1 4 2 5. Do it within each head.",
        "Shape the rows to (heads, 2, d/2, in): the axis of length 2 says which half. Then swap "
        "it with the one after it.",
        "return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, "
        "2).reshape(weight.shape)",
    ),
    wrong=(
        Wrong(
            "the way back",
            _inverse,
            "That is the way back, from neighbours to halves. The axis of length 2 is the first "
            "one within a head: "
            "(heads, 2, d/2, in).",
        ),
        Wrong(
            "heads forgotten",
            lambda w, heads: w.reshape(2, -1, w.shape[1]).transpose(0, 1).reshape(w.shape),
            "You split all rows into two halves: partners are within one head, so split every "
            "head.",
        ),
        Wrong(
            "not swapped",
            lambda w, heads: w.reshape(heads, 2, -1, w.shape[1]).reshape(w.shape),
            "The rows come back in the old order: reshape alone moves nothing. Swap the two axes "
            "in between.",
        ),
        Wrong(
            "swapped halves",
            lambda w, heads: w.reshape(heads, 2, -1, w.shape[1]).flip(1).reshape(w.shape),
            "You put the second half of a head before the first: the halves must be interleaved.",
        ),
        Wrong(
            "heads innermost",
            lambda w, heads: (
                w.reshape(2, -1, heads, w.shape[1]).permute(2, 1, 0, 3).reshape(w.shape)
            ),
            "You read the rows as if the heads alternated: the rows of one head follow each other, "
            "so `heads` is the first axis.",
        ),
        Wrong(
            "columns",
            lambda w, heads: (
                w.reshape(w.shape[0], 2, -1).transpose(1, 2).reshape(w.shape)
                if w.shape[1] % 2 == 0
                else w.clone()
            ),
            "You permuted the columns, which belong to the input: the rotation acts on the "
            "outputs, that is on the rows.",
        ),
    ),
)
