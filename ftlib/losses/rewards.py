"""Learning from rewards, as pure functions: a reward model's loss, rewards a token, advantages,
and what PPO, RLOO and GRPO make of them.

(B, T) tensors stand over positions, and `mask` says which of them are the answer's. Positions are
those of `ftlib.token_logps`: t scores the token t + 1, so the mask is that of the scored next
labels. It is of bools, or of 0 and 1. What is not masked in counts nowhere, whatever it holds, NaN
included.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ftlib.core.checks import check_number, check_positive_integer, is_finite_number
from ftlib.core.dtypes import fp32_or_wider
from ftlib.losses.preference import LossError

EPSILON = 1e-4  # beside a group's standard deviation, as in TRL: equal scores give 0, not 0/0


# --- arguments ------------------------------------------------------------------------------------
def _check_same(ndim: int, **tensors: Tensor) -> None:
    """LossError unless all are floating, of `ndim` dimensions and of one shape, not empty."""
    form = {1: "(B,)", 2: "(B, T)"}[ndim]
    first_name, first = next(iter(tensors.items()))
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise LossError(f"{name} is {kind}: pass a floating tensor, {form}")
        if value.ndim != ndim or not value.numel():
            raise LossError(f"{name} has shape {tuple(value.shape)}: {form} is needed, not empty")
        if value.shape != first.shape:
            raise LossError(
                f"{name} has shape {tuple(value.shape)}, {first_name} has {tuple(first.shape)}: "
                "they must be of the same rows"
            )


def _checked_mask(mask: Tensor, like: Tensor) -> Tensor:
    """The mask as bools. LossError unless it holds 0 and 1 only, in `like`'s shape, and a 1."""
    if not isinstance(mask, Tensor) or mask.shape != like.shape:
        found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise LossError(f"mask is {found}: a tensor of shape {tuple(like.shape)} is needed")
    inside = mask.bool()
    if not torch.equal(inside.to(mask.dtype), mask):
        raise LossError("mask holds other numbers than 0 and 1: it says which positions count")
    if not inside.any():
        raise LossError("mask is 0 everywhere: there is no answer to learn from; drop such rows")
    return inside


