"""Ways to the reference point z0, right and wrong ones, and a loss that is made of a student's
pieces and notes what it saw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ftlib.course.lab_3_1_9.binary_loss import binary_loss
from ftlib.course.lab_3_1_9.loss_slope import loss_slope
from ftlib.course.lab_3_1_9.reference_point import reference_point

RIGHT = "right"
ZERO = "always 0"
MATCHED = "matched"
MATCHED_WITH_GRADIENT = "matched, with gradient"
AS_GOOD_AS_ZERO = 0.01  # nats: at β = 0.1 it changes no row's pull by more than a thousandth


def zero_point(policy: Tensor, ref: Tensor, policy_kl: Tensor, ref_kl: Tensor) -> Tensor:
    """No reference point at all."""
    return torch.zeros((), dtype=policy.dtype, device=policy.device)


def matched_point(policy: Tensor, ref: Tensor, policy_kl: Tensor, ref_kl: Tensor) -> Tensor:
    """The mean of the rows' own log-ratios: of what is being trained."""
    return (policy - ref).detach().mean().clamp(min=0)


def matched_point_with_gradient(
    policy: Tensor, ref: Tensor, policy_kl: Tensor, ref_kl: Tensor
) -> Tensor:
    """The same, and the gradient goes through it."""
    return (policy - ref).mean().clamp(min=0)


def points_by_name(reference_point: Callable = reference_point) -> dict[str, Callable]:
    """{name: function of the batch's four vectors of log-probabilities}; the right one with this
    `reference_point`.
    """

    def right_point(policy, ref, policy_kl, ref_kl):
        return reference_point(policy_kl, ref_kl)

    return {
        RIGHT: right_point,
        ZERO: zero_point,
        MATCHED: matched_point,
        MATCHED_WITH_GRADIENT: matched_point_with_gradient,
    }


@dataclass
class Seen:
    """What a loss saw, one entry a step: the z0 that it used, the mean of the mismatched
    log-ratios, the share of the slopes' sizes that is on the thumbs up, and the rows' log-ratios
    with their labels.
    """

    z0: list[float] = field(default_factory=list)
    mismatched: list[float] = field(default_factory=list)
    share_up: list[float] = field(default_factory=list)
    ratios: list[list[float]] = field(default_factory=list)
    labels: list[list[bool]] = field(default_factory=list)

    def note(self, ratio: Tensor, z0: Tensor, mismatched: Tensor, pull: Tensor, labels: Tensor):
        self.z0.append(z0.item())
        self.mismatched.append(mismatched.mean().item())
        self.share_up.append((pull[labels].sum() / pull.sum()).item())
        self.ratios.append(ratio.tolist())
        self.labels.append(labels.tolist())

    def means_by_label(self) -> tuple[list[float], list[float]]:
        """Mean log-ratio of the thumbs up and of the thumbs down, one of each a step; NaN where a
        step had none.
        """
        ups = []
        downs = []
        for ratios, labels in zip(self.ratios, self.labels, strict=True):
            values = torch.tensor(ratios)
            is_up = torch.tensor(labels)
            ups.append(values[is_up].mean().item())
            downs.append(values[~is_up].mean().item())
        return ups, downs

    def share_at_zero(self) -> float:
        """Share of the steps whose z0 was 0, or as good as 0: there the right z0 is no other than
        z0 = 0.
        """
        at_zero = [z0 <= AS_GOOD_AS_ZERO for z0 in self.z0]
        return sum(at_zero) / len(at_zero)

    def share_on_wrong_side(self, nats: float) -> float:
        """Share of the rows in the last third of the steps that were more than `nats` on the wrong
        side of z0: thumbs up below it, thumbs down above it.
        """
        steps = len(self.z0)
        count = 0
        rows = 0
        for step in range(steps - math.ceil(steps / 3), steps):
            gain = torch.tensor(self.ratios[step]) - self.z0[step]
            is_up = torch.tensor(self.labels[step])
            wrong_side = torch.where(is_up, -gain, gain)
            count += int((wrong_side > nats).sum())
            rows += len(gain)
        return count / rows

    def batch(self, step: int) -> dict[str, Any]:
        """One step's rows, for a figure."""
        return {
            "ratios": self.ratios[step],
            "labels": self.labels[step],
            "z0": self.z0[step],
            "mismatched": self.mismatched[step],
        }


def watched_kto(
    point_of: Callable, binary_loss: Callable = binary_loss, seen: Seen | None = None
) -> Callable:
    """A loss with the signature of `ftlib.kto_loss`, whose z0 is `point_of` of the batch; what it
    sees goes to `seen`.
    """
    seen = Seen() if seen is None else seen

    def kto_of_pieces(
        policy, ref, policy_kl, ref_kl, labels, beta, desirable_weight, undesirable_weight
    ):
        z0 = point_of(policy, ref, policy_kl, ref_kl)
        losses = binary_loss(policy, ref, z0, labels, beta, desirable_weight, undesirable_weight)
        ratio = (policy - ref).detach()
        weight = torch.where(labels, desirable_weight, undesirable_weight)
        pull = weight * loss_slope(ratio, z0.detach(), labels, beta).abs()
        seen.note(ratio, z0.detach(), policy_kl - ref_kl, pull, labels)
        return losses, beta * ratio

    return kto_of_pieces
