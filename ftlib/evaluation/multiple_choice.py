"""Multiple choice by log-likelihood, as lm-evaluation-harness scores it.

The model writes nothing: each choice is appended to the context, and the choice whose tokens are
the most probable is the answer (Brown et al. 2020, arXiv 2005.14165, section 2.4; Gao et al., "The
Language Model Evaluation Harness", Zenodo 10.5281/zenodo.10256836; Biderman et al. 2024, arXiv
2405.14782). Equal to the harness 0.4.13 (`lm_eval/api/model.py` and `api/task.py`) choice by
choice; `tests/evaluation/test_multiple_choice.py` runs both.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ftlib.batches.collate import SFTCollator, sequence
from ftlib.batches.vocabulary import check_ids
from ftlib.core.checks import as_rows, check_positive_integer
from ftlib.core.errors import DataError
from ftlib.core.modes import evaluation_mode
from ftlib.core.stats import Interval, share_interval
from ftlib.losses.logps import sequence_logps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("ftlib")

DELIMITER = " "  # the harness's target_delimiter, between a context and a choice
SHOT_END = "\n\n"  # the harness's fewshot_delimiter, after each solved example


@dataclass(frozen=True)
class QuestionScore:
    """What a model makes of one question: `logps`, the summed log-probability of each choice
    (nats), `tokens`, how many each sum has, and the choices' lengths in characters and bytes.
    """

    logps: tuple[float, ...]
    tokens: tuple[int, ...]
    characters: tuple[int, ...]
    bytes: tuple[int, ...]
    answer: int

    @property
    def prediction(self) -> int:
        """The choice of the largest sum; of equal ones the first."""
        return int(np.argmax(self.logps))

    @property
    def prediction_norm(self) -> int:
        """The choice of the largest log-probability a character."""
        return int(np.argmax(np.divide(self.logps, self.characters)))

    @property
    def prediction_bytes(self) -> int:
        """The choice of the largest log-probability a byte of UTF-8."""
        return int(np.argmax(np.divide(self.logps, self.bytes)))


class ChoiceScores(list[QuestionScore]):
    """The `QuestionScore` of every question, in their order, and the shares that are right, each
    with Wilson's 95% interval over the questions (`ftlib.share_interval`).
    """

    @property
    def acc(self) -> Interval:
        """By the summed log-probability: short choices have an advantage."""
        return _share(score.prediction == score.answer for score in self)

    @property
    def acc_norm(self) -> Interval:
        """By the log-probability a character, which is what the harness calls acc_norm."""
        return _share(score.prediction_norm == score.answer for score in self)

    @property
    def acc_bytes(self) -> Interval:
        """By the log-probability a byte: as acc_norm for plain English."""
        return _share(score.prediction_bytes == score.answer for score in self)


def _share(right) -> Interval:
    hits = [bool(hit) for hit in right]
    return share_interval(sum(hits), len(hits))


def score_choices(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[dict],
    *,
    delimiter: str = DELIMITER,
    batch_size: int = 32,
    max_length: int | None = None,
) -> ChoiceScores:
    """Score multiple-choice questions by ``Σ_t log p(y_t | context, y_<t)`` of each choice y.

    questions: dicts with `context` (str), `choices` (at least two str) and `answer` (the place of
    the right one, from 0); a `description` stands before the context. The text that is scored is
    ``description + context + delimiter + choice``. Spaces at the end of the context go to the
    choice ("Answer: " and "A" become "Answer:" and " A"), both are tokenised as one text, and the
    choice's tokens are those after as many as the context alone has: where a token would span the
    border, the choice is cut as it is within the whole text. An empty context is BOS (or EOS). A
    text longer than `max_length` tokens (default: the model's positions) loses tokens at its left;
    the harness keeps one more of them. A control token in a text is read as the token, as the
    harness reads it: that is how a chat template comes into a context.

    The log-probabilities come from `ftlib.sequence_logps`, so no full logits are held, and in
    evaluation mode, without dropout. Batches hold texts of like length and change nothing.
    DataError (a ValueError) names the question that is incomplete, or a choice that has no token of
    its own.
    """
    questions = as_rows("questions", questions, DataError)
    batch_size = check_positive_integer("batch_size", batch_size)
    if not isinstance(delimiter, str):
        raise ValueError(f"delimiter={delimiter!r}: a text is needed, such as ' '")
    if not len(questions):
        raise DataError("questions is empty: nothing to score")
    longest = _longest(model, max_length)
    rows = []
    for number, question in enumerate(questions):
        check_question(question, f"question {number}")
        for choice in question["choices"]:
            text = question.get("description", "") + question["context"]
            context, continuation = encode_choice(tokenizer, text, delimiter + choice)
            if not continuation:
                raise DataError(
                    f"question {number}: the choice {choice!r} has no token of its own after "
                    f"{text[-40:]!r}: change the delimiter, or the choice"
                )
            rows.append(_cut(context, continuation, longest, f"question {number}"))
    check_ids(model, tokenizer, [context + continuation for context, continuation in rows])
    logps = _logps(model, tokenizer, rows, batch_size)
    return _by_question(questions, rows, logps)


def check_question(question, where: str) -> dict:
    """The question; DataError names what it lacks."""
    if not isinstance(question, dict):
        raise DataError(f"{where} is a {type(question).__name__}: a dict is needed")
    for name in ("context", "description"):
        text = question.get(name, "" if name == "description" else None)
        if not isinstance(text, str):
            raise DataError(f"{where}: {name} is {text!r}: a text is needed")
    choices = question.get("choices")
    if not isinstance(choices, (list, tuple)) or len(choices) < 2:
        raise DataError(f"{where}: choices is {choices!r}: a list of at least two texts is needed")
    for choice in choices:
        if not isinstance(choice, str) or not choice.strip():
            raise DataError(f"{where}: the choice {choice!r} is no text: every choice needs one")
    answer = question.get("answer")
    is_integer = isinstance(answer, Integral) and not isinstance(answer, bool)
    if not is_integer or answer not in range(len(choices)):
        raise DataError(
            f"{where}: answer is {answer!r}: the place of the right choice is needed, from 0 to "
            f"{len(choices) - 1}"
        )
    return question


def encode_choice(
    tokenizer: PreTrainedTokenizerBase, context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Token ids of a context and of what follows it, tokenised as one text and split after as many
    tokens as the context alone has; the context's trailing spaces go to the continuation.
    """
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    prefix = tokenizer.bos_token_id
    if prefix is None:
        prefix = tokenizer.eos_token_id
    given = _encode(tokenizer, stripped, prefix) if stripped else []
    if not given:
        ids = tokenizer.encode(continuation, add_special_tokens=False)
        # A text that begins with the token itself is not given it twice.
        return ([prefix], ids) if ids[:1] != [prefix] else (ids[:1], ids[1:])
    whole = _encode(tokenizer, stripped + continuation, prefix)
    return given, whole[len(given) :]


def _encode(tokenizer, text: str, prefix: int | None) -> list[int]:
    """The text's ids, with BOS where the tokenizer puts one and the text does not bring it."""
    brings_it = prefix is not None and text.startswith(tokenizer.decode(prefix))
    return tokenizer.encode(text, add_special_tokens=not brings_it)


def with_shots(questions: Sequence[dict], shots: Sequence[dict]) -> list[dict]:
    """The questions after solved examples, as the harness puts them: each of the `shots` is its
    context, a space, its right choice and an empty line; a question's `description` stays in front.
    """
    solved = []
    for number, shot in enumerate(shots):
        check_question(shot, f"shot {number}")
        right = shot["choices"][shot["answer"]]
        solved.append(shot["context"] + DELIMITER + right + SHOT_END)
    examples = "".join(solved)
    return [{**question, "context": examples + question["context"]} for question in questions]


def _longest(model, max_length: int | None) -> int | None:
    """The most tokens of a text: as given, or as the model has positions."""
    if max_length is not None:
        return check_positive_integer("max_length", max_length)
    config = getattr(model, "config", None)
    return getattr(config, "max_position_embeddings", None)


def _cut(context: list, continuation: list, longest: int | None, where: str) -> tuple[list, list]:
    """Both, the context cut at its left so that they are `longest` tokens at most."""
    if longest is None or len(context) + len(continuation) <= longest:
        return context, continuation
    kept = longest - len(continuation)
    if kept < 1:
        raise DataError(
            f"{where}: a choice of {len(continuation)} tokens leaves no room for its context in "
            f"{longest}: raise max_length, or leave the question out"
        )
    log.warning("%s: its context is cut to the last %d of %d tokens", where, kept, len(context))
    return context[-kept:], continuation


@torch.no_grad()
def _logps(model, tokenizer, rows: list[tuple[list, list]], batch_size: int) -> list[float]:
    """The summed log-probability of every row's continuation, in the order of the rows."""
    order = sorted(range(len(rows)), key=lambda number: sum(map(len, rows[number])))
    collate = SFTCollator(tokenizer.pad_token_id or 0)
    sums = [0.0] * len(rows)
    with evaluation_mode(model):
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = collate([sequence(*rows[number]) for number in numbers])
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            for number, value in zip(numbers, sequence_logps(model, **inputs), strict=True):
                sums[number] = float(value)
    return sums


def _by_question(questions: Sequence[dict], rows: list, logps: list[float]) -> ChoiceScores:
    """The rows' sums, a `QuestionScore` for each question's run of them."""
    scores = ChoiceScores()
    start = 0
    for question in questions:
        choices = question["choices"]
        end = start + len(choices)
        scores.append(
            QuestionScore(
                logps=tuple(logps[start:end]),
                tokens=tuple(len(continuation) for _, continuation in rows[start:end]),
                characters=tuple(len(choice) for choice in choices),
                bytes=tuple(len(choice.encode()) for choice in choices),
                answer=int(question["answer"]),
            )
        )
        start = end
    return scores
