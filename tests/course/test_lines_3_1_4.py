"""The lines of lab 3.1.4 beside its claims say what the runs hold, and that there are none."""

import numpy as np
import pytest

from ftlib.core.profiles import get_profile
from ftlib.course.lab_3_1_4 import form_readings, form_trials, lines, pictures, trials
from ftlib.course.lab_3_1_4.marker_readings import UNTIED, marker_arm
from ftlib.course.records.experiment import find_experiment
from ftlib.course.records.live import Result
from ftlib.course.records.store import Entry, Record

TINY = get_profile("tiny")


def result_of(name, metrics_of, seeds=5):
    """A result whose every run is metrics_of(arm, seed); empty without seeds."""
    experiment = find_experiment("3.1.4", name)
    record = Record("3.1.4", name, "tiny")
    for arm in experiment.arms(TINY):
        for seed in range(seeds):
            record.entries[arm, seed] = Entry(arm, seed, {}, metrics_of(arm, seed), 1.0, {})
    return Result(experiment, TINY, record, {}, True, "no runs", 0.0)


def markers(right):
    """Runs of which each arm has the share right[arm] of ten answers right, and more by seed."""

    def metrics(arm, seed):
        hits = right.get(arm, 5) + seed % 2
        return {"right": [1.0] * hits + [0.0] * (10 - hits), "stopped": [1.0], "loss": 0.5}

    return result_of("markers", metrics)


TURNS, STOP = marker_arm("spare", "own"), marker_arm("own", "spare")


@pytest.mark.parametrize("turns, stop, said", [(5, 2, "stop"), (2, 5, "turns"), (4, 4, "no")])
def test_a_marker_costs_more_only_where_the_interval_leaves_zero_out(turns, stop, said):
    assert pictures.costlier(markers({TURNS: turns, STOP: stop})) == said


def test_no_marker_is_graded_on_no_runs():
    assert pictures.costlier(result_of("markers", None, seeds=0)) == "open"


def test_the_renamed_stop_is_held_against_the_third_arm():
    alike = lines.markers_line(markers({TURNS: 4, UNTIED: 4}))
    assert f"*{TURNS}* are equal" in alike and "no difference shown" not in alike
    assert f"*{TURNS}* are not equal" in lines.markers_line(markers({TURNS: 4, UNTIED: 5}))


def form_runs(arm, seed):
    """The prompt of others is right in every family but the largest, where own rows are right."""
    tested = form_trials.asked_families(TINY, seed)
    rows = form_trials.of_families(form_trials.golden_rows(TINY), tested)
    own = arm == form_readings.OWN_SHOWN
    right = [float((row["family"] == "person") == own) for row in rows]
    return {"right": right, "form": right}


def test_each_family_counts_once_in_the_mean_of_families():
    form = result_of("form", form_runs)
    for seed, shares in enumerate(lines.shares_by_family(form, TINY, form_readings.OWN_SHOWN)):
        assert sorted(shares) == form_trials.asked_families(TINY, seed)
        assert all(share == float(family == "person") for family, share in shares.items())
    assert "`person` gains most (0% to 100%)" in lines.prompt_families_line(form)
    assert len(lines.by_family_rows(form)) == len(lines.COMPARED)


def test_a_gap_of_scores_is_weighed_by_the_golden_sets_families():
    alike = {"a": [1.0] * 20, "b": [0.0, 1.0] * 10, "c": [0.0]}
    golden = {"a": [1.0] * 30, "b": [0.0] * 10}
    gap = lines.weighed_gap(alike, golden)
    assert gap.mean == pytest.approx(0.25 * 0.5)
    assert 0.0 <= gap.low < gap.mean < gap.high < 0.25


def test_lines_without_runs_say_so():
    for name, said in (
        ("markers", lines.markers_line),
        ("form", lines.gains_line),
        ("form", lines.form_line),
        ("methods", lines.half_rate_line),
    ):
        assert said(result_of(name, None, seeds=0)) == "no runs"
    methods = result_of("methods", None, seeds=0)
    assert lines.beside_loss_line(methods, trials.BOTTLENECK) == "no runs"
    assert lines.last_looks_line(methods, ["LoRA"]) == "no runs"
    assert lines.by_family_rows(result_of("form", None, seeds=0)) == []


def test_a_factor_is_a_geometric_mean():
    def metrics(arm, seed):
        rise = 0.02 if arm == "LoRA" else 0.01
        return {"loss": 0.1 * (seed + 1), "forgotten": rise * (seed + 1), "right": [1.0]}

    line = lines.half_rate_line(result_of("methods", metrics))
    assert "it forgets 0.5 [0.5, 0.5] times as much" in line
    assert "LoRA forgets 2 [2, 2] times as much as full fine-tuning" in line


def test_a_factor_that_the_difference_does_not_bear_out_is_called_a_hint():
    """A fifth more in every seed: of amounts that differ a thousandfold the difference is open."""

    def metrics(arm, seed):
        factor = 1.2 if arm == "LoRA" else 1.0
        forgotten = 1.0 if seed == 0 else 0.001
        return {"loss": 0.1, "forgotten": factor * forgotten, "right": [1.0]}

    assert "take it as a hint" in lines.half_rate_line(result_of("methods", metrics))

    def alike(arm, seed):
        return {**metrics(arm, seed), "forgotten": 0.02 if arm == "LoRA" else 0.01}

    assert "hint" not in lines.half_rate_line(result_of("methods", alike))


def test_there_is_no_factor_of_what_forgets_nothing():
    """The base's text can come out a little better after training: then the difference is told."""

    def metrics(arm, seed):
        rise = 0.02 if arm == "LoRA" else -0.01
        return {"loss": 0.1 * (seed + 1), "forgotten": rise, "right": [1.0]}

    line = lines.half_rate_line(result_of("methods", metrics))
    assert "nan" not in line
    assert "LoRA forgets 0.03 [0.03, 0.03] nats per token more than full fine-tuning" in line


def test_methods_are_listed_by_their_memory():
    def metrics(arm, seed):
        size = 1.0 if arm == "QLoRA" else 2.0
        return {"weights_mb": size, "optimizer_mb": size, "step_mb": size}

    line = lines.memory_line(result_of("costs", metrics, 1), {"b": 2e9, "a": 1e9}, 16e9)
    assert "here: QLoRA 3 MB, " in line and "a 1.0 GB, b 2.0 GB" in line


def test_reads_of_a_row_are_counted_from_steps_and_rows():
    right = [0.2, 0.7, 0.6, 0.5, 0.4]
    few = result_of("few", lambda arm, seed: {"held_out_right": right})
    steps = np.array(form_trials.few_places(TINY)) * trials.short_batch(TINY)
    line = lines.rereading_line(few)
    assert f"{steps[1] / form_trials.FEW:.1f} times, 40% after" in line
