"""Rewards, advantages and policy losses: by hand, gradients checked, errors that name the argument.
Against TRL: `test_rewards_trl.py`.
"""

import math

import pytest
import torch
from torch import tensor
from torch.autograd import gradcheck

import ftlib as ft
from ftlib.losses.preference import LossError
from ftlib.losses.rewards import whiten

F64 = torch.float64
NAN = math.nan


def f64(*rows):
    return tensor(rows, dtype=F64)


def exactly(have, want):
    torch.testing.assert_close(have, want, rtol=1e-12, atol=1e-12)


# --- the reward model -----------------------------------------------------------------------------
def test_reward_loss_by_hand():
    """r_c - r_r = ln 3: σ(ln 3) = 3/4, the loss ln(4/3). With a margin of ln 3: σ(0), ln 2."""
    chosen = f64(math.log(3), math.log(3))
    rejected = f64(0.0, 0.0)
    exactly(ft.reward_loss(chosen, rejected), f64(*[math.log(4 / 3)] * 2))
    margins = f64(0.0, math.log(3))
    exactly(ft.reward_loss(chosen, rejected, margins), f64(math.log(4 / 3), math.log(2)))
    exactly(ft.reward_loss(chosen, rejected, math.log(3)), f64(*[math.log(2)] * 2))


def test_reward_loss_knows_only_differences():
    chosen = torch.randn(5, dtype=F64)
    rejected = torch.randn(5, dtype=F64)
    exactly(ft.reward_loss(chosen + 7, rejected + 7), ft.reward_loss(chosen, rejected))
    assert gradcheck(ft.reward_loss, (chosen.requires_grad_(), rejected.requires_grad_()))


# --- rewards a token ------------------------------------------------------------------------------
def test_shaped_rewards_by_hand():
    """kl_coef 0.1. Row 0: log-ratios 2, -1 and the score 5: -0.2, 0.1 + 5. Row 1, padded on the
    left, with one token, log-ratio 3, score -1: -0.3 - 1. What is outside of the mask is NaN.
    """
    logps = f64([-1.0, -2.0, NAN], [NAN, NAN, -1.0])
    ref = f64([-3.0, -1.0, NAN], [NAN, NAN, -4.0])
    mask = tensor([[1, 1, 0], [0, 0, 1]])
    want = f64([-0.2, 5.1, 0.0], [0.0, 0.0, -1.3])
    exactly(ft.kl_shaped_rewards(f64(5.0, -1.0), logps, ref, mask, 0.1), want)


def test_a_row_sums_to_its_score_minus_the_weighted_log_ratio():
    scores = torch.randn(4, dtype=F64)
    logps = torch.randn(4, 6, dtype=F64).requires_grad_()
    ref = torch.randn(4, 6, dtype=F64)
    mask = torch.rand(4, 6) < 0.6
    mask[:, 2] = True
    rewards = ft.kl_shaped_rewards(scores, logps, ref, mask, 0.3)
    ratio = ((logps - ref) * mask).sum(1)
    exactly(rewards.sum(1), (scores - 0.3 * ratio).detach())
    assert not rewards.requires_grad


# --- advantages -----------------------------------------------------------------------------------
def test_an_episode_by_hand():
    """γ = 0.9, λ = 0.5; r = (1, 0, 2), V = (0.5, 1, 1.5).

    δ = (1 + 0.9·1 - 0.5, 0 + 0.9·1.5 - 1, 2 - 1.5) = (1.4, 0.35, 0.5);
    A₂ = 0.5, A₁ = 0.35 + 0.45·0.5 = 0.575, A₀ = 1.4 + 0.45·0.575 = 1.65875; returns A + V.
    """
    rewards = f64([1.0, 0.0, 2.0])
    values = f64([0.5, 1.0, 1.5])
    advantages, returns = ft.generalized_advantages(rewards, values, torch.ones(1, 3), 0.9, 0.5)
    exactly(advantages, f64([1.65875, 0.575, 0.5]))
    exactly(returns, f64([2.15875, 1.575, 2.0]))


def test_padding_and_holes_are_stepped_over():
    """The episode above with padding on both sides and a hole within, which hold NaN."""
    rewards = f64([NAN, 1.0, NAN, 0.0, 2.0, NAN])
    values = f64([NAN, 0.5, NAN, 1.0, 1.5, NAN])
    mask = tensor([[0, 1, 0, 1, 1, 0]])
    advantages, returns = ft.generalized_advantages(rewards, values, mask, 0.9, 0.5)
    exactly(advantages, f64([0.0, 1.65875, 0.0, 0.575, 0.5, 0.0]))
    exactly(returns, f64([0.0, 2.15875, 0.0, 1.575, 2.0, 0.0]))


