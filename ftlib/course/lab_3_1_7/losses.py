"""Losses of lab 3.1.7 with the arguments of `ftlib.dpo_loss`, for `ft.prefer(loss_function=…)`."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ftlib.course.lab_3_1_7.implicit_reward import implicit_reward
from ftlib.course.lab_3_1_7.preference_loss import preference_loss


def dpo_of_parts(implicit_reward: Callable, preference_loss: Callable) -> Callable:
    """DPO's loss made of the two functions that a student writes."""

    def dpo(
        chosen: Tensor,
        rejected: Tensor,
        ref_chosen: Tensor,
        ref_rejected: Tensor,
        beta: float,
        label_smoothing: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        chosen_rewards = implicit_reward(chosen, ref_chosen, beta)  # (B,)
        rejected_rewards = implicit_reward(rejected, ref_rejected, beta)  # (B,)
        losses = preference_loss(chosen_rewards, rejected_rewards, label_smoothing)
        return losses, chosen_rewards.detach(), rejected_rewards.detach()

    return dpo


def ipo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """IPO (Azar et al. 2023, arXiv 2310.12036, eq. 17), of summed log-probabilities, all (B,).

    ``(h - 1/(2β))²``, h the chosen answer's log-ratio minus the rejected one's; β is the paper's τ.
    The gradient turns round where h passes 1/(2β), so a pair that is ranked far enough is not
    pushed on. Returns (losses, chosen rewards β·r_c, rejected rewards β·r_r). ValueError for a
    label_smoothing other than 0, which the loss does not have.
    """
    if label_smoothing:
        raise ValueError(f"label_smoothing={label_smoothing}: IPO has none, use 0")
    chosen_ratio = chosen - ref_chosen  # (B,)
    rejected_ratio = rejected - ref_rejected  # (B,)
    target = 1 / (2 * beta)  # nats
    losses = (chosen_ratio - rejected_ratio - target).square()
    return losses, (beta * chosen_ratio).detach(), (beta * rejected_ratio).detach()


def robust_dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """rDPO (Chowdhury et al. 2024, arXiv 2403.00409), of summed log-probabilities, all (B,).

    ``(-(1-ε)·log σ(z) + ε·log σ(-z)) / (1-2ε)``: where a share ε of the labels is swapped at
    random, its mean is DPO's loss on the labels as they should be. ε = `label_smoothing`. Returns
    (losses, chosen rewards, rejected rewards).
    """
    chosen_rewards = beta * (chosen - ref_chosen)  # (B,)
    rejected_rewards = beta * (rejected - ref_rejected)  # (B,)
    z = chosen_rewards - rejected_rewards
    kept = (1 - label_smoothing) * F.logsigmoid(z)
    turned = label_smoothing * F.logsigmoid(-z)
    losses = (turned - kept) / (1 - 2 * label_smoothing)
    return losses, chosen_rewards.detach(), rejected_rewards.detach()


def loss_function(
    name: str,
    implicit_reward: Callable = implicit_reward,
    preference_loss: Callable = preference_loss,
) -> Callable:
    """ "DPO", "IPO" or "rDPO"; ValueError for another name."""
    if name == "DPO":
        return dpo_of_parts(implicit_reward, preference_loss)
    if name == "IPO":
        return ipo_loss
    if name == "rDPO":
        return robust_dpo_loss
    raise ValueError(f"loss {name!r}: use 'DPO', 'IPO' or 'rDPO'")
