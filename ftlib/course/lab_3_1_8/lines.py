"""What lab 3.1.8's comparisons of losses and of labels say, in words that the numbers choose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from ftlib.core.stats import Interval, paired_difference
from ftlib.course.lab_3_1_8.readings import (
    BASE_SFT,
    DPO_AT_SIMPO,
    EQUAL_RATES,
    SFT,
    SIMPO_AT_DPO,
)
from ftlib.course.lab_3_1_8.runs import BASE, IMITATED, START_SHARE, steps_of
from ftlib.course.records.live import Result
from ftlib.course.records.shown import whose, with_arms
from ftlib.course.reports import report_faults

SMALL = 0.1  # faults per answer: a smaller difference is not interpreted
REPAIRED = 0.25  # of the start's faults of form: a smaller part gone is hardly a repair
SAME_START = 0.1  # a larger share between their measures makes two starts of one
NEGLIGIBLE = 0.05  # of what the SFT start has forgotten
SORTS = {"wrong": "wrong facts", "missing": "facts left out", "unwanted": "breaks of form"}
FORM = ("missing", "unwanted")
PREDICTED = ("unneutral", "reference", "apart", "apart of both", "level")  # of shuffled labels
ALONE = "Each interval stands alone, without correction for the others."


# --- rows -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class MeanFaults:
    """Faults per answer, by sort: means over rows."""

    wrong: float
    missing: float
    unwanted: float


def mean_faults(rows: Sequence[dict], side: str) -> MeanFaults:
    """The faults of the rows' "chosen" or "rejected" answers."""
    counts = [report_faults(row[side][0]["content"], row) for row in rows]
    wrong = float(np.mean([count.wrong for count in counts]))
    missing = float(np.mean([count.missing for count in counts]))
    unwanted = float(np.mean([count.unwanted for count in counts]))
    return MeanFaults(wrong, missing, unwanted)


# --- what a profile has ---------------------------------------------------------------------------
def not_run(result: Result, *arms: str) -> str:
    """Why a line about these arms is empty: no record, or arms that this profile has no runs of."""
    if result.why:
        return result.why
    lacking = [arm for arm in arms if not result.has(arm)]
    return (
        f"Left out here, since the profile {result.profile.name} has no runs of them (tiny has): "
        f"{'; '.join(lacking)}."
    )


def start_of(result: Result, before: Mapping[str, Any]) -> Mapping[str, Any]:
    """The SFT start of the result's runs, by names that begin with start_: `before`, which was
    measured here, or what the runs have recorded of theirs, where it is another one: another
    profile's, or a session's that goes on from its own run of lab 3.1.4.
    """
    entries = list(result.record.entries.values())
    if not entries:
        return before
    known = entries[0].metrics
    recorded = {name: value for name, value in known.items() if name.startswith("start_")}
    is_the_same = not result.shown_in
    for name, value in recorded.items():
        if name in before and not math.isclose(value, before[name], rel_tol=SAME_START):
            is_the_same = False
    return before if is_the_same else recorded


# --- with a reference and without -----------------------------------------------------------------
def both_rates_line(result: Result, metric: str) -> str:
    """SimPO and DPO at each of the two rates by itself, and whether the differences agree."""
    arms = [arm for pair in EQUAL_RATES for arm in pair]
    result = with_arms(result, *arms)
    if not all(result.has(arm) for arm in arms):
        return not_run(result, *arms)
    texts = []
    gaps: list[Interval] = []
    for simpo, dpo in EQUAL_RATES:
        of_simpo = result.means(simpo, metric)
        of_dpo = result.means(dpo, metric)
        gap = paired_difference(of_simpo, of_dpo)
        gaps.append(gap)
        rate = result.settings(simpo)["lr"]
        texts.append(
            f"at rate {rate:.2g} {of_simpo.mean():.3g} and {of_dpo.mean():.3g}, difference {gap}"
        )
    label = f"{whose(result)}{result.experiment.metric(metric).label}"
    return f"{label}, SimPO and DPO: {'; '.join(texts)}. {ALONE}{_signs_text(gaps)}"


def _signs_text(gaps: Sequence[Interval]) -> str:
    """What follows where the differences at the two rates have opposite signs; else nothing."""
    signs = {gap.mean > 0 for gap in gaps}
    if len(signs) == 1:
        return ""
    if all(gap.excludes(0) for gap in gaps):
        return " The two differences have opposite signs: their mean describes neither rate."
    return (
        " The two means have opposite signs, but not both intervals exclude 0: it is not shown "
        "that the difference depends on the rate."
    )


