"""How much longer the preferred answers of pairs are, and pairs in which they are not."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlib.core.checks import check_positive_integer
from ftlib.core.errors import PairError
from ftlib.core.stats import Interval, interval_of, share_interval
from ftlib.data.pairs import Pairs
from ftlib.data.rows import (
    check_pair,
    completion_text,
)
from ftlib.data.texts import text_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
