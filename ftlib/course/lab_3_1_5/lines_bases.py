"""Lines over the bases compared in lab 3.1.5 beside its claims: differences at one rate, not stated
beforehand, and the doses of damage that the measure has seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ftlib.core.stats import Interval, paired_difference
from ftlib.course.lab_3_1_5 import experiments, readings
from ftlib.course.lab_3_1_5.bases import WHOLE
from ftlib.course.lab_3_1_5.lines import Gap, elsewhere, falls, judged
from ftlib.course.lab_3_1_5.trials import task_of
from ftlib.course.records.claims import FEWEST
from ftlib.course.records.live import Result

LOSS = "loss"
DOSES = {"three": "3 bits", "coarse": readings.THREE_COARSE, "two": "2 bits"}  # claim -> base


def _is_measured(result: Result, claim: str) -> bool:
    """Whether there are runs of all arms that the claim reads."""
    return set(result.experiment.claim(claim).contrast.arms) <= set(result.arms)


def scope_line(result: Result) -> str:
    """What a profile has runs of that has not all bases at all rates; else empty."""
    if not result.arms or _is_measured(result, "qlora"):
        return ""
    kinds = ", ".join(experiments.measured_kinds(result))
    rates = ", ".join(f"{rate:.2g}" for rate in experiments.measured_rates(result, WHOLE))
    task = task_of(result.profile)
    return (
        f"{result.profile.name} has runs over {kinds}, at a rate of {rates} alone, of {task.steps} "
        f"steps × {task.batch} rows: little training. What is claimed of the mean over three rates "
        "is measured in tiny; each line says so."
    )


# --- one rate at a time ---------------------------------------------------------------------------
def _at_rates(result: Result, claim: str) -> dict[str, Interval]:
    """{rate: difference} of a claim of `bases`, at the rates that have runs."""
    arms = result.experiment.claim(claim).contrast.arms
    intervals = {}
    # `readings.over_rates` has the arms in pairs: at each rate one kind of base and the other.
    for one, other in zip(arms[::2], arms[1::2], strict=True):
        if result.has(one) and result.has(other):
            rate = f"{result.settings(one)['lr']:.2g}"
            intervals[rate] = paired_difference(result.means(one, LOSS), result.means(other, LOSS))
    return intervals


def by_rate(result: Result, claim: str) -> list[Gap]:
    """The differences that a claim of `bases` takes the mean of, judged together. Where a rate has
    no runs, those of the others, judged together with those of all claims of which this is so.
    """
    if _is_measured(result, claim):
        return judged(_at_rates(result, claim))
    family = {}
    for other in result.experiment.claims:
        if not _is_measured(result, other.name):
            for rate, interval in _at_rates(result, other.name).items():
                family[f"{other.name}|{rate}"] = interval
    found = []
    for gap in judged(family):
        name, rate = gap.place.split("|")
        if name == claim:
            found.append(Gap(rate, gap.interval, gap.p))
    return found


def outcome(gaps: Sequence[Gap]) -> str:
    """ "above" or "below" where at least one difference is shown, all of one sign; "both", "none";
    "open" below five seeds.
    """
    if not gaps or (gaps[0].interval.runs or 0) < FEWEST:
        return "open"
    signs = {gap.sign for gap in gaps} - {0}
    if len(signs) == 2:
        return "both"
    if not signs:
        return "none"
    return "above" if 1 in signs else "below"


def rate_note(result: Result, claim: str) -> str:
    """Where a claim shows nothing in the mean over rates and a single rate does: at which, and with
    which sign; else empty. The numbers are in `cost_rows`.
    """
    gaps = by_rate(result, claim)
    shown = outcome(gaps)
    if result.outcome(claim) != "none" or shown in ("none", "open"):
        return ""
    higher = ", ".join(gap.place for gap in gaps if gap.sign > 0)
    lower = ", ".join(gap.place for gap in gaps if gap.sign < 0)
    where = {
        "above": f"higher beyond chance at {higher}",
        "below": f"lower beyond chance at {lower}",
        "both": f"**higher beyond chance at {higher} and lower at {lower}: the signs cancel**",
    }
    return f"By rate (not stated beforehand, Holm over {len(gaps)}): {where[shown]}."


def claim_line(result: Result, claim: str) -> str:
    """What the runs say of a claim of `bases`, and a note on single rates. Where the profile has
    not all that the claim reads, its runs at the rates that it has, and then tiny's conclusion.
    """
    if _is_measured(result, claim):
        return f"{result.conclude(claim)} {rate_note(result, claim)}".strip()
    own = _part_line(result, claim)
    there = elsewhere(result)
    if there is None:
        return own
    return f"{own} {claim_line(there, claim)}"


def _part_line(result: Result, claim: str) -> str:
    """A claim's difference at the only rates that have runs."""
    text = result.experiment.claim(claim).text
    gaps = by_rate(result, claim)
    if not gaps:
        return f"{text}: not measured in {result.profile.name}."
    listed = "; ".join(f"at {gap.place} {gap.interval}" for gap in gaps)
    endings = {
        "above": "**Higher beyond chance.**",
        "below": "**Lower beyond chance.**",
        "both": "**Higher at one rate, lower at another.**",
        "none": "No difference shown.",
        "open": "Too few seeds for a conclusion.",
    }
    seeds = gaps[0].interval.runs
    ending = endings[outcome(gaps)]
    return f"{text}, in {result.profile.name}: {listed} nats over {seeds} seeds. {ending}"


