"""Records: what is computed is kept, what has changed is named, what was killed goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import toy_experiments as toy

from ftlib.cli import main
from ftlib.core.errors import DataError
from ftlib.core.profiles import get_profile
from ftlib.course import catalogue
from ftlib.course.records import again, digest, figures, report, restamp, store
from ftlib.course.records.again import compute_again, disagreements, draw_entries
from ftlib.course.records.compute import RecordingError, record_experiment, record_labs, run_trial
from ftlib.course.records.digest import code_digest, input_digests, profile_values
from ftlib.course.records.experiment import (
    LIVE_SEED,
    Metric,
    experiments_of,
    fewer_where_runs_are_long,
    find_experiment,
    level,
)
from ftlib.course.records.live import Result, open_experiments
from ftlib.course.records.report import claims_table, state_table
from ftlib.course.records.restamp import restamp_labs
from ftlib.course.records.scales import (
    ALIKE,
    GAINED,
    LOST,
    NEITHER,
    TURNED,
    Pair,
    scales_table,
)
from ftlib.course.records.store import Entry, add_entries, best_arm, read_record, to_compute

TINY = get_profile("tiny")
(TOY,) = toy.EXPERIMENTS


@pytest.fixture(autouse=True)
def toy_lab(tmp_path, monkeypatch):
    """Lab 3.1.1's experiments are the toy's, and records lie in a folder of the test."""
    monkeypatch.setattr(store, "RECORDS", tmp_path)
    monkeypatch.setattr(catalogue, "experiments_module", toy.toy_module)
    monkeypatch.setattr(digest, "COURSE", "toy_experiments")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    monkeypatch.delenv("FTLIB_LIVE", raising=False)


def filled(seeds: int = 10) -> store.Record:
    """The toy's record, made in this process."""
    record = read_record("3.1.1", "offsets", TINY)
    made = {"device": "here", **store.conditions(TOY, TINY)}
    entries = []
    for job in to_compute(record, TOY, TINY, seeds):
        metrics = run_trial(TOY, TINY, job.seed, job.settings)
        entries.append(Entry(job.arm, job.seed, job.settings, metrics, 0.1, made))
    add_entries(record, TOY, entries)
    return record


# --- what is kept ---------------------------------------------------------------------------------
def test_two_processes_compute_what_one_trial_gives():
    """Seed by seed, in the file and in the record that comes back; a second call has nothing to
    do.
    """
    record = record_experiment("3.1.1", TOY, TINY, seeds=3, processes=2, show=False)
    again = read_record("3.1.1", "offsets", "tiny")
    assert again.entries == record.entries and len(again.entries) == 9
    for (arm, seed), entry in again.entries.items():
        settings = TOY.arms(TINY)[arm]
        assert entry.metrics == run_trial(TOY, TINY, seed, settings)
        assert entry.made["torch"] and entry.made["device"] and entry.made["commit"]
    assert to_compute(again, TOY, TINY, 3) == []
    assert len(to_compute(again, TOY, TINY)) == 21  # ten seeds are the experiment's own


def test_the_file_has_one_line_an_entry_and_reads_without_ftlib(tmp_path):
    filled(2)
    file = tmp_path / "tiny" / "3.1.1-offsets.json"
    lines = file.read_text(encoding="utf-8").splitlines()
    assert sum('{"arm": ' in line for line in lines) == 6
    content = json.loads("\n".join(lines))
    assert content["metrics"]["loss"] == "held-out loss (nats)"
    assert len(content["made"]) == 1 and content["entries"][0]["made"] == 0
    (row, *_) = read_record("3.1.1", "offsets", "tiny").table()
    assert row["arm"] == "arm 0" and row["spread"] == 0.1 and "loss" in row and row["device"]


def test_numbers_keep_six_digits_and_must_be_finite():
    assert store.rounded({"a": np.float32(1 / 3), "b": [np.int64(3), 2 / 3]}) == {
        "a": 0.333333,
        "b": [3.0, 0.666667],
    }
    with pytest.raises(DataError, match="a metric is nan"):
        store.rounded([float("nan")])


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "tiny" / "3.1.1-offsets.json"
    file.parent.mkdir()
    file.write_text("{}")
    with pytest.raises(DataError, match=r"3.1.1-offsets.json is no record"):
        read_record("3.1.1", "offsets", "tiny")


