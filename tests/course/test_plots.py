"""Figures: what is drawn was given; bands and intervals show; series differ without colour."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from ftlib.core.stats import Interval
from ftlib.course import plots


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_curves_show_the_mean_and_the_spread_of_seeds():
    figure = plots.curves(
        {"a": ([1, 2, 4], [[1, 2, 3], [3, 4, 5]]), "b": ([1, 2, 4], [0, 0, 0])},
        "t",
        "x",
        "y",
        log_x=True,
    )
    ax = figure.axes[0]
    assert ax.lines[0].get_ydata().tolist() == [2, 3, 4] and len(ax.collections) == 1
    assert (
        (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("t", "x", "y")
        and ax.get_xscale() == "log"
        and ax.get_legend()
    )
    assert (
        ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()
        and ax.lines[0].get_marker() != ax.lines[1].get_marker()
    )


def test_fourteen_series_differ_without_colour():
    """Seven markers, filled and then hollow."""
    seen = set()
    for i in range(14):
        (line,) = plt.gca().plot([0], [0], **plots.style(i))
        filled = line.get_markerfacecolor() != "none"
        assert filled == (i < 7)
        seen.add((line.get_marker(), filled))
    assert len(seen) == 14


def test_bars_carry_their_figure_and_interval():
    ax = plots.bars(
        {"a": Interval(0.5, 0.25, 0.75), "b": 0.1, "c": [0.2, 0.4]}, "t", "y", percent=True
    ).axes[0]
    assert [round(p.get_height()) for p in ax.patches] == [50, 10, 30] and [
        t.get_text() for t in ax.texts
    ] == ["50%", "10%", "30%"]
    assert len({p.get_hatch() for p in ax.patches}) == 3


def test_grouped_bars_and_spectrum():
    ax = plots.grouped_bars(
        {"before": {"x": 0.1, "y": 0.2}, "after": {"x": 0.5}}, "t", "y", percent=True
    ).axes[0]
    assert (
        len(ax.patches) == 4
        and ax.patches[2].get_height() == 50
        and [t.get_text() for t in ax.get_xticklabels()] == ["x", "y"]
    )
    line = plots.spectrum({"w": np.array([2.0, 1.0, 1.0])}, "t").axes[0].lines[0]  # 4/6, 5/6, 6/6
    assert line.get_ydata() == pytest.approx([4 / 6, 5 / 6, 1]) and line.get_xdata().tolist() == [
        1,
        2,
        3,
    ]


def test_table():
    html = plots.table([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], "caption").data
    assert html.count("<tr>") == 3 and "caption" in html and "<th" in html


def test_a_table_without_rows_says_so():
    assert "nothing to show" in plots.table([], "caption").data


def test_memory_bars_are_as_high_as_the_plans():
    import ftlib as ft

    plans = {m: ft.plan_memory("llama-3.1-8b", m) for m in ("lora", "qlora")}
    ax = plots.memory_bars(plans).axes[0]
    for i, plan in enumerate(plans.values()):
        tops = [
            b.get_y() + b.get_height()
            for b in ax.patches
            if b.get_x() < i < b.get_x() + b.get_width()
        ]
        assert max(tops) == pytest.approx(plan.total / 1e9)
    lines = [line.get_ydata()[0] for line in ax.lines]
    assert lines == [24, 48, 80, 128] and "weights" in [
        t.get_text() for t in ax.get_legend().get_texts()
    ]


def test_a_memory_course_is_drawn_in_megabytes():
    course = [
        ("forward model.layers.0", 2_000_000),
        ("forward lm_head", 3_000_000),
        ("backward model.layers.0", 1_000_000),
    ]
    ax = plots.memory_course({"kept": course}).axes[0]
    assert ax.lines[0].get_ydata().tolist() == [2, 3, 1] and [
        t.get_text() for t in ax.get_xticklabels()
    ][:2] == ["0", "head"]


def test_the_frontier_goes_from_left_to_right_with_its_intervals():
    ax = plots.frontier(
        {
            "dpo": [(4.0, Interval(0.7, 0.6, 0.75)), (Interval(1.0, 0.5, 2.0), 0.6)],
            "simpo": [(2.0, 0.5)],
        }
    ).axes[0]
    line, _, bars = ax.containers[0]
    assert line.get_xdata().tolist() == [1, 4] and line.get_ydata() == pytest.approx([60, 70])
    assert bars[0].get_segments()[0][:, 0] == pytest.approx([0.5, 2]) and bars[1].get_segments()[1][
        :, 1
    ] == pytest.approx([60, 75])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["dpo", "simpo"]


def test_waterfall_counts_and_hatches():
    from ftlib.data.prepare import prepare

    done = prepare(
        [{"text": t} for t in "ab1c"], [lambda row: "digit" if row["text"].isdigit() else None]
    )
    ax = plots.waterfall(done).axes[0]
    assert (
        [(p.get_x(), p.get_width()) for p in ax.patches] == [(0, 4), (3, 1), (0, 3)]
        and ax.patches[1].get_hatch()
        and not ax.patches[0].get_hatch()
    )
    assert [t.get_text() for t in ax.texts] == ["4", "−1", "3"] and [
        t.get_text() for t in ax.get_yticklabels()
    ] == ["rows in", "<lambda>", "kept"]
