"""Preference losses: DPO, SimPO, ORPO and KTO, as pure functions of log-probabilities.

log π(y|x) of a completion is the *sum* of its tokens' log-probabilities for DPO and KTO, the *mean*
for SimPO and ORPO (`ftlib.sequence_logps(..., average=True)`); in nats. All return one loss an
example, and rewards that carry no gradient.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ftlib.core.checks import is_finite_number
from ftlib.core.dtypes import fp32_or_wider


class LossError(ValueError):
    """An argument that a loss cannot be computed from: its name, its value and the fix."""


def _check_logps(**logps: Tensor) -> None:
    """All of one shape (B,), B > 0, and floating."""
    first_name, first = next(iter(logps.items()))
    for name, value in logps.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise LossError(
                f"{name} is {kind}: pass a floating tensor of log-probabilities, one per example"
            )
        if value.ndim != 1 or not len(value):
            raise LossError(
                f"{name} has shape {tuple(value.shape)}: "
                "one log-probability per example is needed, (B,)"
            )
        if value.shape != first.shape:
            raise LossError(
                f"{name} has shape {tuple(value.shape)}, {first_name} has {tuple(first.shape)}: "
                "they must be of the same examples"
            )


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not is_finite_number(value) or not value > 0:
            raise LossError(f"{name}={value!r}: must be finite and above 0")


def _check_not_negative(**numbers: float) -> None:
    for name, value in numbers.items():
        if not is_finite_number(value) or not value >= 0:
            raise LossError(f"{name}={value!r}: must be finite and at least 0")


def _wide(t: Tensor) -> Tensor:
    """In fp32, or as it is where that is wider."""
    return t.to(fp32_or_wider(t.dtype))


def _described(value) -> str:
    """An argument's dtype and shape, or its type where it is no tensor."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7), of summed log-probabilities, all (B,).

    ``-log σ(β·(r_c - r_r))`` with ``r = log π - log π_ref``. With `label_smoothing` ε in [0, 0.5),
    conservative DPO (Mitchell 2023, "A note on DPO with noisy preferences"): ``-(1-ε)·log σ(z) -
    ε·log σ(-z)``. Returns (losses, chosen rewards β·r_c, rejected rewards β·r_r), all (B,).
    """
    _check_logps(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        ref_chosen_logps=ref_chosen_logps,
        ref_rejected_logps=ref_rejected_logps,
    )
    _check_positive(beta=beta)
    if not is_finite_number(label_smoothing) or not 0 <= label_smoothing < 0.5:
        raise LossError(
            f"label_smoothing={label_smoothing!r}: the share of swapped labels must lie in [0, 0.5)"
        )
    chosen_ratio = policy_chosen_logps - ref_chosen_logps  # r_c, (B,)
    rejected_ratio = policy_rejected_logps - ref_rejected_logps  # r_r, (B,)
    z = beta * (chosen_ratio - rejected_ratio)
    losses = -(1 - label_smoothing) * F.logsigmoid(z) - label_smoothing * F.logsigmoid(-z)
    chosen_rewards = (beta * chosen_ratio).detach()
    rejected_rewards = (beta * rejected_ratio).detach()
    return losses, chosen_rewards, rejected_rewards


def simpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    beta: float = 2.0,
    gamma_beta_ratio: float = 0.5,
) -> tuple[Tensor, Tensor, Tensor]:
    """SimPO (Meng et al. 2024, arXiv 2405.14734, eq. 6), of *mean* log-probabilities a token, both
    (B,).

    ``-log σ(β·(p̄_c - p̄_r) - γ)`` with ``γ = β·gamma_beta_ratio``, the margin by which the chosen
    answer must lead; no reference. Returns (losses, chosen rewards β·p̄_c, rejected rewards
    β·p̄_r), all (B,).
    """
    _check_logps(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    _check_positive(beta=beta)
    _check_not_negative(gamma_beta_ratio=gamma_beta_ratio)
    margin = policy_chosen_logps - policy_rejected_logps - gamma_beta_ratio  # (B,)
    losses = -F.logsigmoid(beta * margin)
    chosen_rewards = (beta * policy_chosen_logps).detach()
    rejected_rewards = (beta * policy_rejected_logps).detach()
    return losses, chosen_rewards, rejected_rewards


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - e^x)`` for x < 0, exact at both ends: by expm1 above -ln 2, by log1p below (Mächler
    2012).

    x = 0, a probability of one, is taken as the number just below it, so that the result stays
    finite.
    """
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    near = x > -math.log(2)
    # Each branch sees only its own numbers: an infinite gradient times the 0 of `where` would be
    # NaN.
    by_expm1 = torch.log(-torch.expm1(torch.where(near, x, -1.0)))
    by_log1p = torch.log1p(-torch.exp(torch.where(near, -1.0, x)))
    return torch.where(near, by_expm1, by_log1p)


def orpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    chosen_nll: Tensor,
    beta: float = 0.1,
) -> tuple[Tensor, Tensor, Tensor]:
    """ORPO (Hong et al. 2024, arXiv 2403.07691, eq. 6 and 7), of *mean* log-probabilities a token,
    both (B,).

    ``NLL - β·log σ(log odds_c - log odds_r)`` with ``log odds = p̄ - log(1 - e^p̄)``; `chosen_nll`,
    (B,) or (), is the loss of plain fine-tuning on the chosen answers, β the paper's λ. Returns
    (losses, chosen rewards β·p̄_c, rejected rewards β·p̄_r), all (B,).
    """
    _check_logps(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    if not isinstance(chosen_nll, Tensor) or chosen_nll.shape not in (
        policy_chosen_logps.shape,
        (),
    ):
        is_tensor = isinstance(chosen_nll, Tensor)
        shape = tuple(chosen_nll.shape) if is_tensor else type(chosen_nll).__name__
        raise LossError(
            f"chosen_nll is {shape}: one number an example, {tuple(policy_chosen_logps.shape)}, "
            "or one for all is needed"
        )
    _check_not_negative(beta=beta)
    # In 16 bits 1 - e^p̄ of a sure answer is lost to rounding.
    chosen = _wide(policy_chosen_logps)
    rejected = _wide(policy_rejected_logps)
    log_odds_ratio = (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected))  # (B,)
    losses = chosen_nll - beta * F.logsigmoid(log_odds_ratio)
    chosen_rewards = (beta * policy_chosen_logps).detach()
    rejected_rewards = (beta * policy_rejected_logps).detach()
    return losses, chosen_rewards, rejected_rewards


def kto_loss(
    policy_logps: Tensor,
    ref_logps: Tensor,
    policy_kl_logps: Tensor,
    ref_kl_logps: Tensor,
    labels: Tensor,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """KTO (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 7 and 8), of summed log-probabilities, all
    (B,).

    ``w_D·(1 - σ(β·(r - z0)))`` where `labels` (B,) is true, ``w_U·(1 - σ(β·(z0 - r)))`` where it is
    false, with ``r = log π - log π_ref``. The reference point ``z0 = max(0, mean(policy_kl_logps -
    ref_kl_logps))`` estimates the KL divergence from mismatched pairs (each prompt with another's
    completion), and carries no gradient. Returns (losses, rewards β·r), both (B,).
    """
    _check_logps(policy_logps=policy_logps, ref_logps=ref_logps)
    _check_logps(policy_kl_logps=policy_kl_logps, ref_kl_logps=ref_kl_logps)
    is_bool = isinstance(labels, Tensor) and labels.dtype == torch.bool
    if not is_bool or labels.shape != policy_logps.shape:
        raise LossError(
            f"labels is {_described(labels)}: one true (desirable) or false an example is needed, "
            f"torch.bool {tuple(policy_logps.shape)}"
        )
    _check_positive(beta=beta)
    _check_not_negative(desirable_weight=desirable_weight, undesirable_weight=undesirable_weight)
    z0 = (policy_kl_logps - ref_kl_logps).detach().mean().clamp(min=0)  # ()
    ratio = policy_logps - ref_logps  # r, (B,)
    # 1 - σ(x) = σ(-x)
    desirable = desirable_weight * torch.sigmoid(beta * (z0 - ratio))
    undesirable = undesirable_weight * torch.sigmoid(beta * (ratio - z0))
    losses = torch.where(labels, desirable, undesirable)
    rewards = (beta * ratio).detach()
    return losses, rewards