def test_entries_of_another_process_are_not_lost():
    one = read_record("3.1.1", "offsets", TINY)
    filled(1)
    add_entries(one, TOY, [Entry("arm 0", 5, {}, {}, 0.1, {})])
    assert len(read_record("3.1.1", "offsets", TINY).entries) == 4


def test_arms_that_the_experiment_no_longer_has_are_dropped():
    record = filled(1)
    fewer = replace(TOY, arms=lambda profile: {"arm 1": {"arm": 1.0, "spread": 0.1}})
    add_entries(record, fewer, [])
    assert [arm for arm, _ in record.entries] == ["arm 1"]


# --- what is stale --------------------------------------------------------------------------------
def whys(experiment=TOY, profile=TINY) -> set[str]:
    record = read_record("3.1.1", "offsets", TINY)
    return {job.why for job in to_compute(record, experiment, profile, 2)}


def test_nothing_is_stale_when_nothing_has_changed():
    filled(2)
    assert whys() == set()


def test_a_changed_function_or_constant_that_the_trial_uses_is_named(monkeypatch):
    filled(2)
    monkeypatch.setattr(toy, "OFFSET", 2.0)
    assert whys() == {"the trial's code has changed"}


def test_changed_rows_are_named():
    filled(2)
    other = replace(TOY, inputs=lambda profile: {"rows": [{"text": "c"}]})
    assert whys(other) == {"its input 'rows' has changed"}


def test_changed_settings_are_named_with_both_values():
    filled(2)
    wider = {"arm 0": {"arm": 0.0, "spread": 0.5}}
    assert whys(replace(TOY, arms=lambda profile: wider)) == {
        "its setting 'spread' was 0.1 and is 0.5"
    }


def test_a_changed_value_of_the_profile_is_named_if_the_trial_reads_it():
    filled(2)
    longer = replace(TINY, study=replace(TINY.study, steps=7), max_new_tokens=1)
    assert whys(profile=longer) == {"its profile's 'study.steps' was 100 and is 7"}
    assert profile_values(toy.trial, TINY) == {"study.steps": 100}


def test_comments_docstrings_and_blank_lines_do_not_count():
    source = 'def f(x):\n    """One."""\n\n    # why\n    return x  # so\n'
    bare = "def f(x):\n    return x\n"
    assert digest._without_remarks(source) == bare.rstrip()
    assert "#" in digest._without_remarks('def f():\n    return "# not a comment"\n')


def test_the_digest_follows_helpers_and_not_the_library(monkeypatch):
    before = code_digest(toy.trial)
    monkeypatch.setattr(toy, "offset_of", toy.measured)
    assert code_digest(toy.trial) != before


def test_inputs_are_rows_files_and_names(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"1")
    first = input_digests({"a": file, "b": [{"x": 1}], "c": "nobody/no-model"})
    file.write_bytes(b"2")
    second = input_digests({"a": file, "b": [{"x": 1}], "c": "nobody/no-model"})
    assert first["a"] != second["a"] and first["b"] == second["b"]
    assert first["c"] == "hub:nobody/no-model"
    with pytest.raises(ValueError, match="an input is 3"):
        input_digests({"d": 3})


# --- failures and interruptions -------------------------------------------------------------------
@pytest.mark.parametrize(
    "variable, said", [("TOY_FAILS", "RuntimeError: out of luck"), ("TOY_DIES", "exit code 9")]
)
def test_a_run_that_fails_is_named_and_costs_no_other(variable, said, monkeypatch):
    monkeypatch.setenv(variable, "1.0 0")
    with pytest.raises(RecordingError, match=f"1 of 6 entries failed: arm 1, seed 0: .*{said}"):
        record_experiment("3.1.1", TOY, TINY, seeds=2, processes=2, show=False)
    assert len(read_record("3.1.1", "offsets", TINY).entries) == 5


