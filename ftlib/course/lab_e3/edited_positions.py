"""Lab E3, ReFT and its relatives, exercise 3: which positions are edited."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.adapters.reft import first_and_last, prompt_of
from ftlib.batches.template import IGNORE
from ftlib.course.exercise import Exercise, Wrong


def edited_positions(real: Tensor, labels: Tensor, first: int, last: int) -> Tensor:
    """(B, T) bool, true at the `first` first and the `last` last tokens of each row's prompt; real
    (B, T) bool, labels (B, T), -100 where nothing is scored.
    """
    return first_and_last(prompt_of(real, labels), first, last)


def _row(left: int, prompt: int, answer: int, right: int) -> tuple[list[bool], list[int]]:
    """A row of padding, prompt, answer and padding, of so many tokens each: real, labels."""
    tokens = prompt + answer
    real = [False] * left + [True] * tokens + [False] * right
    labels = [IGNORE] * (left + prompt) + list(range(7, 7 + answer)) + [IGNORE] * right
    return real, labels


def _batch(*rows: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    made = [_row(*row) for row in rows]
    real = torch.tensor([row[0] for row in made])
    labels = torch.tensor([row[1] for row in made])
    return real, labels


def _cases(g):
    right_padded = _batch((0, 9, 3, 2), (0, 10, 4, 0), (0, 7, 2, 5))
    left_padded = _batch((2, 9, 3, 0), (5, 8, 1, 0))
    short = _batch((0, 3, 5, 4), (1, 2, 9, 0))
    unscored = _batch((0, 12, 0, 0), (0, 8, 0, 4))
    yield *right_padded, 2, 2
    yield *right_padded, 0, 1
    yield *left_padded, 3, 1
    yield *left_padded, 1, 0
    yield *short, 2, 2
    yield *unscored, 1, 3


def _of(prompt, first, last):
    return first_and_last(prompt, first, last)


def _whole_row(real, labels, first, last):
    return _of(real, first, last)


def _one_too_far(real, labels, first, last):
    prompt = prompt_of(real, labels)
    answer = real & ~prompt
    return _of(prompt | (answer & (answer.cumsum(1) == 1)), first, last)


def _from_column_zero(real, labels, first, last):
    prompt = prompt_of(real, labels)
    place = torch.arange(real.shape[1]).expand_as(real)
    end = (place * prompt).amax(1, keepdim=True)
    return prompt & ((place < first) | (place > end - last))


def _padding_too(real, labels, first, last):
    return _of(labels == IGNORE, first, last)


def _answer_edited(real, labels, first, last):
    return _of(real & ~prompt_of(real, labels), first, last)


def _between(real, labels, first, last):
    prompt = prompt_of(real, labels)
    return prompt & ~_of(prompt, first, last)


POSITIONS = Exercise(
    name="edited_positions",
    title="Edited positions",
    minutes=10,
    difficulty=2,
    reference=edited_positions,
    cases=_cases,
    hints=(
        "First find each row's prompt: the real tokens before its first label other than -100; "
        "all of its real tokens if there is no label.",
        "`(labels != -100).cumsum(1) == 0` is true up to the first scored token. That includes "
        "padding: `real &` removes it.",
        "Number the tokens of the prompt: `place = prompt.cumsum(1)` is 1 at the first of them, "
        "whatever padding comes before; `count = prompt.sum(1, keepdim=True)`.",
        "return prompt & ((place <= first) | (place > count - last))",
    ),
    wrong=(
        Wrong(
            "last of the row",
            _whole_row,
            "You take the last tokens of the whole row: those are the answer's. A generated token "
            "is not there yet when the prompt is read, so an edit there cannot be made.",
        ),
        Wrong(
            "the answer's first token",
            _one_too_far,
            "One token too far: the first scored token belongs to the answer. The prompt ends "
            "before it.",
        ),
        Wrong(
            "columns",
            _from_column_zero,
            "You count columns of the batch: with padding on the left a row's first token is not "
            "in column 0. Count the prompt's own tokens (cumsum).",
        ),
        Wrong(
            "padding",
            _padding_too,
            "You treat padding as prompt: its labels are -100 too. Only `real` marks padding.",
        ),
        Wrong(
            "in the answer",
            _answer_edited,
            "Those are positions of the answer: ReFT edits the prompt.",
        ),
        Wrong(
            "the other ones",
            _between,
            "Those are the tokens in between: your choice is inverted.",
        ),
        Wrong(
            "first only",
            lambda real, labels, first, last: edited_positions(real, labels, first, 0),
            "The last positions are missing.",
        ),
    ),
)
