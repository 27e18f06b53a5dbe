"""Lab E7, more than one GPU, exercise 4: the gradient of all from the gradients of each."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def combine_gradients(gradients: Tensor, tokens: Tensor) -> Tensor:
    """Σ n_p·g_p / Σ n_p: the gradient of the mean loss over all tokens, (d,), from each process's
    gradient of the mean over its own n_p tokens, (processes, d).
    """
    shares = tokens / tokens.sum()
    return shares.to(gradients.dtype) @ gradients


def _cases(g):
    for tokens in ([10, 30], [5, 5], [7, 1, 12], [120, 3, 40, 40]):
        yield torch.randn(len(tokens), 6, generator=g), torch.tensor(tokens)


def _mean_of_means(gradients, tokens):
    return gradients.mean(0)


def _sum(gradients, tokens):
    return gradients.sum(0)


def _weighted_sum(gradients, tokens):
    return (tokens[:, None] * gradients).sum(0)


def _by_processes(gradients, tokens):
    return (tokens[:, None] * gradients).mean(0)


def _inverse(gradients, tokens):
    shares = (1 / tokens) / (1 / tokens).sum()
    return shares @ gradients


def _times_processes(gradients, tokens):
    return len(tokens) * combine_gradients(gradients, tokens)


def _longest(gradients, tokens):
    return (tokens / tokens.max()) @ gradients


COMBINE = Exercise(
    name="combine_gradients",
    title="A mean over tokens, not over processes",
    minutes=8,
    difficulty=2,
    reference=combine_gradients,
    cases=_cases,
    hints=(
        "g_p is a sum over n_p tokens, divided by n_p. Which sum over all tokens is wanted, and "
        "by what is it divided?",
        "n_p·g_p is the sum of a process. Add them, then divide by all tokens.",
        "return (tokens / tokens.sum()) @ gradients",
    ),
    wrong=(
        Wrong(
            "mean of means",
            _mean_of_means,
            "You weight all processes equally, as DistributedDataParallel does by default. A "
            "process with few tokens then counts as much as one with many.",
        ),
        Wrong(
            "sum",
            _sum,
            "That is a sum of means: n times too large, and not weighted by tokens.",
        ),
        Wrong(
            "not divided",
            _weighted_sum,
            "The sum over all tokens is right; divide it by their number.",
        ),
        Wrong(
            "divided by the processes",
            _by_processes,
            "You weighted by tokens and divided by the number of *processes*: divide by all "
            "tokens.",
        ),
        Wrong(
            "weights upside down",
            _inverse,
            "Your weights are inverted: the process with the fewest tokens counts most.",
        ),
        Wrong(
            "times processes",
            _times_processes,
            "n times too large. The factor n belongs in a process's *loss* if DDP averages "
            "afterwards; here nothing divides by n afterwards.",
        ),
        Wrong(
            "by the longest",
            _longest,
            "You divided by the largest number of tokens: the weights do not add up to 1.",
        ),
    ),
)