def test_a_killed_recording_goes_on_where_it_was(tmp_path):
    """kill -9 of the command: its workers end too, the file is whole, and the next call computes
    what is left.
    """
    environment = {**os.environ, "TOY_SECONDS": "0.3"}
    command = [sys.executable, toy.__file__, str(tmp_path)]
    file = tmp_path / "tiny" / "3.1.1-offsets.json"
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    until = time.monotonic() + 60
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 10
    while _group_lives(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _group_lives(process.pid)
    some = len(read_record("3.1.1", "offsets", TINY).entries)
    assert 1 <= some < 30
    record = record_experiment("3.1.1", TOY, TINY, processes=2, show=False)
    assert len(record.entries) == 30


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_trial_without_a_promised_metric_is_refused():
    other = replace(TOY, metrics=(*TOY.metrics, Metric("speed", "speed")))
    with pytest.raises(ValueError, match="returns no speed"):
        run_trial(other, TINY, 0, {"arm": 0.0, "spread": 0.1})


def test_a_recording_sees_none_of_the_users_own_runs(tmp_path, monkeypatch):
    """An adapter that a lab has left in runs/ would be the start of a trial, and of no one
    else's.
    """
    (tmp_path / "own" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "own")
    assert run_trial(TOY, TINY, 0, {"arm": 0.0, "spread": 0.1})["sees_own_runs"]
    record_labs(["3.1.1"], "tiny", seeds=1, processes=1)
    entries = read_record("3.1.1", "offsets", "tiny").entries.values()
    assert [entry.metrics["sees_own_runs"] for entry in entries] == [False] * 3
    (drawn,) = draw_entries(["3.1.1"], TINY, 1, "a commit", 10.0)
    assert not compute_again(drawn, TINY)["sees_own_runs"]
    assert Path.cwd() == tmp_path / "own"


# --- computed again -------------------------------------------------------------------------------
def test_an_entry_comes_out_again_and_another_does_not():
    filled()
    drawn = draw_entries(["3.1.1"], TINY, 5, "a commit", 1.0)
    assert len(drawn) == 1  # one an experiment
    metrics = compute_again(drawn[0], TINY)
    assert metrics == drawn[0].entry.metrics and not disagreements(drawn[0], metrics)
    (said,) = disagreements(drawn[0], metrics | {"loss": metrics["loss"] + 5})
    of_machine = tuple(replace(metric, of_machine=True) for metric in TOY.metrics)
    timed = replace(drawn[0], experiment=replace(TOY, metrics=of_machine))
    assert not disagreements(timed, metrics | {"loss": metrics["loss"] + 5})
    assert said.startswith(f"3.1.1 offsets (tiny), {drawn[0].entry.arm}, seed")
    others = [draw_entries(["3.1.1"], TINY, 1, f"commit {i}", 1.0)[0].name for i in range(9)]
    assert len(set(others)) > 3
    assert draw_entries(["3.1.1"], TINY, 1, "a commit", 0.01) == []


def test_arms_that_measure_rounding_are_not_held_against_another_machine(monkeypatch):
    filled()
    rounded = replace(TOY, rounded=("arm 0", "arm 2"))
    monkeypatch.setattr(again, "experiments_of", lambda lab: [rounded])
    for commit in range(9):
        (drawn,) = draw_entries(["3.1.1"], TINY, 1, f"commit {commit}", 1.0)
        assert drawn.entry.arm == "arm 1"


def test_unknown_names_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"lab '9\.9' is unknown"):
        experiments_of("9.9")
    with pytest.raises(ValueError, match=r"'rates': lab 3\.1\.1 has the experiments offsets"):
        find_experiment("3.1.1", "rates")
    with pytest.raises(ValueError, match=r"experiment 'rates' is unknown in 3\.1\.1"):
        record_labs(["3.1.1"], "tiny", ["rates"])


