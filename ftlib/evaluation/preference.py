"""Which of two models answers better, and how far one has moved from the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from textwrap import shorten
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn

from ftlib.batches.collate import PairCollator, SFTCollator, sequence
from ftlib.batches.preference import encode_pairs, row_length
from ftlib.core.checks import as_rows, check_positive_integer
from ftlib.core.errors import DataError
from ftlib.core.modes import evaluation_mode
from ftlib.core.stats import Interval, interval_of, share_interval
from ftlib.evaluation.judges import JudgeError
from ftlib.losses.logps import sequence_logps
from ftlib.training.preference_trainer import pair_logps
from ftlib.training.row_checks import token_rows, why_apart
from ftlib.training.sampling import answer_texts, generate_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCORED_AT_ONCE = 16  # sampled answers, at most, whose log-probabilities are one batch


class WinRate(float):
    """Share of comparisons that a won, a tie counting one half; `.interval`, `.wins`, `.ties`,
    `.losses`.

    `.consistency`: share of pairs that the judge gave the same winner, or a tie, in both orders.
    Far below 1 it goes by position. Pair by pair: `.scores`, a's points from 0 to 1
    (`ftlib.length_controlled_win_rate` takes them), and `.verdicts`, what the judge gave the answer
    in the first place, with a's there and with b's (`ftlib.position_bias`).
    """

    scores: list[float]
    verdicts: list[tuple[float, float]]
    consistency: float
    interval: Interval
    wins: int
    ties: int
    losses: int


def win_rate(
    a: list[str], b: list[str], judge: Callable, prompts: list[str] | None = None
) -> WinRate:
    """Blind pairwise win rate of the answers `a` over `b`, with Wilson's 95% interval over the
    pairs (`ftlib.share_interval`: 24 wins of 24 are [86%, 100%]; with many ties it is too wide).

    `judge(first, second)`, or `judge(prompt, first, second)` where `prompts` are given, returns 1
    if the first answer is better, 0 if the second, 0.5 for a tie. It is blind: it never learns
    which side an answer came from. Each pair is judged in both orders and the two verdicts
    averaged, so a judge that favours a position favours nobody. Whatever a judge raises becomes a
    JudgeError that names the pair and carries the `scores` before it, so that nothing paid for is
    lost.
    """
    if not a or len(a) != len(b) or (prompts is not None and len(prompts) != len(a)):
        raise ValueError(
            f"{len(a)} answers in a, {len(b)} in b: pass equally many, at least one, and as many "
            "prompts"
        )
    scores: list[float] = []
    verdicts: list[tuple[float, float]] = []
    for i, (one, two) in enumerate(zip(a, b, strict=True)):
        prompt = () if prompts is None else (prompts[i],)
        try:
            forward = _checked_verdict(judge(*prompt, one, two), i)
            backward = _checked_verdict(judge(*prompt, two, one), i)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            answers = f"{shorten(one, 80)!r} and {shorten(two, 80)!r}"
            raise JudgeError(
                f"pair {i} of {len(a)} was not judged, {said}; its answers are {answers}; `scores` "
                "of this error holds the pairs before",
                scores,
            ) from error
        verdicts.append((forward, backward))
        scores.append((forward + 1 - backward) / 2)
    result = WinRate(sum(scores) / len(scores))
    result.interval = share_interval(sum(scores), len(scores))
    result.scores = scores
    result.verdicts = verdicts
    agreements = [forward == 1 - backward for forward, backward in verdicts]
    result.consistency = sum(agreements) / len(scores)
    result.wins = sum(score > 0.5 for score in scores)
    result.ties = sum(score == 0.5 for score in scores)
    result.losses = len(scores) - result.wins - result.ties
    return result


def _checked_verdict(verdict, pair: int) -> float:
    if not isinstance(verdict, (int, float, np.number)) or not 0 <= verdict <= 1:
        raise ValueError(f"judge returned {verdict!r} for pair {pair}: it must return 1, 0.5 or 0")
    return float(verdict)


@torch.no_grad()
def kl_to_reference(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[dict]],
    reference: nn.Module | None,
    samples: int = 1,
    seed: int = 0,
    max_new_tokens: int = 40,
    batch_size: int = 32,
) -> Interval:
    """KL(π ‖ π_ref) of whole answers, in nats per answer: the mean of ``log π(y|x) - log
    π_ref(y|x)`` over answers y that π samples.

    `prompts`: conversations that end with the user's turn, held out from training; `samples`
    answers each, at temperature 1. `reference(model)` is a context within which the model is π_ref:
    `ftlib.disable_adapter` for the base. Unbiased, also below 0 for few samples; an answer cut off
    at max_new_tokens counts with the tokens it has. The interval is Student's 95% over the prompts'
    means, over the samples where there is one prompt; a single answer has infinite bounds.
    """
    _, policy, start = sampled_logps(
        model, tokenizer, prompts, reference, samples, seed, max_new_tokens, batch_size
    )
    ratios = (policy - start).reshape(len(prompts), samples)
    if len(prompts) == 1:
        return interval_of(ratios[0])
    return interval_of(ratios.mean(1))


@torch.no_grad()
def sampled_logps(
    model,
    tokenizer,
    prompts: list[list[dict]],
    reference,
    samples: int = 1,
    seed: int = 0,
    max_new_tokens: int = 40,
    batch_size: int = 32,
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Answers y that π samples at temperature 1, with ``log π(y|x)`` and ``log π_ref(y|x)``, summed
    over their tokens (nats).

    Each of n = len(prompts)·samples, a prompt's side by side; arguments as in `kl_to_reference`,
    which is the mean difference.
    """
    if not prompts:
        raise ValueError("prompts is empty: pass at least one conversation")
    samples = check_positive_integer("samples", samples)
    repeated = []
    for prompt in prompts:
        repeated += [prompt] * samples
    asked, answers = generate_ids(
        model, tokenizer, repeated, max_new_tokens, batch_size, temperature=1.0, seed=seed
    )
    # Whole conversations in which the answers' tokens alone are labels.
    rows = [sequence(prompt, answer) for prompt, answer in zip(asked, answers, strict=True)]
    policy_logps = np.empty(len(rows))
    reference_logps = np.empty(len(rows))
    pad = SFTCollator(pad_token_id=0)
    at_once = min(batch_size, SCORED_AT_ONCE)
    with evaluation_mode(model):
        for places in _of_like_length([len(row["labels"]) for row in rows], at_once):
            batch = _on_device(pad([rows[place] for place in places]), model)
            policy_logps[places] = _doubles(sequence_logps(model, **batch))
            with reference(model):
                reference_logps[places] = _doubles(sequence_logps(model, **batch))
    return answer_texts(model, tokenizer, answers), policy_logps, reference_logps


