"""How good a model is on held-out rows: accuracy of the golden set, perplexity, forgetting."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ftlib.adapters.reft import answers_marked
from ftlib.batches.collate import SFTCollator, mask_rows, pad_right
from ftlib.batches.encode import encode_rows
from ftlib.batches.template import IGNORE
from ftlib.batches.vocabulary import check_ids
from ftlib.core.checks import check_positive_integer
from ftlib.core.errors import DataError
from ftlib.core.modes import evaluation_mode
from ftlib.data.rows import check_turn
from ftlib.evaluation.generate import few_shot_messages, generate_answers
from ftlib.evaluation.judges import normalise
from ftlib.losses.logps import completion_logps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_LOGITS = 2**27  # of a batch whose texts are scored whole: half a GB in fp32, and as much again


class Accuracy(float):
    """Share of exact answers, a float in [0, 1]; `.correct`, `.answers` by example and `.by_family`
    say more.
    """

    correct: list[bool]
    answers: list[str]
    by_family: dict[str, float]


def golden_accuracy(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[dict],
    max_new_tokens: int = 40,
    shots: Callable[[dict], list[dict]] | None = None,
    batch_size: int = 100,
) -> Accuracy:
    """Exact-match accuracy of greedy answers after `normalise`.

    `examples` carry `messages`, and `answer` (else the last message is it) and `family` if they
    have them. Messages that end with the assistant's turn are asked without it, others as they are.
    `shots(example)` may return solved examples to show before the question (few-shot prompting).
    DataError names an example without an answer, with an empty one, or that speaks of tools.
    """
    if not examples:
        raise ValueError("examples is empty: nothing to score")
    prompts = []
    wanted = []
    for i, example in enumerate(examples):
        question, answer = _question_and_answer(example, f"example {i}")
        solved = shots(example) if shots else []
        prompts.append(few_shot_messages(solved, question))
        wanted.append(normalise(answer))
    answers = generate_answers(model, tokenizer, prompts, max_new_tokens, batch_size)
    correct = []
    families = defaultdict(list)
    for answer, reference, example in zip(answers, wanted, examples, strict=True):
        right = normalise(answer) == reference
        correct.append(right)
        families[example.get("family", "all")].append(right)
    result = Accuracy(sum(correct) / len(correct))
    result.correct = correct
    result.answers = answers
    result.by_family = {name: sum(c) / len(c) for name, c in sorted(families.items())}
    return result


def _question_and_answer(example: dict, where: str) -> tuple[list[dict], str]:
    """The messages to ask, and the text that is right."""
    messages = example.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where}: messages is {repr(messages)[:60]}: a list of {{'role', 'content'}} is needed"
        )
    for i, message in enumerate(messages):
        check_turn(message, i, where)
    if example.get("tools") or any(message.get("tool_calls") for message in messages):
        raise DataError(
            f"{where} has tools or tool calls, which exact match does not score: leave it out"
        )
    question = messages
    answer = example.get("answer")
    if messages[-1]["role"] == "assistant":
        question = messages[:-1]
        if answer is None:
            answer = messages[-1]["content"]
    if not question:
        raise DataError(f"{where}: there is no question before the answer {answer!r}: add it")
    if not isinstance(answer, str) or not normalise(answer):
        raise DataError(
            f"{where}: the answer is {answer!r}: a text that is not empty is needed, under "
            "'answer' or as the assistant's last turn"
        )
    return question, answer


def shots_by_family(pool: list[dict], count: int = 3) -> Callable[[dict], list[dict]]:
    """`shots` for golden_accuracy: the first `count` solved examples of the question's family."""
    families = defaultdict(list)
    for row in pool:
        families[row.get("family")].append(row)

    def shots(example: dict) -> list[dict]:
        return families[example.get("family")][:count]

    return shots