def test_the_command_shows_what_is_there_and_what_each_claim_came_to(capsys):
    assert main(["record", "3.1.1", "--state", "--profile", "tiny"]) == 0
    assert "| 3.1.1 | offsets | 3 | 10 | 0 | 30: not computed yet |" in capsys.readouterr().out
    filled()
    assert main(["record", "3.1.1", "--claims", "--profile", "tiny"]) == 0
    out = capsys.readouterr().out
    assert "| loss, arm 1 − arm 0 | above | above: " in out and " nats | 10 | yes |" in out


# --- in the notebook ------------------------------------------------------------------------------
def test_the_best_arm_is_the_recorded_one_or_the_default():
    arms = ["arm 1", "arm 0"]
    assert best_arm("3.1.1", "offsets", "loss", arms, "arm 1", TINY) == "arm 1"
    filled(2)
    assert best_arm("3.1.1", "offsets", "loss", arms, "arm 1", TINY) == "arm 0"


def test_of_arms_that_tie_the_first_is_taken():
    filled(2)
    record = read_record("3.1.1", "offsets", TINY)
    means = [record.values(f"arm {i}", "loss").mean() for i in (0, 1)]
    gap = means[1] / means[0] - 1
    arms = ["arm 1", "arm 0"]
    assert gap > 0
    assert best_arm("3.1.1", "offsets", "loss", arms, "arm 0", TINY, 1.01 * gap) == "arm 1"
    assert best_arm("3.1.1", "offsets", "loss", arms, "arm 1", TINY, 0.99 * gap) == "arm 0"
    assert best_arm("3.1.1", "offsets", "loss", arms[::-1], "arm 1", TINY, 1.01 * gap) == "arm 0"
    half = means[0] / 2  # from there the same gap is twice as large a share
    options = {"profile": TINY, "zero": half}
    near = best_arm("3.1.1", "offsets", "loss", arms, "arm 0", tie=2.02 * gap, **options)
    far = best_arm("3.1.1", "offsets", "loss", arms, "arm 1", tie=1.98 * gap, **options)
    assert (near, far) == ("arm 1", "arm 0")


def test_runs_with_unlike_numbers_of_items_have_means_and_no_table():
    """Each seed asks as many questions as its families have."""
    record = store.Record("3.1.1", "offsets", "tiny")
    for seed, right in enumerate(([1.0, 0.0], [1.0, 1.0, 0.0, 1.0])):
        record.entries["arm 0", seed] = Entry("arm 0", seed, {}, {"right": right}, 0.1, {})
    assert record.means("arm 0", "right").tolist() == [0.5, 0.75]
    with pytest.raises(DataError, match=r"'right' of arm 0 has 2 to 4 items a seed: use means"):
        record.values("arm 0", "right")


def test_the_live_runs_are_of_another_seed_and_inside_what_is_expected():
    filled()
    result = open_experiments("3.1.1", TINY).run("offsets")
    assert result.is_recorded and list(result.live) == ["arm 0", "arm 1"]
    assert LIVE_SEED not in result.seeds and len(result.seeds) == 10
    assert result.live["arm 0"] == run_trial(TOY, TINY, LIVE_SEED, TOY.arms(TINY)["arm 0"])
    assert "all lie inside" in result.live_line("loss")
    assert result.sample("arm 0", "steps") == 100
    alone = replace(result, live={"arm 0": result.live["arm 0"]})
    assert "1 run beside 10" in alone.live_line("loss")
    assert "it lies inside" in alone.live_line("loss")


def test_a_students_function_that_measures_something_else_lies_outside():
    filled()

    def far_off(noise: float) -> float:
        return 1000.0

    result = open_experiments("3.1.1", TINY).run("offsets", measure=far_off)
    assert "By held-out loss **2 lie outside**" in result.live_line("loss")


def test_equal_runs_leave_room_for_one_step_of_the_metric():
    """The shares are 0, 0.5 and 1 in every run: an interval without width would leave nothing."""
    filled()
    result = open_experiments("3.1.1", TINY).run("offsets")
    (first, _) = result.inside("shares")
    assert first.holds and first.expected.high == pytest.approx(0.5 + 1 / 3)


