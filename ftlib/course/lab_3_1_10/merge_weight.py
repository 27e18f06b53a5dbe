"""Lab 3.1.10, export and Ollama, exercise 1: merging."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def merge_weight(W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """W + (alpha/r)·BA in fp32. W (out, in) in any float dtype, A (r, in), B (out, r) -> (out, in),
    fp32.
    """
    return W.float() + (alpha / A.shape[0]) * (B.float() @ A.float())


def _merge_cases(g):
    for out, inside, r, alpha, dtype in (
        (6, 4, 2, 4.0, torch.float32),
        (8, 8, 4, 8.0, torch.bfloat16),
        (5, 7, 3, 16.0, torch.bfloat16),
    ):
        W = torch.randn(out, inside, generator=g).to(dtype)
        yield (
            W,
            0.1 * torch.randn(r, inside, generator=g),
            0.1 * torch.randn(out, r, generator=g),
            alpha,
        )


MERGE = Exercise(
    name="merge_weight",
    title="One matrix instead of three",
    minutes=6,
    difficulty=1,
    reference=merge_weight,
    cases=_merge_cases,
    dtypes={None: "same"},
    points=1,
    hints=(
        "The adapter adds (alpha/r)·B(Ax) to Wx. Which one matrix does the same to every x?",
        "r is the number of rows of A. The product of shape (out, in) is B @ A.",
        "Make all three fp32 first, add, and leave the sum in fp32: the exporter rounds once, at "
        "the end.",
        "return W.float() + alpha / A.shape[0] * (B.float() @ A.float())",
    ),
    wrong=(
        Wrong(
            "alpha without r",
            lambda W, A, B, alpha: W.float() + alpha * (B @ A),
            "You scaled by alpha: it is alpha/r, r being the rows of A. Your update is r times "
            "too large.",
        ),
        Wrong(
            "not scaled",
            lambda W, A, B, alpha: W.float() + B @ A,
            "The scale alpha/r is missing: the adapter was trained with it.",
        ),
        Wrong(
            "update alone",
            lambda W, A, B, alpha: alpha / A.shape[0] * (B @ A),
            "That is the update alone: the frozen W must be added.",
        ),
        Wrong(
            "added in the base's dtype",
            lambda W, A, B, alpha: (W + (alpha / A.shape[0] * (B @ A)).to(W.dtype)).float(),
            "You added in W's dtype: in bf16 an update below 1/256 of the weight is rounded away. "
            "Add in fp32.",
        ),
        Wrong(
            "subtracted",
            lambda W, A, B, alpha: W.float() - alpha / A.shape[0] * (B @ A),
            "You subtracted the update: that is how a merged adapter is taken out again.",
        ),
        Wrong(
            "left in bf16",
            lambda W, A, B, alpha: (W.float() + alpha / A.shape[0] * (B @ A)).to(torch.bfloat16),
            "The sum is rounded to bf16: return fp32, so that the file's type is the only "
            "rounding.",
        ),
    ),
)
