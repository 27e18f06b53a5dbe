"""Section 12 of lab 3.1.4: the table of methods, and what weighs most in its loss."""

from __future__ import annotations

from collections.abc import Sequence

from ftlib.course.lab_3_1_4 import trials
from ftlib.course.records.live import Result

COSTS = ("trainable", "weights_mb", "optimizer_mb", "step_mb", "step_ms")


def method_rows(methods: Result, costs: Result, shown: Sequence[str]) -> list[dict[str, str]]:
    """A line a method: right answers, what it forgot, and what a step takes where that was
    recorded in the same profile.
    """
    rows = []
    for method in shown:
        row = {"method": method, "right (end)": methods.interval(method, "right").as_share()}
        row["forgot (nats)"] = str(methods.interval(method, "forgotten"))
        if costs.profile == methods.profile:
            row |= _cost_columns(costs, method)
        rows.append(row)
    return rows


def _cost_columns(costs: Result, method: str) -> dict[str, str]:
    columns = {}
    for name in COSTS:
        label = costs.experiment.metric(name).label
        value = costs.means(method, name).mean() if costs.has(method) else float("nan")
        columns[label] = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return columns


def rows_title(methods: Result) -> str:
    """How long the runs of the table are, and whose they are where the session has another
    profile.
    """
    profile = methods.profile
    steps = f"{trials.short_steps(profile)} steps of {trials.short_batch(profile)} rows"
    whose = f" ({profile.name})" if methods.shown_in else ""
    return f"{steps}, each at its best rate{whose}"


def heaviest_line(methods: Result, tokenizer) -> str:
    """The family with most of the answer tokens in the golden loss; `tokenizer` is the session's,
    which counts where the runs are its profile's own.
    """
    profile = methods.profile
    if methods.shown_in:
        _, tokenizer = trials.fresh_base(profile)
    golden = trials.golden_rows(profile)[: trials.ASKED]
    weights = trials.answer_shares(profile, tokenizer, golden)
    heaviest = max(weights, key=weights.__getitem__)
    return (
        f"Of the answer tokens in this loss {100 * weights[heaviest]:.0f}% "
        f"are of the family `{heaviest}`, one of {len(weights)}."
    )
