"""The figures on intervals: a miss looks otherwise than a hit, in colour and in black and white."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import ftlib as ft
from ftlib.course import interval_plots


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def looks(ax) -> set[tuple]:
    """(colour, marker) of every line that has a marker."""
    return {
        (line.get_color(), line.get_marker()) for line in ax.lines if line.get_marker() != "None"
    }


def test_repeated_experiments_show_and_count_their_misses():
    """Around 0: (-1, 0, 1) holds it; (9, 10, 11) is 10 ± 2.5 and misses."""
    experiments = {"3 seeds": np.array([[-1, 0, 1], [9, 10, 11], [-2, 0, 2]])}
    figure = interval_plots.repeated_intervals(experiments, 0, "loss (nats)")
    (ax,) = figure.axes
    assert ax.get_title() == "3 seeds: 1 of 3 miss" and ax.get_xlabel() == "loss (nats)"
    first = ft.mean_interval([-1, 0, 1])
    assert ax.lines[0].get_xdata() == pytest.approx([first.low, first.high])
    assert ax.lines[1].get_xdata() == [0]
    colours, markers = zip(*looks(ax), strict=True)
    assert len(set(colours)) == len(set(markers)) == 2
    assert {line.get_linestyle() for line in ax.lines} >= {"-", "--"}


def test_a_panel_for_each_number_of_seeds():
    rng = np.random.default_rng(0)
    experiments = {f"{n} seeds": rng.normal(2, 0.1, (20, n)) for n in (3, 5, 10)}
    figure = interval_plots.repeated_intervals(experiments, 2, "x")
    assert [ax.get_title().partition(":")[0] for ax in figure.axes] == list(experiments)
    assert len({ax.get_xlim() for ax in figure.axes}) == 1  # one scale, so that widths compare


def test_pairing_draws_both_intervals_and_says_what_they_hold():
    a = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    b = a + np.array([0.4, 0.5, 0.6, 0.5, 0.5])
    figure = interval_plots.pairing(a, b, ("A", "B"), "nats")
    left, right = figure.axes
    assert len(left.lines) == 5 + 2  # a line a seed, the runs of each method
    paired = ft.paired_difference(a, b)
    drawn = right.lines[2].get_xdata()
    assert drawn == pytest.approx([paired.low, paired.high])
    assert [tick.get_text() for tick in right.get_yticklabels()] == [
        "unpaired\nholds 0",
        "paired\nleaves 0 out",
    ]
    assert right.get_title() == "Pairing narrows the interval"
    assert "nats" in left.get_ylabel() and "nats" in right.get_xlabel()


def test_where_seeds_have_nothing_in_common_pairing_may_narrow_nothing():
    figure = interval_plots.pairing([1, 2, 3], [3, 2, 1], ("A", "B"), "nats")
    assert figure.axes[1].get_title() == "Here pairing narrows nothing"


def test_items_are_to_be_averaged_first():
    with pytest.raises(ValueError, match=r"shape \(3, 2\): pass one number per seed"):
        interval_plots.pairing(np.ones((3, 2)), np.ones((3, 2)), ("A", "B"), "nats")


def test_runs_without_any_spread():
    figure = interval_plots.pairing([2, 2, 2], [2, 2, 2], ("A", "B"), "nats")
    labels = [tick.get_text() for tick in figure.axes[1].get_yticklabels()]
    assert labels == ["unpaired\nholds 0", "paired\nholds 0"]


def test_welchs_interval_by_hand():
    """(0, 2) and (1, 3): means 1 and 2, both variances 2, the error √(2/2 + 2/2) = √2, and
    (1 + 1)²/(1/1 + 1/1) = 2 degrees of freedom, where t = 4.3027: -1 ± 6.085.
    """
    found = interval_plots._welch(np.array([0.0, 2.0]), np.array([1.0, 3.0]), 0.95)
    half = 4.302653 * 2**0.5
    assert (found.mean, found.low, found.high) == pytest.approx((-1, -1 - half, -1 + half))