def _of_like_length(lengths: list[int], batch_size: int) -> Iterator[list[int]]:
    """Places in batches, the shortest first: little of a batch is then padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _on_device(batch: dict[str, torch.Tensor], model) -> dict[str, torch.Tensor]:
    return {name: values.to(model.device) for name, values in batch.items()}


def _doubles(values: torch.Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


class PairScores(NamedTuple):
    """``log π(y|x)`` of chosen and rejected answers, summed over their tokens (nats), and how many
    tokens those are: (pairs, 2) each.
    """

    logps: np.ndarray
    tokens: np.ndarray


@torch.no_grad()
def score_pairs(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Iterable[dict],
    batch_size: int = 16,
) -> PairScores:
    """What the model gives both answers of every pair, without dropout: with a reference's scores
    the implicit rewards ``β (log π - log π_ref)`` of DPO (arXiv 2305.18290, section 4), and the
    share of held-out pairs that a policy ranks right.

    `pairs`: {"prompt", "chosen", "rejected"} as `prefer` takes them. The prompt runs once for both
    answers where that is exact (`prefer`'s `share_prefix`); pairs of like length are scored
    together. None is left out, however long it is. DataError names a pair that cannot be used.
    """
    rows = list(as_rows("pairs", pairs, DataError))
    batch_size = check_positive_integer("batch_size", batch_size)
    if not rows:
        raise DataError("pairs is empty: pass at least one pair")
    items = encode_pairs(tokenizer, rows, max_length=sys.maxsize)
    apart = why_apart(model, token_rows(items), tokenizer.pad_token_id)
    collator = PairCollator(tokenizer.pad_token_id, share_prefix=not apart)
    logps = np.empty((len(items), 2))
    tokens: np.ndarray = np.empty((len(items), 2), dtype=np.int64)
    with evaluation_mode(model):
        for places in _of_like_length([row_length(item) for item in items], batch_size):
            batch = _on_device(collator([items[place] for place in places]), model)
            sums, counts = pair_logps(model, batch)
            logps[places] = _doubles(sums)
            tokens[places] = counts.cpu().numpy()
    return PairScores(logps, tokens)
