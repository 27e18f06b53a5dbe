"""Lab E1, RLHF, exercise 3: the reward of a token, with the price of going away."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.losses import rewards


def kl_shaped_rewards(
    scores: Tensor, logps: Tensor, ref_logps: Tensor, mask: Tensor, kl_coef: float
) -> Tensor:
    """``-kl_coef·(logp - ref_logp)`` at every token of the answer, the score added at the last one,
    0 elsewhere: scores (B,), logps, ref_logps and mask (B, T) -> (B, T).
    """
    return rewards.kl_shaped_rewards(scores, logps, ref_logps, mask, kl_coef)


def answer_masks(*spans: tuple[int, int], length: int) -> Tensor:
    """(rows, length) bool: each row's answer is the positions from the first to the second number,
    that one not included; a prompt stands before it and padding after.
    """
    mask = torch.zeros(len(spans), length, dtype=torch.bool)
    for row, (start, end) in enumerate(spans):
        mask[row, start:end] = True
    return mask


def _cases(g):
    mask = answer_masks((2, 5), (1, 7), (3, 4), length=8)
    for kl_coef in (0.1, 0.0, 1.5):
        scores = torch.randn(3, generator=g)
        logps = -torch.rand(3, 8, generator=g)
        ref_logps = -2 * torch.rand(3, 8, generator=g)
        yield scores, logps, ref_logps, mask, kl_coef


def _last(mask: Tensor) -> Tensor:
    """(B,) the last position of each row's answer."""
    positions = torch.arange(mask.shape[1])
    return (positions * mask).argmax(1)


def _shaped(per_token, score_places="last"):
    """The rewards with another price a token, or the score elsewhere."""

    def shaped(scores, logps, ref_logps, mask, kl_coef):
        price = per_token(logps, ref_logps, mask, kl_coef).masked_fill(~mask, 0.0)
        rows = torch.arange(len(scores))
        out = price.clone()
        if score_places == "last":
            out[rows, _last(mask)] += scores
        elif score_places == "end of row":
            out[:, -1] += scores
        elif score_places == "everywhere":
            out += scores[:, None] * mask
        else:
            out[rows, _last(mask)] = scores
        return out

    return shaped


def _right(logps, ref_logps, mask, kl_coef):
    return -kl_coef * (logps - ref_logps)


def _at_once(scores, logps, ref_logps, mask, kl_coef):
    gap = ((logps - ref_logps) * mask).sum(1)
    out = torch.zeros_like(logps)
    out[torch.arange(len(scores)), _last(mask)] = scores - kl_coef * gap
    return out


def _prompt_too(scores, logps, ref_logps, mask, kl_coef):
    out = -kl_coef * (logps - ref_logps)
    out[torch.arange(len(scores)), _last(mask)] += scores
    return out


SHAPED = Exercise(
    name="kl_shaped_rewards",
    title="A reward for every token",
    minutes=10,
    difficulty=2,
    reference=kl_shaped_rewards,
    cases=_cases,
    praise="equal to Ziegler et al.'s rewards, also for answers of one token",
    hints=(
        "Start with the KL term: minus kl_coef times the log-ratio everywhere, then 0 where the "
        "mask is 0.",
        "The last position of the answer: `(torch.arange(T) * mask).argmax(1)`, (B,).",
        "Add the score there: `rewards[torch.arange(B), last] += scores`. The last token keeps "
        "its KL term.",
    ),
    wrong=(
        Wrong(
            "wrong sign",
            _shaped(lambda logps, ref_logps, mask, kl_coef: kl_coef * (logps - ref_logps)),
            "The sign of the KL term is wrong: you reward the policy for moving away from the "
            "reference.",
        ),
        Wrong(
            "end of the row",
            _shaped(_right, "end of row"),
            "You add the score in the row's last column, which may be padding: it belongs to the "
            "answer's last token.",
        ),
        Wrong(
            "score everywhere",
            _shaped(_right, "everywhere"),
            "You add the score at every token: a long answer gets it many times.",
        ),
        Wrong(
            "price of the last token lost",
            _shaped(_right, "set"),
            "At the last token your score replaces the KL term: add the two.",
        ),
        Wrong(
            "priced at once",
            _at_once,
            "The whole KL term is at the last token. The sum is right, but each token should pay "
            "its own part, so that the advantages can find it.",
        ),
        Wrong(
            "outside the answer",
            _prompt_too,
            "Prompt and padding pay too: outside the mask the reward is 0.",
        ),
        Wrong(
            "never below zero",
            _shaped(
                lambda logps, ref_logps, mask, kl_coef: -kl_coef * (logps - ref_logps).clamp(min=0)
            ),
            "You penalise only tokens that became likelier. A log-ratio below 0 must count as a "
            "reward: only then is the mean over the policy's own samples the KL divergence.",
        ),
        Wrong(
            "the policy alone",
            _shaped(lambda logps, ref_logps, mask, kl_coef: -kl_coef * logps),
            "You penalise log π itself, which is an entropy bonus: the reference is not used.",
        ),
    ),
)
