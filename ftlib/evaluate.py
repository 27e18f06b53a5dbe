"""Honest evaluation: golden accuracy by family, perplexity, forgetting, and intervals over seeds and examples."""
from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch

from ftlib.datasets import IGNORE, SFTCollator
from ftlib.judges import api_judge, exact_judge, normalise  # noqa: F401  (importable from here too)
from ftlib.loading import check_tokenizer
from ftlib.logps import sequence_logps
from ftlib.templates import template_ids


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval."""
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def percent(self) -> str:
        return f"{100 * self.mean:.0f}% [{100 * self.low:.0f}, {100 * self.high:.0f}]"

    def excludes(self, value: float) -> bool:
        """Whether the interval leaves `value` out: a difference "beyond chance" leaves out 0."""
        return not self.low <= value <= self.high


def bootstrap_interval(values, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """Mean and percentile bootstrap interval (Efron 1979).

    One dimension: values, one a seed or one an example. Two dimensions (seeds, examples): both are resampled,
    so the interval holds the chance in the runs and in the questions. With fewer than five seeds it is too
    narrow rather than too wide; read it as the spread seen.
    """
    array = np.atleast_1d(np.asarray(values, dtype=float))
    if not np.isfinite(array).all():  # an interval of NaN would "exclude" every value
        raise ValueError("values hold NaN or infinity: a run diverged, or a score is missing")
    if array.size == 0 or array.ndim > 2 or not 0 < level < 1:
        raise ValueError(f"values of shape {array.shape}, level={level}: pass one or two dimensions, not empty, and 0 < level < 1")
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, array.shape[0], (draws, array.shape[0]))
    if array.ndim == 1:
        means = array[rows].mean(1)
    else:
        columns = rng.integers(0, array.shape[1], (draws, array.shape[1]))
        means = np.array([array[np.ix_(r, c)].mean() for r, c in zip(rows, columns)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(array.mean()), float(low), float(high))


def paired_difference(a, b, **options) -> Interval:
    """Interval of mean(a − b) where a and b share seeds (and examples): pairing takes their common noise out."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"a has shape {a.shape}, b {b.shape}: pairs need the same seeds and examples")
    return bootstrap_interval(a - b, **options)


def few_shot_messages(shots: list[dict], prompt: str | list[dict]) -> list[dict]:
    """A conversation in which the shots were asked and answered before the prompt, a text or a list of messages.

    A system message of the prompt goes first; those of the shots are left out.
    """
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    first = [m for m in asked if m["role"] == "system"]
    return first + [m for shot in shots for m in shot["messages"] if m["role"] != "system"] + [m for m in asked if m not in first]


@torch.no_grad()
def generate_answers(model, tokenizer, conversations: list[list[dict]], max_new_tokens: int = 40, batch_size: int = 100,
                     temperature: float = 0.0, seed: int = 0) -> list[str]:
    """Answers to conversations that end with the user's turn; sorted by length and padded on the left.

    Greedy at temperature 0, else sampled from softmax(logits / temperature), the whole vocabulary; the same for the same `seed`
    and batches, and the global generator goes on as if nothing had been drawn.
    """
    return [tokenizer.decode(ids, skip_special_tokens=True).strip()
            for ids in _generate(model, tokenizer, conversations, max_new_tokens, batch_size, temperature, seed)[1]]


@torch.no_grad()
def _generate(model, tokenizer, conversations, max_new_tokens, batch_size, temperature,
              seed) -> tuple[list[list[int]], list[list[int]]]:
    """(prompts, answers) as token ids; an answer ends with its stop token where it came to one."""
    check_tokenizer(tokenizer)
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature={temperature!r}: must be 0 (greedy) or above, and finite")
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
    stops = model.generation_config.eos_token_id
    stops = {stops} if isinstance(stops, int) else set(stops or ())
    encoded = [template_ids(tokenizer, c, add_generation_prompt=True) for c in conversations]
    order, answers = sorted(range(len(encoded)), key=lambda i: len(encoded[i])), [[]] * len(encoded)
    was_training = model.training
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_size):
            part = order[start: start + batch_size]
            width = max(len(encoded[i]) for i in part)
            ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(encoded[i])) + encoded[i] for i in part],
                               device=model.device)
            mask = torch.tensor([[0] * (width - len(encoded[i])) + [1] * len(encoded[i]) for i in part], device=model.device)
            out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens,
                                 pad_token_id=tokenizer.pad_token_id, **sampling)
            for i, row in zip(part, out[:, width:].tolist()):
                end = next((k + 1 for k, token in enumerate(row) if token in stops), len(row))
                answers[i] = row[:end]
    model.train(was_training)
    return encoded, answers


