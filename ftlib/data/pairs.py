"""Preference pairs: from scores, and from corruptions.

TRL's schemas: a pair is ``{"prompt": [messages], "chosen": [one assistant message], "rejected":
[one assistant message]}``, a binary row ``{"prompt", "completion", "label": bool}``; plain strings
in their place are kept as strings. Other keys are carried along. What becomes no pair is counted by
reason in `Pairs.left_out`, never dropped silently.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ftlib.core.errors import PairError
from ftlib.data.rows import (
    check_completion,
    check_pair,
    check_prompt,
    check_row,
    completion_text,
)

if TYPE_CHECKING:
    pass


class Pairs(list):
    """A list of rows; `.left_out` counts what did not become one, by reason."""

    def __init__(self, rows=(), left_out: Mapping[str, int] | None = None):
        super().__init__(rows)
        self.left_out = Counter(left_out or {})


# --- pairs from scores ----------------------------------------------------------------------------
def without_keys(row: dict, *keys: str) -> dict:
    """The row's other keys, which a pair or a binary row carries along."""
    return {key: value for key, value in row.items() if key not in keys}


def _is_scored(row) -> bool:
    """Whether a row has a prompt and as many scores as completions."""
    if not isinstance(row, dict) or "prompt" not in row:
        return False
    completions = row.get("completions")
    scores = row.get("scores")
    if not isinstance(completions, list) or not isinstance(scores, list):
        return False
    return len(completions) == len(scores)


def _is_finite_number(value) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _check_scored(row, where: str) -> None:
    """PairError unless the row is a scored one, with usable completions and finite scores."""
    if not _is_scored(row):
        raise PairError(
            f"{where}: a scored row is {{'prompt', 'completions': […], 'scores': […]}}, a score a "
            "completion"
        )
    for i, score in enumerate(row["scores"]):
        if not _is_finite_number(score):
            raise PairError(
                f"{where}: score {i} is {score!r}: a finite number is needed; leave the "
                "completion out"
            )
    check_prompt(row["prompt"], where)
    for i, completion in enumerate(row["completions"]):
        key = f"completion {i}"
        check_completion({"prompt": row["prompt"], key: completion}, key, where)


def _no_pair(better: str, worse: str, difference: float, margin: float) -> str | None:
    """Why two completions whose scores differ by `difference` make no pair; None if they do."""
    if difference == 0:
        return "tie"
    if difference < margin:
        return "margin"
    if better == worse:
        return "same text"
    return None


def pairs_from_scores(rows: Iterable[dict], margin: float = 0.0, how: str = "best-worst") -> Pairs:
    """Pairs from rows ``{"prompt", "completions": […], "scores": […]}``: the better-scored
    completion is chosen.

    `how`: "best-worst", at most one pair a row, or "all", every two completions. `margin` ≥ 0: the
    least difference of scores. A pair carries the row's other keys and `margin`, its own
    difference. `.left_out` counts, a comparison each, "tie" (equal scores), "margin" (a smaller
    difference), "same text", and rows with "fewer than two completions". PairError names a broken
    row.
    """
    if how not in ("best-worst", "all") or not margin >= 0:
        raise PairError(
            f"how={how!r}, margin={margin!r}: use 'best-worst' or 'all', and a margin of at least 0"
        )
    out = Pairs()
    for i, row in enumerate(rows):
        _check_scored(row, f"row {i}")
        _pairs_of_scored(row, margin, how, out)
    return out


def _pairs_of_scored(row: dict, margin: float, how: str, out: Pairs) -> None:
    """Add the pairs of one scored row to `out`, or count why there are none."""
    completions = row["completions"]
    scores = row["scores"]
    best_first = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    if len(best_first) < 2:
        out.left_out["fewer than two completions"] += 1
        return
    compared = [(best_first[0], best_first[-1])]
    if how == "all":
        compared = list(itertools.combinations(best_first, 2))
    rest = without_keys(row, "prompt", "completions", "scores")
    for a, b in compared:
        chosen = completions[a]
        rejected = completions[b]
        difference = scores[a] - scores[b]
        reason = _no_pair(completion_text(chosen), completion_text(rejected), difference, margin)
        if reason is not None:
            out.left_out[reason] += 1
            continue
        pair = {"prompt": row["prompt"], "chosen": chosen, "rejected": rejected}
        out.append({**pair, **rest, "margin": difference})


