"""What open answers are like: facts right and wrong, length, what was copied from training rows,
and who wins where the lengths are alike (lab 3.1.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ftlib.course.open_answers import judge_answer

COPIED_RUN = 5  # words in a row that count as copied where a training answer has them
DISTINCT_RUN = 3  # words in a row that are counted for distinctness
MOST_APART = 0.2  # of the longer answer, by which lengths that are alike may differ
FEWEST_PAIRS = 5  # of like length, for a win rate


def runs_of_words(text: str, name: str, count: int) -> list[tuple[str, ...]]:
    """All runs of `count` words, the name of whom the answer is about left open."""
    words = text.replace(name, "{e}").split() if name else text.split()
    return [tuple(words[i : i + count]) for i in range(len(words) - count + 1)]


def copied_share(text: str, row: Mapping[str, Any], training: Sequence[Mapping[str, Any]]) -> float:
    """The share of an answer's runs of `COPIED_RUN` words that some training answer has."""
    known: set[tuple[str, ...]] = set()
    for other in training:
        known.update(runs_of_words(other["answer"], other.get("name", ""), COPIED_RUN))
    runs = runs_of_words(text, row.get("name", ""), COPIED_RUN)
    return float(np.mean([run in known for run in runs])) if runs else 0.0


def distinct_share(answers: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> float:
    """Different runs of `DISTINCT_RUN` words among all of the answers' runs, names left open: 1
    where no two are alike.
    """
    runs: list[tuple[str, ...]] = []
    for text, row in zip(answers, rows, strict=True):
        runs += runs_of_words(text, row.get("name", ""), DISTINCT_RUN)
    return len(set(runs)) / len(runs) if runs else 0.0


def describe(
    answers: Sequence[str], rows: Sequence[dict], training: Sequence[dict]
) -> dict[str, Any]:
    """Lists with a number for each answer: "score", "right", "wrong", "copied", "words"; and
    "distinct", one number for all. Rows that carry no facts to check have the score 0.
    """
    found: dict[str, Any] = {"score": [], "right": [], "wrong": [], "copied": [], "words": []}
    copies = [row["answer"] for row in training]
    for text, row in zip(answers, rows, strict=True):
        found["copied"].append(copied_share(text, row, training))
        found["words"].append(len(text.split()))
        if "truth" not in row:
            for name in ("score", "right", "wrong"):
                found[name].append(0.0)
            continue
        verdict = judge_answer(text, row, copies)
        found["score"].append(verdict.score)
        found["right"].append(verdict.right)
        found["wrong"].append(verdict.wrong)
    found["distinct"] = distinct_share(answers, rows)
    return found


def alike_in_length(one: Mapping[str, Any], other: Mapping[str, Any]) -> np.ndarray:
    """For each pair of answers whether their lengths are alike, (answers,)."""
    lengths = np.array([one["words"], other["words"]], dtype=float)  # (2, answers)
    return lengths.max(0) - lengths.min(0) <= MOST_APART * lengths.max(0)


def wins_less_losses(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Of the pairs of answers that are alike in length: the share in which the first has the higher
    score, less the share in which the second has it. 0 where fewer than `FEWEST_PAIRS` are: a claim
    needs a number of every seed.
    """
    alike = alike_in_length(one, other)
    if alike.sum() < FEWEST_PAIRS:
        return 0.0
    gaps = np.array(one["score"])[alike] - np.array(other["score"])[alike]
    return float(np.sign(gaps).mean())
