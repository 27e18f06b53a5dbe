"""Lab 3.1.8, SimPO and ORPO, exercise 6: ORPO."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_8.cases import pair_cases
from ftlib.course.lab_3_1_8.log_odds_ratio import log_odds_ratio
from ftlib.losses import preference as losses


def orpo_loss(chosen: Tensor, rejected: Tensor, lam: float) -> Tensor:
    """NLL of the chosen answer plus λ times -log σ(log odds ratio), of mean log-probabilities, (B,)
    both -> (B,).
    """
    return losses.orpo_loss(chosen, rejected, -chosen, beta=lam)[0]


def _orpo_cases(g):
    for lam, case in zip((0.1, 0.5, 1.0, 0.0), pair_cases(g), strict=True):
        yield *case, lam


def _orpo(
    nll=lambda c, r: -c,
    penalty=lambda c, r: -F.logsigmoid(log_odds_ratio(c, r)),
    join=lambda n, o, lam: n + lam * o,
):
    return lambda chosen, rejected, lam: join(nll(chosen, rejected), penalty(chosen, rejected), lam)


ORPO = Exercise(
    name="orpo_loss",
    title="ORPO's loss",
    minutes=8,
    difficulty=2,
    reference=orpo_loss,
    cases=_orpo_cases,
    keywords=("lam",),
    gradient_of=("chosen", "rejected"),
    hints=(
        "Two terms: plain fine-tuning on the chosen answer, whose loss is minus its mean "
        "log-probability, "
        "and λ times the odds-ratio term.",
        "The second is `-F.logsigmoid(log_odds_ratio(chosen, rejected))`.",
        "return -chosen - lam * F.logsigmoid(log_odds_ratio(chosen, rejected))",
    ),
    wrong=(
        Wrong(
            "no NLL",
            _orpo(nll=lambda c, r: 0 * c),
            "The NLL of the chosen answer is missing: without it nothing teaches the base model "
            "to answer at all.",
        ),
        Wrong(
            "NLL of both",
            _orpo(nll=lambda c, r: -(c + r) / 2),
            "You also fine-tune on the rejected answer: the NLL is of the chosen one alone.",
        ),
        Wrong(
            "lambda inside",
            lambda c, r, lam: -c - F.logsigmoid(lam * log_odds_ratio(c, r)),
            "λ is inside the sigmoid, where DPO has its β: in ORPO it weighs the whole term.",
        ),
        Wrong(
            "lambda on the NLL",
            _orpo(join=lambda n, o, lam: lam * n + o),
            "λ weighs the NLL in yours: it weighs the odds-ratio term.",
        ),
        Wrong(
            "probability ratio",
            _orpo(penalty=lambda c, r: -F.logsigmoid(c - r)),
            "You used the ratio of probabilities: take the log odds ratio of exercise 4.",
        ),
        Wrong(
            "sign",
            _orpo(join=lambda n, o, lam: n - lam * o),
            "The odds-ratio term has the wrong sign: it would be rewarded for preferring the "
            "rejected answer.",
        ),
    ),
)
