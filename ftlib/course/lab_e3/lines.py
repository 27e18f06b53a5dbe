"""What the experiments of lab E3 say, read off by code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ftlib.course.records.live import Result

LETTERS = {"below": "a", "none": "b", "above": "c", "open": "?"}


def letters(result: Result, claims: Sequence[str]) -> str:
    """A letter a claim: a below, b no difference shown, c above."""
    return "".join(LETTERS[result.outcome(claim)] for claim in claims)


def rate_text(rate: float) -> str:
    return f"{rate:.2g}"


def methods_table(result: Result) -> list[dict[str, str]]:
    """A row a method: its size, parameters, rate, and what was learnt and forgotten."""
    rows = []
    for method in result.arms:
        settings = result.settings(method)
        size = "–" if method == "(IA)³" else str(settings["size"])
        rows.append(
            {
                "method": method,
                "size": size,
                "parameters": f"{result.means(method, 'trainable')[0]:,.0f}",
                "rate": rate_text(settings["lr"]),
                "test loss (nats)": f"{result.interval(method, 'loss')}",
                "right": result.interval(method, "right").as_share(),
                "forgotten after a prompt": f"{result.interval(method, 'forgotten')}",
                "forgotten, whole texts": f"{result.interval(method, 'forgotten_whole')}",
            }
        )
    return rows


def rows_table(result: Result) -> list[dict[str, str]]:
    """A row a kind of R and a rate."""
    rows = []
    for arm in result.arms:
        missed = result.means(arm, "missed").mean()
        rows.append(
            {
                "R": arm,
                "rate": rate_text(result.settings(arm)["lr"]),
                "test loss (nats)": f"{result.interval(arm, 'loss')}",
                "|R Rᵀ − I| at the end": f"{result.means(arm, 'apart_last').mean():.2g}",
                "distance of R h' from W h + b": f"{missed:.2g} of the change",
                "loss with edits rotated (nats)": f"{result.means(arm, 'turned_loss').mean():.2f}",
            }
        )
    return rows


def positions_table(result: Result) -> list[dict[str, str]]:
    """A row a choice of positions."""
    rows = []
    for place in result.arms:
        rows.append(
            {
                "positions": place,
                "rate": rate_text(result.settings(place)["lr"]),
                "test loss (nats)": f"{result.interval(place, 'loss')}",
                "forgotten (nats)": f"{result.interval(place, 'forgotten')}",
            }
        )
    return rows


def order_line(result: Result) -> str:
    """The methods by mean test loss, lowest first."""
    means = {arm: float(result.means(arm, "loss").mean()) for arm in result.arms}
    ordered = sorted(means, key=means.__getitem__)
    return ", ".join(f"{arm} {means[arm]:.3f}" for arm in ordered)


def ratio_text(times: Mapping[str, np.ndarray], way: str, column: int, base: str) -> str:
    """The median and the middle half of a way's times over the base's of the same turn."""
    ratios = times[way][:, column] / times[base][:, column]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
