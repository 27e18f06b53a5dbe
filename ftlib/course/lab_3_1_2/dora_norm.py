"""Lab 3.1.2, DoRA, exercise 2: the norm without the dense product."""

from __future__ import annotations

import torch

from ftlib.adapters.functional import dora_norm
from ftlib.course.allocation import holds_product
from ftlib.course.exercise import Exercise, Verdict, Wrong
from ftlib.course.exercise_data import UNMEASURED
from ftlib.course.lab_3_1_2.tensors import randn


def _norm_property(function) -> str | Verdict | None:
    g = torch.Generator().manual_seed(1)
    W = randn(g, 97, 89)
    A = randn(g, 2, 89)
    B = randn(g, 97, 2)
    made = holds_product(function, (W, A, B, 2.0), factors=(1, 2))
    if made is None:
        return UNMEASURED
    if made:
        return (
            "The values are right, but you built an out × in tensor of A and B (such as BA or "
            "W + BA): at 4096 × 4096 in fp32 that is 64 MiB, to get 4096 "
            "numbers. Expand the square: W Aᵀ is out × r and A Aᵀ is r × r."
        )
    return None


def _norm_cases(g):
    for n_out, n_in, r, s in [(5, 7, 2, 2.0), (6, 6, 3, 0.5), (9, 4, 1, 4.0), (8, 16, 4, 1.5)]:
        yield randn(g, n_out, n_in), randn(g, r, n_in), randn(g, n_out, r), s


def _norm_from(cross=2.0, power=2, gram=True, root=True):
    def norm(W, A, B, s):
        inner = B @ (A @ A.T) if gram else B
        square = (
            W.square().sum(1) + cross * s * (B * (W @ A.T)).sum(1) + s**power * (inner * B).sum(1)
        )
        return square.clamp_min(0).sqrt() if root else square

    return norm


DORA_NORM = Exercise(
    name="dora_norm",
    title="The norm without the dense product",
    minutes=15,
    difficulty=3,
    reference=dora_norm,
    cases=_norm_cases,
    property=_norm_property,
    praise="equal to the reference, and BA was never made,",
    tolerance=1e-4,
    hints=(
        "Row i of V = W + s·BA is w + s·u with w = W_i and u = (BA)_i. Expand ‖w + s·u‖² into "
        "three terms.",
        "‖w‖² + 2s·w·u + s²·‖u‖². Now u = Σ_k B_ik A_k, so w·u = Σ_k B_ik (W Aᵀ)_ik: multiply "
        "elementwise and sum over k.",
        "‖u‖² = Σ_kl B_ik (A Aᵀ)_kl B_il: the rows of B @ (A @ A.T), times B, summed.",
        "square = W.square().sum(1) + 2*s*(B * (W @ A.T)).sum(1) + s**2 * ((B @ (A @ A.T)) * "
        "B).sum(1); "
        "then clamp at 0, then the root.",
    ),
    wrong=(
        Wrong(
            "cross once",
            _norm_from(cross=1.0),
            "The mixed term is there once: (w + su)² has 2s·w·u.",
        ),
        Wrong(
            "cross missing",
            _norm_from(cross=0.0),
            "The mixed term 2s·w·u is missing: that would be right only if every row of BA were "
            "orthogonal to its row of W.",
        ),
        Wrong(
            "scaling not squared",
            _norm_from(power=1),
            "The last term has s instead of s²: the update s·u is squared as a whole.",
        ),
        Wrong(
            "A left out",
            _norm_from(gram=False),
            "Your last term is ‖B_i‖²: it needs A too, through the r × r matrix A Aᵀ.",
        ),
        Wrong("no root", _norm_from(root=False), "That is the squared norm: take the root."),
        Wrong(
            "norm of W",
            lambda W, A, B, s: W.norm(dim=1),
            "That is ‖W‖, which never changes: DoRA divides by the norm of W + s·BA as it is now.",
        ),
    ),
)
