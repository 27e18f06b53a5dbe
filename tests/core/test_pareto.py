"""Pareto fronts, by hand."""

import numpy as np
import pytest

import ftlib as ft


def test_by_hand():
    """(accuracy, forgetting): b has a's accuracy and forgets less; d learns less and forgets more
    than c; e equals b, and neither dominates the other. a and d go.
    """
    points = {"a": (0.9, 0.5), "b": (0.9, 0.3), "c": (0.7, 0.1), "d": (0.6, 0.2), "e": (0.9, 0.3)}
    assert ft.pareto_front(list(points.values())) == [1, 2, 4]


def test_directions():
    """Lower and lower: (1, 2) and (2, 1) remain; higher and higher: (2, 2) alone."""
    points = [(1, 2), (2, 1), (2, 2)]
    assert ft.pareto_front(points, better=("lower", "lower")) == [0, 1]
    assert ft.pareto_front(points, better=("higher", "higher")) == [2]
    assert ft.pareto_front([[3.0], [5.0]], better=("higher",)) == [1]


def test_no_point_of_the_front_is_dominated_and_every_other_is():
    points = np.random.default_rng(0).normal(size=(60, 3))
    better = ("higher", "lower", "higher")
    front = ft.pareto_front(points, better)
    goods = points * [1, -1, 1]
    for i in range(60):
        dominated = any(
            (goods[j] >= goods[i]).all() and (goods[j] > goods[i]).any() for j in range(60)
        )
        assert dominated == (i not in front)
    assert 0 < len(front) < 60


@pytest.mark.parametrize(
    "points, better, word",
    [
        ([], ("higher", "lower"), "shape"),
        ([(1, 2, 3)], ("higher", "lower"), "shape"),
        ([1.0, 2.0], ("higher",), "shape"),
        ([(1, 2), (3, float("nan"))], ("higher", "lower"), r"points\[1\]"),
        ([(1, 2)], ("higher", "down"), "better"),
    ],
)
def test_bad_values(points, better, word):
    with pytest.raises(ValueError, match=word):
        ft.pareto_front(points, better)
