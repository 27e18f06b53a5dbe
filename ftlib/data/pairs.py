"""Preference pairs and binary feedback: from scores, from corruptions, one into the other, and the
bias of length in them.

TRL's schemas: a pair is ``{"prompt": [messages], "chosen": [one assistant message], "rejected":
[one assistant message]}``, a binary row ``{"prompt", "completion", "label": bool}``; plain strings
in their place are kept as strings. Other keys are carried along. What becomes no pair is counted by
reason in `Pairs.left_out`, never dropped unsaid.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ftlib.core.errors import PairError
from ftlib.core.stats import Interval, bootstrap_interval
from ftlib.data.rows import (
    check_binary,
    check_completion,
    check_pair,
    check_prompt,
    check_row,
    completion_text,
)


class Pairs(list):
    """A list of rows; `.left_out` counts what did not become one, by reason."""

    def __init__(self, rows=(), left_out: Mapping[str, int] | None = None):
        super().__init__(rows)
        self.left_out = Counter(left_out or {})


# --- pairs from scores, pairs from corruptions ----------------------------------------------------
def _scored(row, where: str) -> tuple[list, list[float]]:
    completions, scores = (
        row.get(k) if isinstance(row, dict) else None for k in ("completions", "scores")
    )
    lists = isinstance(completions, list) and isinstance(scores, list)
    if not lists or len(completions) != len(scores) or "prompt" not in row:
        raise PairError(
            f"{where}: a scored row is {{'prompt', 'completions': […], 'scores': […]}}, a score a "
            "completion"
        )
    for i, score in enumerate(scores):
        if (
            isinstance(score, bool)
            or not isinstance(score, (int, float))
            or not math.isfinite(score)
        ):
            raise PairError(
                f"{where}: score {i} is {score!r}: a finite number is needed; leave the "
                "completion out"
            )
    check_prompt(row["prompt"], where)
    for i, completion in enumerate(completions):
        check_completion(
            {"prompt": row["prompt"], f"completion {i}": completion}, f"completion {i}", where
        )
    return completions, scores


def pairs_from_scores(rows, margin: float = 0.0, how: str = "best-worst") -> Pairs:
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
        completions, scores = _scored(row, f"row {i}")
        order = sorted(range(len(scores)), key=lambda k: -scores[k])
        if len(order) < 2:
            out.left_out["fewer than two completions"] += 1
            continue
        rest = {k: v for k, v in row.items() if k not in ("prompt", "completions", "scores")}
        for a, b in itertools.combinations(order, 2) if how == "all" else [(order[0], order[-1])]:
            difference = scores[a] - scores[b]
            same = completion_text(completions[a]) == completion_text(completions[b])
            reason = (
                "tie"
                if difference == 0
                else "margin"
                if difference < margin
                else "same text"
                if same
                else None
            )
            if reason:
                out.left_out[reason] += 1
            else:
                out.append(
                    {
                        "prompt": row["prompt"],
                        "chosen": completions[a],
                        "rejected": completions[b],
                        **rest,
                        "margin": difference,
                    }
                )
    return out


def _cut(answer: str, rng: random.Random, others: list[str]) -> str:
    words = answer.split(" ")
    return " ".join(words[: rng.randint(1, max(1, len(words) - 1))])


def _repeat(answer: str, rng: random.Random, others: list[str]) -> str:
    return f"{answer} {answer}"


def _shuffle_words(answer: str, rng: random.Random, others: list[str]) -> str:
    words = answer.split(" ")
    rng.shuffle(words)
    return " ".join(words)


def _other_answer(answer: str, rng: random.Random, others: list[str]) -> str:
    return rng.choice(others)


Corruption = Callable[
    [str, random.Random, list[str]], str
]  # (answer, generator, all answers of the row's family) -> a worse one
CORRUPTIONS: dict[str, Corruption] = {
    "cut": _cut,
    "repeat": _repeat,
    "shuffle_words": _shuffle_words,
    "other_answer": _other_answer,
}


def synthetic_pairs(rows, corrupt=tuple(CORRUPTIONS), seed: int = 0) -> Pairs:
    """Pairs of a row's answer (chosen) and that answer corrupted (rejected), one a row; as good as
    what the corruption teaches.

    rows: ``{"messages": […]}``, the assistant's answer last. `corrupt`: names from `CORRUPTIONS`
    ("cut" short, "repeat" twice, "shuffle_words", "other_answer" of the same `family`), or a
    mapping of names to functions ``(answer, rng, answers) -> text``; each row gets one, drawn from
    `seed`. A pair carries the row's other keys and `corruption`, the name. `.left_out` counts, by
    corruption, answers that it left as they were or empty: a one-word answer has no other order.
    """
    names = [corrupt] if isinstance(corrupt, str) else corrupt
    table = (
        dict(corrupt)
        if isinstance(corrupt, Mapping)
        else {name: CORRUPTIONS.get(name) for name in names}
    )
    if not table or not all(callable(f) for f in table.values()):
        raise PairError(
            f"corrupt={corrupt!r}: use some of {', '.join(CORRUPTIONS)}, or a mapping of names to "
            "functions"
        )
    rows, rng, out, families = list(rows), random.Random(seed), Pairs(), defaultdict(list)
    for i, row in enumerate(rows):
        if len(check_row(row, f"row {i}")["messages"]) < 2:
            raise PairError(
                f"row {i}: an answer without a question: 'messages' needs the user's turn too"
            )
        families[row.get("family")].append(row["messages"][-1]["content"])
    for i, row in enumerate(rows):
        *prompt, answer = row["messages"]
        name = rng.choice(list(table))
        worse = table[name](answer["content"], rng, families[row.get("family")])
        if worse == answer["content"] or not worse.strip():
            out.left_out[name] += 1
            continue
        rest = {k: v for k, v in row.items() if k != "messages"}
        pair = {
            "prompt": prompt,
            "chosen": [answer],
            "rejected": [{**answer, "content": worse}],
            **rest,
            "corruption": name,
        }
        out.append(check_pair(pair, f"row {i}"))
    return out


# --- pairs and binary feedback into one another ---------------------------------------------------
def pairs_to_binary(pairs) -> list[dict]:
    """Two binary rows a pair: the chosen completion with label True, then the rejected one with
    False; other keys on both.
    """
    out = []
    for i, pair in enumerate(pairs):
        check_pair(pair, f"pair {i}")
        clash = [k for k in ("completion", "label") if k in pair]
        if clash:
            raise PairError(
                f"pair {i}: has a key {clash[0]!r} already: rename it before converting"
            )
        rest = {k: v for k, v in pair.items() if k not in ("prompt", "chosen", "rejected")}
        out += [
            {"prompt": pair["prompt"], "completion": pair[key], "label": key == "chosen", **rest}
            for key in ("chosen", "rejected")
        ]
    return out


def _join(up: dict, down: dict) -> dict:
    """One pair of two rows; keys that differ are kept as chosen_… and rejected_…"""
    ups, downs = (
        {k: v for k, v in row.items() if k not in ("prompt", "completion", "label")}
        for row in (up, down)
    )
    same = {k: v for k, v in ups.items() if k in downs and downs[k] == v}
    apart = {
        f"{name}_{k}": v
        for name, side in (("chosen", ups), ("rejected", downs))
        for k, v in side.items()
        if k not in same
    }
    return {
        "prompt": up["prompt"],
        "chosen": up["completion"],
        "rejected": down["completion"],
        **same,
        **apart,
    }


def binary_to_pairs(rows) -> Pairs:
    """Pairs from binary rows: under each prompt the first waiting thumbs up meets the first waiting
    thumbs down.

    The inverse of `pairs_to_binary` on what it wrote. A row is used once. `.left_out` counts rows:
    "no thumbs down" and "no thumbs up" for the prompt (a KTO loss can still use them), and "both
    labels", the same completion judged both ways.
    """
    waiting: dict[tuple[str, bool], deque] = defaultdict(deque)
    out = Pairs()
    for i, row in enumerate(rows):
        check_binary(row, f"row {i}")
        prompt = json.dumps(row["prompt"], sort_keys=True)
        others = waiting[prompt, not row["label"]]
        if not others:
            waiting[prompt, row["label"]].append(row)
            continue
        up, down = (row, others.popleft()) if row["label"] else (others.popleft(), row)
        if completion_text(up["completion"]) == completion_text(down["completion"]):
            out.left_out["both labels"] += 2
        else:
            out.append(_join(up, down))
    for (_, label), left in waiting.items():
        if left:
            out.left_out["no thumbs down" if label else "no thumbs up"] += len(left)
    return out


def imbalanced(rows, ratio: float, size: int | None = None, seed: int = 0) -> list[dict]:
    """A random subset with `ratio` thumbs down for every thumbs up (10: 1 to 10; 0.1: 10 to 1), in
    the rows' order.

    `size`: rows in all, so that different ratios can be compared on equally many; None takes as
    many as there are. PairError where the rows do not hold that many.
    """
    rows = list(rows)
    groups = {
        label: [i for i, r in enumerate(rows) if check_binary(r, f"row {i}")["label"] is label]
        for label in (True, False)
    }
    if not 0 < ratio < math.inf:
        raise PairError(
            f"ratio={ratio!r}: thumbs down for every thumbs up, a number above 0, is needed"
        )
    ups = (
        min(len(groups[True]), int(len(groups[False]) / ratio))
        if size is None
        else round(size / (1 + ratio))
    )
    wanted = {True: ups, False: round(ups * ratio) if size is None else size - ups}
    for label, count in wanted.items():
        if not 0 < count <= len(groups[label]):
            raise PairError(
                f"ratio={ratio:g}, size={size}: needs {count} rows with label {label}, there are "
                f"{len(groups[label])}: "
                "choose another ratio or size"
            )
    rng = random.Random(seed)
    kept = {i for label, count in wanted.items() for i in rng.sample(groups[label], count)}
    return [row for i, row in enumerate(rows) if i in kept]


# --- the bias of length ---------------------------------------------------------------------------
@dataclass(frozen=True)
class LengthBias:
    """How length goes with preference; intervals are 95% bootstrap intervals over the pairs."""

    unit: str  # "characters" or "tokens"
    # Share of pairs whose chosen answer is the longer one, equal lengths counting one half: 0.5 is
    # no bias.
    longer: Interval
    difference: Interval  # mean of chosen minus rejected, in the unit
    correlation: float  # matched-pairs rank-biserial, -1 to 1: 0 is no bias

    def __str__(self) -> str:
        return (
            f"chosen longer in {self.longer.percent()}, by {self.difference} {self.unit} on "
            "average, "
            f"rank-biserial correlation {self.correlation:.2f}"
        )


def _differences(pairs, tokenizer) -> list[int]:
    size = (
        len
        if tokenizer is None
        else lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
    )
    return [
        size(completion_text(p["chosen"])) - size(completion_text(p["rejected"]))
        for p in (check_pair(p, f"pair {i}") for i, p in enumerate(pairs))
    ]


def rank_biserial(differences: list[float]) -> float:
    """Matched-pairs rank-biserial correlation (Kerby 2014, doi 10.2466/11.IT.3.1): (W+ - W-) / (W+
    + W-), W± the sums of the ranks of the absolute differences above and below 0, ties sharing
    their mean rank, zeros left out. 0 where all are zero.
    """
    sizes = Counter(abs(d) for d in differences if d)
    rank, below = {}, 0
    for size in sorted(sizes):
        rank[size] = below + (sizes[size] + 1) / 2
        below += sizes[size]
    total = below * (below + 1) / 2
    return sum(math.copysign(rank[abs(d)], d) for d in differences if d) / total if total else 0.0


def length_bias(pairs, tokenizer=None) -> LengthBias:
    """How far the chosen answers are the longer ones, in characters, or in tokens where a tokenizer
    is given.

    Length is a well-known confounder: annotators and models prefer longer answers, and a policy
    trained on such pairs learns to be long (Singhal et al. 2023, arXiv 2310.03716). DataError
    without pairs.
    """
    differences = _differences(pairs, tokenizer)
    if not differences:
        raise PairError("pairs is empty: nothing to measure")
    longer = bootstrap_interval([(d > 0) + 0.5 * (d == 0) for d in differences])
    return LengthBias(
        "characters" if tokenizer is None else "tokens",
        longer,
        bootstrap_interval(differences),
        rank_biserial(differences),
    )


def balance_length(pairs, tokenizer=None, bin_width: int = 4, seed: int = 0) -> Pairs:
    """A subset in which length does not predict preference, by matched sampling, in the pairs'
    order.

    Pairs are binned by the absolute difference of their lengths (`bin_width` characters, or tokens
    with a tokenizer, a bin). Of every bin as many are kept with a longer as with a shorter chosen
    answer, drawn from `seed`; equal lengths all stay. So exactly half of what differs is longer,
    and the mean difference is below `bin_width`. `.left_out["length"]` counts the rest. PairError
    where nothing could be matched: then write pairs of the other kind.
    """
    if bin_width < 1:
        raise PairError(f"bin_width={bin_width!r}: at least 1 is needed")
    pairs, rng = list(pairs), random.Random(seed)
    differences, bins, kept = _differences(pairs, tokenizer), defaultdict(lambda: ([], [])), set()
    for i, d in enumerate(differences):
        if d:
            bins[(abs(d) - 1) // bin_width][d > 0].append(i)
        else:
            kept.add(i)
    for shorter, longer in bins.values():
        count = min(len(shorter), len(longer))
        kept |= {*rng.sample(shorter, count), *rng.sample(longer, count)}
    if not kept:
        longer, shorter = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
        raise PairError(
            f"no two of the {len(pairs)} pairs match: {longer} have the longer answer chosen, "
            f"{shorter} the shorter; "
            f"raise bin_width={bin_width}, or write pairs of the other kind"
        )
    return Pairs([p for i, p in enumerate(pairs) if i in kept], {"length": len(pairs) - len(kept)})
