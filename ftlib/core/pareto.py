"""Which of several results are worth choosing among, where two or more goals conflict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

DIRECTIONS = ("higher", "lower")


def pareto_front(points: ArrayLike, better: Sequence[str] = ("higher", "lower")) -> list[int]:
    """Indices of the points that no other dominates, in the order given.

    `points` (n, goals), such as (accuracy learnt, nats forgotten) a run; `better`: for each goal
    whether "higher" or "lower" is. One point dominates another that is at least as good in every
    goal and better in one; equal points do not dominate each other. ValueError for values that are
    not finite, and for goals and directions that do not fit.
    """
    array = np.asarray(points, dtype=float)
    if array.ndim != 2 or not len(array) or array.shape[1] != len(better):
        raise ValueError(
            f"points: shape {array.shape}; pass (n, {len(better)}), one column for each of "
            f"better={tuple(better)!r}"
        )
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise ValueError(f"points[{row}] is {array[row].tolist()}: every value must be finite")
    signs = []
    for direction in better:
        if direction not in DIRECTIONS:
            raise ValueError(f"better={tuple(better)!r}: use {' or '.join(DIRECTIONS)} a goal")
        signs.append(1.0 if direction == "higher" else -1.0)
    goods = array * signs  # (n, goals), higher is better
    front = []
    for i, point in enumerate(goods):
        at_least = (goods >= point).all(1)  # (n,)
        above = (goods > point).any(1)
        if not (at_least & above).any():
            front.append(i)
    return front
