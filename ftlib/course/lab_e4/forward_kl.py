"""Lab E4, distillation, exercise 1: forward KL with a temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_e4.logits import pair


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """``T²·KL(p_teacher‖p_student)``, both softmaxes at the temperature, the mean over positions;
    (N, V), (N, V) -> () in nats.
    """
    student = torch.log_softmax(student_logits / temperature, -1)
    teacher = torch.log_softmax(teacher_logits / temperature, -1)
    kl = (teacher.exp() * (teacher - student)).sum(-1)  # (N,)
    return temperature**2 * kl.mean()


def _cases(g):
    for positions, vocabulary, temperature in ((3, 5, 1.0), (4, 7, 2.0), (2, 6, 0.5), (5, 4, 3.0)):
        yield *pair(g, positions, vocabulary), temperature


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL of log-probabilities, (N,)."""
    return (p.exp() * (p - q)).sum(-1)


def _made(of_logps, student_at=lambda t: t, teacher_at=lambda t: t, factor=lambda t: t**2):
    """The loss with one thing done wrongly: `of_logps(teacher, student)` gives (N,) or ()."""

    def loss(student_logits, teacher_logits, temperature):
        student = torch.log_softmax(student_logits / student_at(temperature), -1)
        teacher = torch.log_softmax(teacher_logits / teacher_at(temperature), -1)
        return factor(temperature) * of_logps(teacher, student).mean()

    return loss


def _cross_entropy(teacher, student):
    return -(teacher.exp() * student).sum(-1)


def _hot(temperature):
    """The temperature multiplies where it should divide."""
    return 1 / temperature


FORWARD = Exercise(
    name="forward_kl",
    title="Forward KL with a temperature",
    minutes=10,
    difficulty=1,
    reference=forward_kl,
    cases=_cases,
    gradient_of=("student_logits",),
    praise="equal to Hinton's loss, values and gradients,",
    hints=(
        "Divide both logits by T, then `log_softmax(-1)`: log-probabilities, (N, V).",
        "KL(p ‖ q) = Σ p (log p − log q) over the vocabulary; forward means that the weights p "
        "are the teacher's.",
        "One number per position, then the mean over positions, then T².",
        "p = (teacher_logits / T).log_softmax(-1); q = (student_logits / T).log_softmax(-1); "
        "return T**2 * (p.exp() * (p - q)).sum(-1).mean()",
    ),
    wrong=(
        Wrong(
            "reverse",
            _made(lambda teacher, student: _kl(student, teacher)),
            "That is the reverse KL: you weight by the student's probabilities. The forward KL "
            "weights by the teacher's, so that everything the teacher may say counts.",
        ),
        Wrong(
            "no T squared",
            _made(_kl, factor=lambda t: 1.0),
            "The factor T² is missing: at T = 2 the gradient is about a quarter of what it should "
            "be, and every T has another best learning rate.",
        ),
        Wrong(
            "T once",
            _made(_kl, factor=lambda t: t),
            "You multiply by T: the gradient falls as 1/T², once for each of the two softmaxes.",
        ),
        Wrong(
            "student alone",
            _made(_kl, teacher_at=lambda t: 1.0),
            "The teacher's logits are not divided by T: then a student equal to the teacher does "
            "not have the loss 0.",
        ),
        Wrong(
            "teacher alone",
            _made(_kl, student_at=lambda t: 1.0),
            "The student's logits are not divided by T: then a student equal to the teacher does "
            "not have the loss 0.",
        ),
        Wrong(
            "cross entropy",
            _made(_cross_entropy),
            "That is the cross entropy: the teacher's own entropy is still in it. The gradient is "
            "the same, but a perfect student would not show 0.",
        ),
        Wrong(
            "mean over the vocabulary",
            _made(lambda teacher, student: (teacher.exp() * (teacher - student)).mean(-1)),
            "You took the mean over the vocabulary (`kl_div` with reduction='mean' does): sum "
            "over it, since p already weights the entries. Take the mean only over positions.",
        ),
        Wrong(
            "summed over positions",
            _made(lambda teacher, student: _kl(teacher, student).sum()),
            "You summed over positions: take the mean, or longer batches have larger losses.",
        ),
        Wrong(
            "bits",
            _made(lambda teacher, student: _kl(teacher, student) / math.log(2)),
            "Your result is in bits: use the natural logarithm, for nats.",
        ),
        Wrong(
            "times the temperature",
            _made(_kl, student_at=_hot, teacher_at=_hot),
            "You multiply the logits by T: a high temperature should make the softmax flatter, so "
            "divide.",
        ),
    ),
)
