"""Lab E1, RLHF, exercise 5: PPO's clipped objective."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_e1.kl_shaped_rewards import answer_masks
from ftlib.losses import rewards


def ppo_policy_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, clip_range: float = 0.2
) -> Tensor:
    """Mean over the mask of ``-min(ρ·A, clip(ρ, 1 - ε, 1 + ε)·A)``, ``ρ = exp(logp - old_logp)``;
    (B, T) each -> ().
    """
    return rewards.ppo_policy_loss(logps, old_logps, advantages, mask, clip_range)


def _cases(g):
    mask = answer_masks((2, 6), (0, 7), (3, 5), length=8)
    for clip_range, spread in ((0.2, 0.5), (0.1, 0.3), (0.2, 0.02)):
        old = -torch.rand(3, 8, generator=g)
        logps = old + spread * torch.randn(3, 8, generator=g)
        advantages = torch.randn(3, 8, generator=g)
        yield logps, old, advantages, mask, clip_range


def _loss(gain, reduce="mean"):
    """The loss made by a function of ratio, advantage and ε."""

    def loss(logps, old_logps, advantages, mask, clip_range=0.2):
        ratio = torch.exp(logps - old_logps)
        values = -gain(ratio, advantages, clip_range)
        if reduce == "everywhere":
            return values.mean()
        if reduce == "rows":
            return ((values * mask).sum(1) / mask.sum(1)).mean()
        if reduce == "sum":
            return values[mask].sum()
        return values[mask].mean()

    return loss


def _gain(ratio, advantages, epsilon):
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    return torch.minimum(ratio * advantages, clipped * advantages)


def _clipped_gain(ratio, advantages, epsilon):
    return ratio.clamp(1 - epsilon, 1 + epsilon) * advantages


def _larger(ratio, advantages, epsilon):
    return torch.maximum(ratio * advantages, _clipped_gain(ratio, advantages, epsilon))


def _ratio_first(ratio, advantages, epsilon):
    return torch.minimum(ratio, ratio.clamp(1 - epsilon, 1 + epsilon)) * advantages


def _ascending(logps, old_logps, advantages, mask, clip_range=0.2):
    return -_loss(_gain)(logps, old_logps, advantages, mask, clip_range)


def _turned(logps, old_logps, advantages, mask, clip_range=0.2):
    return _loss(_gain)(old_logps, logps, advantages, mask, clip_range)


def _log_ratio(logps, old_logps, advantages, mask, clip_range=0.2):
    gap = logps - old_logps
    near = gap.clamp(-clip_range, clip_range)
    return -torch.minimum(gap * advantages, near * advantages)[mask].mean()


CLIPPED = Exercise(
    name="ppo_policy_loss",
    title="PPO's clipped objective",
    minutes=12,
    difficulty=2,
    reference=ppo_policy_loss,
    cases=_cases,
    defaults=("clip_range",),
    gradient_of=("logps",),
    praise="equal to eq. 7, values and gradients",
    hints=(
        "The ratio: `torch.exp(logps - old_logps)`.",
        "Two products with the advantage: the ratio as it is, and `ratio.clamp(1 - clip_range, "
        "1 + clip_range)`.",
        "The smaller of the two *products*, at each position: with A below 0 that is not the "
        "smaller ratio.",
        "A loss should fall while the gain rises: take minus, and the mean over `[mask]`.",
    ),
    wrong=(
        Wrong(
            "always clipped",
            _loss(_clipped_gain),
            "You use the clipped product alone. A token that is far off *in the wrong direction* "
            "then has no gradient and never comes back: take the smaller of both.",
        ),
        Wrong(
            "not clipped",
            _loss(lambda ratio, advantages, epsilon: ratio * advantages),
            "Nothing is clipped: after a few steps on one set of answers a ratio may have any "
            "size.",
        ),
        Wrong(
            "the larger",
            _loss(_larger),
            "You take the larger product: PPO takes the smaller, as a lower bound.",
        ),
        Wrong(
            "ratios before products",
            _loss(_ratio_first),
            "You take the smaller *ratio*, then multiply. Where A is below 0 the order is "
            "reversed: compare the products.",
        ),
        Wrong(
            "ascending",
            _ascending,
            "The sign is wrong: minimising this makes bad answers likelier.",
        ),
        Wrong(
            "ratio turned round",
            _turned,
            "Your ratio is old over new: it is exp(logp - old_logp).",
        ),
        Wrong(
            "logarithm of the ratio",
            _log_ratio,
            "You use the log-ratio instead of the ratio: exp is missing.",
        ),
        Wrong(
            "mask left out",
            _loss(_gain, "everywhere"),
            "Prompt and padding count in your mean: use only the answer's positions.",
        ),
        Wrong(
            "mean of rows",
            _loss(_gain, "rows"),
            "You take the mean of each answer, then over answers: a token of a short answer then "
            "counts more. Take one mean over all positions of the mask.",
        ),
        Wrong(
            "a sum",
            _loss(_gain, "sum"),
            "You sum over the tokens: take the mean.",
        ),
    ),
)
