"""Random logits for the cases of lab E4."""

from __future__ import annotations

import torch
from torch import Tensor


def pair(g: torch.Generator, positions: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """(student's, teacher's) logits (N, V), neither normalised."""
    student = 1.5 * torch.randn(positions, vocabulary, generator=g) + 1
    teacher = 2 * torch.randn(positions, vocabulary, generator=g) - 2
    return student, teacher
