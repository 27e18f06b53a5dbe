"""Lab 3.1.8, SimPO and ORPO, exercise 1: the mean per token."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def mean_logps(token_logps: Tensor, mask: Tensor) -> Tensor:
    """Mean log-probability of the answer's tokens: (B, T), (B, T) with true on the answer ->
    (B,).
    """
    return (token_logps * mask).sum(1) / mask.sum(1)


def _mean_cases(g):
    for rows, width in ((2, 5), (4, 7), (3, 9)):
        mask = torch.zeros(rows, width, dtype=torch.bool)
        for i in range(rows):
            start = 1 + i % 2
            mask[i, start : start + 1 + (2 * i + 1) % (width - 2)] = True
        yield -3 * torch.rand(rows, width, generator=g), mask


MEAN = Exercise(
    name="mean_logps",
    title="The mean per token",
    minutes=5,
    difficulty=1,
    reference=mean_logps,
    cases=_mean_cases,
    gradient_of=("token_logps",),
    points=1,
    hints=(
        "Only the tokens of the answer count: prompt and padding have log-probabilities too.",
        "`token_logps * mask` empties the others. Then a sum for each row, over its own number of "
        "tokens.",
        "return (token_logps * mask).sum(1) / mask.sum(1)",
    ),
    wrong=(
        Wrong(
            "the sum",
            lambda t, m: (t * m).sum(1),
            "You return the sum: that is DPO's log π, in which every further token costs. "
            "Divide by the number of the answer's tokens.",
        ),
        Wrong(
            "padded length",
            lambda t, m: (t * m).sum(1) / t.shape[1],
            "You divided by the padded length: an answer's score then depends on the longest row "
            "of its batch.",
        ),
        Wrong(
            "everything scored",
            lambda t, m: t.mean(1),
            "Prompt and padding are scored too: multiply by the mask first.",
        ),
        Wrong(
            "mean over the batch",
            lambda t, m: (t * m).sum(1) / m.sum() * len(t),
            "You divided by the mean number of tokens in the batch: long answers still cost more "
            "than short ones. "
            "Each row by its own number.",
        ),
        Wrong(
            "mean of probabilities",
            lambda t, m: ((t.exp() * m).sum(1) / m.sum(1)).log(),
            "You averaged the probabilities and took the logarithm after: the mean is of the "
            "logarithms.",
        ),
    ),
)