def forgetting_line(result: Result, start: Mapping[str, Any]) -> str:
    """How large SimPO's and DPO's difference in forgetting is beside what the start had lost."""
    if not all(result.has(arm) for pair in EQUAL_RATES for arm in pair):
        return ""
    if "start_forgotten" not in start:
        return "What the start of these runs had lost already was not recorded."
    lost = start["start_forgotten"]
    gaps = []
    for simpo, dpo in EQUAL_RATES:
        gaps.append(result.means(simpo, "forgotten") - result.means(dpo, "forgotten"))
    share = abs(float(np.mean(gaps))) / abs(lost)
    line = f"The SFT start had lost {lost:.3g} already; the mean difference is {share:.1%} of that"
    if share < NEGLIGIBLE:
        shown = result.outcome("forgotten") in ("above", "below")
        line += ": real, and negligible" if shown else ": negligible, if there is one"
    return f"{line}."


def starts_line(result: Result) -> str:
    """What may be compared in a plane of arms that begin at two starts, at several rates."""
    line = (
        "Arms that begin at the SFT start carry what that SFT had forgotten already; ORPO and SFT "
        "from the base begin at zero. Compare across only within a start."
    )
    if result.has(SIMPO_AT_DPO) and result.has(DPO_AT_SIMPO):
        line += (
            " Two arms have the *other* loss's rate, which validation did not choose for them: "
            "they show what is due to the rate and not to the loss."
        )
    return line


def left_of_start_line(result: Result, before: Mapping[str, Any]) -> str:
    """Which of the arms that begin at the SFT start end with less forgotten than it."""
    if not result.arms:
        return result.why
    if "start_forgotten" not in before:
        return "What the SFT start of these runs had forgotten was not recorded."
    start = before["start_forgotten"]
    less: list[str] = []
    more: list[str] = []
    for arm in result.arms:
        if result.settings(arm)["start"] == IMITATED:
            (less if result.means(arm, "forgotten").mean() < start else more).append(arm)
    line = f"The SFT start has forgotten {start:.3g} nats per token."
    if less:
        line += f" Left of it, with *less* forgotten than where they began: {'; '.join(less)}."
    if more:
        line += f" Right of it: {'; '.join(more)}."
    return line


# --- sorts of faults ------------------------------------------------------------------------------
def sorts_line(result: Result, first: str, second: str) -> str:
    """By which sort of fault two arms differ, each with its interval."""
    if not (result.has(first) and result.has(second)):
        return not_run(result, first, second)
    listed = []
    any_shown = False
    for sort, text in SORTS.items():
        gap = paired_difference(result.means(first, sort), result.means(second, sort))
        listed.append(f"{text} {gap}")
        any_shown = any_shown or gap.excludes(0)
    facts = result.means(first, "wrong").mean() - result.means(second, "wrong").mean()
    form = _form(result, first) - _form(result, second)
    line = f"{whose(result)}{first} minus {second}, faults per answer: {', '.join(listed)}. {ALONE}"
    if max(abs(facts), abs(form)) < SMALL:
        return f"{line} By the means neither facts nor form differ by much."
    if not any_shown:
        return f"{line} No sort by itself shows a difference."
    if abs(facts) > abs(form):
        words = "fewer" if facts < 0 else "more"
        return f"{line} The difference is mostly one of *facts*: {words} of them are wrong."
    words = "less" if form < 0 else "more"
    return (
        f"{line} The difference is mostly one of *form*: {words} is left out or breaks it. Of "
        "right and wrong it says little."
    )


def _form(result: Result, arm: str) -> float:
    """Faults of form per answer: facts left out and breaks of form."""
    return float(sum(result.means(arm, sort).mean() for sort in FORM))


def form_line(result: Result, before: Mapping[str, Any]) -> str:
    """Faults of form of the arms that begin at the SFT start, beside the start's own."""
    if not result.arms:
        return result.why
    if "start_missing" not in before:
        return "The faults of form at the start of these runs were not recorded by sort."
    start = before["start_missing"] + before["start_unwanted"]
    changes = {}
    texts = []
    for arm in result.arms:
        if result.settings(arm)["start"] == IMITATED:
            form = _form(result, arm)
            changes[arm] = form / start - 1
            texts.append(f"{arm} {form:.3g} ({changes[arm]:+.0%})")
    line = (
        f"{whose(result)}"
        f"Faults of form per answer, left out and breaks of form together: {start:.3g} at the SFT "
        f"start; {'; '.join(texts)}. A broken sentence may count twice: its fact is left out, and "
        "it breaks the form."
    )
    if changes.get(SFT, 0) < -REPAIRED < changes.get("SimPO", -REPAIRED):
        line += " Imitation repairs form; SimPO hardly does, or not at all."
    return line


