"""Lab 3.1.4, fine-tuning 8B, exercise 10: perplexity over many texts."""

from __future__ import annotations

import math

import torch

from ftlib.course.exercise import Exercise, Wrong


def perplexity(nlls: list[float], counts: list[int]) -> float:
    """Perplexity of a corpus from the mean NLL (nats) of each text and its number of tokens."""
    total = sum(nll * n for nll, n in zip(nlls, counts, strict=True))
    return math.exp(total / sum(counts))


def _ppl_unweighted(nlls, counts):
    return math.exp(sum(nlls) / len(nlls))


def _ppl_mean_of_ppls(nlls, counts):
    total = sum(math.exp(nll) * n for nll, n in zip(nlls, counts, strict=True))
    return total / sum(counts)


def _ppl_plain_mean_of_ppls(nlls, counts):
    return sum(math.exp(nll) for nll in nlls) / len(nlls)


def _ppl_base_two(nlls, counts):
    return 2 ** _ppl_forgot_exp(nlls, counts)


def _ppl_forgot_exp(nlls, counts):
    return sum(nll * n for nll, n in zip(nlls, counts, strict=True)) / sum(counts)


def _ppl_cases(g):
    for k in (2, 5, 9):
        yield (
            (0.2 + 2.5 * torch.rand(k, generator=g)).tolist(),
            torch.randint(2, 60, (k,), generator=g).tolist(),
        )


PERPLEXITY = Exercise(
    "perplexity",
    "Perplexity over many texts",
    8,
    1,
    perplexity,
    _ppl_cases,
    (
        Wrong(
            "unweighted",
            _ppl_unweighted,
            "You averaged over texts: each token must weigh the same, so weigh each text's mean "
            "by its count.",
        ),
        Wrong(
            "weighted mean of perplexities",
            _ppl_mean_of_ppls,
            "You averaged perplexities: exp comes last, once. Averaged before it, one bad text "
            "drowns the rest (Jensen).",
        ),
        Wrong(
            "mean of perplexities",
            _ppl_plain_mean_of_ppls,
            "You averaged the texts' perplexities, and without their lengths: sum NLL times "
            "count, divide by all "
            "tokens, then exp once.",
        ),
        Wrong(
            "base two",
            _ppl_base_two,
            "2 to the power of nats: with natural logarithms the base is e. Base 2 belongs to "
            "bits.",
        ),
        Wrong(
            "no exponential",
            _ppl_forgot_exp,
            "That is the mean NLL: perplexity is its exponential.",
        ),
    ),
    (
        "Perplexity is exp(mean NLL per token). Per token, not per text.",
        "nll * count is a text's total NLL.",
        "exp(sum of totals / sum of counts), with math.exp, at the very end.",
    ),
)
