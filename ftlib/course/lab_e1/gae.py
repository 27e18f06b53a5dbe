"""Lab E1, RLHF, exercise 4: which token was better than expected."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_e1.kl_shaped_rewards import answer_masks
from ftlib.losses import rewards as own


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """Advantages ``A_t = δ_t + γλ·A_{t+1}``, ``δ_t = r_t + γ·V_{t+1} - V_t``, within the answer,
    after whose last token V and A are 0; 0 outside. (B, T) each -> (B, T).
    """
    return own.generalized_advantages(rewards, values, mask, gamma, lam)[0]


def _cases(g):
    mask = answer_masks((2, 5), (0, 7), (3, 4), length=8)
    for gamma, lam in ((1.0, 0.95), (1.0, 0.0), (0.9, 1.0), (0.8, 0.5)):
        rewards = torch.randn(3, 8, generator=g) * mask
        values = torch.randn(3, 8, generator=g)  # a head gives a value outside the answer too
        yield rewards, values, mask, gamma, lam


def _backwards(
    rewards,
    values,
    mask,
    gamma,
    lam,
    trace=None,
    discount=None,
    past_end=False,
    own_value=True,
):
    """The recursion with one thing done otherwise."""
    trace = gamma * lam if trace is None else trace
    discount = gamma if discount is None else discount
    zeros = torch.zeros_like(values[:, :1])
    seen = values if past_end else values * mask
    later = torch.cat([seen[:, 1:], zeros], 1)
    delta = (rewards + discount * later - (values if own_value else 0)) * mask
    out = torch.zeros_like(values)
    running = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        running = (delta[:, t] + trace * running) * mask[:, t]
        out[:, t] = running
    return out


def _varied(**change):
    def advantages(rewards, values, mask, gamma, lam):
        return _backwards(rewards, values, mask, gamma, lam, **change)

    return advantages


def _no_gamma(rewards, values, mask, gamma, lam):
    return _backwards(rewards, values, mask, gamma, lam, trace=lam)


def _no_lam(rewards, values, mask, gamma, lam):
    return _backwards(rewards, values, mask, gamma, lam, trace=gamma)


def _returns(rewards, values, mask, gamma, lam):
    return _backwards(rewards, values, mask, gamma, lam) + values * mask


def _forwards(rewards, values, mask, gamma, lam):
    zeros = torch.zeros_like(values[:, :1])
    later = torch.cat([(values * mask)[:, 1:], zeros], 1)
    delta = (rewards + gamma * later - values) * mask
    out = torch.zeros_like(values)
    running = torch.zeros_like(values[:, 0])
    for t in range(values.shape[1]):
        running = (delta[:, t] + gamma * lam * running) * mask[:, t]
        out[:, t] = running
    return out


GAE = Exercise(
    name="gae",
    title="Generalised advantage estimation",
    minutes=15,
    difficulty=3,
    reference=gae,
    points=3,
    cases=_cases,
    tolerance=1e-5,
    praise="equal to eq. 16 on answers of 1, 3 and 7 tokens, at four pairs of γ and λ",
    hints=(
        "Go from the last position to the first, and keep V and A of the following token, both 0 "
        "at the start.",
        "At a position t: `delta = rewards[:, t] + gamma * next_value - values[:, t]`, then "
        "`advantage = delta + gamma * lam * next_advantage`.",
        "Outside the answer both are 0: multiply by `mask[:, t]`, so that the padding after an "
        "answer passes on 0, whatever the value head says about it.",
        "next_value = values[:, t] * mask[:, t]; next_advantage = advantage * mask[:, t]",
    ),
    wrong=(
        Wrong(
            "value of the padding",
            _varied(past_end=True),
            "After the answer's last token nothing comes, so V is 0 there. You use the value "
            "head's output for the padding after it.",
        ),
        Wrong(
            "γ missing in the trace",
            _no_gamma,
            "You weight A of the next token with λ alone: it is γλ.",
        ),
        Wrong(
            "λ missing",
            _no_lam,
            "You weight A of the next token with γ alone, as if λ were 1.",
        ),
        Wrong(
            "γ missing before V",
            _varied(discount=1.0),
            "You do not discount the next value in δ: it is γ·V_{t+1}.",
        ),
        Wrong(
            "no baseline",
            _varied(own_value=False),
            "You do not subtract V_t, so yours does not say how much better than expected it was.",
        ),
        Wrong(
            "one step",
            _varied(trace=0.0),
            "That is δ, λ = 0: a score at the end then reaches the last token alone.",
        ),
        Wrong(
            "returns",
            _returns,
            "That is A + V, the target of the value head: the advantage is without V.",
        ),
        Wrong(
            "forwards",
            _forwards,
            "You add up from the first token to the last. A token is judged by what comes *after* "
            "it: start at the end.",
        ),
    ),
)
