"""Preference losses: by hand, against TRL, gradients checked, numbers at the edge, named errors."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch.autograd import gradcheck

import ftlib as ft
from ftlib.losses.preference import LossError, log1mexp

F64 = torch.float64


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def draw(n=6, seed=0, dtype=F64, scale=10.0):
    """Four vectors of negative log-probabilities."""
    g = torch.Generator().manual_seed(seed)
    return [(-torch.rand(n, generator=g, dtype=F64) * scale).to(dtype) for _ in range(4)]


# By hand


def test_dpo_by_hand():
    """r_c = -10 - (-11) = 1, r_r = -14 - (-12) = -2, z = 0.5·3 = 1.5; loss = -ln σ(1.5) = ln(1 +
    e^-1.5) = 0.2014133.
    """
    losses, chosen, rejected = ft.dpo_loss(
        tensor([-10.0]), tensor([-14.0]), tensor([-11.0]), tensor([-12.0]), beta=0.5
    )
    assert (
        losses.tolist() == pytest.approx([0.2014133])
        and chosen.tolist() == [0.5]
        and rejected.tolist() == [-1.0]
    )


def test_dpo_starts_at_ln_2():
    logps = tensor([-3.0, -40.0])
    assert ft.dpo_loss(logps, logps - 5, logps, logps - 5)[0].tolist() == pytest.approx(
        [math.log(2)] * 2
    )


def test_smoothed_dpo_by_hand():
    """z = 1.5 as above: 0.9·0.2014133 + 0.1·1.7014133 = 0.3514133."""
    losses, *_ = ft.dpo_loss(
        tensor([-10.0]),
        tensor([-14.0]),
        tensor([-11.0]),
        tensor([-12.0]),
        beta=0.5,
        label_smoothing=0.1,
    )
    assert losses.tolist() == pytest.approx([0.3514133])


def test_simpo_by_hand():
    """2·(-0.5 - (-1.5) - 0.5) = 1: -ln σ(1) = 0.3132617. γ = β·ratio = 1."""
    losses, chosen, rejected = ft.simpo_loss(
        tensor([-0.5]), tensor([-1.5]), beta=2.0, gamma_beta_ratio=0.5
    )
    assert (
        losses.tolist() == pytest.approx([0.3132617])
        and chosen.tolist() == [-1.0]
        and rejected.tolist() == [-3.0]
    )


def test_orpo_by_hand():
    """p_c = 1/2, p_r = 1/4: odds 1 and 1/3, log odds ratio ln 3; σ(ln 3) = 3/4; loss = 0.7 - 0.1·ln
    0.75 = 0.7287682.
    """
    losses, chosen, rejected = ft.orpo_loss(
        tensor([math.log(0.5)]), tensor([math.log(0.25)]), tensor([0.7]), beta=0.1
    )
    assert losses.tolist() == pytest.approx([0.7287682]) and chosen.tolist() == pytest.approx(
        [0.1 * math.log(0.5)]
    )
    assert rejected.tolist() == pytest.approx([0.1 * math.log(0.25)])


def test_kto_by_hand():
    """z0 = mean(3, -1) = 1. r = 2, desirable: 1 - σ(0.5·(2-1)) = 0.3775407; r = 2, undesirable: 1 -
    σ(0.5·(1-2)) = 0.6224593.
    """
    policy = tensor([-4.0, -4.0])
    ref = tensor([-6.0, -6.0])
    labels = tensor([True, False])
    losses, rewards = ft.kto_loss(
        policy, ref, tensor([-2.0, -6.0]), tensor([-5.0, -5.0]), labels, beta=0.5
    )
    assert losses.tolist() == pytest.approx([0.3775407, 0.6224593]) and rewards.tolist() == [
        1.0,
        1.0,
    ]
    weighted, _ = ft.kto_loss(
        policy, ref, tensor([-2.0, -6.0]), tensor([-5.0, -5.0]), labels, 0.5, 2.0, 3.0
    )
    assert weighted.tolist() == pytest.approx([2 * 0.3775407, 3 * 0.6224593])


def test_ktos_reference_point_is_not_negative_and_has_no_gradient():
    zero = tensor([0.0])
    kl = tensor([-3.0], requires_grad=True)
    policy = tensor([0.0], requires_grad=True)
    losses, _ = ft.kto_loss(policy, zero, kl, zero, tensor([True]))
    losses.sum().backward()
    assert (
        losses.item() == 0.5
        and kl.grad is None
        and policy.grad.item() == pytest.approx(-0.1 * 0.25)
    )


# Against TRL, where it is installed


def trl(path, name):
    module = pytest.importorskip(path)
    return getattr(module, name)


@pytest.mark.parametrize("beta", [0.1, 2.0, 2.5])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.2])
def test_simpo_is_trls(beta, ratio):
    """TRL takes γ where the paper's repository and ftlib take γ/β."""
    stand_in = SimpleNamespace(
        alpha=0.0,
        beta=beta,
        simpo_gamma=beta * ratio,
        loss_type="simpo",
        label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )
    chosen, rejected, *_ = draw(scale=3.0)
    theirs = trl("trl.experimental.cpo.cpo_trainer", "CPOTrainer").cpo_loss(
        stand_in, chosen, rejected
    )
    for mine, other in zip(ft.simpo_loss(chosen, rejected, beta, ratio), theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_orpo_is_trls(beta):
    stand_in = SimpleNamespace(beta=beta, accelerator=SimpleNamespace(device="cpu"))
    chosen, rejected, *_ = draw(dtype=torch.float32, scale=3.0)
    ratio, theirs_chosen, theirs_rejected, *_ = trl(
        "trl.experimental.orpo.orpo_trainer", "ORPOTrainer"
    ).odds_ratio_loss(stand_in, chosen, rejected)
    losses, mine_chosen, mine_rejected = ft.orpo_loss(chosen, rejected, -chosen, beta)
    torch.testing.assert_close(losses, -chosen - ratio, rtol=1e-5, atol=1e-6)
    assert torch.equal(mine_chosen, theirs_chosen) and torch.equal(mine_rejected, theirs_rejected)


# Gradients


LABELS = tensor([True, False, True, False, False, True])
LOSSES = {
    "dpo": lambda a, b, c, d: ft.dpo_loss(a, b, c, d, beta=0.3)[0],
    "cdpo": lambda a, b, c, d: ft.dpo_loss(a, b, c, d, beta=0.3, label_smoothing=0.2)[0],
    "simpo": lambda a, b, *_: ft.simpo_loss(a, b)[0],
    "orpo": lambda a, b, *_: ft.orpo_loss(a, b, -a)[0],
    "kto": lambda a, b, c, d: ft.kto_loss(a, b, c.detach(), d.detach(), LABELS, 0.3, 1.5, 0.5)[0],
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name):
    a, b, c, d = draw(scale=3.0)
    used = (
        (a, b) if name == "kto" else (a, b, c, d)
    )  # KTO's reference point is detached: moving it moves the loss, without a gradient
    rest = (c, d) if name == "kto" else ()
    assert gradcheck(lambda *moved: LOSSES[name](*moved, *rest), [t.requires_grad_() for t in used])


@pytest.mark.parametrize("name", LOSSES)
def test_rewards_carry_no_gradient(name):
    a, b, c, d = (t.requires_grad_() for t in draw())
    for rewards in {
        "dpo": ft.dpo_loss(a, b, c, d),
        "cdpo": ft.dpo_loss(a, b, c, d),
        "simpo": ft.simpo_loss(a, b),
        "orpo": ft.orpo_loss(a, b, -a),
        "kto": ft.kto_loss(a, b, c, d, LABELS),
    }[name][1:]:
        assert not rewards.requires_grad and rewards.shape == (6,)


def test_dpos_gradient_weighs_by_how_wrong_the_reward_is():
    """∂loss/∂log π(y_c) = -β·σ(-z), eq. 7's gradient: near 0 where the pair is won, near -β where
    it is lost.
    """
    policy = tensor([100.0, -100.0], requires_grad=True)
    ft.dpo_loss(policy, torch.zeros(2), torch.zeros(2), torch.zeros(2), beta=0.5)[
        0
    ].sum().backward()
    assert policy.grad.tolist() == pytest.approx([0.0, -0.5], abs=1e-6)


# At the edge


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_log1mexp_at_both_ends(dtype):
    """ln(1 - e^-1e-8) = -18.42068; ln(1 - e^-50) = -1.9e-22; at -ln 2 exactly -ln 2."""
    x = tensor([-1e-8, -math.log(2), -50.0], dtype=dtype)
    assert log1mexp(x).tolist() == pytest.approx([-18.420681, -math.log(2), -1.9287e-22], rel=1e-4)


@pytest.mark.parametrize("value", [0.0, -1e-12, -1e-3, -20.0, -1000.0])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_finite_whatever_the_probability(value, name, dtype):
    inputs = [
        torch.full((6,), v, dtype=dtype, requires_grad=True) for v in (value, -1.0, -2.0, value)
    ]
    losses = LOSSES[name](*inputs)
    losses.sum().backward()
    assert losses.isfinite().all() and all(
        t.grad is None or t.grad.isfinite().all() for t in inputs
    )


@given(seed=st.integers(0, 999), beta=st.floats(0.01, 5), n=st.integers(1, 8))
def test_what_every_loss_must_do(seed, beta, n):
    """Better chosen answers never cost more; swapping the pair mirrors DPO; a reference equal to
    the policy leaves ln 2.
    """
    a, b, c, d = draw(n, seed)
    assert (ft.dpo_loss(a + 1, b, c, d, beta)[0] < ft.dpo_loss(a, b, c, d, beta)[0]).all()
    assert (ft.simpo_loss(a + 1, b, beta)[0] < ft.simpo_loss(a, b, beta)[0]).all()
    won = ft.dpo_loss(a, b, c, d, beta)[0]
    lost = ft.dpo_loss(b, a, d, c, beta)[0]
    torch.testing.assert_close(
        (-won).exp() + (-lost).exp(), torch.ones(n, dtype=F64)
    )  # σ(z) + σ(-z) = 1
    losses, _ = ft.kto_loss(a, b, c, d, torch.ones(n, dtype=torch.bool), beta)
    assert ((losses >= 0) & (losses <= 1)).all()  # 1 − σ(z) rounds to 1 for z below about −37


# Bad input


ONE = torch.zeros(1)
TWO = torch.zeros(2)


@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda: ft.dpo_loss(TWO, ONE, TWO, TWO),
            r"policy_rejected_logps has shape \(1,\), policy_chosen_logps has \(2,\)",
        ),
        (
            lambda: ft.dpo_loss(TWO, TWO, TWO, torch.zeros(2, 1)),
            r"ref_rejected_logps has shape \(2, 1\)",
        ),
        (lambda: ft.dpo_loss(TWO, TWO, TWO, TWO.long()), "ref_rejected_logps is torch.int64"),
        (lambda: ft.dpo_loss(TWO, TWO, TWO, 0.0), "ref_rejected_logps is float"),
        (lambda: ft.dpo_loss(*[torch.zeros(0)] * 4), r"policy_chosen_logps has shape \(0,\)"),
        (lambda: ft.dpo_loss(TWO, TWO, TWO, TWO, beta=0), "beta=0"),
        (lambda: ft.dpo_loss(TWO, TWO, TWO, TWO, beta=math.nan), "beta=nan"),
        (lambda: ft.dpo_loss(TWO, TWO, TWO, TWO, label_smoothing=0.5), "label_smoothing=0.5"),
        (lambda: ft.simpo_loss(TWO, ONE), "policy_rejected_logps"),
        (lambda: ft.simpo_loss(TWO, TWO, beta=-1.0), "beta=-1.0"),
        (lambda: ft.simpo_loss(TWO, TWO, gamma_beta_ratio=-0.1), "gamma_beta_ratio=-0.1"),
        (lambda: ft.orpo_loss(TWO, TWO, ONE), r"chosen_nll is \(1,\)"),
        (lambda: ft.orpo_loss(TWO, TWO, 0.5), "chosen_nll is float"),
        (lambda: ft.orpo_loss(TWO, TWO, TWO, beta=math.inf), "beta=inf"),
        (lambda: ft.kto_loss(TWO, TWO, TWO, TWO, TWO), "labels is torch.float32"),
        (lambda: ft.kto_loss(TWO, TWO, TWO, TWO, tensor([True])), "labels"),
        (lambda: ft.kto_loss(TWO, TWO, TWO, ONE, tensor([True, False])), "ref_kl_logps"),
        (
            lambda: ft.kto_loss(TWO, TWO, TWO, TWO, tensor([True, False]), desirable_weight=-1.0),
            "desirable_weight=-1.0",
        ),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("value", ["0.1", None, True, math.nan, math.inf, -1.0])
def test_a_number_that_is_none_is_named(value):
    """A text, a truth value and nothing at all as well as what is out of range."""
    one = tensor([-1.0])
    calls = {
        "beta": lambda: ft.dpo_loss(one, one, one, one, beta=value),
        "label_smoothing": lambda: ft.dpo_loss(one, one, one, one, label_smoothing=value),
        "gamma_beta_ratio": lambda: ft.simpo_loss(one, one, gamma_beta_ratio=value),
    }
    for name, call in calls.items():
        with pytest.raises(LossError, match=f"^{name}="):
            call()
