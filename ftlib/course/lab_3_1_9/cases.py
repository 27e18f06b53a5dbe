"""Cases that exercises of lab 3.1.9 share."""

from __future__ import annotations

import torch
from torch import Tensor


def random_labels(n: int, g) -> Tensor:
    return torch.rand(n, generator=g) < 0.5


def value_cases(g):
    for n, beta in ((6, 0.1), (9, 0.5), (12, 1.0)):
        yield (
            5 * torch.randn(n, generator=g),
            torch.rand((), generator=g) * 3 + 0.5,
            random_labels(n, g),
            beta,
        )
