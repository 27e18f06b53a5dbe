"""Lab 3.1.7, DPO, exercise 1: log π(y|x)."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.batches.template import IGNORE
from ftlib.course.exercise import Exercise, Wrong


def completion_logp(logits: Tensor, labels: Tensor) -> Tensor:
    """log π(y|x) in nats, summed over the completion. logits (B, T, V), labels (B, T), -100 where
    nothing is scored -> (B,).
    """
    logps = logits[:, :-1].log_softmax(-1)
    labels = labels[:, 1:]
    picked = logps.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    return (picked * (labels != IGNORE)).sum(1)


def _logp_cases(g):
    for rows, length, words in ((2, 6, 5), (3, 9, 7), (1, 4, 11), (4, 12, 3)):
        labels = torch.randint(0, words, (rows, length), generator=g)
        labels[:, :2] = IGNORE
        labels[0, -1] = IGNORE
        yield 2 * torch.randn(rows, length, words, generator=g), labels


def _logp(shift=True, masked=True, mean=False, normalised=True, sign=1):
    def logp(logits, labels):
        logits, labels = (logits[:, :-1], labels[:, 1:]) if shift else (logits, labels)
        scores = logits.log_softmax(-1) if normalised else logits
        mask = (labels != IGNORE) if masked else torch.ones_like(labels, dtype=torch.bool)
        picked = scores.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1) * mask
        return sign * picked.sum(1) / (mask.sum(1) if mean else 1)

    return logp


LOGP = Exercise(
    name="completion_logp",
    title="The log-probability of an answer",
    minutes=12,
    difficulty=2,
    reference=completion_logp,
    cases=_logp_cases,
    gradient_of=("logits",),
    points=3,
    hints=(
        "The logits at position t predict token t + 1: drop the last position of the logits and "
        "the first of the labels.",
        "-100 is no index: clamp the labels to 0, gather, and multiply by the mask `labels != "
        "-100`.",
        "logps = logits[:, :-1].log_softmax(-1); picked = logps.gather(-1, labels[:, "
        "1:].clamp(min=0)[..., None]).squeeze(-1); "
        "return (picked * (labels[:, 1:] != -100)).sum(1)",
    ),
    wrong=(
        Wrong(
            "mean",
            _logp(mean=True),
            "You took the mean over the tokens: DPO's log π(y|x) is their sum, the log of a "
            "product.",
        ),
        Wrong(
            "no shift",
            _logp(shift=False),
            "Not shifted: the logits at position t predict the token at t + 1.",
        ),
        Wrong(
            "no mask",
            _logp(masked=False),
            "You scored the prompt or the padding too: positions labelled -100 must add nothing.",
        ),
        Wrong(
            "raw logits",
            _logp(normalised=False),
            "You summed logits: log-probabilities need log_softmax over the vocabulary.",
        ),
        Wrong(
            "negative",
            _logp(sign=-1),
            "That is the loss −log π: here log π itself is wanted, a number below 0.",
        ),
    ),
)
