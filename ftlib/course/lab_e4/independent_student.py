"""Lab E4, distillation, exercise 4: the best that a student without memory can do."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def independent_student(joint: Tensor) -> Tensor:
    """Of all students whose two words do not depend on each other, the one nearest to the teacher's
    joint probabilities p (V, W) by the forward KL: the product of p's margins; -> (V, W).
    """
    first = joint.sum(1)  # (V,)
    second = joint.sum(0)  # (W,)
    return first[:, None] * second[None, :]


def _cases(g):
    yield (torch.tensor([[0.5, 0.0], [0.0, 0.5]]),)
    for rows, columns in ((2, 2), (3, 4), (4, 3), (3, 3)):
        drawn = torch.rand(rows, columns, generator=g) ** 3
        yield (drawn / drawn.sum(),)


def _most_likely(joint):
    best = torch.zeros_like(joint)
    best.view(-1)[joint.argmax()] = 1
    return best


def _conditional(joint):
    return joint.sum(1)[:, None] * (joint / joint.sum(1, keepdim=True))


def _uniform(joint):
    return torch.full_like(joint, 1 / joint.numel())


def _swapped(joint):
    return joint.sum(0)[:, None] * joint.sum(1)[None, :]


def _conditional_too(joint):
    return joint.sum(1)[:, None] * (joint / joint.sum(0, keepdim=True))


def _maxima(joint):
    product = joint.amax(1)[:, None] * joint.amax(0)[None, :]
    return product / product.sum()


INDEPENDENT = Exercise(
    name="independent_student",
    title="The best student by the forward KL",
    minutes=8,
    difficulty=2,
    reference=independent_student,
    cases=_cases,
    hints=(
        "Write q(a, b) = u(a) v(b). In KL(p ‖ uv) = Σ p log p − Σ p log u − Σ p log v only the "
        "last two terms depend on the student.",
        "Σ p(a, b) log u(a) = Σ_a p(a) log u(a) with p(a) = Σ_b p(a, b): a cross entropy, least "
        "where u is p(a). The same for v.",
        "joint.sum(1) is the marginal of the first word, joint.sum(0) that of the second.",
        "return joint.sum(1)[:, None] * joint.sum(0)[None, :]",
    ),
    wrong=(
        Wrong(
            "the likeliest pair",
            _most_likely,
            "You put everything on the likeliest pair: that is what the *reverse* KL ends with "
            "here. The forward KL is infinite for it if the teacher ever says another pair.",
        ),
        Wrong(
            "the teacher itself",
            _conditional,
            "p(a)·p(b | a) is the teacher itself: this student's second word cannot depend on its "
            "first.",
        ),
        Wrong(
            "uniform",
            _uniform,
            "You spread the probability evenly: the student may know how often each word comes.",
        ),
        Wrong(
            "margins swapped",
            _swapped,
            "The marginals are swapped: sum over the second word (dimension 1) for the first "
            "one's.",
        ),
        Wrong(
            "the wrong condition",
            _conditional_too,
            "p(a)·p(a | b) is no distribution of pairs: multiply the two marginals.",
        ),
        Wrong(
            "maxima",
            _maxima,
            "You took the largest entry of each row and column: a marginal is a sum.",
        ),
    ),
)