class Accuracy(float):
    """Share of exact answers, a float in [0, 1]; `.correct`, `.answers` by example and `.by_family` say more."""
    correct: list[bool]
    answers: list[str]
    by_family: dict[str, float]


def golden_accuracy(model, tokenizer, examples: list[dict], max_new_tokens: int = 40, shots=None,
                    batch_size: int = 100) -> Accuracy:
    """Exact-match accuracy of greedy answers after `normalise`.

    `examples` carry `messages`, and `answer` (else the last message is it) and `family` if they have them. `shots(example)` may
    return solved examples to show before the question (few-shot prompting).
    """
    if not examples:
        raise ValueError("examples is empty: nothing to score")
    prompts = [few_shot_messages(shots(e) if shots else [], e["messages"][:-1]) for e in examples]
    answers = generate_answers(model, tokenizer, prompts, max_new_tokens, batch_size)
    correct = [normalise(a) == normalise(e.get("answer") or e["messages"][-1]["content"]) for a, e in zip(answers, examples)]
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


def _batches_by_length(rows: list[list[int]], batch_size: int):
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), batch_size):
        yield [rows[i] for i in order[start: start + batch_size]]


@torch.no_grad()
def mean_nll(model, tokenizer, texts: list[str], batch_size: int = 32, max_length: int = 1024) -> float:
    """Mean negative log-likelihood per token (nats) of plain texts, each after BOS. Longer texts are cut at max_length."""
    rows = [tokenizer(t, truncation=True, max_length=max_length)["input_ids"] for t in texts]
    rows = [r for r in rows if len(r) > 1]
    if not rows:
        raise ValueError("texts hold no token to predict: pass at least one text of two tokens")
    total, count, was_training = 0.0, 0, model.training
    model.eval()
    for batch in _batches_by_length(rows, batch_size):
        width = max(map(len, batch))
        ids = torch.tensor([r + [0] * (width - len(r)) for r in batch], device=model.device)
        mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in batch], device=model.device)
        logps = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float().log_softmax(-1)
        picked = logps.gather(-1, ids[:, 1:, None])[..., 0] * mask[:, 1:]
        total, count = total - picked.sum().item(), count + int(mask[:, 1:].sum())
    model.train(was_training)
    return total / count


def perplexity(model, tokenizer, texts: list[str], batch_size: int = 32, max_length: int = 1024) -> float:
    """exp of the mean negative log-likelihood per token over all texts."""
    return math.exp(mean_nll(model, tokenizer, texts, batch_size, max_length))


def forgetting(before: float, after: float) -> float:
    """Rise of the base-domain loss, in nats per token: ln(perplexity after / perplexity before)."""
    return math.log(after) - math.log(before)


def recall_base(model, tokenizer, pairs: list[tuple[str, str]], batch_size: int = 100) -> float:
    """Share of facts that the model still completes in the base domain's own wording: (text, continuation) pairs."""
    return float(np.mean(complete_matches(model, tokenizer, pairs, batch_size)))


@torch.no_grad()
def complete_matches(model, tokenizer, pairs: list[tuple[str, str]], batch_size: int = 100) -> list[bool]:
    """Whether every token of each continuation is the greedy one after its text."""
    rows = [(tokenizer(a)["input_ids"], tokenizer(b, add_special_tokens=False)["input_ids"]) for a, b in pairs]
    hits, was_training = [], model.training
    if not rows:
        raise ValueError("pairs is empty: nothing to complete")
    model.eval()
    for start in range(0, len(rows), batch_size):
        part = rows[start: start + batch_size]
        width = max(len(a) + len(b) for a, b in part)
        ids = torch.tensor([a + b + [0] * (width - len(a) - len(b)) for a, b in part], device=model.device)
        mask = torch.tensor([[1] * (len(a) + len(b)) + [0] * (width - len(a) - len(b)) for a, b in part], device=model.device)
        best = model(input_ids=ids, attention_mask=mask).logits.argmax(-1)
        hits += [best[i, len(a) - 1: len(a) + len(b) - 1].tolist() == b for i, (a, b) in enumerate(part)]
    model.train(was_training)
    return hits


