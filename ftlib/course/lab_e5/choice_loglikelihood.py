"""Lab E5, benchmarks and judges, exercise 1: the log-likelihood of a choice."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def choice_loglikelihood(logits: Tensor, ids: Tensor, context: int) -> float:
    """Σ log p(token | all before it), nats, over the tokens after the first `context`. logits
    (T, V) of the whole text, ids (T,) its tokens.
    """
    before = logits[context - 1 : -1].double()  # the logits at t - 1 speak of token t
    logps = before.log_softmax(-1)
    return float(logps.gather(1, ids[context:, None]).sum())


def _text_cases(g):
    for length, vocabulary, context in ((5, 7, 3), (9, 11, 1), (6, 5, 5), (12, 30, 8)):
        logits = 3 * torch.randn(length, vocabulary, generator=g)
        yield logits, torch.randint(0, vocabulary, (length,), generator=g), context


def _token_logps(logits, ids, context):
    return logits[context - 1 : -1].double().log_softmax(-1).gather(1, ids[context:, None])


def _unshifted(logits, ids, context):
    logps = logits[context:].double().log_softmax(-1)
    return float(logps.gather(1, ids[context:, None]).sum())


def _raw_logits(logits, ids, context):
    return float(logits[context - 1 : -1].double().gather(1, ids[context:, None]).sum())


LIKELIHOOD = Exercise(
    name="choice_loglikelihood",
    title="How likely is this choice?",
    minutes=10,
    difficulty=2,
    reference=choice_loglikelihood,
    cases=_text_cases,
    hints=(
        "The logits at position t are the prediction of token t + 1. So the choice's first token, "
        "at position `context`, is predicted at `context - 1`.",
        "`logits[context - 1 : -1]` are the rows that predict `ids[context:]`. `log_softmax(-1)` "
        "turns them into log-probabilities; `gather` picks those of the actual tokens.",
        "logps = logits[context - 1 : -1].log_softmax(-1); return "
        "float(logps.gather(1, ids[context:, None]).sum())",
    ),
    wrong=(
        Wrong(
            "not shifted",
            _unshifted,
            "You read each token's probability from its own position: the logits there have "
            "already seen it and predict the next one. Position t − 1 predicts token t.",
        ),
        Wrong(
            "context scored too",
            lambda logits, ids, context: float(_token_logps(logits, ids, 1).sum()),
            "You scored the context as well. It is the same for all choices only as long as they "
            "are tokenised alike, and acc_norm would divide it by the wrong length: sum only the "
            "choice's tokens.",
        ),
        Wrong(
            "mean over tokens",
            lambda logits, ids, context: float(_token_logps(logits, ids, context).mean()),
            "You took the mean over tokens. The harness sums; what it divides by, if anything, is "
            "the length of the text, which does not depend on the tokenizer.",
        ),
        Wrong(
            "logits for log-probabilities",
            _raw_logits,
            "You summed logits. They are log-probabilities only after log_softmax: each position "
            "has its own constant, so sums of logits cannot be compared.",
        ),
        Wrong(
            "probabilities",
            lambda logits, ids, context: float(_token_logps(logits, ids, context).exp().sum()),
            "You summed probabilities. Those of a sequence are multiplied, so their *logarithms* "
            "are summed.",
        ),
        Wrong(
            "first token left out",
            lambda logits, ids, context: float(_token_logps(logits, ids, context)[1:].sum()),
            "The first token of the choice is missing, and it often decides between the choices: "
            "it is predicted at position context − 1.",
        ),
    ),
)