def test_without_a_record_a_few_seeds_run_and_no_conclusion_is_drawn():
    result = open_experiments("3.1.1", TINY).run("offsets")
    assert not result.is_recorded and result.seeds == [0, 1, 2] and not result.live
    assert "There is no record of this experiment for the profile tiny. 3 seeds ran here" in (
        result.live_line("loss")
    )
    said = result.conclude("first")
    assert "too few for a conclusion (5 at least)" in said and "above" not in said


def test_a_profile_whose_runs_take_minutes_shows_tinys_where_it_has_no_record():
    """Nothing runs; the lines, the conclusions and the figures say whose runs they are of."""
    slow = replace(get_profile("tiny"), name="pocket", runs_unrecorded=False)
    assert TOY.profiles == ("tiny",)
    result = open_experiments("3.1.1", slow).run("offsets")
    assert result.arms == [] and not result.is_recorded
    assert result.live_line("loss") == "The profile pocket does not run this experiment."
    assert result.conclude("first").startswith("loss, arm 1 − arm 0: not measured here.")
    filled()
    for ask in ("run", "show"):
        result = getattr(open_experiments("3.1.1", slow), ask)("offsets")
        assert len(result.seeds) == 10 and result.live == {} and result.profile.name == "tiny"
        assert result.live_line("loss") == (
            "From the record of tiny, a model of 4M parameters: 10 seeds per arm. There is no "
            "record of this experiment for pocket."
        )
        assert result.conclude("first").startswith("In tiny, a model of 4M parameters: **loss")
    axes = figures.dots(result, "loss", "t").axes[0]
    assert [text.get_text() for text in axes.texts] == ["runs of tiny"]
    plt.close("all")


def test_a_claim_that_a_profile_does_not_measure_is_said_of_tiny():
    """Pocket has a record of two arms; the claim on the third is tiny's."""
    filled()
    slow = replace(get_profile("tiny"), name="pocket", runs_unrecorded=False)
    there = read_record("3.1.1", "offsets", TINY)
    two = {key: entry for key, entry in there.entries.items() if entry.arm != "arm 2"}
    result = Result(TOY, slow, replace(there, entries=two), {}, True, "", 0.0)
    tinys = Result(TOY, get_profile("tiny"), there, {}, True, "", 0.0)
    claims = {claim.name: claim.contrast.arms for claim in TOY.claims}
    for name, arms in claims.items():
        said = result.conclude(name)
        assert ("not measured here" in said) == ("arm 2" in arms)
        assert ("In tiny" in said) == ("arm 2" in arms)
        assert result.outcome(name) == tinys.outcome(name) != "open"
    assert {"arm 2" in arms for arms in claims.values()} == {True, False}


def test_in_a_slow_profile_fewer_arms_are_recorded_and_one_runs_live():
    tiny = get_profile("tiny")
    slow = replace(tiny, name="pocket", runs_unrecorded=False, most_live_arms=1)
    fewer = replace(TOY, arms=fewer_where_runs_are_long(TOY.arms, "arm 1"))
    assert list(fewer.arms(slow)) == ["arm 1"]
    prefixes = replace(TOY, arms=fewer_where_runs_are_long(TOY.arms, "arm,"))
    assert prefixes.arms(slow) == {}
    swept = {f"rate, {rate}": {"rate": rate} for rate in range(6)}
    coarser = fewer_where_runs_are_long(lambda profile: swept, "rate,", every=2)
    assert list(coarser(slow)) == ["rate, 0", "rate, 2", "rate, 4", "rate, 5"]  # the whole range
    assert fewer.arms(tiny) == TOY.arms(tiny)
    named = replace(TOY, live=("arm 2", "arm 0"))
    assert named.live_arms(tiny) == ["arm 0", "arm 2"] and named.live_arms(slow) == ["arm 2"]


def test_what_is_only_shown_runs_nothing_and_says_what_would():
    """A sweep of hundreds of runs starts in no notebook by itself."""
    result = open_experiments("3.1.1", TINY).show("offsets")
    assert result.arms == [] and result.live == {} and not result.has("arm 0")
    said = result.live_line("loss")
    assert "`ftlib record 3.1.1 --experiment offsets --profile tiny` makes its 30 runs." in said
    assert result.conclude("first").startswith(
        "loss, arm 1 − arm 0: not measured here. There is no"
    )
    for figure in (
        figures.dots(result, "loss", "t"),
        figures.sweep(result, "loss", {"toy": {1.0: "arm 1"}}, "t", "x"),
        figures.plane(result, "loss", "shares", "t"),
        figures.courses(result, "shares", "t", "x"),
    ):
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert texts == ["no record for the profile tiny"]
        plt.close(figure)


