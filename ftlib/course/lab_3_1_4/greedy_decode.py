"""Lab 3.1.4, fine-tuning 8B, exercise 6: greedy decoding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def greedy_decode(
    next_logits: Callable[[list[int]], Tensor], prompt: list[int], stop: int, most: int
) -> list[int]:
    """The answer's token ids, each the likeliest one after all before it, up to and without
    `stop`, at most `most` of them.

    next_logits(ids): (len(ids), V), the scores at every position of the token that comes after it.
    """
    answer: list[int] = []
    while len(answer) < most:
        scores = next_logits([*prompt, *answer])
        token = int(scores[-1].argmax())
        if token == stop:
            break
        answer.append(token)
    return answer


def _decode_keeps_stop(next_logits, prompt, stop, most):
    answer = greedy_decode(next_logits, prompt, stop, most)
    return [*answer, stop] if len(answer) < most else answer


def _decode_first_position(next_logits, prompt, stop, most):
    answer = []
    while len(answer) < most:
        token = int(next_logits([*prompt, *answer])[0].argmax())
        if token == stop:
            break
        answer.append(token)
    return answer


def _decode_never_feeds(next_logits, prompt, stop, most):
    token = int(next_logits(prompt)[-1].argmax())
    return [] if token == stop else [token] * most


def _decode_never_stops(next_logits, prompt, stop, most):
    answer = []
    while len(answer) < most:
        answer.append(int(next_logits([*prompt, *answer])[-1].argmax()))
    return answer


def _decode_with_prompt(next_logits, prompt, stop, most):
    return [*prompt, *greedy_decode(next_logits, prompt, stop, most)]


def _decode_forgets_prompt(next_logits, prompt, stop, most):
    answer = []
    ids = list(prompt)
    while len(answer) < most:
        token = int(next_logits(ids)[-1].argmax())
        if token == stop:
            break
        answer.append(token)
        ids = [token]
    return answer


class _Chain:
    """Scores that depend on the last token and on how many there are; `stop` wins after a while."""

    def __init__(self, table: Tensor, stop: int, after: int):
        self.table = table
        self.stop = stop
        self.after = after

    def __call__(self, ids):
        scores = self.table[torch.tensor(ids)].clone()
        places = torch.arange(len(ids))
        scores = scores + 0.3 * self.table[places % len(self.table)]
        scores[:, self.stop] = -5.0
        scores[places >= self.after, self.stop] = 50.0
        return scores


def _decode_cases(g):
    for after, most in ((7, 12), (5, 9), (30, 6)):
        table = torch.randn(11, 11, generator=g)
        prompt = torch.randint(3, 11, (4,), generator=g).tolist()
        yield _Chain(table, 2, after), prompt, 2, most


GREEDY_DECODE = Exercise(
    "greedy_decode",
    "Greedy decoding",
    10,
    2,
    greedy_decode,
    _decode_cases,
    (
        Wrong(
            "keeps the stop token",
            _decode_keeps_stop,
            "Your answer ends with the stop token: it ends the answer and is no part of it.",
        ),
        Wrong(
            "first position",
            _decode_first_position,
            "You read the scores at the first position: what comes after the whole text is said "
            "by the last one, `scores[-1]`.",
        ),
        Wrong(
            "answer not fed back",
            _decode_never_feeds,
            "Every token comes from the prompt alone: what was answered so far must go in again.",
        ),
        Wrong(
            "never stops",
            _decode_never_stops,
            "You go on after the stop token: the model then invents the user's next question, and "
            "answers it.",
        ),
        Wrong(
            "prompt in the answer",
            _decode_with_prompt,
            "Your result begins with the prompt: return what was added.",
        ),
        Wrong(
            "prompt forgotten",
            _decode_forgets_prompt,
            "After the first token yours hands in the newest token alone: without a KV cache "
            "everything before it must go in again.",
        ),
    ),
    (
        "A loop: scores of all positions, the last one's argmax, append.",
        "Hand in the prompt *and* what was answered so far.",
        "Two ends: the stop token, which is not appended, and `most` tokens.",
    ),
)
