"""Lab E6, exercise: the loss of a step of several micro-batches."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def step_loss(nll: Tensor, scored: Tensor) -> Tensor:
    """The loss of one optimizer step, (): the mean over all scored tokens of its micro-batches.
    nll (K, B, T), nats, of K micro-batches; scored (K, B, T), bool, False for prompt and padding.
    """
    return nll[scored].sum() / scored.sum()


def _cases(g):
    for micro, rows, longest in ((2, 3, 6), (4, 2, 8), (1, 4, 5), (3, 3, 7)):
        nll = 3 * torch.rand(micro, rows, longest, generator=g)
        lengths = torch.randint(1, longest, (micro, rows), generator=g)
        lengths[0] = 1 + torch.arange(rows) % 2  # a micro-batch of short answers
        scored = torch.arange(longest) < lengths[..., None]
        yield nll, scored


def _masked(nll, scored):
    return torch.where(scored, nll, 0.0)


def _micro_means(nll, scored):
    return _masked(nll, scored).sum((1, 2)) / scored.sum((1, 2))


ALL = Exercise(
    name="step_loss",
    title="The loss of several micro-batches",
    minutes=8,
    difficulty=2,
    reference=step_loss,
    cases=_cases,
    gradient_of=("nll",),
    hints=(
        "Forget the micro-batches: what would the loss of one large batch be?",
        "The sum over the scored tokens of all of them, divided by how many these are.",
        "return nll[scored].sum() / scored.sum()",
    ),
    wrong=(
        Wrong(
            "mean of means",
            lambda nll, scored: _micro_means(nll, scored).mean(),
            "You took the mean of the micro-batches' means: a token in a micro-batch of short "
            "answers then counts more than one beside long answers. It is what Trainer did before "
            "October 2024.",
        ),
        Wrong(
            "sum of means",
            lambda nll, scored: _micro_means(nll, scored).sum(),
            "You added the micro-batches' means: the loss, and the gradient with it, grows with "
            "their number.",
        ),
        Wrong(
            "mean of rows",
            lambda nll, scored: (_masked(nll, scored).sum(-1) / scored.sum(-1)).mean(),
            "You took the mean over rows of each row's mean: tokens of short answers count more.",
        ),
        Wrong(
            "padding counts",
            lambda nll, scored: _masked(nll, scored).mean(),
            "You divide by all positions, prompt and padding included: divide by the scored ones.",
        ),
        Wrong(
            "everything scored",
            lambda nll, scored: nll.mean(),
            "You do not use `scored`: prompts and padding would be learnt too.",
        ),
        Wrong(
            "divided twice",
            lambda nll, scored: nll[scored].sum() / scored.sum() / len(nll),
            "You divide by the number of micro-batches too: their tokens are already in the count.",
        ),
        Wrong(
            "sum",
            lambda nll, scored: nll[scored].sum(),
            "That is the sum: divide by the number of scored tokens of the whole step.",
        ),
    ),
)
