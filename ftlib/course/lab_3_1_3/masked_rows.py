"""Cases and wrong answers for noise on padded rows, uniform or Gaussian (lab 3.1.3)."""

from __future__ import annotations

import torch


def _rows_mask(lengths, width):
    return (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long()


def masked_cases(g, draw=torch.rand):
    for alpha, lengths, width, d in [
        (5.0, (6, 3), 6, 8),
        (10.0, (1, 5, 4), 7, 5),
        (15.0, (9, 9, 2, 4), 9, 16),
        (2.0, (4, 4), 8, 3),
    ]:
        yield draw(len(lengths), width, d, generator=g), _rows_mask(lengths, width), alpha


def masked(length, keep=lambda m: m, centre=lambda u: 2 * u - 1, factor=1.0):
    """Noise with another length, mask, range or scale."""

    def noise(u, mask, alpha):
        L = length(mask).to(u.dtype).expand(len(mask))
        return (
            centre(u)
            * factor
            * (alpha / (L * u.shape[-1]).sqrt())[:, None, None]
            * keep(mask)[..., None]
        )

    return noise


def own_length(m):
    return m.sum(1)


def padded_length(m):
    return torch.tensor(m.shape[1])
