"""Distillation: how far a student's next-token distributions are from a teacher's."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ftlib.batches.template import IGNORE
from ftlib.core.checks import check_above_zero
from ftlib.core.dtypes import fp32_or_wider
from ftlib.losses.preference import LossError

DIVERGENCES = ("forward_kl", "reverse_kl", "jsd")


def _check(student: Tensor, teacher: Tensor, labels: Tensor) -> None:
    """LossError unless the logits are of the same tokens and vocabulary, and the labels too."""
    for name, value in (("student_logits", student), ("teacher_logits", teacher)):
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim != 3:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise LossError(f"{name} is {found}: a floating tensor (B, T, V) is needed")
    if student.shape != teacher.shape:
        raise LossError(
            f"student_logits {tuple(student.shape)} and teacher_logits {tuple(teacher.shape)} "
            "differ: both must be of the same tokens, over the same vocabulary"
        )
    is_labels = isinstance(labels, Tensor) and labels.dtype == torch.long
    if not is_labels or labels.shape != student.shape[:2]:
        found = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        shape = tuple(labels.shape) if isinstance(labels, Tensor) else ""
        raise LossError(
            f"labels is {found} {shape}: torch.long {tuple(student.shape[:2])} is needed, {IGNORE} "
            "where nothing is scored"
        )


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p‖q) of log-probabilities (N, V) -> (N,)."""
    return (p.exp() * (p - q)).sum(-1)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    divergence: str = "forward_kl",
) -> Tensor:
    """``T²·D(p_teacher, p_student)``, the mean over the tokens that `labels` score; () in nats, T
    the `temperature` of both softmaxes (Hinton et al. 2015, arXiv 1503.02531: the factor keeps the
    gradient's size, which falls as 1/T²).

    student_logits, teacher_logits (B, T, V); labels (B, T), -100 where nothing is scored. As
    `token_logps` it shifts inside: position t, whose logits are of the token after it, counts where
    ``labels[:, t + 1]`` is not -100, and the last position never. Which token the label is does not
    matter. `divergence`:

    - "forward_kl" ``KL(p_teacher‖p_student)``: covers all that the teacher may say;
    - "reverse_kl" ``KL(p_student‖p_teacher)``: stays where the teacher is likely (MiniLLM, arXiv
      2306.08543);
    - "jsd" ``½KL(p_teacher‖m) + ½KL(p_student‖m)``, m their mean (GKD, arXiv 2306.13649, eq. 1 with
      β = ½): between the two, at most ln 2.

    Computed in fp32 or wider; logits must be finite. The teacher's carry no gradient. LossError for
    shapes that do not fit, another name, or labels that score nothing.
    """
    _check(student_logits, teacher_logits, labels)
    check_above_zero("temperature", temperature, LossError)
    if divergence not in DIVERGENCES:
        raise LossError(f"divergence={divergence!r}: use one of {', '.join(DIVERGENCES)}")
    scored = labels[:, 1:] != IGNORE  # (B, T-1)
    if not scored.any():
        raise LossError("labels score no token: all are -100 after the first; drop such rows")
    student = _logps(student_logits[:, :-1][scored], temperature)  # (N, V)
    teacher = _logps(teacher_logits.detach()[:, :-1][scored], temperature)
    if divergence == "forward_kl":
        apart = _kl(teacher, student)
    elif divergence == "reverse_kl":
        apart = _kl(student, teacher)
    else:
        middle = torch.logaddexp(student, teacher) - math.log(2)
        apart = 0.5 * _kl(teacher, middle) + 0.5 * _kl(student, middle)
    return temperature**2 * apart.mean()


def _logps(logits: Tensor, temperature: float) -> Tensor:
    """(N, V) log-probabilities at the temperature."""
    return torch.log_softmax(logits.to(fp32_or_wider(logits.dtype)) / temperature, -1)


def scored_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, V), fp32 or wider: the rows of `logits` (B, T, V) whose next token `labels` (B, T) score,
    as in `distillation_loss`.
    """
    rows = logits[:, :-1][labels[:, 1:] != IGNORE]
    return rows.to(fp32_or_wider(rows.dtype))