def test_the_two_ends_of_lambda():
    """λ = 1: the discounted rewards to come minus V, the sum written out; λ = 0: r + γV' - V."""
    rewards = torch.randn(3, 5, dtype=F64)
    values = torch.randn(3, 5, dtype=F64)
    ones = torch.ones(3, 5)
    after = torch.zeros(3, 5, dtype=F64)
    for t in range(5):
        for k in range(t, 5):
            after[:, t] += 0.8 ** (k - t) * rewards[:, k]
    _, returns = ft.generalized_advantages(rewards, values, ones, 0.8, 1.0)
    exactly(returns, after)
    following = torch.cat([values[:, 1:], torch.zeros(3, 1, dtype=F64)], 1)
    advantages, _ = ft.generalized_advantages(rewards, values, ones, 0.8, 0.0)
    exactly(advantages, rewards + 0.8 * following - values)


def test_whitening_by_hand():
    """1, 3 and 5: mean 3, standard deviation 2."""
    mask = tensor([[1, 1], [0, 1]])
    want = f64([-1.0, 0.0], [0.0, 1.0])
    have = whiten(f64([1.0, 3.0], [NAN, 5.0]), mask)
    torch.testing.assert_close(have, want, rtol=1e-7, atol=1e-7)
    exactly(whiten(f64([2.0, 2.0]), torch.ones(1, 2)), f64([0.0, 0.0]))


def test_group_advantages_by_hand():
    """(1, 3): mean 2, unbiased standard deviation √2; (4, 4): equal, 0."""
    scores = f64(1.0, 3.0, 4.0, 4.0)
    step = 1 / (math.sqrt(2) + 1e-4)
    exactly(ft.group_advantages(scores, 2), f64(-step, step, 0.0, 0.0))
    exactly(ft.group_advantages(scores, 2, scale=False), f64(-1.0, 1.0, 0.0, 0.0))


def test_leave_one_out_by_hand():
    """Of (1, 2, 6) the others' means are 4, 3.5 and 1.5; k/(k-1)·(r - 3) says the same."""
    scores = f64(1.0, 2.0, 6.0, 0.0, 0.0, 3.0)
    want = f64(-3.0, -1.5, 4.5, -1.5, -1.5, 3.0)
    exactly(ft.leave_one_out_advantages(scores, 3), want)
    exactly(want, 1.5 * ft.group_advantages(scores, 3, scale=False))


# --- losses ---------------------------------------------------------------------------------------
def test_the_policy_loss_by_hand():
    """Ratios 2, 2, ½, ½ with A = 1, -1, 1, -1 and ε = 0.2: gains min(2, 1.2), min(-2, -1.2),
    min(0.5, 0.8), min(-0.5, -0.8): 1.2, -2, 0.5, -0.8, of which the mean is -0.275.
    """
    half = math.log(2)
    logps = f64([half, half, -half, -half, NAN]).requires_grad_()
    zero = torch.zeros(1, 5, dtype=F64)
    mask = tensor([[1, 1, 1, 1, 0]])
    loss = ft.ppo_policy_loss(logps, zero, f64([1.0, -1.0, 1.0, -1.0, NAN]), mask)
    exactly(loss, tensor(0.275, dtype=F64))
    loss.backward()
    # The clipped branches have no gradient: -A·ρ/4 of the second and third alone.
    exactly(logps.grad, f64([0.0, 0.5, -0.125, 0.0, 0.0]))


def test_at_a_ratio_of_one_it_is_the_policy_gradient():
    logps = torch.randn(3, 4, dtype=F64).requires_grad_()
    advantages = torch.randn(3, 4, dtype=F64)
    mask = torch.rand(3, 4) < 0.7
    mask[0, 0] = True
    ft.ppo_policy_loss(logps, logps.detach(), advantages, mask).backward()
    exactly(logps.grad, -advantages * mask / mask.sum())


