"""Random tensors for the cases of lab E3."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.adapters.reft import orthonormal_rows


def randn(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g)


def rotation(g: torch.Generator, r: int, d: int) -> Tensor:
    """R (r, d), random, of orthonormal rows."""
    return orthonormal_rows(randn(g, r, d))
