"""Lab 3.1.4, fine-tuning 8B, exercise 5: gradient accumulation that changes nothing."""

from __future__ import annotations

import torch

from ftlib.course.exercise import Exercise, Wrong


def accumulation_weights(token_counts: list[int]) -> list[float]:
    """The factor for each micro-batch's mean loss, so that their sum is the mean over all tokens of
    the whole batch.
    """
    return [n / sum(token_counts) for n in token_counts]


def _weights_equal(token_counts):
    return [1 / len(token_counts)] * len(token_counts)


def _weights_one(token_counts):
    return [1.0] * len(token_counts)


def _weights_counts(token_counts):
    return [float(n) for n in token_counts]


def _weights_relative(token_counts):
    return [n * len(token_counts) / sum(token_counts) for n in token_counts]


def _weights_inverse(token_counts):
    inverse = [1 / n for n in token_counts]
    return [i / sum(inverse) for i in inverse]


def _weights_cases(g):
    for k in (2, 4, 5):
        yield (torch.randint(5, 200, (k,), generator=g).tolist(),)


ACCUMULATION = Exercise(
    "accumulation_weights",
    "Gradient accumulation that changes nothing",
    10,
    2,
    accumulation_weights,
    _weights_cases,
    (
        Wrong(
            "equal weights",
            _weights_equal,
            "Equal weights 1/k: a micro-batch of few answer tokens counts as much as one of many. "
            "That was "
            "transformers' own bug until October 2024.",
        ),
        Wrong(
            "no weights",
            _weights_one,
            "All ones: k micro-batches give a gradient k times too large.",
        ),
        Wrong(
            "raw counts",
            _weights_counts,
            "You weigh by the token counts and forget to divide by their sum.",
        ),
        Wrong(
            "mean weight one",
            _weights_relative,
            "Your weights have mean 1 and sum k: the gradient comes out k times too large. They "
            "must sum to 1.",
        ),
        Wrong(
            "inverse counts",
            _weights_inverse,
            "You weigh by 1/n: a micro-batch with more answer tokens must count more, not less.",
        ),
    ),
    (
        "Write the whole batch's loss as a sum over all tokens divided by N, the number of all "
        "answer tokens.",
        "A micro-batch's mean loss times its n is its sum. So which factor turns its mean into "
        "its share of the whole?",
        "n_i / N. Check: the factors sum to 1.",
    ),
)
