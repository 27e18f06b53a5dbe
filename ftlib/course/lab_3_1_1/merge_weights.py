"""Lab 3.1.1, LoRA, exercise 7: merging."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.adapters.functional import lora_delta
from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_1.tensors import randn


def merge_weights(weight: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """W + s·BA (out, in), computed in A's dtype and rounded once, to W's dtype."""
    return (weight.to(A.dtype) + lora_delta(A, B, scaling)).to(weight.dtype)


def _merge_cases(g):
    for n_in, n_out, r, s, dtype in [
        (6, 5, 2, 2.0, torch.float32),
        (8, 8, 8, 0.5, torch.float32),
        (9, 9, 3, 4.0, torch.float32),
        (32, 24, 4, 2.0, torch.bfloat16),
        (16, 16, 16, 0.5, torch.bfloat16),
    ]:
        yield randn(g, n_out, n_in).to(dtype), randn(g, r, n_in), randn(g, n_out, r), s


MERGE = Exercise(
    name="merge_weights",
    title="Merging",
    minutes=5,
    difficulty=1,
    reference=merge_weights,
    cases=_merge_cases,
    dtypes={None: "same"},
    tolerance=1e-5,
    hints=(
        "The merged layer must give for every x what the forward pass gave. Which matrix M has Mx "
        "= Wx + s·B(Ax)?",
        "M = W + s·BA. Check the shapes: B (out, r) @ A (r, in) is (out, in), like W.",
        "W may be bf16 while A and B are fp32: add in fp32, round once at the end with "
        "`.to(weight.dtype)`.",
        "return (weight.to(A.dtype) + scaling * B @ A).to(weight.dtype)",
    ),
    wrong=(
        Wrong(
            "no scaling",
            lambda W, A, B, s: merge_weights(W, A, B, 1.0),
            "`scaling` is missing: the merged model would not be the one that was trained.",
        ),
        Wrong(
            "delta only",
            lambda W, A, B, s: merge_weights(torch.zeros_like(W), A, B, s),
            "That is ΔW alone: add it to W.",
        ),
        Wrong(
            "divided by r",
            lambda W, A, B, s: merge_weights(W, A, B, s / A.shape[0]),
            "Divided by r once too often: `scaling` is alpha/r already.",
        ),
        Wrong(
            "subtracted",
            lambda W, A, B, s: merge_weights(W, A, B, -s),
            "You took the update away: that is unmerging.",
        ),
        Wrong(
            "rounded early",
            lambda W, A, B, s: W + (lora_delta(A, B, s)).to(W.dtype),
            "You rounded ΔW to bf16 before adding, so it is rounded twice: add in fp32, round "
            "once.",
        ),
        Wrong(
            "not rounded",
            lambda W, A, B, s: W.to(A.dtype) + lora_delta(A, B, s),
            "The result is wider than `weight`: round it to weight.dtype, the layer's own.",
        ),
    ),
)
