"""Random tensors for the cases of lab 3.1.2."""

from __future__ import annotations

import torch
from torch import Tensor


def randn(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g)


def positive(g: torch.Generator, n: int) -> Tensor:
    return torch.rand(n, generator=g) + 0.5
