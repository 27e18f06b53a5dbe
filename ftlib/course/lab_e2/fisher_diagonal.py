"""Lab E2, forgetting, exercise 3: the diagonal of the empirical Fisher information."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_e2.tensors import state


def fisher_diagonal(gradients: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """``F_i = 1/N·Σ_n g_ni²`` of every weight: gradients hands over, example by example, {name:
    gradient of that example's log-likelihood} -> {name: F, of the gradient's shape}. An iterator:
    it can be gone through once.
    """
    sums: dict[str, Tensor] = {}
    count = 0
    for example in gradients:
        for name, gradient in example.items():
            squared = gradient.square()
            sums[name] = sums[name] + squared if name in sums else squared
        count += 1
    return {name: total / count for name, total in sums.items()}


def _cases(g):
    for count in (3, 5, 2):
        yield ([state(g) for _ in range(count)],)
    one = state(g)
    # Two examples that pull against each other: their mean gradient is zero, their Fisher is not.
    opposite = {name: -gradient for name, gradient in one.items()}
    yield ([one, opposite],)
    yield ([state(g)],)


def _of(reduce):
    """A diagonal by another formula of the stacked gradients (N, …)."""

    def fisher_diagonal(gradients):
        examples = list(gradients)
        stacked = {}
        for name in examples[0]:
            stacked[name] = reduce(torch.stack([example[name] for example in examples]))
        return stacked

    return fisher_diagonal


def _goes_once(function) -> str | None:
    """A fault where an iterator is gone through twice, or asked for its length."""
    g = torch.Generator().manual_seed(1)
    examples = [state(g) for _ in range(3)]
    wanted = fisher_diagonal(examples)
    try:
        found = function(iter(examples))
    except TypeError as error:
        return (
            f"With a list it is right, with an iterator it is not ({error}): the examples come "
            "one at a time and only once. Count them while you go."
        )
    except (ZeroDivisionError, IndexError, KeyError):
        found = {}
    if not isinstance(found, dict) or found.keys() != wanted.keys():
        return "With an iterator nothing comes out: it can be gone through only once."
    for name, tensor in wanted.items():
        if not torch.allclose(found[name], tensor):
            return "With an iterator it is not right: it can be gone through only once."
    return None


FISHER = Exercise(
    name="fisher_diagonal",
    title="The Fisher diagonal",
    minutes=10,
    difficulty=2,
    reference=fisher_diagonal,
    cases=_cases,
    tolerance=1e-9,
    property=_goes_once,
    hints=(
        "The square is inside the sum: square each example's gradient, then take the mean.",
        "Keep one running sum for each name, and count the examples as they come; a model's "
        "gradients for all examples at once would not fit in memory.",
        "sums[name] = sums.get(name, 0) + gradient.square(), count += 1; at the end each sum / "
        "count.",
    ),
    wrong=(
        Wrong(
            "square of the mean",
            _of(lambda g: g.mean(0).square()),
            "You square the *mean* gradient. Examples that pull in opposite directions cancel in "
            "it, and at a minimum it is zero, where every weight may matter: square each "
            "example's gradient, then take the mean.",
        ),
        Wrong(
            "sum",
            _of(lambda g: g.square().sum(0)),
            "You sum over the examples: divide by their number, or λ means something else for "
            "every data set.",
        ),
        Wrong(
            "not squared",
            _of(lambda g: g.abs().mean(0)),
            "That is the mean size of the gradients: the Fisher information takes their squares.",
        ),
        Wrong(
            "mean",
            _of(lambda g: g.mean(0)),
            "Nothing is squared: the mean gradient has signs, and cancels.",
        ),
        Wrong(
            "variance",
            _of(lambda g: (g - g.mean(0)).square().mean(0)),
            "You subtract the mean gradient first: that is the gradients' variance. The Fisher "
            "information is their second moment, about zero.",
        ),
        Wrong(
            "root",
            _of(lambda g: g.square().mean(0).sqrt()),
            "You take a root at the end: F is the mean square itself.",
        ),
        Wrong(
            "whole tensors",
            _of(lambda g: torch.full_like(g[0], g.square().mean().item())),
            "Every weight of a tensor gets the same number: the diagonal has one for each weight, "
            "so take the mean over the examples only.",
        ),
    ),
)
