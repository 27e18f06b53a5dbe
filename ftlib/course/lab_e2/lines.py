"""What the experiments of lab E2 say, read off by code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ftlib.core.stats import share_interval
from ftlib.course.lab_e2.curves import ByArm, lowest_loss, on_front
from ftlib.course.lab_e2.pictures import those_run
from ftlib.course.lab_e2.readings import REFERENCE, SMALLER
from ftlib.course.records.live import Result
from ftlib.course.records.shown import whose

LETTERS = {"below": "a", "none": "b", "above": "c", "open": "?"}


def letters(result: Result, claims: Sequence[str]) -> str:
    """A letter a claim: a below, b no difference shown, c above."""
    return "".join(LETTERS[result.outcome(claim)] for claim in claims)


def front_table(result: Result, arms: Sequence[str]) -> list[dict[str, str]]:
    """A row an arm, those on the front of means first: what was learnt, forgotten and is still
    known, and how surely it is on the front.
    """
    there = those_run(result, arms)
    found = {one.arm: one for one in on_front(result, there)} if there else {}
    ordered = sorted(there, key=lambda arm: result.means(arm, "loss").mean())
    ordered.sort(key=lambda arm: not found[arm].by_means)
    rows = []
    for arm in ordered:
        one = found[arm]
        rows.append(
            {
                "": arm,
                "front of means": "●" if one.by_means else "",
                "in resampled seeds": f"{one.redrawn:.0%}",
                "on its seed's front": one.of_seeds.percent(),
                "test loss": f"{result.interval(arm, 'loss')}",
                "forgotten": f"{result.interval(arm, 'forgotten')}",
                "still answered": result.interval(arm, "known").as_share(),
            }
        )
    return rows


def front_line(result: Result, arms: Sequence[str]) -> str:
    """The arms on the front of means, from the lowest loss on, and those surely on it."""
    there = those_run(result, arms)
    if not there:
        return result.why
    found = on_front(result, there)
    front = [one for one in found if one.by_means]
    front.sort(key=lambda one: result.means(one.arm, "loss").mean())
    sure = [one.arm for one in front if one.redrawn >= 0.95]
    names = "; ".join(one.arm for one in front)
    held = "; ".join(sure) if sure else "none"
    return f"On the front of the means: {names}. In at least 95% of the resamples: {held}."


def exceptions_line(
    result: Result, curves: Mapping[str, Sequence[str]], methods: Sequence[str]
) -> str:
    """In how many seeds each exception of the comparison at equal loss applies to each method.

    curves: {method: arms}, that of smaller rates among them; methods: those compared with it.
    """
    needed = [arm for curve in curves.values() for arm in curve]
    if not all(result.has(arm) for arm in needed):
        return ""
    runs: dict[int, dict] = {}
    for entry in result.record.entries.values():
        runs.setdefault(entry.seed, {})[entry.arm] = entry.metrics
    seeds = [runs[seed] for seed in result.seeds]
    texts = []
    for method in methods:
        found = [_exceptions(by_arm, curves[method], curves[SMALLER]) for by_arm in seeds]
        short = sum(is_short for is_short, _ in found)
        gentler = sum(is_gentler for _, is_gentler in found)
        texts.append(f"{method} {short} and {gentler}")
    return (
        f"{whose(result)}Seeds of {len(seeds)} in which the method never reaches the loss, and in "
        f"which even the smallest rate ends below the loss compared: {'; '.join(texts)}."
    )


def _exceptions(by_arm: ByArm, method: Sequence[str], smaller: Sequence[str]) -> tuple[bool, bool]:
    """Whether the method falls short of the reference's loss, and whether the highest loss of the
    smaller rates lies below the loss at which the two are compared.
    """
    loss = by_arm[REFERENCE]["loss"]
    lowest = lowest_loss(by_arm, method)
    compared = max(lowest, lowest_loss(by_arm, smaller), loss)
    return lowest > loss, max(by_arm[arm]["loss"] for arm in smaller) < compared


def stops_table(result: Result, arms: Sequence[str]) -> list[dict[str, str]]:
    """A row a threshold: where the runs stopped, and what was forgotten by then."""
    rows = []
    for arm in those_run(result, arms):
        steps = result.record.means(arm, "stopped_at")
        last = f" to {steps.max():.0f}" if steps.max() > steps.min() else ""
        rows.append(
            {
                "": arm,
                "stopped at step": f"{steps.min():.0f}{last}",
                "forgotten": f"{result.interval(arm, 'forgotten')}",
                "test loss": f"{result.interval(arm, 'loss')}",
            }
        )
    return rows


def share_line(hits: Sequence[float]) -> str:
    """How many questions are answered right, with an interval."""
    right = sum(hits)
    return f"{right:.0f} of {len(hits)} ({share_interval(right, len(hits)).percent()})"


def held_share(fisher: Mapping[str, torch.Tensor], top: float) -> float:
    """The share of ΣF that the `top` share of the weights with the largest F hold."""
    every = torch.cat([tensor.flatten() for tensor in fisher.values()])
    count = max(1, round(top * len(every)))
    largest = every.topk(count).values.sum(dtype=torch.float64)
    return float(largest / every.sum(dtype=torch.float64))


def replayed_tokens(rows: Sequence[dict]) -> float:
    """The share of replayed texts among all tokens that are learnt: in a text every token is, in
    a row of the task those of the answer.
    """
    learnt = {True: 0, False: 0}
    for row in rows:
        is_text = row["labels"] == row["input_ids"]
        learnt[is_text] += sum(label != -100 for label in row["labels"][1:])
    return learnt[True] / (learnt[True] + learnt[False])