# --- all bases ------------------------------------------------------------------------------------
def base_error(result: Result, kind: str) -> float:
    """Relative error of a base's weights."""
    return float(experiments.over_rates(result, kind, "weight_error").mean())


def _error_of(row: dict[str, Any]) -> float:
    return float(row["error of the weights"])


def cost_rows(result: Result) -> list[dict[str, Any]]:
    """Loss minus that over the whole base at each rate, a row a base, smallest error first."""
    whole = experiments.measured_rates(result, WHOLE)
    rows = []
    for kind in experiments.measured_kinds(result):
        if kind == WHOLE:
            continue
        row: dict[str, Any] = {"base": kind}
        row["error of the weights"] = f"{base_error(result, kind):.3f}"
        for rate, arm in experiments.measured_rates(result, kind).items():
            gap = paired_difference(result.means(arm, LOSS), result.means(whole[rate], LOSS))
            row[f"at {rate:.2g}"] = f"{gap.mean:+.4f} ± {gap.high - gap.mean:.4f}"
        rows.append(row)
    return sorted(rows, key=_error_of)


def cost_falls(result: Result) -> str:
    """At which rates the cost falls although the error of the weights grows."""
    sentences = []
    for rate, whole_arm in experiments.measured_rates(result, WHOLE).items():
        points = {}
        for kind in experiments.measured_kinds(result):
            arm = experiments.measured_rates(result, kind)[rate]
            cost = result.means(arm, LOSS).mean() - result.means(whole_arm, LOSS).mean()
            points[kind] = (base_error(result, kind), float(cost))
        found = falls(points)
        if found:
            sentences.append(f"at {rate:.2g}: {' | '.join(found)}")
    if not sentences:
        return "At every rate the mean cost grows with the error of the weights."
    return (
        "The mean cost does not simply grow with the error of the weights. In the order of the "
        f"errors it falls {'; '.join(sentences)}. (Means; these steps are not tested.)"
    )


def share_of_loss(result: Result, kind: str) -> str:
    """A base's cost at each rate in per cent of the loss over the whole base."""
    whole = experiments.measured_rates(result, WHOLE)
    parts = []
    for rate, arm in experiments.measured_rates(result, kind).items():
        before = result.means(whole[rate], LOSS).mean()
        after = result.means(arm, LOSS).mean()
        parts.append(f"{100 * (after / before - 1):+.1f}% at {rate:.2g}")
    return ", ".join(parts)


def yardstick(result: Result) -> str:
    """What a factor of two in the rate does to the loss over the whole base."""
    arms = experiments.measured_rates(result, WHOLE).values()
    means = [result.means(arm, LOSS) for arm in arms]  # (rates)(seeds,)
    if len(means) < len(readings.PLACES):
        return (
            f"{result.profile.name} has runs at {len(means)} of the {len(readings.PLACES)} rates, "
            "so what a rate off by a factor of two costs is not known here."
        )
    steps = [paired_difference(after, before) for before, after in itertools.pairwise(means)]
    return (
        "A yardstick: over the whole base the test loss changes from the lower to the middle rate "
        f"by {steps[0]}, and from the middle to the higher one by {steps[1]} nats."
    )


# --- doses of damage ------------------------------------------------------------------------------
def _seen(result: Result, claim: str) -> tuple[bool, Interval] | None:
    """Whether the claim's difference is shown to be above 0, and its interval: over the mean of
    the rates, or at the first that has runs; None where none has.
    """
    if _is_measured(result, claim):
        decision = result.decisions()[claim]
        return decision.outcome == "above", decision.interval
    gaps = by_rate(result, claim)
    return (gaps[0].sign > 0, gaps[0].interval) if gaps else None


def dose_line(result: Result) -> str:
    """Which doses of damage the measure has seen, and what its silence below them is worth."""
    if not result.arms:
        return ""
    if len(result.seeds) < FEWEST:
        return "Too few seeds to say which doses the measure has seen."
    seen = {}
    unseen = []
    for claim, kind in DOSES.items():
        found = _seen(result, claim)
        if found is None:
            continue
        shown, interval = found
        error = base_error(result, kind)
        if shown:
            seen[kind] = error
        else:
            high = interval.high
            unseen.append(f"{kind} (error {error:.2f}; up to {high:.2g} nats would be compatible)")
    if not seen:
        return "**No dose of damage was seen**: the measure is blind, and says nothing of NF4."
    return _doses_seen(result, seen, unseen)


def _doses_seen(result: Result, seen: dict[str, float], unseen: list[str]) -> str:
    measure = "the mean over rates" if _is_measured(result, "qlora") else "the loss at one rate"
    listed = ", ".join(f"{kind} (error {error:.2f})" for kind, error in seen.items())
    missed = f" Not seen: {', '.join(unseen)}." if unseen else ""
    start = f"**Doses seen by {measure}: {listed}.**{missed}"
    found = _seen(result, "qlora")
    if found is None:
        return start
    shown, interval = found
    error = base_error(result, "NF4")
    if shown:
        return f"{start} NF4's own cost (error {error:.2f}) is seen too: {interval} nats."
    where = "in this mean" if _is_measured(result, "qlora") else "there"
    return (
        f"{start} Below an error of "
        f'{min(seen.values()):.2f}, "no cost shown" {where} is only an upper bound: '
        f"for NF4 (error {error:.2f}) a cost up to {interval.high:.2g} nats."
    )