def batches_by_length(
    rows: list[list[int]], batch_size: int, most_tokens: int | None = None
) -> Iterator[list[list[int]]]:
    """The rows in batches, the shortest first: rows of like length need little padding.

    A batch holds at most `batch_size` rows and, where `most_tokens` says so, that many tokens with
    its padding; a row that is longer by itself is a batch of its own.
    """
    batch: list[list[int]] = []
    for row in sorted(rows, key=len):
        is_full = len(batch) == batch_size
        padded = len(row) * (len(batch) + 1)
        if batch and (is_full or (most_tokens is not None and padded > most_tokens)):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _batch(rows: list[list[int]], device) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, attention mask), each (rows, longest row), padded on the right."""
    ids = pad_right(rows, 0)
    mask = pad_right(mask_rows(rows), 0)
    return ids.to(device), mask.to(device)


@torch.no_grad()
def mean_nll(
    model, tokenizer, texts: list[str], batch_size: int = 32, max_length: int = 1024
) -> float:
    """Mean negative log-likelihood per token (nats) of plain texts, each after BOS. Longer texts
    are cut at max_length. `batch_size`: at most; fewer where the logits would fill the memory.
    """
    if isinstance(texts, str):
        raise ValueError(f"texts is one text, {texts[:40]!r}: pass a list of texts")
    check_positive_integer("batch_size", batch_size)
    check_positive_integer("max_length", max_length)
    rows = [tokenizer(t, truncation=True, max_length=max_length)["input_ids"] for t in texts]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise ValueError("texts hold no token to predict: pass at least one text of two tokens")
    check_ids(model, tokenizer, rows)
    most_tokens = MOST_LOGITS // len(tokenizer)
    total = 0.0
    count = 0
    with evaluation_mode(model):
        for batch in batches_by_length(rows, batch_size, most_tokens):
            ids, mask = _batch(batch, model.device)
            scored = ids.masked_fill(mask == 0, IGNORE)
            with answers_marked(model, scored):
                logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
            logps = logits.float().log_softmax(-1)  # (rows, width - 1, V)
            targets = ids[:, 1:, None]
            counted = mask[:, 1:]
            picked = logps.gather(-1, targets)[..., 0] * counted
            total -= picked.sum().item()
            count += int(counted.sum())
    return total / count


@torch.no_grad()
def answer_loss(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict],
    batch_size: int = 32,
    max_length: int = 1024,
    control_tokens: str = "refuse",
) -> float:
    """Mean negative log-likelihood per answer token (nats) over all conversations, without dropout.

    `rows` and `control_tokens` as for `encode_rows`. Longer ones than max_length are left out,
    which one line says.
    """
    check_positive_integer("batch_size", batch_size)
    encoded = encode_rows(tokenizer, list(rows), max_length, control_tokens=control_tokens)
    check_ids(model, tokenizer, [row["input_ids"] for row in encoded])
    ordered = sorted(encoded, key=_length)
    collate = SFTCollator(tokenizer.pad_token_id)
    total = 0.0
    count = 0
    with evaluation_mode(model):
        for start in range(0, len(ordered), batch_size):
            batch = collate(ordered[start : start + batch_size])
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            total -= completion_logps(model, **inputs).sum().item()
            count += int((inputs["labels"][:, 1:] != IGNORE).sum())
    return total / count


def _length(row: dict) -> int:
    return len(row["input_ids"])


def perplexity(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    batch_size: int = 32,
    max_length: int = 1024,
) -> float:
    """exp of the mean negative log-likelihood per token over all texts."""
    return math.exp(mean_nll(model, tokenizer, texts, batch_size, max_length))


def forgetting(before: float, after: float) -> float:
    """Rise of the base-domain loss, in nats per token: ln(perplexity after / perplexity before)."""
    return math.log(after) - math.log(before)


def recall_base(model, tokenizer, pairs: list[tuple[str, str]], batch_size: int = 100) -> float:
    """Share of facts that the model still completes in the base domain's own wording: (text,
    continuation) pairs.
    """
    return float(np.mean(complete_matches(model, tokenizer, pairs, batch_size)))


@torch.no_grad()
def complete_matches(
    model, tokenizer, pairs: list[tuple[str, str]], batch_size: int = 100
) -> list[bool]:
    """Whether every token of each continuation is the greedy one after its text."""
    if not pairs:
        raise ValueError("pairs is empty: nothing to complete")
    check_positive_integer("batch_size", batch_size)
    rows = []
    for text, continuation in pairs:
        given = tokenizer(text)["input_ids"]
        wanted = tokenizer(continuation, add_special_tokens=False)["input_ids"]
        rows.append((given, wanted))
    check_ids(model, tokenizer, [ids for pair in rows for ids in pair])
    hits = []
    with evaluation_mode(model):
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            ids, mask = _batch([given + wanted for given, wanted in part], model.device)
            lengths = torch.tensor([[len(given)] for given, _ in part], device=ids.device)
            places = torch.arange(ids.shape[1], device=ids.device)
            answers = (places >= lengths) & (mask == 1)
            with answers_marked(model, ids.masked_fill(~answers, IGNORE)):
                best = model(input_ids=ids, attention_mask=mask).logits.argmax(-1)
            for row, (given, wanted) in zip(best, part, strict=True):
                # The logits at a position are of the token after it.
                first = len(given) - 1
                predicted = row[first : first + len(wanted)].tolist()
                hits.append(predicted == wanted)
    return hits
