"""The planner: moving a handle changes the shown total to plan_memory's; a picture remains without
widgets.
"""

import pytest
from IPython.utils.capture import capture_output

import ftlib as ft
from ftlib.course.memory_planner import START, describe, planner
from ftlib.training.memory_plan import PlanError

MOVES = {
    "model": "llama-3.1-8b",
    "method": "full",
    "loss": "dpo",
    "r": 64,
    "batch_size": 16,
    "seq_len": 8192,
    "gradient_checkpointing": False,
}


def test_every_handle_moves_the_total_to_that_of_the_plan():
    made = planner()
    settings = dict(START)
    assert made.controls.keys() == MOVES.keys()
    for name, value in MOVES.items():
        made.controls[name].value = value
        settings[name] = value
        want = ft.plan_memory(
            settings["model"], **{k: v for k, v in settings.items() if k != "model"}
        )
        assert made.plan == want
        assert f"{want.total / 1e9:.1f} GB" in made.headline.value
    totals = {describe(planner().plan), made.headline.value}
    assert len(totals) == 2


def test_capacities():
    """Weights of n bytes and nothing else: the plan fits where n is at most the capacity, the edge
    included.
    """

    def plan(size):
        return ft.MemoryPlan("m", {"weights": size})

    assert describe(plan(24 * 10**9)) == "24.0 GB: fits 24 GB, 48 GB, 80 GB, 128 GB"
    assert describe(plan(24 * 10**9 + 1)) == "24.0 GB: fits 48 GB, 80 GB, 128 GB"
    assert describe(plan(129 * 10**9)) == "129.0 GB: more than 128 GB"


def test_a_start_beside_the_steps_of_a_slider_and_a_bad_one():
    made = planner(r=12, seq_len=3000)
    assert made.plan.settings["r"] == 12 and made.plan.settings["seq_len"] == 3000
    assert list(made.controls["r"].options) == sorted(
        made.controls["r"].options, key=lambda o: o if isinstance(o, int) else o[1]
    )
    with pytest.raises(ValueError, match="planner has no handle rank: use model"):
        planner(rank=3)
    with pytest.raises(PlanError, match="method='lorra'"):
        planner(method="lorra")


def test_the_figure_says_what_the_plan_says():
    from ftlib.course.memory_planner import draw

    plan = ft.plan_memory("llama-3.1-70b", "qlora", r=16)
    axes = draw(plan).axes[0]
    assert axes.get_title() == f"llama-3.1-70b: {describe(plan)}" and axes.get_ylabel() == "GB"
    height = max(patch.get_y() + patch.get_height() for patch in axes.patches)
    assert height == pytest.approx(plan.total / 1e9)
    assert {"24 GB", "48 GB", "80 GB", "128 GB"} <= {t.get_text() for t in axes.texts}
    labels = [t.get_text() for t in axes.get_legend().get_texts()]
    assert f"{plan.parts['weights'] / 1e9:.1f}  weights" in labels


def test_shown_as_handles_and_a_figure_that_moves(monkeypatch):
    """The figure is shown with a display id, and a moved handle updates that one."""
    from IPython.core.interactiveshell import InteractiveShell

    from ftlib.course import memory_planner

    InteractiveShell.instance()
    drawn = []
    monkeypatch.setattr(
        memory_planner, "draw", lambda plan: drawn.append(plan.total) or f"figure of {plan.total}"
    )
    made = planner()
    with capture_output() as shown:
        made._ipython_display_()
        made.controls["r"].value = 256
    texts = [o.data.get("text/plain", "") for o in shown.outputs]
    assert "VBox" in texts[0] and drawn[0] != drawn[1] == made.plan.total
    assert f"figure of {drawn[0]}" in texts[1]
    assert "45.4 GB: fits 48 GB" in repr(planner())
