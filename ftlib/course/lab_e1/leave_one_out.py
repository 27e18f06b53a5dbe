"""Lab E1, RLHF, exercise 6: a baseline without a value head."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.losses.rewards import leave_one_out_advantages


def leave_one_out(scores: Tensor, group_size: int) -> Tensor:
    """Each score minus the mean of the other answers to its prompt, which stand side by side:
    (B,) -> (B,).
    """
    return leave_one_out_advantages(scores, group_size)


def _cases(g):
    for prompts, group_size in ((3, 4), (5, 2), (2, 8)):
        level = torch.randn(prompts, 1, generator=g)  # a prompt may be harder than another
        scores = level + torch.randn(prompts, group_size, generator=g)
        yield scores.flatten(), group_size


def _of_groups(change):
    """The advantages made by a function of the groups, (prompts, group_size)."""

    def advantages(scores, group_size):
        return change(scores.view(-1, group_size)).reshape(-1)

    return advantages


def _others(groups):
    return (groups.sum(1, keepdim=True) - groups) / (groups.shape[1] - 1)


def _whole_batch(scores, group_size):
    return scores - (scores.sum() - scores) / (len(scores) - 1)


def _strided(scores, group_size):
    """The answers to a prompt taken for those a prompt's number apart."""
    groups = scores.view(group_size, -1).T
    return (groups - _others(groups)).T.reshape(-1)


LEAVE_ONE_OUT = Exercise(
    name="leave_one_out",
    title="A baseline without a value head",
    minutes=8,
    difficulty=1,
    reference=leave_one_out,
    points=1,
    cases=_cases,
    hints=(
        "`scores.view(-1, group_size)`: one row per prompt.",
        "The mean of the others: (the row's sum less the score itself) / (group_size - 1).",
        "Take it away from the score, and give (B,) back: `.reshape(-1)`.",
    ),
    wrong=(
        Wrong(
            "the group's mean",
            _of_groups(lambda groups: groups - groups.mean(1, keepdim=True)),
            "Your baseline holds the score itself: advantages come out (k-1)/k of what they are. "
            "Leave the answer's own score out of the mean.",
        ),
        Wrong(
            "divided by the deviation",
            _of_groups(
                lambda groups: (
                    (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
                )
            ),
            "That is GRPO's advantage: the group's mean, and divided by its standard deviation.",
        ),
        Wrong(
            "divided by all",
            _of_groups(
                lambda groups: groups - (groups.sum(1, keepdim=True) - groups) / groups.shape[1]
            ),
            "The others are group_size - 1 in number: you divide their sum by group_size.",
        ),
        Wrong(
            "over the batch",
            _whole_batch,
            "You compare with all answers of the batch: an easy prompt's answers then look good, "
            "whatever they say. Compare within a prompt.",
        ),
        Wrong(
            "groups taken across",
            _strided,
            "Answers to one prompt stand side by side: you group those that stand apart.",
        ),
        Wrong(
            "reversed",
            _of_groups(lambda groups: _others(groups) - groups),
            "The sign is wrong: a better answer than the others must come out above 0.",
        ),
    ),
)
