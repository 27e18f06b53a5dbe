"""Lab 3.1.10, export and Ollama, exercise 5: KL."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def kl_per_token(reference: Tensor, logits: Tensor) -> Tensor:
    """KL(reference ‖ other) in nats at each position. Both (T, vocabulary), logits -> (T,)."""
    p = reference.float().log_softmax(-1)
    q = logits.float().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _kl_cases(g):
    for tokens, vocabulary, noise in ((3, 5, 1.0), (4, 8, 0.3), (2, 4, 2.0)):
        reference = 2 * torch.randn(tokens, vocabulary, generator=g)
        yield reference, reference + noise * torch.randn(tokens, vocabulary, generator=g) + 3


KL = Exercise(
    name="kl_per_token",
    title="How far apart two files are",
    minutes=8,
    difficulty=2,
    reference=kl_per_token,
    cases=_kl_cases,
    hints=(
        "Both arguments are logits: turn each into log-probabilities first, with "
        "`log_softmax(-1)`.",
        "KL(p ‖ q) = Σ p (log p − log q), summed over the vocabulary; p is the reference's.",
        "p = reference.log_softmax(-1); q = logits.log_softmax(-1); return (p.exp() * (p - "
        "q)).sum(-1)",
    ),
    wrong=(
        Wrong(
            "the other direction",
            lambda a, b: kl_per_token(b, a),
            "That is KL(other ‖ reference): the weights of the mean must be the reference's "
            "probabilities, "
            "its text is what we ask about.",
        ),
        Wrong(
            "no log-softmax",
            lambda a, b: (a.softmax(-1) * (a - b)).sum(-1),
            "You subtracted logits: a constant added to all logits changes nothing in the model "
            "but your result. "
            "Normalise both.",
        ),
        Wrong(
            "bits",
            lambda a, b: kl_per_token(a, b) / torch.tensor(2.0).log(),
            "You have bits: nats are wanted, so take the natural logarithm.",
        ),
        Wrong(
            "mean over the vocabulary",
            lambda a, b: kl_per_token(a, b) / a.shape[-1],
            "You took the mean over the vocabulary: p weighs the entries already, so sum.",
        ),
        Wrong(
            "summed over tokens",
            lambda a, b: kl_per_token(a, b).sum(),
            "One number for the whole text: keep one per position, so that you can give an "
            "interval.",
        ),
        Wrong(
            "cross entropy",
            lambda a, b: -(a.softmax(-1) * b.log_softmax(-1)).sum(-1),
            "That is the cross entropy: the entropy of the reference is still in it, and two "
            "equal files would not give 0.",
        ),
        Wrong(
            "squared difference",
            lambda a, b: (a.softmax(-1) - b.softmax(-1)).square().sum(-1),
            "That is a squared difference of probabilities: KL takes the logarithm of their ratio.",
        ),
    ),
)
