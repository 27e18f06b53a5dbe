"""Lab 3.1.7, DPO, exercise 2: the implicit reward."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def implicit_reward(policy_logps: Tensor, ref_logps: Tensor, beta: float) -> Tensor:
    """r̂ = β·(log π(y|x) − log π_ref(y|x)), all (B,)."""
    return beta * (policy_logps - ref_logps)


def _reward_cases(g):
    for beta in (0.1, 0.01, 0.5, 2.0):
        yield -20 * torch.rand(5, generator=g), -20 * torch.rand(5, generator=g), beta


REWARD = Exercise(
    name="implicit_reward",
    title="The reward that the policy implies",
    minutes=5,
    difficulty=1,
    reference=implicit_reward,
    cases=_reward_cases,
    gradient_of=("policy_logps",),
    points=1,
    hints=(
        "Solve the optimal policy for r. log Z(x) is the same for both answers of a prompt and is "
        "left out.",
        "A ratio of probabilities is a difference of logs.",
        "return beta * (policy_logps - ref_logps)",
    ),
    wrong=(
        Wrong(
            "swapped",
            lambda p, r, b: b * (r - p),
            "Policy and reference are swapped: the reward rises where the policy's probability "
            "rises.",
        ),
        Wrong(
            "no beta",
            lambda p, r, b: p - r,
            "The factor beta is missing: it turns nats into reward.",
        ),
        Wrong(
            "divided",
            lambda p, r, b: (p - r) / b,
            "You divided by beta: π ∝ π_ref·exp(r/β), so r is beta times the log-ratio.",
        ),
        Wrong(
            "ratio of logs",
            lambda p, r, b: b * p / r,
            "You divided log-probabilities: the log of a ratio is a difference of logs.",
        ),
        Wrong(
            "no reference",
            lambda p, r, b: b * p,
            "The reference is missing: the reward counts what changed, not what is probable "
            "anyway.",
        ),
    ),
)
