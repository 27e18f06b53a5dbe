"""Lab 3.1.2, DoRA, exercise 8: merging."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.adapters.functional import lora_delta
from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_2.tensors import positive, randn


def merge_dora(weight: Tensor, A: Tensor, B: Tensor, m: Tensor, scaling: float) -> Tensor:
    """m·V/‖V‖ by output row with V = W + s·BA, computed in A's dtype and rounded once, to W's
    dtype.
    """
    V = weight.to(A.dtype) + lora_delta(A, B, scaling)
    return (V * (m / V.norm(dim=1))[:, None]).to(weight.dtype)


def _merge_cases(g):
    for n_in, n_out, r, s, dtype in [
        (6, 5, 2, 2.0, torch.float32),
        (8, 8, 4, 0.5, torch.float32),
        (9, 4, 3, 4.0, torch.float32),
        (32, 24, 4, 2.0, torch.bfloat16),
    ]:
        yield (
            randn(g, n_out, n_in).to(dtype),
            randn(g, r, n_in),
            randn(g, n_out, r),
            positive(g, n_out),
            s,
        )


def _merge_by(scale):
    def merge(W, A, B, m, s):
        V = W.to(A.dtype) + lora_delta(A, B, s)
        return (V * scale(W.to(A.dtype), V, m)).to(W.dtype)

    return merge


MERGE_DORA = Exercise(
    name="merge_dora",
    title="Merging",
    minutes=5,
    difficulty=1,
    reference=merge_dora,
    cases=_merge_cases,
    dtypes={None: "same"},
    tolerance=1e-4,
    hints=(
        "Merging happens once, so here the dense V = W + s·BA may be built.",
        "Every output row of the result has length m_i. Check yourself: `merged.norm(dim=1)` is m.",
        "V = weight.to(A.dtype) + scaling * B @ A; multiply row i by m_i/‖V_i‖; round once at the "
        "end.",
        "return (V * (m / V.norm(dim=1))[:, None]).to(weight.dtype)",
    ),
    wrong=(
        Wrong(
            "LoRA's merge",
            _merge_by(lambda W, V, m: 1.0),
            "That is LoRA's merge, W + s·BA: the rows still have their own length instead of m.",
        ),
        Wrong(
            "norm of W",
            _merge_by(lambda W, V, m: (m / W.norm(dim=1))[:, None]),
            "You divide by ‖W‖: then the rows do not come out with length m. Divide by ‖W + s·BA‖.",
        ),
        Wrong(
            "not divided",
            _merge_by(lambda W, V, m: m[:, None]),
            "Nothing divides by the norm: the rows come out m·‖V‖ long.",
        ),
        Wrong(
            "magnitude lost",
            _merge_by(lambda W, V, m: 1 / V.norm(dim=1)[:, None]),
            "m is not used: all rows have length 1.",
        ),
        Wrong(
            "whole matrix",
            _merge_by(lambda W, V, m: m[:, None] / V.norm()),
            "You divide by the norm of the whole matrix: each output row has its own.",
        ),
        Wrong(
            "no scaling",
            lambda W, A, B, m, s: merge_dora(W, A, B, m, 1.0),
            "`scaling` is missing: the merged rows would point elsewhere than the trained ones.",
        ),
        Wrong(
            "added to W",
            lambda W, A, B, m, s: W + merge_dora(W, A, B, m, s),
            "You added the result to W: m·V/‖V‖ replaces the weight, W is inside V already.",
        ),
    ),
)
