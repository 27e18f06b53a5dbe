"""Lab 3.1.4, fine-tuning 8B, exercise 4: the loss of supervised fine-tuning."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ftlib.batches.template import IGNORE
from ftlib.course.exercise import Exercise, Wrong


def sft_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy per answer token: logits (B, T, V), labels (B, T) with -100 where not
    trained -> scalar.
    """
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORE
    )


def _loss_no_shift(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)


def _loss_wrong_shift(logits, labels):
    return F.cross_entropy(
        logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten(), ignore_index=IGNORE
    )


def _token_losses(logits, labels):
    return F.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=IGNORE, reduction="none"
    )


def _loss_all_positions(logits, labels):
    return _token_losses(logits, labels).mean()


def _loss_sum(logits, labels):
    return _token_losses(logits, labels).sum()


def _loss_mean_of_rows(logits, labels):
    counts = (labels[:, 1:] != IGNORE).sum(1)
    return (_token_losses(logits, labels).sum(1) / counts).mean()


def _loss_cases(g):
    for batch, length, vocab in ((2, 6, 11), (4, 9, 30), (3, 5, 7)):
        logits = torch.randn(batch, length, vocab, generator=g)
        labels = torch.randint(0, vocab, (batch, length), generator=g)
        for i in range(batch):
            labels[i, : 1 + (i % (length - 2))] = IGNORE
        labels[0, -1] = IGNORE
        yield logits, labels


SFT_LOSS = Exercise(
    "sft_loss",
    "The loss of supervised fine-tuning",
    10,
    2,
    sft_loss,
    _loss_cases,
    (
        Wrong(
            "no shift",
            _loss_no_shift,
            "No shift: position t scores labels[t], the token it has just read. It must score "
            "labels[t + 1].",
        ),
        Wrong(
            "shifted the wrong way",
            _loss_wrong_shift,
            "Shifted the wrong way: your position t scores the token before it. Drop the last "
            "logit and the first label.",
        ),
        Wrong(
            "mean over all positions",
            _loss_all_positions,
            "You divided by all positions, the masked ones too: rows with long prompts would seem "
            "to be learnt already.",
        ),
        Wrong(
            "sum",
            _loss_sum,
            "Sum instead of mean over the answer tokens: the gradient would grow with the batch.",
        ),
        Wrong(
            "mean of row means",
            _loss_mean_of_rows,
            "Mean of row means: a one-word answer would weigh as much as a paragraph. Average "
            "over all answer tokens at once.",
        ),
    ),
    (
        "The logits at position t are a guess about position t + 1. Which logit has nothing to "
        "guess, and which label nobody guesses?",
        "`logits[:, :-1]` and `labels[:, 1:]` line up.",
        "F.cross_entropy wants (N, V) and (N,): flatten batch and time. It knows "
        "ignore_index=-100 and then averages over the rest.",
        "`F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), "
        "ignore_index=-100)`.",
    ),
    gradient_of=("logits",),
)