# --- figures --------------------------------------------------------------------------------------
def test_figures_show_every_seed_the_interval_and_the_live_run():
    filled()
    result = open_experiments("3.1.1", TINY).run("offsets")
    seeds, live = 3, 2  # columns of dots, stars
    axes = figures.dots(result, "loss", "t").axes[0]
    dots = [line for line in axes.lines if len(line.get_xdata()) == 10]
    stars = [line for line in axes.lines if line.get_marker() == "*" and len(line.get_xdata())]
    assert len(dots) == seeds and len(stars) == live
    places = {0.0: "arm 0", 1.0: "arm 1", 2.0: "arm 2"}
    axes = figures.sweep(result, "loss", {"toy": places}, "t", "x", log_x=False).axes[0]
    means = [result.means(arm, "loss").mean() for arm in places.values()]
    assert axes.lines[0].get_ydata() == pytest.approx(means) and len(axes.collections) == 1
    axes = figures.plane(result, "loss", "shares", "t").axes[0]
    assert axes.get_xlabel() == "held-out loss (nats)" and axes.get_ylabel() == "right answers"
    axes = figures.courses(result, "shares", "t", "item", arms=["arm 0"]).axes[0]
    assert axes.lines[0].get_ydata() == pytest.approx([0, 0.5, 1])
    plt.close("all")


def test_a_record_of_other_data_is_not_laid_beside(monkeypatch):
    filled()
    monkeypatch.setattr(toy.EXPERIMENTS[0].inputs, "__code__", (lambda profile: {}).__code__)
    assert open_experiments("3.1.1", TINY).run("offsets").is_recorded
    other = (lambda profile: {"rows": [{"text": "other"}]}).__code__
    monkeypatch.setattr(toy.EXPERIMENTS[0].inputs, "__code__", other)
    result = open_experiments("3.1.1", TINY).run("offsets")
    assert "The record does not fit: its input 'rows' has changed." in result.live_line("loss")
    shown = open_experiments("3.1.1", TINY).show("offsets")
    assert "There is no record of this experiment for this model or data." in (
        shown.live_line("loss")
    )
    assert shown.conclude("first").startswith("In tiny, a model of 4M parameters: **loss")


def test_a_sweep_that_nobody_waits_for_is_tinys_on_the_hub_profiles_too():
    """`small` has no record: what it runs, it runs on a few seeds; what it only shows is tiny's."""
    filled()
    shown = open_experiments("3.1.1", "small").show("offsets")
    assert shown.shown_in == "small" and len(shown.seeds) == 10
    assert not open_experiments("3.1.1", "small").run("offsets").is_recorded


def test_all_seeds_run_live_on_request(monkeypatch):
    filled(1)
    monkeypatch.setenv("FTLIB_LIVE", "1")
    result = open_experiments("3.1.1", TINY).run("offsets")
    assert len(result.seeds) == 10 and not result.is_recorded


def test_live_runs_are_asked_only_of_a_profile_that_runs_the_experiment(monkeypatch):
    """Its rows may not exist elsewhere: FTLIB_LIVE=1 in pocket shows tiny's."""
    filled()
    monkeypatch.setenv("FTLIB_LIVE", "1")
    slow = replace(get_profile("tiny"), name="pocket", runs_unrecorded=False)
    for ask in ("run", "show"):
        result = getattr(open_experiments("3.1.1", slow), ask)("offsets")
        assert result.is_recorded and result.profile.name == "tiny"
    assert TOY.is_run_in(get_profile("small")) and not TOY.is_run_in(slow)
    assert replace(TOY, profiles=("tiny", "pocket")).is_run_in(slow)
    assert not replace(TOY, without=("small",)).is_run_in(get_profile("small"))