class WinRate(float):
    """Share of comparisons that a won, a tie counting one half; `.interval`, `.wins`, `.ties`, `.losses`.

    `.consistency`: share of pairs that the judge gave the same winner, or a tie, in both orders. Far below 1 it goes by position.
    """
    consistency: float
    interval: Interval
    wins: int
    ties: int
    losses: int


def win_rate(a: list[str], b: list[str], judge, prompts: list[str] | None = None) -> WinRate:
    """Blind pairwise win rate of the answers `a` over `b`, with a bootstrap interval over the pairs.

    `judge(first, second)`, or `judge(prompt, first, second)` where `prompts` are given, returns 1 if the first
    answer is better, 0 if the second, 0.5 for a tie. It is blind: it never learns which side an answer came from. Each
    pair is judged in both orders and the two verdicts averaged, so a judge that favours a position favours nobody.
    """
    if not a or len(a) != len(b) or (prompts is not None and len(prompts) != len(a)):
        raise ValueError(f"{len(a)} answers in a, {len(b)} in b: pass equally many, at least one, and as many prompts")
    scores, agree = [], 0
    for i, (one, two) in enumerate(zip(a, b)):
        lead = (prompts[i],) if prompts is not None else ()
        verdicts = judge(*lead, one, two), judge(*lead, two, one)
        for verdict in verdicts:
            if not isinstance(verdict, (int, float, np.number)) or not 0 <= verdict <= 1:
                raise ValueError(f"judge returned {verdict!r} for pair {i}: it must return 1, 0.5 or 0")
        agree += bool(verdicts[0] == 1 - verdicts[1])
        scores.append((float(verdicts[0]) + 1 - float(verdicts[1])) / 2)
    result = WinRate(sum(scores) / len(scores))
    result.interval, result.consistency = bootstrap_interval(scores), agree / len(scores)
    result.wins, result.ties = sum(s > 0.5 for s in scores), sum(s == 0.5 for s in scores)
    result.losses = len(scores) - result.wins - result.ties
    return result


@torch.no_grad()
def kl_to_reference(model, tokenizer, prompts: list[list[dict]], reference, samples: int = 1, seed: int = 0,
                    max_new_tokens: int = 40, batch_size: int = 32) -> Interval:
    """KL(π ‖ π_ref) of whole answers, in nats an answer: the mean of ``log π(y|x) - log π_ref(y|x)`` over answers y that π samples.

    `prompts`: conversations that end with the user's turn, held out from training; `samples` answers each, at temperature 1.
    `reference(model)` is a context within which the model is π_ref: `ftlib.disable_adapter` for the base. Unbiased, also below 0
    for few samples; an answer cut off at max_new_tokens counts with the tokens it has. The interval is a bootstrap over prompts.
    """
    _, policy, start = sampled_logps(model, tokenizer, prompts, reference, samples, seed, max_new_tokens, batch_size)
    return bootstrap_interval((policy - start).reshape(len(prompts), samples).mean(1))


@torch.no_grad()
def sampled_logps(model, tokenizer, prompts: list[list[dict]], reference, samples: int = 1, seed: int = 0, max_new_tokens: int = 40,
                  batch_size: int = 32) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Answers y that π samples at temperature 1, with ``log π(y|x)`` and ``log π_ref(y|x)``, summed over their tokens (nats).

    Each of n = len(prompts)·samples, a prompt's side by side; arguments as in `kl_to_reference`, which is the mean difference.
    """
    if not prompts or samples < 1:
        raise ValueError(f"{len(prompts)} prompts, samples={samples}: at least one of each is needed")
    was_training, found = model.training, []
    asked, answers = _generate(model, tokenizer, [p for p in prompts for _ in range(samples)],
                               max_new_tokens, batch_size, 1.0, seed)
    model.eval()
    for start in range(0, len(asked), batch_size):
        batch = _pad_answers(asked[start: start + batch_size], answers[start: start + batch_size], model.device)
        policy = sequence_logps(model, **batch)
        with reference(model):
            found.append(torch.stack([policy, sequence_logps(model, **batch)]).double().cpu())
    model.train(was_training)
    texts = [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in answers]
    return texts, *torch.cat(found, 1).numpy()


def _pad_answers(prompts: list[list[int]], answers: list[list[int]], device) -> dict[str, torch.Tensor]:
    rows = SFTCollator(pad_token_id=0)([{"input_ids": p + a, "labels": [IGNORE] * len(p) + a} for p, a in zip(prompts, answers)])
    return {k: v.to(device) for k, v in rows.items()}
