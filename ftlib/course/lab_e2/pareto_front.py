"""Lab E2, forgetting, exercise 1: which results are worth choosing among."""

from __future__ import annotations

import torch

from ftlib.core.pareto import pareto_front as ftlibs_front
from ftlib.course.exercise import Exercise, Wrong


def pareto_front(points: list[tuple[float, float]]) -> list[int]:
    """Indices, in their order, of the points that no other dominates. points: (loss on the new
    task, forgotten on the old), both better when lower; one point dominates another that is no
    better in either and worse in one.
    """
    return ftlibs_front(points, ("lower", "lower"))


def _cases(g):
    yield ([(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (3.0, 3.0)],)
    # As good in one goal and worse in the other: dominated all the same.
    yield ([(1.0, 2.0), (1.0, 3.0), (2.0, 1.0), (4.0, 1.0)],)
    yield ([(2.0, 2.0), (2.0, 2.0), (1.0, 5.0)],)  # equal points do not dominate each other
    yield ([(5.0, 5.0)],)
    # In the middle of a bulge: on the front, though no straight weighing of the goals picks it.
    yield ([(0.0, 4.0), (3.0, 3.0), (4.0, 0.0)],)
    for count in (6, 12):
        drawn = torch.randint(0, 9, (count, 2), generator=g).tolist()
        yield ([(float(x), float(y)) for x, y in drawn],)


def _front(dominates):
    """A front by another notion of domination, of two points."""

    def pareto_front(points):
        found = []
        for i, one in enumerate(points):
            if not any(dominates(other, one) for j, other in enumerate(points) if j != i):
                found.append(i)
        return found

    return pareto_front


def _better(a, b):
    return a[0] <= b[0] and a[1] <= b[1] and a != b


def _by_sums(points):
    sums = [x + y for x, y in points]
    return [i for i, value in enumerate(sums) if value == min(sums)]


def _ends(points):
    lowest = [min(point[goal] for point in points) for goal in (0, 1)]
    return [i for i, (x, y) in enumerate(points) if x == lowest[0] or y == lowest[1]]


def _points_themselves(points):
    return [points[i] for i in pareto_front(points)]


FRONT = Exercise(
    name="pareto_front",
    title="The Pareto front",
    minutes=10,
    difficulty=2,
    reference=pareto_front,
    cases=_cases,
    hints=(
        "A point is off the front as soon as one other point dominates it: two loops.",
        "a dominates b if a is at most b in both goals, and a is not equal to b.",
        "[i for i, b in enumerate(points) if not any(a[0] <= b[0] and a[1] <= b[1] and a != b "
        "for a in points)]",
    ),
    wrong=(
        Wrong(
            "better in both",
            _front(lambda a, b: a[0] < b[0] and a[1] < b[1]),
            "You ask for *better in both*: a point that is equal in one goal and worse in the "
            "other is dominated too.",
        ),
        Wrong(
            "equal points",
            _front(lambda a, b: a[0] <= b[0] and a[1] <= b[1]),
            "Two equal points put each other off the front: neither is worse than the other, so "
            "both stay.",
        ),
        Wrong(
            "better in one",
            _front(lambda a, b: a[0] < b[0] or a[1] < b[1]),
            "You call a point dominated if another is better in *one* goal. Then hardly any point "
            "is left: in a trade-off every point is worse somewhere.",
        ),
        Wrong(
            "higher is better",
            _front(lambda a, b: a[0] >= b[0] and a[1] >= b[1] and a != b),
            "You treat higher as better: both numbers are losses.",
        ),
        Wrong(
            "first goal higher",
            _front(lambda a, b: a[0] >= b[0] and a[1] <= b[1] and a != b),
            "You treat a higher loss on the new task as better: lower is better, for it and for "
            "what is forgotten.",
        ),
        Wrong(
            "smallest sum",
            _by_sums,
            "You add the two goals: that picks one point, for one price of forgetting. The front "
            "has the best points for every price, and where it bulges even points that no price "
            "picks.",
        ),
        Wrong(
            "the two ends",
            _ends,
            "You keep the points that are best in one of the goals: those are the front's two "
            "ends. The points between them are missing (or, with ties, you keep too many).",
        ),
        Wrong(
            "the points",
            _points_themselves,
            "You return the points: return their indices.",
        ),
    ),
)