def test_what_trials_share_is_made_once_before_they_run():
    """By the process that starts them: two that run side by side would both make it."""
    calls = []
    shared = replace(TOY, prepare=calls.append)
    record_experiment("3.1.1", shared, TINY, seeds=1, processes=1, show=False)
    assert calls == [TINY]
    record_experiment("3.1.1", shared, TINY, seeds=1, processes=1, show=False)
    assert calls == [TINY]  # nothing left to run


def test_the_state_lists_what_a_profile_runs():
    assert f"| 3.1.1 | {TOY.name} |" in state_table(["3.1.1"], "tiny")
    assert TOY.name not in state_table(["3.1.1"], "pocket")


def test_the_claims_are_those_of_what_a_profile_runs(monkeypatch):
    """The arms of another profile's experiment may ask for rows that this one does not have."""
    filled()
    assert f"| 3.1.1 | {TOY.name} |" in "\n".join(claims_table(["3.1.1"], "tiny"))

    def no_rows(lab, experiment, profile):
        raise ValueError("there are no such rows")

    monkeypatch.setattr(report, "plan", no_rows)
    assert TOY.name not in "\n".join(claims_table(["3.1.1"], "pocket"))


# --- claims ---------------------------------------------------------------------------------------
def test_claims_are_decided_over_seeds_with_holm_and_read_out():
    """Paired, the arms differ by 1 ± 0.1·√2 a seed: ten seeds show it. Equal shares show
    nothing.
    """
    filled()
    result = open_experiments("3.1.1", TINY).show("offsets")
    decisions = result.decisions()
    assert decisions["first"].outcome == "above" and decisions["trend"].outcome == "above"
    assert decisions["equal"].outcome == "none" and decisions["equal"].p == 1
    said = result.conclude("first")
    assert (
        said.endswith("It is above.") and "over 10 seeds (t test, Holm over 3 comparisons" in said
    )
    losses = [result.means(f"arm {i}", "loss") for i in range(3)]
    assert decisions["first"].interval.mean == pytest.approx((losses[1] - losses[0]).mean())
    assert decisions["trend"].values == pytest.approx((losses[2] - losses[0]) / 2)


def test_four_seeds_decide_nothing():
    filled(4)
    decision = open_experiments("3.1.1", TINY).show("offsets").decisions()["first"]
    assert decision.outcome == "open" and not decision.as_expected


def test_a_level_is_one_arms_mean_above_its_zero():
    by_arm = {"DPO": {"win": [0.5, 0.7]}, "SFT": {"win": 0.9}}
    contrast = level("win", "DPO", 0.5)
    assert contrast.arms == ("DPO",) and contrast(by_arm) == pytest.approx(0.1)
    assert level("win", "SFT")(by_arm) == pytest.approx(0.9)


# --- after a rewriting ----------------------------------------------------------------------------
def as_if_rewritten(change: float) -> None:
    """Entries of another version of the trial, whose losses differ by that much from today's."""
    record = filled()
    old = []
    for entry in record.entries.values():
        metrics = {**entry.metrics, "loss": entry.metrics["loss"] + change}
        made = {**entry.made, "code": "another"}
        old.append(replace(entry, metrics=metrics, made=made))
    add_entries(record, TOY, old)


def test_entries_of_a_rewritten_trial_are_kept_where_it_gives_the_same(capsys):
    as_if_rewritten(0.0)
    assert len(to_compute(read_record("3.1.1", "offsets", TINY), TOY, TINY)) == 30
    restamp_labs(["3.1.1"], "tiny")
    assert "30 entries keep their results" in capsys.readouterr().out
    record = read_record("3.1.1", "offsets", TINY)
    assert to_compute(record, TOY, TINY) == []
    assert all(entry.made["restamped"] for entry in record.entries.values())


def test_entries_of_a_rewritten_trial_stay_stale_where_it_gives_something_else():
    as_if_rewritten(50.0)
    with pytest.raises(RecordingError, match="is recorded"):
        restamp_labs(["3.1.1"], "tiny")
    assert len(to_compute(read_record("3.1.1", "offsets", TINY), TOY, TINY)) == 30


