"""Distillation: by hand, against TRL's GKD, gradients checked, errors that name the argument."""

import math

import pytest
import torch
from torch import tensor
from torch.autograd import gradcheck

import ftlib as ft
from ftlib.losses.distillation import DIVERGENCES, scored_logits
from ftlib.losses.preference import LossError

F64 = torch.float64
LABELS = tensor([[-100, -100, 3, 1], [-100, 2, -100, -100]])  # three are scored: (0,1) (0,2) (1,0)


def draw(seed=0, vocabulary=6):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 4, vocabulary)
    return [2 * torch.randn(shape, generator=generator, dtype=F64) for _ in range(2)]


def one(divergence, student, teacher, temperature=1.0):
    """The loss of a single scored position whose distributions these are."""
    rows = [tensor([[p, p]], dtype=F64).log() for p in (student, teacher)]
    return ft.distillation_loss(*rows, tensor([[-100, 0]]), temperature, divergence).item()


def test_by_hand():
    """Teacher (½, ½), student (¼, ¾).

    Forward: ½·ln 2 + ½·ln(2/3) = ½·ln(4/3). Reverse: ¼·ln ½ + ¾·ln(3/2). The mixture is (⅜, ⅝):
    JSD = ½[½·ln(4/3) + ½·ln(4/5)] + ½[¼·ln(2/3) + ¾·ln(6/5)].
    """
    student = (0.25, 0.75)
    teacher = (0.5, 0.5)
    ln = math.log
    forward = 0.5 * ln(4 / 3)
    reverse = 0.25 * ln(0.5) + 0.75 * ln(1.5)
    jsd = 0.25 * (ln(4 / 3) + ln(4 / 5)) + 0.125 * ln(2 / 3) + 0.375 * ln(6 / 5)
    assert one("forward_kl", student, teacher) == pytest.approx(forward, rel=1e-12)
    assert one("reverse_kl", student, teacher) == pytest.approx(reverse, rel=1e-12)
    assert one("jsd", student, teacher) == pytest.approx(jsd, rel=1e-12)


def test_temperature_by_hand():
    """T = 2 takes the roots: student odds 1:9 become 1:3, which is the case above, times 4."""
    want = 4 * 0.5 * math.log(4 / 3)
    assert one("forward_kl", (0.1, 0.9), (0.5, 0.5), 2.0) == pytest.approx(want, rel=1e-12)


def test_the_position_before_a_label_is_scored():
    """As `token_logps` shifts: other logits anywhere else change nothing."""
    student, teacher = draw()
    want = ft.distillation_loss(student, teacher, LABELS)
    scored = torch.zeros(2, 4, dtype=torch.bool)
    scored[0, 1] = scored[0, 2] = scored[1, 0] = True
    other = torch.where(scored[..., None], student, torch.randn_like(student))
    assert torch.equal(ft.distillation_loss(other, teacher, LABELS), want)
    moved = student.clone()
    moved[1, 0, 0] += 1
    assert not torch.equal(ft.distillation_loss(moved, teacher, LABELS), want)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("divergence, beta", [("forward_kl", 0), ("reverse_kl", 1), ("jsd", 0.5)])
def test_it_is_trls(divergence, beta, temperature):
    """TRL's takes logits and labels that are shifted already, and no T²."""
    theirs = pytest.importorskip("trl.experimental.gkd").GKDTrainer.generalized_jsd_loss
    student, teacher = draw()
    other = theirs(
        student[:, :-1], teacher[:, :-1], LABELS[:, 1:], beta=beta, temperature=temperature
    )
    mine = ft.distillation_loss(student, teacher, LABELS, temperature, divergence)
    torch.testing.assert_close(mine, temperature**2 * other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradients(divergence):
    """They are the student's alone, and zero where it says what the teacher says."""
    student, teacher = draw()
    student.requires_grad_()
    teacher.requires_grad_()
    assert gradcheck(
        lambda s: ft.distillation_loss(s, teacher.detach(), LABELS, 2.0, divergence), student
    )
    ft.distillation_loss(student, teacher, LABELS, 2.0, divergence).backward()
    assert student.grad.any() and teacher.grad is None
    same = teacher.detach().clone().requires_grad_()
    ft.distillation_loss(same, teacher, LABELS, 1.0, divergence).backward()
    torch.testing.assert_close(same.grad, torch.zeros_like(same), atol=1e-15, rtol=0)


def test_forward_kl_of_a_sure_teacher_is_the_loss_of_plain_fine_tuning():
    """A teacher that gives a label probability one: -log p_student(label)."""
    student, _ = draw()
    sure = torch.full_like(student, -1e4)
    for row, position in ((0, 1), (0, 2), (1, 0)):
        sure[row, position, LABELS[row, position + 1]] = 0
    logps = student.log_softmax(-1)
    nll = -(logps[0, 1, 3] + logps[0, 2, 1] + logps[1, 0, 2]) / 3
    have = ft.distillation_loss(student, sure, LABELS)
    torch.testing.assert_close(have, nll, rtol=1e-12, atol=0)


def test_16_bits_are_computed_in_32():
    student, teacher = (logits.bfloat16() for logits in draw())
    have = ft.distillation_loss(student, teacher, LABELS)
    want = ft.distillation_loss(student.float(), teacher.float(), LABELS)
    assert have.dtype == torch.float32 and torch.equal(have, want)


def test_the_logits_that_are_scored():
    """Those at (0,1), (0,2) and (1,0), in this order; of 16 bits in 32."""
    student, _ = draw()
    want = torch.stack([student[0, 1], student[0, 2], student[1, 0]])
    assert torch.equal(scored_logits(student, LABELS), want)
    assert scored_logits(student.bfloat16(), LABELS).dtype == torch.float32


S, T = draw()
WRONG = [
    (lambda: ft.distillation_loss(S, T[..., :5], LABELS), "over the same vocabulary"),
    (lambda: ft.distillation_loss(S[0], T[0], LABELS), r"student_logits is \(4, 6\)"),
    (lambda: ft.distillation_loss(S, T, LABELS[:1]), r"labels is torch.int64 \(1, 4\)"),
    (lambda: ft.distillation_loss(S, T, 0 * LABELS - 100), "labels score no token"),
    (lambda: ft.distillation_loss(S, T, LABELS, 0), "temperature=0"),
    (lambda: ft.distillation_loss(S, T, LABELS, 1, "kl"), "divergence='kl': use one of forward_kl"),
]


@pytest.mark.parametrize("call, words", WRONG, ids=[words for _, words in WRONG])
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(LossError, match=words):
        call()
