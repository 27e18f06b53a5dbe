"""Lab E4, distillation, exercise 2: what the reverse KL tells each logit."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_e4.logits import pair


def reverse_kl_gradient(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """``∂KL(q‖p)/∂z_i = q_i (log q_i/p_i − KL(q‖p))`` at each position, q the student's softmax of
    its logits z and p the teacher's; (N, V), (N, V) -> (N, V).
    """
    q = torch.log_softmax(student_logits, -1)
    p = torch.log_softmax(teacher_logits, -1)
    kl = (q.exp() * (q - p)).sum(-1, keepdim=True)  # (N, 1)
    return q.exp() * (q - p - kl)


def _cases(g):
    for positions, vocabulary in ((3, 5), (4, 8), (1, 3), (2, 12)):
        yield pair(g, positions, vocabulary)


def _made(of_logps):
    """A gradient from (log q, log p, KL(q‖p), KL(p‖q)), the KLs (N, 1)."""

    def gradient(student_logits, teacher_logits):
        q = torch.log_softmax(student_logits, -1)
        p = torch.log_softmax(teacher_logits, -1)
        reverse = (q.exp() * (q - p)).sum(-1, keepdim=True)
        forward = (p.exp() * (p - q)).sum(-1, keepdim=True)
        return of_logps(q, p, reverse, forward)

    return gradient


REVERSE = Exercise(
    name="reverse_kl_gradient",
    title="The gradient of the reverse KL",
    minutes=12,
    difficulty=3,
    reference=reverse_kl_gradient,
    cases=_cases,
    hints=(
        "With a_j = log q_j − log p_j the loss is Σ q_j a_j. Only q depends on z, and the part "
        "through log q vanishes: Σ q_j ∂log q_j/∂z_i = ∂(Σ q_j)/∂z_i = 0.",
        "∂q_j/∂z_i = q_j (1[i = j] − q_i).",
        "So the gradient is q_i a_i − q_i Σ q_j a_j, and the sum is the KL itself.",
        "a = q.log() - p.log(); return q * (a - (q * a).sum(-1, keepdim=True))",
    ),
    wrong=(
        Wrong(
            "the forward KL's",
            _made(lambda q, p, reverse, forward: q.exp() - p.exp()),
            "q − p is the gradient of the *forward* KL. The reverse one has the log-ratio in it.",
        ),
        Wrong(
            "no baseline",
            _made(lambda q, p, reverse, forward: q.exp() * (q - p)),
            "The baseline is missing: subtract KL(q ‖ p) from the log-ratio. Without it the "
            "entries do not sum to 0, yet a constant added to all logits changes nothing.",
        ),
        Wrong(
            "a one too many",
            _made(lambda q, p, reverse, forward: q.exp() * (q - p + 1)),
            "That is the derivative by q_i, not by the logit: apply the chain rule through the "
            "softmax, ∂q_j/∂z_i = q_j (1[i = j] − q_i).",
        ),
        Wrong(
            "not weighed",
            _made(lambda q, p, reverse, forward: q - p - reverse),
            "The factor q_i is missing: a token that the student hardly ever says has hardly any "
            "gradient. That is why the reverse KL may overlook a whole mode.",
        ),
        Wrong(
            "weighed by the teacher",
            _made(lambda q, p, reverse, forward: p.exp() * (q - p - reverse)),
            "You weight by the teacher's p: the reverse KL is a mean over what the *student* says.",
        ),
        Wrong(
            "the other KL as baseline",
            _made(lambda q, p, reverse, forward: q.exp() * (q - p + forward)),
            "The baseline is the mean of log q − log p under q, KL(q ‖ p); yours is its mean under "
            "p.",
        ),
        Wrong(
            "uphill",
            _made(lambda q, p, reverse, forward: -q.exp() * (q - p - reverse)),
            "The sign is wrong: that is minus the gradient, the direction in which the KL falls.",
        ),
        Wrong(
            "mean baseline",
            _made(lambda q, p, reverse, forward: q.exp() * (q - p - (q - p).mean(-1, True))),
            "Your baseline is the plain mean of the log-ratio over the vocabulary: weight it by q.",
        ),
    ),
)
