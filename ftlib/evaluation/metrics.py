"""How good a model is on held-out rows: accuracy of the golden set, perplexity, forgetting."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import torch

from ftlib.evaluation.generate import few_shot_messages, generate_answers
from ftlib.evaluation.judges import normalise


class Accuracy(float):
    """Share of exact answers, a float in [0, 1]; `.correct`, `.answers` by example and `.by_family`
    say more.
    """

    correct: list[bool]
    answers: list[str]
    by_family: dict[str, float]


def golden_accuracy(
    model,
    tokenizer,
    examples: list[dict],
    max_new_tokens: int = 40,
    shots=None,
    batch_size: int = 100,
) -> Accuracy:
    """Exact-match accuracy of greedy answers after `normalise`.

    `examples` carry `messages`, and `answer` (else the last message is it) and `family` if they
    have them. `shots(example)` may return solved examples to show before the question (few-shot
    prompting).
    """
    if not examples:
        raise ValueError("examples is empty: nothing to score")
    prompts = [few_shot_messages(shots(e) if shots else [], e["messages"][:-1]) for e in examples]
    answers = generate_answers(model, tokenizer, prompts, max_new_tokens, batch_size)
    correct = [
        normalise(a) == normalise(e.get("answer") or e["messages"][-1]["content"])
        for a, e in zip(answers, examples)
    ]
    families = defaultdict(list)
    for e, c in zip(examples, correct):
        families[e.get("family", "all")].append(c)
    result = Accuracy(sum(correct) / len(correct))
    result.correct, result.answers = correct, answers
    result.by_family = {name: sum(c) / len(c) for name, c in sorted(families.items())}
    return result


def shots_by_family(pool: list[dict], count: int = 3):
    """`shots` for golden_accuracy: the first `count` solved examples of the question's own family."""
    families = defaultdict(list)
    for row in pool:
        families[row.get("family")].append(row)
    return lambda example: families[example.get("family")][:count]


def batches_by_length(rows: list[list[int]], batch_size: int):
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), batch_size):
        yield [rows[i] for i in order[start : start + batch_size]]


@torch.no_grad()
def mean_nll(
    model, tokenizer, texts: list[str], batch_size: int = 32, max_length: int = 1024
) -> float:
    """Mean negative log-likelihood per token (nats) of plain texts, each after BOS. Longer texts
    are cut at max_length.
    """
    rows = [tokenizer(t, truncation=True, max_length=max_length)["input_ids"] for t in texts]
    rows = [r for r in rows if len(r) > 1]
    if not rows:
        raise ValueError("texts hold no token to predict: pass at least one text of two tokens")
    total, count, was_training = 0.0, 0, model.training
    model.eval()
    for batch in batches_by_length(rows, batch_size):
        width = max(map(len, batch))
        ids = torch.tensor([r + [0] * (width - len(r)) for r in batch], device=model.device)
        mask = torch.tensor(
            [[1] * len(r) + [0] * (width - len(r)) for r in batch], device=model.device
        )
        logps = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float().log_softmax(-1)
        picked = logps.gather(-1, ids[:, 1:, None])[..., 0] * mask[:, 1:]
        total, count = total - picked.sum().item(), count + int(mask[:, 1:].sum())
    model.train(was_training)
    return total / count


def perplexity(
    model, tokenizer, texts: list[str], batch_size: int = 32, max_length: int = 1024
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
    rows = [
        (tokenizer(a)["input_ids"], tokenizer(b, add_special_tokens=False)["input_ids"])
        for a, b in pairs
    ]
    hits, was_training = [], model.training
    if not rows:
        raise ValueError("pairs is empty: nothing to complete")
    model.eval()
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        width = max(len(a) + len(b) for a, b in part)
        ids = torch.tensor(
            [a + b + [0] * (width - len(a) - len(b)) for a, b in part], device=model.device
        )
        mask = torch.tensor(
            [[1] * (len(a) + len(b)) + [0] * (width - len(a) - len(b)) for a, b in part],
            device=model.device,
        )
        best = model(input_ids=ids, attention_mask=mask).logits.argmax(-1)
        hits += [
            best[i, len(a) - 1 : len(a) + len(b) - 1].tolist() == b for i, (a, b) in enumerate(part)
        ]
    model.train(was_training)
    return hits