def recipes_line(result: Result) -> str:
    """What the recipes from the base and from the SFT start have forgotten."""
    if not (result.has("ORPO") and result.has("SimPO")):
        return not_run(result, "ORPO", "SimPO")
    orpo = result.interval("ORPO", "forgotten")
    simpo = result.interval("SimPO", "forgotten")
    alone = ""
    if result.has(BASE_SFT):
        alone = f"; SFT from the base {result.interval(BASE_SFT, 'forgotten')}"
    return (
        f"{whose(result)}Forgotten in all, SFT included: ORPO {orpo} nats per token, SFT and SimPO "
        f"after it {simpo}{alone}. {_recipes_compared(result)} {_steps_text(result)}"
    )


def _steps_text(result: Result) -> str:
    """The optimizer steps of both recipes."""
    orpo = steps_of(result.profile, BASE)
    imitation = result.profile.preference.imitation_steps // START_SHARE
    simpo = steps_of(result.profile, IMITATED)
    return f"Steps: ORPO {orpo}; SFT {imitation}, then SimPO {simpo}."


def _recipes_compared(result: Result) -> str:
    faults = result.means("ORPO", "faults").mean() - result.means("SimPO", "faults").mean()
    lost = result.means("ORPO", "forgotten").mean() - result.means("SimPO", "forgotten").mean()
    if faults * lost < 0:
        return "By the means one recipe is ahead in faults, the other in what it keeps."
    return "By the means the same recipe is ahead in faults and in forgetting."


# --- random labels --------------------------------------------------------------------------------
def push_line(apart: float, beta: float, gamma: float, pairs: int) -> str:
    """The expected push of random labels on a pair's margin of size `apart`, beside the push of one
    label, and beside what the labels of one run leave unbalanced.
    """
    with_label = beta * expit(gamma + beta * apart)  # labelled against the margin
    other_label = beta * expit(gamma - beta * apart)
    expected = (with_label - other_label) / 2
    single = (with_label + other_label) / 2
    share = expected / single
    noise = 1 / np.sqrt(pairs)
    line = (
        f"At |Δ| = {apart:.3f}, the start's mean on held-out pairs, with β = {beta:g} and γ = "
        f"{gamma:g}: the expected push is {expected:.3f}, that of one label {single:.2f}, so "
        f"{share:.0%} of it. A run has {pairs} pairs; the mean of so many random signs is off 0 by "
        f"1/√{pairs} = {noise:.0%}."
    )
    if share < noise:
        return f"{line} The derived effect is smaller than one run's noise of labels."
    return f"{line} The derived effect is larger than one run's noise of labels."


SMALL_PUSH = "in a short run the push may be smaller than the noise of its labels: see above"
# Three of the predictions for shuffled labels, with what speaks against finding them in short runs.
IN_THE_TABLE = {
    "unneutral": ("SimPO makes fewer faults than its start", SMALL_PUSH),
    "reference": (
        "SimPO makes fewer faults than DPO",
        "the least weak: both have the same labels at each seed, so much of their noise cancels",
    ),
    "apart": ("the two answers of a pair come closer together", SMALL_PUSH),
}
OUTCOMES = {"none": "no", "open": "too few seeds"}


def predictions_table(result: Result) -> list[dict[str, str]]:
    """Three predictions for shuffled labels: why they are weak, and whether they were found."""
    table = []
    for claim, (prediction, why_weak) in IN_THE_TABLE.items():
        outcome = result.outcome(claim)
        found = OUTCOMES.get(outcome, "the opposite")
        if outcome == result.experiment.claim(claim).expected:
            found = "yes"
        table.append({"prediction": prediction, "why it is weak": why_weak, "found?": found})
    return table


def predictions_line(result: Result) -> str:
    """How many of the predictions for shuffled labels were found, and how large the difference of
    the two losses could still be.
    """
    if not result.arms:
        return result.why
    decisions = result.decisions()
    found = [name for name in PREDICTED if decisions[name].as_expected]
    of_simpo = result.means("SimPO, shuffled", "faults")
    of_dpo = result.means("DPO, shuffled", "faults")
    r = float(np.corrcoef(of_simpo, of_dpo)[0, 1])
    gap = paired_difference(of_simpo, of_dpo)
    most = max(0.0, -gap.low) / of_dpo.mean()
    line = (
        f"{whose(result)}"
        f"Of {len(PREDICTED)} predictions {len(found)} were found. At each seed the two losses "
        f"have the same random labels, and their faults go together over seeds (r = {r:.2f}), so "
        "that most of this noise cancels in their difference: the predicted fall of SimPO's faults "
        f"below DPO's is at most {most:.1%} of them, at 95%."
    )
    if not found:
        line += (
            " In theory labels at random are no neutral control for SimPO; here they were one, as "
            f"far as {len(of_dpo)} seeds show."
        )
    return line
