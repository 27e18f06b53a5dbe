"""Lab E4, distillation, exercise 3: the divergence between the two."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_e4.logits import pair


def generalised_jsd(student_logits: Tensor, teacher_logits: Tensor, beta: float) -> Tensor:
    """``β KL(p‖m) + (1−β) KL(q‖m)`` with ``m = βp + (1−β)q``, p the teacher's probabilities and q
    the student's (GKD, arXiv 2306.13649, eq. 1), 0 < β < 1; (N, V), (N, V) -> (N,) in nats.
    """
    q = torch.log_softmax(student_logits, -1)
    p = torch.log_softmax(teacher_logits, -1)
    m = torch.logaddexp(p + math.log(beta), q + math.log(1 - beta))
    return beta * _kl(p, m) + (1 - beta) * _kl(q, m)


def _kl(a: Tensor, b: Tensor) -> Tensor:
    """KL of log-probabilities, (N,)."""
    return (a.exp() * (a - b)).sum(-1)


def _cases(g):
    for positions, vocabulary, beta in ((3, 5, 0.5), (4, 8, 0.1), (2, 4, 0.9), (5, 6, 0.3)):
        yield *pair(g, positions, vocabulary), beta


def _made(middle, of_middle):
    """A divergence from a mixture and from (log p, log q, log m, β)."""

    def divergence(student_logits, teacher_logits, beta):
        q = torch.log_softmax(student_logits, -1)
        p = torch.log_softmax(teacher_logits, -1)
        return of_middle(p, q, middle(p, q, beta), beta)

    return divergence


def _mixed(p, q, beta):
    return torch.logaddexp(p + math.log(beta), q + math.log(1 - beta))


def _turned(p, q, beta):
    return _mixed(p, q, 1 - beta)


def _even(p, q, beta):
    return _mixed(p, q, 0.5)


def _of_logs(p, q, beta):
    return beta * p + (1 - beta) * q


def _weighed(p, q, m, beta):
    return beta * _kl(p, m) + (1 - beta) * _kl(q, m)


def _weighed_wrongly(p, q, m, beta):
    return (1 - beta) * _kl(p, m) + beta * _kl(q, m)


JSD = Exercise(
    name="generalised_jsd",
    title="The generalised JSD",
    minutes=10,
    difficulty=2,
    reference=generalised_jsd,
    cases=_cases,
    gradient_of=("student_logits",),
    praise="equal to GKD's equation 1, values and gradients,",
    hints=(
        "Both become probabilities first; the mixture is of probabilities, not of logits.",
        "m = beta * p + (1 - beta) * q, (N, V). In logs: `torch.logaddexp(log_p + log(beta), "
        "log_q + log(1 - beta))`.",
        "Each KL has m as its second argument: KL(p ‖ m) = Σ p (log p − log m).",
        "return beta * (p * (p / m).log()).sum(-1) + (1 - beta) * (q * (q / m).log()).sum(-1)",
    ),
    wrong=(
        Wrong(
            "mixture turned",
            _made(_turned, _weighed),
            "The mixture has its weights the wrong way round: β goes with the teacher's p in m as "
            "it does before the KL.",
        ),
        Wrong(
            "KLs turned",
            _made(_mixed, _weighed_wrongly),
            "The KLs have their weights the wrong way round: β belongs to the teacher's, KL(p ‖ "
            "m).",
        ),
        Wrong(
            "both turned",
            _made(_turned, _weighed_wrongly),
            "β and 1 − β are swapped throughout, or p and q are: β goes with the teacher.",
        ),
        Wrong(
            "plain JSD",
            _made(_even, lambda p, q, m, beta: _weighed(p, q, m, 0.5)),
            "That is the plain JSD: β is not used, or fixed at one half.",
        ),
        Wrong(
            "even mixture",
            _made(_even, _weighed),
            "The mixture is half and half whatever β is: m = βp + (1−β)q.",
        ),
        Wrong(
            "logits mixed",
            lambda s, t, beta: _weighed(
                torch.log_softmax(t, -1),
                torch.log_softmax(s, -1),
                torch.log_softmax(beta * t + (1 - beta) * s, -1),
                beta,
            ),
            "You mixed logits: that is a geometric mean, which is small where either is small. m "
            "is the mean of probabilities.",
        ),
        Wrong(
            "logs mixed",
            _made(_of_logs, _weighed),
            "You mixed log-probabilities: they do not even sum to one. Mix probabilities.",
        ),
        Wrong(
            "KLs reversed",
            _made(_mixed, lambda p, q, m, beta: beta * _kl(m, p) + (1 - beta) * _kl(m, q)),
            "The KLs are reversed: m is their second argument. KL(m ‖ p) is infinite where p is 0; "
            "the JSD never is.",
        ),
        Wrong(
            "no mixture",
            _made(_mixed, lambda p, q, m, beta: beta * _kl(p, q) + (1 - beta) * _kl(q, p)),
            "That is a mean of forward and reverse KL, without the mixture: it has no bound.",
        ),
    ),
)
