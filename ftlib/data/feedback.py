"""Pairs and binary feedback: one made into the other, unbalanced, or with wrong judgements."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ftlib.core.checks import check_positive_integer
from ftlib.core.errors import PairError
from ftlib.data.rows import (
    check_binary,
    check_pair,
    completion_text,
)

if TYPE_CHECKING:
    pass
from ftlib.data.pairs import Pairs, without_keys


def pairs_to_binary(pairs: Iterable[dict]) -> list[dict]:
    """Two binary rows per pair: the chosen completion with label True, then the rejected one with
    False; other keys on both.
    """
    out = []
    for i, pair in enumerate(pairs):
        check_pair(pair, f"pair {i}")
        for key in ("completion", "label"):
            if key in pair:
                raise PairError(f"pair {i}: has a key {key!r} already: rename it before converting")
        rest = without_keys(pair, "prompt", "chosen", "rejected")
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
        rest = without_keys(pair, "prompt", "chosen", "rejected")
        out.append({"messages": [*prompt, *answer], **rest})
    return out


def _join(up: dict, down: dict) -> dict:
    """One pair of two rows; keys that differ are kept as chosen_… and rejected_…"""
    pair = {"prompt": up["prompt"], "chosen": up["completion"], "rejected": down["completion"]}
    of_up = without_keys(up, "prompt", "completion", "label")
    of_down = without_keys(down, "prompt", "completion", "label")
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
