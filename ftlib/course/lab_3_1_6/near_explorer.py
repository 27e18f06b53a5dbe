"""The rule for near duplicates with handles for its settings: copies found, copies missed, and rows
accused that ask something else.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.course.explorable import Explorable, slider, switch
from ftlib.course.lab_3_1_6.near_copies import LENGTHS, THRESHOLDS, Likeness
from ftlib.course.plots import style

PUT_IN = 2  # tokens that a copy may have more, where the rule looks for that
SERIES = ("planted copies found", "copies kept out found", "other rows accused")


def _insertions(put_in: bool) -> int:
    return PUT_IN if put_in else 0


def describe(likeness: Likeness, length: int, threshold: float, put_in: bool) -> str:
    """What the rule does at these settings, in a line."""
    insertions = _insertions(put_in)
    planted, kept_out, _ = likeness.shares(length, threshold, insertions)
    accused = likeness.accused(length, threshold, insertions)
    return (
        f"found: {planted:.0%} of the planted copies, {kept_out:.0%} of those kept out; missed: "
        f"{1 - planted:.0%} and {1 - kept_out:.0%}; accused wrongly: {accused} of "
        f"{likeness.rows} rows"
    )


def draw(likeness: Likeness, length: int, threshold: float, put_in: bool) -> Figure:
    """Copies found by kind, and all three shares over the threshold; closed, so that a cell shows
    it once.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.4, 3.7), gridspec_kw={"width_ratios": [5, 6]}
    )
    _draw_kinds(left, likeness, length, threshold, put_in)
    _draw_thresholds(right, likeness, length, threshold, put_in)
    plt.close(figure)
    return figure


def _draw_kinds(ax: Axes, likeness: Likeness, length: int, threshold: float, put_in: bool) -> None:
    """A bar for each kind of copy, hatched where the kind was kept out of making the rule."""
    found = likeness.found(length, threshold, _insertions(put_in))
    for i, (kind, hits) in enumerate(found.items()):
        hatch = "" if kind == "planted" else "//"
        share = 100 * hits.mean()
        ax.barh(i, share, color="#9ecae1", edgecolor="black", hatch=hatch)
        ax.text(share + 1, i, f"{share:.0f}", va="center", fontsize=9)
    ax.set_yticks(range(len(found)), list(found))
    ax.invert_yaxis()
    ax.set(title="Copies found (hatched: kept out)", xlabel="copies found, %")
    ax.set_xlim(0, 112)


def _draw_thresholds(
    ax: Axes, likeness: Likeness, length: int, threshold: float, put_in: bool
) -> None:
    insertions = _insertions(put_in)
    rows = [likeness.shares(length, place, insertions) for place in THRESHOLDS]
    shares = 100 * np.array(rows)  # (thresholds, 3)
    for i, name in enumerate(SERIES):
        ax.plot(THRESHOLDS, shares[:, i], label=name, markevery=2, **style(i))
    ax.axvline(threshold, color="black", linestyle=":")
    ax.set(
        title=f"Shingles of {length}: found and accused",
        xlabel="Jaccard similarity from which a row is a copy",
        ylabel="%",
        ylim=(-3, 103),
    )
    ax.legend(fontsize="small", loc=(0.26, 0.2))


def near_rule(
    likeness: Likeness, length: int = 3, threshold: float = 0.8, put_in: bool = True
) -> Explorable:
    """The rule with its settings as handles; ftlib's own at first."""

    def show(length: int, threshold: float, put_in: bool) -> Figure:
        return draw(likeness, length, threshold, put_in)

    def say(length: int, threshold: float, put_in: bool) -> str:
        return describe(likeness, length, threshold, put_in)

    return Explorable(
        show,
        say,
        length=slider("tokens in a shingle", LENGTHS, length),
        threshold=slider("Jaccard from", THRESHOLDS, threshold),
        put_in=switch("or 1–2 tokens put in", put_in),
    )