def test_rounding_of_another_processor_does_not_make_the_other_arms_stale(monkeypatch, capsys):
    """The arms that measure it are not asked, unless there are no others."""
    as_if_rewritten(50.0)
    all_rounded = replace(TOY, rounded=("arm 0", "arm 1", "arm 2"))
    monkeypatch.setattr(restamp, "experiments_of", lambda lab: [all_rounded])
    with pytest.raises(RecordingError, match="is recorded"):
        restamp_labs(["3.1.1"], "tiny")
    record = read_record("3.1.1", "offsets", TINY)
    sound = []
    for entry in record.entries.values():
        if entry.arm == "arm 1":
            metrics = {**entry.metrics, "loss": entry.metrics["loss"] - 50.0}
            sound.append(replace(entry, metrics=metrics))
    add_entries(record, TOY, sound)
    some_rounded = replace(TOY, rounded=("arm 0", "arm 2"))
    monkeypatch.setattr(restamp, "experiments_of", lambda lab: [some_rounded])
    restamp_labs(["3.1.1"], "tiny")
    assert "30 entries keep their results" in capsys.readouterr().out


def test_entries_with_other_settings_are_not_restamped(capsys):
    record = filled(1)
    entry = record.entries["arm 0", 0]
    made = {**entry.made, "code": "another"}
    add_entries(record, TOY, [replace(entry, settings={"arm": 7.0}, made=made)])
    restamp_labs(["3.1.1"], "tiny")
    assert capsys.readouterr().out == ""


def test_a_rehearsal_records_nothing(monkeypatch):
    """Its settings differ, so that it would take every good entry for a stale one."""
    filled(1)
    before = read_record("3.1.1", "offsets", TINY).entries
    monkeypatch.setenv("FTLIB_REHEARSE", "1")
    for call in (record_labs, restamp_labs):
        with pytest.raises(ValueError, match="in a rehearsal: it has no results to keep"):
            call(["3.1.1"], "tiny")
    assert read_record("3.1.1", "offsets", TINY).entries == before


# --- two scales -----------------------------------------------------------------------------------
def test_a_claim_is_held_against_the_same_one_at_another_scale():
    filled()
    decision = next(iter(open_experiments("3.1.1", TINY).show("offsets").decisions().values()))
    rising = replace(decision, values=np.full(5, 1.0), p=0.001)
    rising = replace(rising, interval=replace(decision.interval, mean=1.0))
    falling = replace(rising, interval=replace(decision.interval, mean=-1.0))
    unsure = replace(rising, p=0.5)
    assert Pair("3.1.1", rising, rising).verdict == ALIKE
    assert Pair("3.1.1", rising, falling).verdict == TURNED
    assert Pair("3.1.1", rising, unsure).verdict == LOST
    assert Pair("3.1.1", unsure, falling).verdict == GAINED
    assert Pair("3.1.1", unsure, unsure).verdict == NEITHER


def test_the_table_of_scales_holds_what_both_profiles_have_recorded(monkeypatch, capsys):
    both = replace(TOY, profiles=("tiny", "pocket"))
    monkeypatch.setattr(toy, "EXPERIMENTS", (both,))
    filled()
    assert scales_table(["3.1.1"]).startswith("no claim is decided")
    pocket = get_profile("pocket")
    record = read_record("3.1.1", "offsets", pocket)
    made = {"device": "here", **store.conditions(both, pocket)}
    entries = []
    for job in to_compute(record, both, pocket):
        metrics = run_trial(both, pocket, job.seed, job.settings)
        entries.append(Entry(job.arm, job.seed, job.settings, metrics, 0.1, made))
    add_entries(record, both, entries[:-1])
    assert scales_table(["3.1.1"]).startswith("no claim is decided")  # a run is missing
    add_entries(record, both, entries)
    table = scales_table(["3.1.1"])
    assert f"Of {len(TOY.claims)} claims" in table and "10 seeds" in table
    assert main(["record", "3.1.1", "--scales"]) == 0 and table in capsys.readouterr().out
