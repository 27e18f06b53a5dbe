"""Lab E1, RLHF, exercise 1: the loss of a reward model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.losses import rewards


def reward_loss(chosen_rewards: Tensor, rejected_rewards: Tensor, margin: float = 0.0) -> Tensor:
    """``-log σ(r_c - r_r - margin)`` of every pair: (B,) each -> (B,)."""
    return rewards.reward_loss(chosen_rewards, rejected_rewards, margin)


def _cases(g):
    for margin in (0.0, 0.5):
        for spread in (0.3, 2.0):
            chosen = spread * torch.randn(7, generator=g)
            rejected = spread * torch.randn(7, generator=g)
            yield chosen, rejected, margin
    # Far apart: σ is 0 in fp32, and its logarithm would be infinite.
    yield torch.tensor([-90.0, 2.0]), torch.tensor([60.0, 1.0]), 0.0


def _loss(of_gap):
    """The loss made by a function of the gap r_c - r_r and of the margin."""

    def loss(chosen_rewards, rejected_rewards, margin=0.0):
        return of_gap(chosen_rewards - rejected_rewards, margin)

    return loss


def _alone(chosen_rewards, rejected_rewards, margin=0.0):
    return -F.logsigmoid(chosen_rewards - margin) - F.logsigmoid(-rejected_rewards)


REWARD_LOSS = Exercise(
    name="reward_loss",
    title="The reward model's loss",
    minutes=8,
    difficulty=1,
    reference=reward_loss,
    defaults=("margin",),
    cases=_cases,
    gradient_of=("chosen_rewards", "rejected_rewards"),
    praise="equal to Bradley and Terry's loss, values and gradients, far from zero too",
    tolerance=1e-5,
    hints=(
        "The model's probability that the chosen answer is preferred is σ of a difference. Which?",
        "The chosen answer must lead by `margin`: subtract it from the difference.",
        "The negative logarithm of that probability. `F.logsigmoid(x)` stays finite where "
        "`torch.sigmoid(x).log()` is minus infinity.",
        "return -F.logsigmoid(chosen_rewards - rejected_rewards - margin)",
    ),
    wrong=(
        Wrong(
            "reversed",
            _loss(lambda gap, margin: -F.logsigmoid(-gap - margin)),
            "The difference has the wrong sign: your model learns to prefer the rejected answer. "
            "It is chosen minus rejected.",
        ),
        Wrong(
            "margin added",
            _loss(lambda gap, margin: -F.logsigmoid(gap + margin)),
            "You add the margin: the chosen answer may then be *behind* by it. Subtract it, so "
            "that the chosen answer must lead by the margin.",
        ),
        Wrong(
            "no margin",
            _loss(lambda gap, margin: -F.logsigmoid(gap)),
            "The margin is not used.",
        ),
        Wrong(
            "log of sigmoid",
            _loss(lambda gap, margin: -torch.sigmoid(gap - margin).log()),
            "The values are right where σ is not 0. At a difference of -150 it is 0 in fp32, and "
            "the loss infinite: F.logsigmoid computes log and sigmoid together.",
        ),
        Wrong(
            "no logarithm",
            _loss(lambda gap, margin: -torch.sigmoid(gap - margin)),
            "That is minus the probability. Its gradient vanishes for pairs that are ranked badly "
            "wrong; the likelihood needs the logarithm.",
        ),
        Wrong(
            "a mean",
            _loss(lambda gap, margin: -F.logsigmoid(gap - margin).mean()),
            "You return the mean: return a loss for every pair, (B,).",
        ),
        Wrong(
            "a hinge",
            _loss(lambda gap, margin: F.relu(1 + margin - gap)),
            "That is a hinge at a lead of one, the loss of a support vector machine: it gives no "
            "probability.",
        ),
        Wrong(
            "each by itself",
            _alone,
            "You classify the answers one by one. But no judgement says whether an answer is good "
            "*by itself*: it compares two, and only their difference counts.",
        ),
    ),
)
