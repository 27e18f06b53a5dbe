"""What the runs of lab E6 say, read off by code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ftlib.core.stats import mean_interval
from ftlib.course.lab_e6.arms import ALIKE
from ftlib.course.lab_e6.first_apart import first_apart
from ftlib.course.lab_e6.ours import Adapter, Trained
from ftlib.course.lab_e6.pictures import differences
from ftlib.course.lab_e6.settings import TOLERANCE
from ftlib.course.records.live import Result
from ftlib.course.records.shown import whose

NEVER = "never"


def largest_gap(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest |difference| of two losses of one step, nats."""
    return max(abs(one - other) for one, other in zip(ours, theirs, strict=True))


def adapter_gap(ours: Adapter, theirs: Adapter) -> float:
    """The largest |difference| of two trained entries of A or B."""
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def parity_line(
    name: str, ours: Trained, theirs: Trained, first_apart: Callable = first_apart
) -> str:
    """Whether two runs are one, by their losses and by what they have trained."""
    gap = largest_gap(ours.losses, theirs.losses)
    entries = adapter_gap(ours.adapter, theirs.adapter)
    parted = first_apart(ours.losses, theirs.losses, TOLERANCE)
    if parted is None:
        verdict = f"**equal to {TOLERANCE:g} in all {len(ours.losses)} steps**"
    else:
        verdict = f"**different from step {parted} on**"
    return (
        f"{name} and ftlib: {verdict}; the largest difference in a step is {gap:.1e} nats, in an "
        f"entry of A or B after training {entries:.1e}. The loss goes from {ours.losses[0]:.4f} to "
        f"{ours.losses[-1]:.4f}."
    )


def parted_text(result: Result, arm: str) -> str:
    """The step at which an arm's runs part from ftlib's: the median, with the range over seeds."""
    steps = result.means(arm, "parted")
    last = result.values(arm, "gaps").shape[1]
    if steps.min() > last:
        return NEVER
    low, high = (_step(value, last) for value in (steps.min(), steps.max()))
    middle = _step(np.median(steps), last)
    return middle if low == high else f"{middle} ({low} to {high})"


def _step(value: float, last: int) -> str:
    return NEVER if value > last else f"{value:g}"


def cost_table(
    result: Result, metric: str = "test_loss", shares: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """A row each run: where it parts, how far it comes, and what it costs on held-out rows; of
    other metrics named in `shares` the mean in per cent.
    """
    rows = []
    for arm in result.arms:
        apart = result.means(arm, "apart")
        row = {
            "run": arm,
            "diverges at step": parted_text(result, arm),
            "largest difference in a step (nats)": f"{np.median(apart):.1e}",
            "held-out loss": f"{result.means(arm, metric).mean():.4f}",
            "minus that of all set alike": "",
        }
        if arm != ALIKE:
            interval = mean_interval(differences(result, arm, metric))
            row["minus that of all set alike"] = (
                f"{interval.mean:+.2g} [{interval.low:+.2g}, {interval.high:+.2g}]"
            )
        for share in shares:
            row[share] = f"{result.means(arm, share).mean():.0%}"
        rows.append(row)
    return rows


def first_losses(result: Result, arm: str) -> np.ndarray:
    """The loss of the first step of every seed, (seeds,)."""
    return result.values(arm, "losses")[:, 0]


def side_of(values: np.ndarray, place: float) -> str:
    """Whether all values lie "at" the place (within the tolerance), "above" it or "below" it; else
    "either".
    """
    if np.all(np.abs(values - place) <= TOLERANCE):
        return "at"
    if np.all(values > place):
        return "above"
    return "below" if np.all(values < place) else "either"


def first_loss_line(result: Result, arm: str) -> str:
    """The first loss of a run beside that of all set alike."""
    if not result.has(arm):
        return result.why
    losses = first_losses(result, arm)
    plain = first_losses(result, ALIKE).mean()
    return (
        f"{whose(result)}The loss of the first step, before any update: {plain:.4f} with "
        f"all set alike (ln 2 is {np.log(2):.4f}), between {losses.min():.2f} and "
        f"{losses.max():.2f} in the runs with {arm}."
    )


def partings_line(result: Result) -> str:
    """Which runs part at once, which when the first moved weights are seen, which later, which
    never.
    """
    if not result.arms:
        return result.why
    last = result.values(ALIKE, "gaps").shape[1]
    medians = {arm: float(np.median(result.means(arm, "parted"))) for arm in result.arms}
    groups = {
        "in step 1, before any update": [a for a, m in medians.items() if m == 1],
        "in steps 2 and 3": [a for a, m in medians.items() if 1 < m <= 3],
        "later": [a for a, m in medians.items() if 3 < m <= last],
        "never": [a for a, m in medians.items() if m > last],
    }
    texts = [f"{when}: {', '.join(arms)}" for when, arms in groups.items() if arms]
    return f"{whose(result)}Where they diverge (median of the seeds): " + "; ".join(texts) + "."


def gained_line(before: float, result: Result, arms: Sequence[str]) -> str:
    """Which share of what all set alike gains on held-out rows each of these runs gains. `before`:
    the held-out loss before training.
    """
    if not result.arms:
        return result.why
    whole = before - result.means(ALIKE, "test_loss").mean()
    texts = []
    for arm in arms:
        if result.has(arm):
            share = (before - result.means(arm, "test_loss").mean()) / whole
            texts.append(f"{arm} {share:.0%}")
    return (
        f"Before training the held-out loss is {before:.2f} nats per token; all set alike takes "
        f"{whole:.2f} off it. Share of this gain that each run reaches: {', '.join(texts)}."
    )
