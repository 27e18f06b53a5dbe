"""Sentences and names of lab 3.1.2 for what a record holds: it may be another profile's than the
session's, and may have fewer arms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ftlib.adapters.targets import target_names
from ftlib.core.stats import mean_interval
from ftlib.course.lab_3_1_2.readings import too_high
from ftlib.course.lab_3_1_2.trials import steps_of
from ftlib.course.records.kit import study_base
from ftlib.course.records.live import Result
from ftlib.course.records.shown import fewer_line, whose, with_arms

AS_NOTHING = 1e-5  # a share that is rounding
NAMES = {"full": "full fine-tuning"}  # where an arm's name is too short for a sentence


def share_text(share: float) -> str:
    """A share in percent: whole numbers, and two digits where that would be 0%."""
    if share < AS_NOTHING or share >= 0.005:
        return f"{share:.0%}"
    return f"{100 * share:.2g}%"


def fine(share: float) -> str:
    """A share in percent with one decimal, and with one digit where that would be 0.0%."""
    return f"{share:.1%}" if share >= 0.0005 else f"{100 * share:.1g}%"


def perplexity_text(value: float) -> str:
    """Two decimals, and three digits from a thousand on."""
    return f"{value:.2f}" if value < 1000 else f"{value:,.0f}"


def matrices(result: Result) -> list[str]:
    """The names of the matrices that the runs of a result have moved, in the order of their
    metrics: the model may be another profile's.
    """
    base, _ = study_base(result.profile)
    return target_names(base, "all-linear")


def losses_line(methods: Result) -> str:
    """Test losses and right words, means over the seeds, of the methods that were run."""
    losses = []
    for method in ("LoRA", "DoRA", "direction only", "m only", "full"):
        if methods.has(method):
            loss = methods.means(method, "loss").mean()
            losses.append(f"{NAMES.get(method, method)} {loss:.3f}")
    words = []
    for method in ("LoRA", "DoRA"):
        if methods.has(method):
            share = mean_interval(methods.means(method, "words")).as_share()
            words.append(f"{method} {share}")
    if not losses:
        return methods.why
    profile = methods.profile
    return (
        f"Profile {profile.name}, r = {profile.rank}, {steps_of(profile)} steps, each method at "
        f"its own rate.\nTest loss: {', '.join(losses)} nats per token. Right words: "
        f"{', '.join(words)}."
    )


def turns_line(methods: Result, arms: Sequence[str]) -> str:
    """How far each arm's rows were turned and how their lengths changed, means over runs and
    rows.
    """
    turns = []
    for arm in arms:
        if not methods.has(arm):
            continue
        angle = methods.means(arm, "turn").mean()
        longer = share_text(methods.means(arm, "longer").mean())
        grown = share_text(methods.means(arm, "rows_longer").mean())
        degrees = f"{angle:.0f}" if angle >= 10 else f"{angle:.2g}"
        turns.append(f"**{arm}** by {degrees}°, length changed by {longer} (in V {grown})")
    if not turns:
        return methods.why
    return f"{whose(methods)}Rows turned on average: {'; '.join(turns)}."


def high_rate_cost_line(methods: Result, near: Sequence[str]) -> str:
    """How much higher each method's test loss is at the rate that is too high than at its best;
    of tiny's runs where the profile has none at that rate.
    """
    high = [too_high(method) for method in near]
    known = with_arms(methods, *near, *high)
    costs = []
    for method in near:
        if not known.has(too_high(method)):
            continue
        more = known.means(too_high(method), "loss") - known.means(method, "loss")
        costs.append(f"{method} {mean_interval(more)}")
    if not costs:
        return known.why or fewer_line(known, high)
    return (
        f"{whose(known)}Test loss at the high rate minus at its own best rate: "
        f"{'; '.join(costs)} nats (each interval by itself, not tested)."
    )


def lengths_line(methods: Result, names: Sequence[str]) -> str:
    """How far m has moved, and where most. `names`: of the matrices (`matrices`)."""
    if not methods.has("DoRA"):
        return methods.why
    final = 100 * methods.values("DoRA", "longer").mean(0)  # (matrices,)
    most = names[int(final.argmax())]
    least = names[int(final.argmin())]
    in_v = 100 * methods.means("DoRA", "rows_longer").mean()
    lora = 100 * methods.means("LoRA", "longer").mean()
    return (
        f"{whose(methods)}After {steps_of(methods.profile)} steps m has moved by "
        f"{final.mean():#.2g}% on average, most in `{most}` ({final.max():#.2g}%), least in "
        f"`{least}` ({final.min():#.2g}%). The rows of V have changed their own length by "
        f"{in_v:#.2g}%, which is divided out and only scales later steps; LoRA's rows, at LoRA's "
        f"own rate, by {lora:#.2g}%, which is applied."
    )


def sign(result: Result, arm: str, metric: str) -> str:
    """The sign that the interval of an arm's metric shows; 0 where it holds zero, ? where the arm
    has no runs.
    """
    if not result.has(arm):
        return "?"
    interval = result.interval(arm, metric)
    if not interval.excludes(0):
        return "0"
    return "+" if np.sign(interval.mean) > 0 else "-"
