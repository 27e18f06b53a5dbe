"""Lab 3.1.9, KTO, exercise 5: the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_9.cases import random_labels
from ftlib.course.lab_3_1_9.kto_value import kto_value


def binary_loss(
    policy_logps: Tensor,
    ref_logps: Tensor,
    z0: Tensor,
    desirable: Tensor,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Tensor:
    """KTO's loss of every row, (B,): w_D·(1 - σ(β·(r - z0))) where `desirable`, w_U·(1 - σ(β·(z0 -
    r))) elsewhere.
    """
    value = kto_value(policy_logps - ref_logps, z0, desirable, beta)
    return torch.where(desirable, desirable_weight, undesirable_weight) * (1 - value)


def _loss_cases(g):
    for n, beta, up, down in ((6, 0.1, 1.0, 1.0), (8, 0.3, 2.0, 0.5), (10, 0.5, 1.0, 3.0)):
        reference = -20 - 5 * torch.rand(n, generator=g)
        yield (
            reference + 4 * torch.randn(n, generator=g),
            reference,
            torch.rand((), generator=g) * 2 + 0.5,
            random_labels(n, g),
            beta,
            up,
            down,
        )


def _loss(
    value=kto_value, weight=torch.where, ratio=lambda p, r: p - r, loss=lambda w, v: w * (1 - v)
):
    def losses(p, r, z0, d, beta, up, down):
        return loss(weight(d, up, down), value(ratio(p, r), z0, d, beta))

    return losses


LOSS = Exercise(
    name="binary_loss",
    title="The loss",
    minutes=10,
    difficulty=2,
    reference=binary_loss,
    cases=_loss_cases,
    gradient_of=("policy_logps",),
    points=3,
    hints=(
        "Three lines: the log-ratio r; the value of each row (exercise 2); the weight of each row.",
        "`torch.where(desirable, desirable_weight, undesirable_weight)` has the weights. The loss "
        "is weight · (1 − value).",
        "value = kto_value(policy_logps - ref_logps, z0, desirable, beta); "
        "return torch.where(desirable, desirable_weight, undesirable_weight) * (1 - value)",
    ),
    wrong=(
        Wrong(
            "value, not loss",
            _loss(loss=lambda w, v: w * v),
            "You returned the value: minimising it would teach the opposite. The loss is w·(1 − "
            "v).",
        ),
        Wrong(
            "minus the value",
            _loss(loss=lambda w, v: -w * v),
            "You returned −w·v: the same gradient, but the loss is w·(1 − v), which is 0 for a "
            "row that is right beyond doubt.",
        ),
        Wrong(
            "logarithm",
            _loss(loss=lambda w, v: -w * v.log()),
            "You took −log σ, as DPO does. KTO's loss is 1 − σ: bounded, so that a hopeless row "
            "stops pulling.",
        ),
        Wrong(
            "weights swapped",
            _loss(weight=lambda d, up, down: torch.where(d, down, up)),
            "The two weights have changed places: desirable_weight belongs to thumbs up.",
        ),
        Wrong(
            "weights left out",
            _loss(weight=lambda d, up, down: 1.0),
            "The weights are not used: thumbs up and down then count by their numbers alone.",
        ),
        Wrong(
            "no reference",
            _loss(ratio=lambda p, r: p),
            "ref_logps are not used: the ratio is log π − log π_ref. Without it long answers are "
            "punished for their length.",
        ),
        Wrong(
            "labels ignored",
            _loss(value=lambda r, z, d, b: torch.sigmoid(b * (r - z))),
            "All rows are pushed up: for a thumbs down the value is σ(β·(z0 − r)).",
        ),
        Wrong(
            "mean",
            _loss(loss=lambda w, v: (w * (1 - v)).mean()),
            "You returned one number: one loss per row is wanted, the trainer takes the mean.",
        ),
    ),
)