def test_the_value_loss_by_hand():
    """ε = 0.2, R = 0. V = 1 from 0.5: V_clip = 0.7, the larger square is 1. V = 0.1 from 0.5:
    V_clip = 0.3, the larger is 0.09, and it has no gradient. ½·(1 + 0.09)/2 = 0.2725.
    """
    values = f64([1.0, 0.1, NAN]).requires_grad_()
    old = f64([0.5, 0.5, NAN])
    goal = f64([0.0, 0.0, NAN])
    loss = ft.ppo_value_loss(values, old, goal, tensor([[1, 1, 0]]))
    exactly(loss, tensor(0.2725, dtype=F64))
    loss.backward()
    exactly(values.grad, f64([0.5, 0.0, 0.0]))


def test_the_kl_penalty_by_hand():
    """d = ln 2: 2 - ln 2 - 1; d = -ln 2: ½ + ln 2 - 1; their mean is ¼."""
    half = math.log(2)
    exactly(
        ft.kl_penalty(f64([0.0, 0.0, NAN]), f64([half, -half, NAN]), tensor([[1, 1, 0]])),
        tensor(0.25, dtype=F64),
    )


def test_the_kl_penalty_is_unbiased():
    """Summed over the vocabulary with π's weights it is KL(π‖π_ref) itself."""
    policy = torch.randn(7, dtype=F64).log_softmax(-1)
    ref = torch.randn(7, dtype=F64).log_softmax(-1)
    one = torch.ones(1, 1)
    both = zip(policy, ref, strict=True)
    terms = [ft.kl_penalty(p.view(1, 1), r.view(1, 1), one) for p, r in both]
    exactly(policy.exp() @ torch.stack(terms), (policy.exp() * (policy - ref)).sum())


MASK = tensor([[1, 1, 0], [0, 1, 1]])


@pytest.mark.parametrize("name", ["ppo_policy_loss", "ppo_value_loss", "kl_penalty"])
def test_gradients(name):
    """Only the first argument has one."""
    first = torch.randn(2, 3, dtype=F64).requires_grad_()
    others = [torch.randn(2, 3, dtype=F64) for _ in range(1 if name == "kl_penalty" else 2)]
    loss = getattr(ft, name)
    assert gradcheck(lambda moved: loss(moved, *others, MASK), first)
    fixed = [other.requires_grad_() for other in others]
    loss(first, *fixed, MASK).backward()
    assert first.grad.any() and all(other.grad is None for other in fixed)


# --- refusals -------------------------------------------------------------------------------------
TWO = torch.zeros(2, 3)
WRONG = [
    (lambda: ft.reward_loss(torch.zeros(2), torch.zeros(3)), "rejected_rewards has shape"),
    (lambda: ft.reward_loss(torch.zeros(2), [0, 0]), "rejected_rewards is list"),
    (lambda: ft.reward_loss(torch.zeros(2), torch.zeros(2), NAN), "margin=nan"),
    (lambda: ft.kl_shaped_rewards(torch.zeros(3), TWO, TWO, MASK, 0.1), "scores has 3 rows"),
    (lambda: ft.kl_shaped_rewards(torch.zeros(2), TWO, TWO, MASK, -1), "kl_coef=-1"),
    (
        lambda: ft.kl_shaped_rewards(torch.zeros(2), TWO, TWO, tensor([[1, 0, 0], [0, 0, 0]]), 0.1),
        "row 1 of mask is all 0",
    ),
    (lambda: ft.generalized_advantages(TWO, TWO, MASK, lam=1.5), "lam=1.5"),
    (lambda: ft.generalized_advantages(TWO, TWO, 2 * MASK), "other numbers than 0 and 1"),
    (lambda: ft.generalized_advantages(TWO, TWO, MASK[:1]), r"mask is \(1, 3\)"),
    (lambda: ft.ppo_policy_loss(TWO, TWO, TWO, 0 * MASK), "mask is 0 everywhere"),
    (lambda: ft.ppo_policy_loss(TWO, TWO, TWO, MASK, -0.1), "clip_range=-0.1"),
    (lambda: ft.ppo_value_loss(TWO, TWO[:1], TWO, MASK), "old_values has shape"),
    (lambda: ft.group_advantages(torch.zeros(5), 2), "group_size=2 of 5 scores"),
    (lambda: ft.leave_one_out_advantages(torch.zeros(4), 1), "group_size=1"),
    (lambda: ft.kl_penalty(TWO.long(), TWO, MASK), "logps is torch.int64"),
]


@pytest.mark.parametrize("call, words", WRONG, ids=[words for _, words in WRONG])
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(LossError, match=words):
        call()