# --- the reward model -----------------------------------------------------------------------------
def reward_loss(
    chosen_rewards: Tensor, rejected_rewards: Tensor, margin: float | Tensor = 0.0
) -> Tensor:
    """Bradley and Terry's loss of a reward model (Ouyang et al. 2022, arXiv 2203.02155, eq. 1):
    ``-log σ(r_c - r_r - margin)``, (B,) each -> (B,).

    σ(r_c - r_r) is the model's probability that the chosen answer is preferred: only differences
    count. `margin`, a number or (B,): by how much the chosen one must lead (Llama 2, arXiv
    2307.09288, eq. 2). LossError for shapes that do not fit.
    """
    _check_same(1, chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
    if isinstance(margin, Tensor):
        _check_same(1, chosen_rewards=chosen_rewards, margin=margin)
    elif not is_finite_number(margin):
        raise LossError(f"margin={margin!r}: must be finite")
    return -F.logsigmoid(chosen_rewards - rejected_rewards - margin)


# --- rewards and advantages -----------------------------------------------------------------------
def kl_shaped_rewards(
    scores: Tensor, logps: Tensor, ref_logps: Tensor, mask: Tensor, kl_coef: float
) -> Tensor:
    """Rewards a token of an answer that was scored as a whole (Ziegler et al. 2019, arXiv
    1909.08593, eq. 2; Ouyang et al. 2022): ``-kl_coef·(logp - ref_logp)`` at every position of
    `mask`, and the score added at the row's last one.

    scores (B,); logps, ref_logps (nats), mask (B, T) -> (B, T), 0 where the mask is 0. A row's sum
    is ``score - kl_coef·(log π - log π_ref)(answer)``, whose mean over the policy's own samples is
    ``E[score] - kl_coef·KL(π‖π_ref)``. Carries no gradient. LossError also for a row without an
    answer.
    """
    _check_same(1, scores=scores)
    _check_same(2, logps=logps, ref_logps=ref_logps)
    inside = _checked_mask(mask, logps)
    check_number("kl_coef", kl_coef, 0, error=LossError)
    if len(scores) != len(logps):
        raise LossError(f"scores has {len(scores)} rows, logps {len(logps)}: one score a row")
    if not inside.any(1).all():
        row = int((~inside.any(1)).nonzero()[0])
        raise LossError(f"row {row} of mask is all 0: an answer without tokens has no last one")
    penalty = -kl_coef * (logps - ref_logps).detach()
    rewards = penalty.masked_fill(~inside, 0.0)
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = (positions * inside).argmax(1, keepdim=True)  # (B, 1)
    return rewards.scatter_add(1, last, scores.detach().to(rewards.dtype)[:, None])


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, eq. 16):
    ``A_t = δ_t + γλ·A_t'`` with ``δ_t = r_t + γ·V_t' - V_t``, and returns ``A_t + V_t``.

    rewards, values, mask (B, T) -> (advantages, returns), (B, T) each, 0 where the mask is 0. t' is
    the next position *of the mask*, after whose last one V and A are 0: padding on either side and
    holes within an answer, such as a tool's output, are stepped over, as if they were not there.
    λ = 1 is the return minus the value, λ = 0 the one-step error. Carries no gradient.
    """
    _check_same(2, rewards=rewards, values=values)
    inside = _checked_mask(mask, rewards)
    for name, value in (("gamma", gamma), ("lam", lam)):
        if not is_finite_number(value) or not 0 <= value <= 1:
            raise LossError(f"{name}={value!r}: must be a number from 0 to 1")
    rewards = rewards.detach()
    values = values.detach()
    advantages = torch.zeros_like(values)
    next_value = torch.zeros_like(values[:, 0])  # (B,)
    next_advantage = torch.zeros_like(next_value)
    for t in reversed(range(values.shape[1])):
        here = inside[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        next_advantage = torch.where(here, advantage, next_advantage)
        next_value = torch.where(here, values[:, t], next_value)
        advantages[:, t] = torch.where(here, advantage, 0.0)
    returns = torch.where(inside, advantages + values, 0.0)
    return advantages, returns


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """``(x - mean) / std`` over the masked positions of the whole batch, 0 elsewhere; (B, T). The
    standard deviation is the unbiased one; equal values, or a single one, become 0.
    """
    _check_same(2, values=values)
    inside = _checked_mask(mask, values)
    chosen = values[inside]
    centred = values - chosen.mean()
    if len(chosen) > 1:
        centred = centred / (chosen.std() + 1e-8)
    return centred.masked_fill(~inside, 0.0)


def _grouped(scores: Tensor, group_size: int) -> Tensor:
    """(groups, group_size): rows of one prompt side by side."""
    _check_same(1, scores=scores)
    check_positive_integer("group_size", group_size, LossError)
    if group_size < 2 or len(scores) % group_size:
        raise LossError(
            f"group_size={group_size} of {len(scores)} scores: 2 or more answers to each prompt, "
            "side by side, are compared with each other"
        )
    return scores.view(-1, group_size)


def group_advantages(scores: Tensor, group_size: int, scale: bool = True) -> Tensor:
    """GRPO's advantages (Shao et al. 2024, arXiv 2402.03300, section 4.1.2): ``(r - mean) / std``
    within the answers to one prompt, which stand side by side; (B,) -> (B,).

    The standard deviation is the unbiased one, plus 1e-4 (`EPSILON`): a group of equal scores gives
    0. `scale=False` leaves it out (Dr. GRPO, arXiv 2503.20783: it weighs prompts on which all
    answers are nearly alike more than others).
    """
    groups = _grouped(scores, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    if scale:
        centred = centred / (groups.std(1, keepdim=True) + EPSILON)
    return centred.reshape(-1)


def leave_one_out_advantages(scores: Tensor, group_size: int) -> Tensor:
    """RLOO's advantages (Ahmadian et al. 2024, arXiv 2402.14740, eq. 8): each score minus the mean
    of the *other* answers to its prompt, which stand side by side; (B,) -> (B,).

    The baseline does not depend on the answer itself, so the gradient stays unbiased. It is
    ``k/(k-1)·(r - mean)``, k the group's size.
    """
    groups = _grouped(scores, group_size)
    others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).reshape(-1)


# --- losses of a policy ---------------------------------------------------------------------------
def ppo_policy_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, clip_range: float = 0.2
) -> Tensor:
    """PPO's clipped objective (Schulman et al. 2017, arXiv 1707.06347, eq. 7), negated: the mean
    over the mask of ``-min(ρ·A, clip(ρ, 1 - ε, 1 + ε)·A)``, ``ρ = exp(logp - old_logp)``; (B, T)
    each -> ().

    Where ρ = 1, in the first step after the sampling, its gradient is that of ``-A·logp``. With
    one position a row, whole answers' log-probabilities, it is RLOO's loss; GRPO's is this with an
    answer's advantage at each of its tokens. Advantages and old_logps carry no gradient.
    """
    _check_same(2, logps=logps, old_logps=old_logps, advantages=advantages)
    inside = _checked_mask(mask, logps)
    check_number("clip_range", clip_range, 0, error=LossError)
    ratio = torch.exp(logps[inside] - old_logps[inside].detach())  # ρ, (N,)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    gain = advantages[inside].detach()
    return -torch.minimum(ratio * gain, clipped * gain).mean()


def ppo_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip_range: float = 0.2
) -> Tensor:
    """The value's clipped loss that came with PPO's code (OpenAI baselines, ppo2; TRL's
    `cliprange_value`): the mean over the mask of ``½·max((V - R)², (V_clip - R)²)``, V_clip no
    further than `clip_range`, in units of the reward, from `old_values`; (B, T) each -> ().
    """
    _check_same(2, values=values, old_values=old_values, returns=returns)
    inside = _checked_mask(mask, values)
    check_number("clip_range", clip_range, 0, error=LossError)
    value = values[inside]  # (N,)
    old = old_values[inside].detach()
    goal = returns[inside].detach()
    near = torch.clamp(value, old - clip_range, old + clip_range)
    worse = torch.maximum((value - goal) ** 2, (near - goal) ** 2)
    return 0.5 * worse.mean()


def kl_penalty(logps: Tensor, ref_logps: Tensor, mask: Tensor) -> Tensor:
    """GRPO's estimate of KL(π‖π_ref) a token (Shao et al. 2024, arXiv 2402.03300, eq. 4): the mean
    over the mask of ``e^d - d - 1``, ``d = ref_logp - logp``; (B, T) each -> (), nats per token.

    Of tokens that π drew it is unbiased, as ``-d`` is, and never negative. It goes into the loss,
    with a gradient, where PPO takes ``-d`` into the reward.
    """
    _check_same(2, logps=logps, ref_logps=ref_logps)
    inside = _checked_mask(mask, logps)
    wide = fp32_or_wider(logps.dtype)
    gap = ref_logps[inside].detach().to(wide) - logps[inside].to(wide)
    return (torch.expm1(gap) - gap).mean()
