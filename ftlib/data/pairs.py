"""Preference pairs and binary feedback: from scores, from corruptions, one into the other, and the
bias of length in them.

TRL's schemas: a pair is ``{"prompt": [messages], "chosen": [one assistant message], "rejected":
[one assistant message]}``, a binary row ``{"prompt", "completion", "label": bool}``; plain strings
in their place are kept as strings. Other keys are carried along. What becomes no pair is counted by
reason in `Pairs.left_out`, never dropped silently.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlib.core.checks import check_positive_integer
from ftlib.core.errors import PairError
from ftlib.core.stats import Interval, interval_of, share_interval
from ftlib.data.rows import (
    check_binary,
    check_completion,
    check_pair,
    check_prompt,
    check_row,
    completion_text,
)
from ftlib.data.texts import text_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Pairs(list):
    """A list of rows; `.left_out` counts what did not become one, by reason."""

    def __init__(self, rows=(), left_out: Mapping[str, int] | None = None):
        super().__init__(rows)
        self.left_out = Counter(left_out or {})


# --- pairs from scores ----------------------------------------------------------------------------
def _without(row: dict, *keys: str) -> dict:
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
    rest = _without(row, "prompt", "completions", "scores")
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
            **_without(row, "messages"),
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


# --- pairs and binary feedback into one another ---------------------------------------------------
def pairs_to_binary(pairs: Iterable[dict]) -> list[dict]:
    """Two binary rows a pair: the chosen completion with label True, then the rejected one with
    False; other keys on both.
    """
    out = []
    for i, pair in enumerate(pairs):
        check_pair(pair, f"pair {i}")
        for key in ("completion", "label"):
            if key in pair:
                raise PairError(f"pair {i}: has a key {key!r} already: rename it before converting")
        rest = _without(pair, "prompt", "chosen", "rejected")
        for key, label in (("chosen", True), ("rejected", False)):
            out.append({"prompt": pair["prompt"], "completion": pair[key], "label": label, **rest})
    return out


def pairs_to_rows(pairs: Iterable[dict], side: str = "chosen") -> list[dict]:
    """A conversation for each pair, ``{"messages": prompt + answer}`` with one of its two answers:
    for SFT on the chosen answers, the baseline of every preference method. Other keys are carried
    along.

    `side`: "chosen" or "rejected". A prompt that is a string becomes the user's turn. PairError for
    another side, or for pairs that have `messages` already.
    """
    if side not in ("chosen", "rejected"):
        raise PairError(f"side={side!r}: use 'chosen' or 'rejected'")
    out = []
    for i, pair in enumerate(pairs):
        check_pair(pair, f"pair {i}")
        if "messages" in pair:
            raise PairError(f"pair {i}: has 'messages' already: rename them before converting")
        prompt = pair["prompt"]
        answer = pair[side]
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
            answer = [{"role": "assistant", "content": completion_text(answer)}]
        rest = _without(pair, "prompt", "chosen", "rejected")
        out.append({"messages": [*prompt, *answer], **rest})
    return out


def _join(up: dict, down: dict) -> dict:
    """One pair of two rows; keys that differ are kept as chosen_… and rejected_…"""
    pair = {"prompt": up["prompt"], "chosen": up["completion"], "rejected": down["completion"]}
    of_up = _without(up, "prompt", "completion", "label")
    of_down = _without(down, "prompt", "completion", "label")
    same = {key: value for key, value in of_up.items() if key in of_down and of_down[key] == value}
    pair.update(same)
    for side, rest in (("chosen", of_up), ("rejected", of_down)):
        for key, value in rest.items():
            if key not in same:
                pair[f"{side}_{key}"] = value
    return pair


def binary_to_pairs(rows: Iterable[dict]) -> Pairs:
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
        label = row["label"]
        opposite = waiting[prompt, not label]
        if not opposite:
            waiting[prompt, label].append(row)
            continue
        other = opposite.popleft()
        up = row if label else other
        down = other if label else row
        if completion_text(up["completion"]) == completion_text(down["completion"]):
            out.left_out["both labels"] += 2
        else:
            out.append(_join(up, down))
    for (_, label), left in waiting.items():
        reason = "no thumbs down" if label else "no thumbs up"
        if left:
            out.left_out[reason] += len(left)
    return out


def _by_label(rows: list[dict]) -> dict[bool, list[int]]:
    """The numbers of the rows with label True, and of those with label False."""
    places: dict[bool, list[int]] = {True: [], False: []}
    for i, row in enumerate(rows):
        label = check_binary(row, f"row {i}")["label"]
        places[label].append(i)
    return places


def imbalanced(
    rows: Iterable[dict],
    ratio: float,
    size: int | None = None,
    seed: int = 0,
    *,
    ups: int | None = None,
) -> list[dict]:
    """A random subset with `ratio` thumbs down for every thumbs up (10: 1 to 10; 0.1: 10 to 1), in
    the rows' order.

    `size`: rows in all, so that different ratios can be compared on equally many; None takes as
    many as there are. `ups`: thumbs up, so that the ratio changes by the thumbs down alone: for one
    seed the thumbs up are the same rows at every ratio, and the thumbs down of a smaller ratio are
    among those of a larger one. With `size` fixed the thumbs up become fewer as the ratio grows,
    and what looks like imbalance may be scarcity. PairError where the rows do not hold that many,
    or both are given.
    """
    rows = list(rows)
    places = _by_label(rows)
    if not 0 < ratio < math.inf:
        raise PairError(
            f"ratio={ratio!r}: thumbs down for every thumbs up, a number above 0, is needed"
        )
    if size is not None and ups is not None:
        raise PairError(f"size={size!r}, ups={ups!r}: hold one of them, not both")
    wanted = _wanted(places, ratio, size, ups)
    rng = random.Random(seed)
    kept: set[int] = set()
    for label, count in wanted.items():
        if not 0 < count <= len(places[label]):
            held = f"size={size}" if ups is None else f"ups={ups}"
            raise PairError(
                f"ratio={ratio:g}, {held}: needs {count} rows with label {label}, there are "
                f"{len(places[label])}: choose another ratio or number"
            )
        if ups is None:
            kept.update(rng.sample(places[label], count))
        else:
            kept.update(_first_drawn(places[label], seed, f"thumbs {label}", count))
    return [row for i, row in enumerate(rows) if i in kept]


def _wanted(
    places: dict[bool, list[int]], ratio: float, size: int | None, ups: int | None
) -> dict[bool, int]:
    """How many rows of each label make the ratio."""
    if ups is not None:
        check_positive_integer("ups", ups, PairError)
        return {True: ups, False: round(ups * ratio)}
    if size is None:
        most = min(len(places[True]), int(len(places[False]) / ratio))
        return {True: most, False: round(most * ratio)}
    some = round(size / (1 + ratio))
    return {True: some, False: size - some}


def _first_drawn(items: list[int], seed: int, name: str, count: int) -> list[int]:
    """The first `count` of the items in an order drawn from seed and name: fewer are a part of
    more.
    """
    order = list(items)
    random.Random(f"{seed}/{name}").shuffle(order)
    return order[:count]


# --- wrong judgements -----------------------------------------------------------------------------
def flip_judgements(rows: Iterable[dict], share: float, seed: int = 0) -> list[dict]:
    """The rows with a share of the judgements turned round: ``round(share · n)`` of them, drawn
    from `seed`, in the rows' order. A pair's chosen and rejected answers change places, and so do
    its other keys that begin with ``chosen_`` and ``rejected_``; a thumb's label is negated. Each
    row gets `flipped`, True or False.

    `share`: from 0 to 1; 0.5 leaves nothing to learn. For one seed the rows that are flipped at a
    smaller share are among those at a larger one, so noise from 0 to 40% is more of the same noise.
    The model of noise is that of cDPO and rDPO: a judgement is wrong with a probability that does
    not depend on the answers (Chowdhury et al. 2024, arXiv 2403.00409). PairError for another share
    or a row that is neither a pair nor a thumb.
    """
    is_number = isinstance(share, (int, float)) and not isinstance(share, bool)
    if not is_number or not 0 <= share <= 1:
        raise PairError(f"share={share!r}: a number from 0 to 1 is needed, 0.2 for 20%")
    rows = list(rows)
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or "label" not in row:
            check_pair(row, f"row {i}")
        else:
            check_binary(row, f"row {i}")
    count = round(share * len(rows))
    wrong = set(_first_drawn(list(range(len(rows))), seed, "flips", count))
    out = []
    for i, row in enumerate(rows):
        judged = _turned_round(row) if i in wrong else row
        out.append({**judged, "flipped": i in wrong})
    return out


def _turned_round(row: dict) -> dict:
    """The row with the opposite judgement."""
    if "label" in row:
        return {**row, "label": not row["label"]}
    out = {}
    for key, value in row.items():
        if key == "chosen" or key.startswith("chosen_"):
            key = "rejected" + key.removeprefix("chosen")
        elif key == "rejected" or key.startswith("rejected_"):
            key = "chosen" + key.removeprefix("rejected")
        out[key] = value
    return out


# --- the bias of length ---------------------------------------------------------------------------
@dataclass(frozen=True)
class LengthBias:
    """How length goes with preference; 95% intervals over the pairs, Wilson's of the share and
    Student's of the difference (`ftlib.core.stats`).
    """

    unit: str  # "characters" or "tokens"
    # Share of pairs whose chosen answer is the longer one, equal lengths counting one half: 0.5 is
    # no bias.
    longer: Interval
    difference: Interval  # mean of chosen minus rejected, in the unit
    correlation: float  # matched-pairs rank-biserial, -1 to 1: 0 is no bias

    def __str__(self) -> str:
        return (
            f"chosen longer in {self.longer.percent()}, by {self.difference} {self.unit} on "
            f"average, rank-biserial correlation {self.correlation:.2f}"
        )


def _differences(pairs, tokenizer) -> list[int]:
    """The length of each chosen answer minus that of the rejected one, in characters or tokens."""
    differences = []
    for i, pair in enumerate(pairs):
        check_pair(pair, f"pair {i}")
        chosen = text_length(completion_text(pair["chosen"]), tokenizer)
        rejected = text_length(completion_text(pair["rejected"]), tokenizer)
        differences.append(chosen - rejected)
    return differences


def rank_biserial(differences: Sequence[float]) -> float:
    """Matched-pairs rank-biserial correlation (Kerby 2014, doi 10.2466/11.IT.3.1): (W+ - W-) / (W+
    + W-), W± the sums of the ranks of the absolute differences above and below 0, ties sharing
    their mean rank, zeros left out. 0 where all are zero.
    """
    nonzero = [difference for difference in differences if difference]
    counts = Counter(abs(difference) for difference in nonzero)
    mean_rank = {}
    below = 0  # differences that are smaller
    for size in sorted(counts):
        mean_rank[size] = below + (counts[size] + 1) / 2
        below += counts[size]
    if not nonzero:
        return 0.0
    signed_ranks = [math.copysign(mean_rank[abs(d)], d) for d in nonzero]
    all_ranks = below * (below + 1) / 2
    return sum(signed_ranks) / all_ranks


def length_bias(
    pairs: Sequence[dict], tokenizer: PreTrainedTokenizerBase | None = None
) -> LengthBias:
    """How far the chosen answers are the longer ones, in characters, or in tokens where a tokenizer
    is given.

    Length is a well-known confounder: annotators and models prefer longer answers, and a policy
    trained on such pairs learns to be long (Singhal et al. 2023, arXiv 2310.03716). DataError
    without pairs.
    """
    differences = _differences(pairs, tokenizer)
    if not differences:
        raise PairError("pairs is empty: nothing to measure")
    unit = "characters" if tokenizer is None else "tokens"
    longer = []
    for difference in differences:
        share = 0.5 if difference == 0 else float(difference > 0)
        longer.append(share)
    return LengthBias(
        unit,
        share_interval(sum(longer), len(longer)),
        interval_of(differences),
        rank_biserial(differences),
    )


def balance_length(
    pairs: Sequence[dict],
    tokenizer: PreTrainedTokenizerBase | None = None,
    bin_width: int = 4,
    seed: int = 0,
) -> Pairs:
    """A subset in which length does not predict preference, by matched sampling, in the pairs'
    order.

    Pairs are binned by the absolute difference of their lengths (`bin_width` characters, or tokens
    with a tokenizer, a bin). Of every bin as many are kept with a longer as with a shorter chosen
    answer, drawn from `seed`; equal lengths all stay. So exactly half of what differs is longer,
    and the mean difference is below `bin_width`. `.left_out["length"]` counts the rest. PairError
    where nothing could be matched: then write pairs of the other kind.
    """
    check_positive_integer("bin_width", bin_width, PairError)
    pairs = list(pairs)
    differences = _differences(pairs, tokenizer)
    kept = _matched(differences, bin_width, random.Random(seed))
    if not kept:
        longer = sum(difference > 0 for difference in differences)
        shorter = sum(difference < 0 for difference in differences)
        raise PairError(
            f"no two of the {len(pairs)} pairs match: {longer} have the longer answer chosen, "
            f"{shorter} the shorter; raise bin_width={bin_width}, or write pairs of the other kind"
        )
    matched = [pair for i, pair in enumerate(pairs) if i in kept]
    return Pairs(matched, {"length": len(pairs) - len(kept)})


def _matched(differences: list[int], bin_width: int, rng: random.Random) -> set[int]:
    """The numbers of the differences that stay: all zeros, and of every bin of sizes as many above
    as below zero.
    """
    kept: set[int] = set()
    # By bin of sizes: where the chosen answer is the shorter one, and where it is the longer one.
    bins: dict[int, tuple[list[int], list[int]]] = {}
    for i, difference in enumerate(differences):
        if difference == 0:
            kept.add(i)
            continue
        size_bin = (abs(difference) - 1) // bin_width
        shorter, longer = bins.setdefault(size_bin, ([], []))
        side = longer if difference > 0 else shorter
        side.append(i)
    for shorter, longer in bins.values():
        count = min(len(shorter), len(longer))
        kept.update(rng.sample(shorter, count))
        kept.update(rng.sample(longer, count))
    return kept
