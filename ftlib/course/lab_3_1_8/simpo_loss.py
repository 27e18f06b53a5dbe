"""Lab 3.1.8, SimPO and ORPO, exercise 2: SimPO."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.losses import preference as losses


def simpo_loss(chosen: Tensor, rejected: Tensor, beta: float, gamma: float) -> Tensor:
    """-log σ(β·(p̄_c - p̄_r) - γ) of mean log-probabilities, (B,) both -> (B,)."""
    return losses.simpo_loss(chosen, rejected, beta=beta, gamma_beta_ratio=gamma / beta)[0]


def _simpo_cases(g):
    for beta, gamma in ((2.0, 1.0), (2.5, 0.5), (10.0, 3.0), (2.0, 0.0)):
        yield -2 * torch.rand(5, generator=g), -2 * torch.rand(5, generator=g), beta, gamma
    yield torch.tensor([-0.1, -90.0]), torch.tensor([-90.0, -0.1]), 2.0, 1.0


def _simpo(z=lambda d, b, g: b * d - g, log=F.logsigmoid):
    return lambda chosen, rejected, beta, gamma: -log(z(chosen - rejected, beta, gamma))


SIMPO = Exercise(
    name="simpo_loss",
    title="SimPO's loss",
    minutes=8,
    difficulty=1,
    reference=simpo_loss,
    cases=_simpo_cases,
    gradient_of=("chosen", "rejected"),
    hints=(
        "The chosen answer should lead by a margin: β times the difference of the two means, minus "
        "γ.",
        "`-F.logsigmoid(z)`, which stays finite where `torch.sigmoid(z)` has run to 0.",
        "return -F.logsigmoid(beta * (chosen - rejected) - gamma)",
    ),
    wrong=(
        Wrong(
            "the paper's repository",
            _simpo(z=lambda d, b, g: b * (d - g)),
            "You put γ inside the bracket: then it is multiplied by β. That is the ratio γ/β of "
            "the authors' settings files; "
            "γ itself is outside.",
        ),
        Wrong(
            "sign of gamma",
            _simpo(z=lambda d, b, g: b * d + g),
            "You added γ: the loss then is content although the chosen answer is behind. Subtract "
            "it.",
        ),
        Wrong(
            "no margin",
            _simpo(z=lambda d, b, g: b * d),
            "γ is missing: without it the loss asks for a lead, not for a margin.",
        ),
        Wrong(
            "swapped",
            _simpo(z=lambda d, b, g: -b * d - g),
            "You train towards the rejected answer: chosen minus rejected.",
        ),
        Wrong(
            "log of sigmoid",
            _simpo(log=lambda z: torch.sigmoid(z).log()),
            "Right on paper, but infinite for a pair that is ranked far wrong: σ is rounded to 0, "
            "or 1 + e^(−z) overflows, before the logarithm. Use F.logsigmoid.",
        ),
        Wrong(
            "beta on the chosen only",
            lambda c, r, b, g: -F.logsigmoid(b * c - r - g),
            "β multiplies the chosen answer only: bracket the difference.",
        ),
    ),
)