# --- corruptions: each makes an answer worse ------------------------------------------------------
def _cut(answer: str, rng: random.Random, others: list[str]) -> str:
    words = answer.split(" ")
    most = max(1, len(words) - 1)
    return " ".join(words[: rng.randint(1, most)])


def _repeat(answer: str, rng: random.Random, others: list[str]) -> str:
    return f"{answer} {answer}"


def _shuffle_words(answer: str, rng: random.Random, others: list[str]) -> str:
    words = answer.split(" ")
    rng.shuffle(words)
    return " ".join(words)


def _other_answer(answer: str, rng: random.Random, others: list[str]) -> str:
    return rng.choice(others)


# (answer, generator, all answers of the row's family) -> a worse answer
Corruption = Callable[[str, random.Random, list[str]], str]
CORRUPTIONS: dict[str, Corruption] = {
    "cut": _cut,
    "repeat": _repeat,
    "shuffle_words": _shuffle_words,
    "other_answer": _other_answer,
}


def synthetic_pairs(
    rows: Sequence[dict], corrupt: Sequence[str] = tuple(CORRUPTIONS), seed: int = 0
) -> Pairs:
    """Pairs of a row's answer (chosen) and that answer corrupted (rejected), one a row; as good as
    what the corruption teaches.

    rows: ``{"messages": […]}``, the assistant's answer last. `corrupt`: names from `CORRUPTIONS`
    ("cut" short, "repeat" twice, "shuffle_words", "other_answer" of the same `family`), or a
    mapping of names to functions ``(answer, rng, answers) -> text``; each row gets one, drawn from
    `seed`. A pair carries the row's other keys and `corruption`, the name. `.left_out` counts, by
    corruption, answers that it left as they were or empty: a one-word answer has no other order.
    """
    corruptions = _corruptions(corrupt)
    names = list(corruptions)
    rows = list(rows)
    answers = _answers_by_family(rows)
    rng = random.Random(seed)
    out = Pairs()
    for i, row in enumerate(rows):
        *prompt, answer = row["messages"]
        name = rng.choice(names)
        text = answer["content"]
        worse = corruptions[name](text, rng, answers[row.get("family")])
        if worse == text or not worse.strip():
            out.left_out[name] += 1
            continue
        pair = {
            "prompt": prompt,
            "chosen": [answer],
            "rejected": [{**answer, "content": worse}],
            **without_keys(row, "messages"),
            "corruption": name,
        }
        out.append(check_pair(pair, f"row {i}"))
    return out


def _corruptions(corrupt) -> dict[str, Corruption]:
    """The corruptions that are asked for, by name; PairError for what is none."""
    if isinstance(corrupt, Mapping):
        chosen = dict(corrupt)
    else:
        names = [corrupt] if isinstance(corrupt, str) else corrupt
        chosen = {name: CORRUPTIONS.get(name) for name in names}
    if not chosen or not all(callable(function) for function in chosen.values()):
        raise PairError(
            f"corrupt={corrupt!r}: use some of {', '.join(CORRUPTIONS)}, or a mapping of names to "
            "functions"
        )
    return chosen


def _answers_by_family(rows: list[dict]) -> dict[object, list[str]]:
    """Every row's answer under its family; PairError for a row without a question."""
    answers = defaultdict(list)
    for i, row in enumerate(rows):
        messages = check_row(row, f"row {i}")["messages"]
        if len(messages) < 2:
            raise PairError(
                f"row {i}: an answer without a question: 'messages' needs the user's turn too"
            )
        family = row.get("family")
        if not isinstance(family, Hashable):
            raise PairError(f"row {i}: family is {str(family)[:60]!r}: text or a number is needed")
        answers[family].append(messages[-1]["content"])
    return answers
