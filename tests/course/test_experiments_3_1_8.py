"""What the experiments of lab 3.1.8 take for granted: equal budgets, pairs whose length says
nothing of the label, and what labels at random do to a loss.
"""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

from ftlib.core.profiles import get_profile
from ftlib.core.stats import Interval
from ftlib.course.lab_3_1_8 import (
    experiments,
    length,
    length_lines,
    lines,
    readings,
    runs,
    sweeps,
    trials,
)
from ftlib.course.lab_3_1_8.margin_explorer import MarginCloud, loss_of, push_of
from ftlib.course.lab_3_1_8.orpo_loss import orpo_loss
from ftlib.course.lab_3_1_8.schematic import draw_losses
from ftlib.course.lab_3_1_8.simpo_loss import simpo_loss
from ftlib.course.open_answers import sentences
from ftlib.course.records import store
from ftlib.course.records.experiment import find_experiment
from ftlib.course.records.live import Result
from ftlib.course.records.store import Entry, Record
from ftlib.losses.preference import dpo_loss

TINY = get_profile("tiny")
POCKET = get_profile("pocket")


def recorded(name: str, faults) -> Record:
    """A record of the experiment with one seed an arm; `faults(arm, settings)` is its metric."""
    experiment = find_experiment("3.1.8", name)
    record = Record("3.1.8", name, "tiny")
    for arm, settings in experiment.arms(TINY).items():
        metrics = {"faults": faults(arm, settings)}
        record.entries[arm, 0] = Entry(arm, 0, dict(settings), metrics, 0.0, {})
    return record


def result_of(name: str, record: Record) -> Result:
    return Result(find_experiment("3.1.8", name), TINY, record, {}, True, "", 0.0)


@pytest.fixture
def records(monkeypatch):
    """Records by name, in the place of those on disk; none at first."""
    known = {}

    def read(lab, name, profile=None):
        return known.get(name, Record(lab, name, "tiny"))

    monkeypatch.setattr(experiments, "read_record", read)
    monkeypatch.setattr(store, "read_record", read)  # best_arm's
    return known


# --- pairs ----------------------------------------------------------------------------------------
def test_shortened_pairs_have_one_cut_side_and_length_says_nothing_of_the_label():
    rows = runs.train_rows(TINY)[:100]
    cut = runs.shortened(rows, seed=4)
    sides = {"chosen": 0, "rejected": 0}
    for row, short in zip(rows, cut, strict=True):
        changed = [side for side in sides if row[side] != short[side]]
        assert len(changed) == 1
        before = sentences(row[changed[0]][-1]["content"])
        after = sentences(short[changed[0]][-1]["content"])
        assert 1 <= len(after) < len(before) and before[: len(after)] == after
        assert short["prompt"] == row["prompt"] and short["truth"] == row["truth"]
        sides[changed[0]] += 1
    assert sides == {"chosen": 50, "rejected": 50}
    assert runs.shortened(rows, seed=4) == cut != runs.shortened(rows, seed=5)


def test_a_run_sees_each_of_its_pairs_once_and_test_people_are_strangers_to_it():
    pairs = runs.own_pairs(TINY, runs.IMITATED, seed=1)
    steps = runs.steps_of(TINY, runs.IMITATED)
    assert len(pairs) == steps * runs.pairs_a_step(TINY)
    assert len(runs.own_pairs(TINY, runs.BASE, 1)) == runs.BASE_STEPS * len(pairs)
    trained = {row["name"] for row in runs.train_rows(TINY)}
    seen = set(trained)
    for split in (runs.VALIDATION, runs.TEST):
        names = [row["name"] for row in runs.held_out_rows(TINY, split)]
        assert len(names) == len(set(names)) and not seen & set(names)
        seen |= set(names)


# --- losses ---------------------------------------------------------------------------------------
def test_the_losses_are_handed_what_the_trainer_hands_out():
    chosen = torch.tensor([-0.4, -1.0], requires_grad=True)
    rejected = torch.tensor([-0.9, -0.7])
    loss = runs.as_simpo(simpo_loss, beta=2.0, ratio=0.5)
    wanted = simpo_loss(chosen, rejected, 2.0, 1.0)
    torch.testing.assert_close(loss(chosen, rejected)[0], wanted)
    # In DPO's place a reference comes along, and changes nothing.
    torch.testing.assert_close(loss(chosen, rejected, rejected, chosen, beta=0.1)[0], wanted)
    orpo = runs.as_orpo(orpo_loss, 0.3)
    torch.testing.assert_close(
        orpo(chosen, rejected, -chosen, beta=9.0)[0], orpo_loss(chosen, rejected, 0.3)
    )
    runs.only_chosen(chosen, rejected)[0].sum().backward()
    assert chosen.grad.tolist() == [-1, -1]


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_random_labels_pull_simpos_margin_to_zero_and_leave_dpo_at_its_start(gamma):
    margins = torch.tensor([-1.5, -0.2, 0.0, 0.3, 2.0], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros_like(margins)
    both = simpo_loss(margins, zero, 2.0, gamma) + simpo_loss(zero, margins, 2.0, gamma)
    (pull,) = torch.autograd.grad(both.sum() / 2, margins)
    inside = torch.sigmoid(gamma + 2 * margins) - torch.sigmoid(gamma - 2 * margins)
    torch.testing.assert_close(pull, inside.detach())  # β/2 = 1
    assert torch.equal(pull.sign(), margins.detach().sign())

    logps = torch.tensor([-30.0, -4.0], requires_grad=True)
    reference = logps.detach()
    one = dpo_loss(logps[:1], logps[1:], reference[:1], reference[1:])[0]
    other = dpo_loss(logps[1:], logps[:1], reference[1:], reference[:1])[0]
    (at_start,) = torch.autograd.grad((one + other).sum(), logps)
    assert at_start.tolist() == [0, 0]


def test_weights_are_the_gradients_of_the_loss():
    margins = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    losses = simpo_loss(margins, torch.zeros_like(margins), 2.0, 1.0)
    (gradient,) = torch.autograd.grad(losses.sum(), margins)
    values = margins.detach().numpy()
    np.testing.assert_allclose(2 * length.weights_of(values, 2.0, 0.5), -gradient.numpy())
    np.testing.assert_allclose(push_of(values, 2.0, 0.5), -gradient.numpy())
    np.testing.assert_allclose(loss_of(values, 2.0, 0.5), losses.detach().numpy())


def test_sums_and_means_of_a_pair():
    sums = np.array([[-10.0, -6.0], [-2.0, -8.0]])
    tokens = np.array([[20.0, 6.0], [4.0, 4.0]])
    np.testing.assert_allclose(length.margins_of(sums, tokens, "sum"), [-4, 6])
    np.testing.assert_allclose(length.margins_of(sums, tokens, "mean"), [0.5, 1.5])
    assert trials.correlation(np.arange(5.0), -2 * np.arange(5.0)) == pytest.approx(-1)
    assert trials.correlation(np.arange(5.0), np.ones(5)) == 0


# --- what the numbers say -------------------------------------------------------------------------
def methods_of(**metrics) -> Result:
    """Two seeds of every arm of the comparison; a metric is a number or {arm: number}, and the
    second seed's is a little larger.
    """
    experiment = find_experiment("3.1.8", "methods")
    record = Record("3.1.8", "methods", "tiny")
    for arm, settings in experiment.arms(TINY).items():
        for seed in (0, 1):
            values = {}
            for name, value in metrics.items():
                own = value[arm] if isinstance(value, dict) else value
                values[name] = own + 0.001 * seed
            record.entries[arm, seed] = Entry(arm, seed, dict(settings), values, 1.0, {})
    return Result(experiment, TINY, record, {}, True, "", 0.0)


def test_opposite_signs_at_the_two_rates_are_said():
    faults = dict.fromkeys(experiments.METHODS, 1.0)
    faults |= {readings.DPO_AT_SIMPO: 1.2, readings.SIMPO_AT_DPO: 1.3}
    assert "neither rate" in lines.both_rates_line(methods_of(faults=faults), "faults")
    said = lines._signs_text([Interval(-0.02, -0.05, 0.01), Interval(0.09, 0.02, 0.16)])
    assert "opposite signs" in said and "not shown" in said
    faults[readings.SIMPO_AT_DPO] = 0.7
    assert "opposite signs" not in lines.both_rates_line(methods_of(faults=faults), "faults")


def test_facts_and_form_are_told_apart():
    arms = [*experiments.METHODS, readings.SIMPO_AT_DPO, readings.DPO_AT_SIMPO]
    wrong = {**dict.fromkeys(arms, 1.0), "SimPO": 0.2}
    missing = {**dict.fromkeys(arms, 0.1), "SimPO": 0.25, "ORPO": 0.9}
    result = methods_of(wrong=wrong, missing=missing, unwanted=0.1, forgotten=0.2)
    assert "one of *facts*: fewer" in lines.sorts_line(result, "SimPO", "SFT on chosen")
    assert "one of *form*: more" in lines.sorts_line(result, "ORPO", "DPO")
    assert "neither facts" in lines.sorts_line(result, "DPO", "SFT on chosen")
    line = lines.form_line(result, {"start_missing": 0.2, "start_unwanted": 0.2})
    assert "SFT on chosen 0.201 (-50%)" in line and "SimPO hardly does" in line
    line = lines.left_of_start_line(result, {"start_forgotten": 0.3})
    assert "Left of it" in line and "Right of it" not in line and "ORPO" not in line


def test_the_expected_push_of_random_labels_is_the_derivative():
    margin = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros_like(margin)
    both = simpo_loss(margin, zero, 2.0, 1.0) + simpo_loss(zero, margin, 2.0, 1.0)
    (pull,) = torch.autograd.grad(both.sum() / 2, margin)
    assert f"the expected push is {pull.item():.3f}," in lines.push_line(0.4, 2.0, 1.0, 96)
    assert "smaller than one run's noise" in lines.push_line(0.05, 2.0, 1.0, 96)
    assert "larger than one run's noise" in lines.push_line(0.05, 2.0, 1.0, 10_000)


def length_result(answer: str) -> Result:
    """One seed of each arm with two pairs, the chosen answer longer in the first; `answer` is what
    the arms with sums say.
    """
    experiment = find_experiment("3.1.8", "length")
    record = Record("3.1.8", "length", "tiny")
    for place, (arm, settings) in enumerate(experiment.arms(TINY).items()):
        is_sum = settings["score"] == "sum"
        said = answer if is_sum else "A is here."
        metrics = {
            "margins_before": [-10.0, 10.0] if is_sum else [0.5, 0.5],
            "longer": [10.0, -10.0],
            "lengths": [[20.0, 10.0], [10.0, 20.0]],
            "answers": ["A is here.", said],
            **dict.fromkeys(("words", "faults", "wrong", "missing", "unwanted"), place + 1.0),
            **dict.fromkeys(("accuracy_longer", "accuracy_shorter", "idle", "weight"), 0.5),
        }
        for seed in (0, 1):
            record.entries[arm, seed] = Entry(arm, seed, dict(settings), metrics, 1.0, {})
    return Result(experiment, TINY, record, {}, True, "", 0.0)


def test_loops_are_told_from_longer_reports():
    looping = length_result("A is here. A is here. A is h")
    assert "2 of 4 recorded answers say a sentence twice, and 2 run" in length_lines.loops_line(
        looping
    )
    rows = {row["arm"]: row for row in length_lines.answer_rows(looping)}
    assert rows["sums"]["cut off"] == "2 of 4" and rows["means"]["repeat a sentence"] == "0 of 4"
    assert "0 run into the cap" in length_lines.loops_line(length_result("B is there."))


def test_weights_and_ranks_at_the_start_go_by_which_answer_is_longer():
    result = length_result("B is there.")
    line = length_lines.by_length_line(result)
    assert "with means 50% [50, 50] of the pairs whose chosen answer is longer (100% at" in line
    assert "with sums 50% [50, 50] of the pairs whose chosen answer is longer (0% at" in line
    own = experiments.length_arms(TINY)["sums, small β"]
    tokens = 15.0
    weight = length.weights_of(np.array([-10.0]), own["beta"] / tokens, own["ratio"] * tokens)[0]
    assert f"with sums, small β {weight:.3g} where" in length_lines.weights_line(result)
    assert "sums +1, sums with a small β +2, 200% of it" in length_lines.excess_line(result)


# --- sweeps ---------------------------------------------------------------------------------------
def test_every_loss_has_as_many_trials():
    for name in experiments.METHODS:
        assert len(experiments.arms_of(experiments.rate_arms(TINY), name)) == 5
        assert len(experiments.arms_of(experiments.setting_arms(TINY), name)) == 4


def test_the_comparison_takes_the_best_of_both_sweeps(records):
    middle = experiments.middle_rate(TINY, "SimPO")
    assert experiments.best_settings(TINY, "SimPO")["lr"] == middle

    def at_half(arm, settings):
        factor = settings["lr"] / experiments.middle_rate(TINY, arm.split(",")[0])
        return 1 + abs(np.log2(factor) + 1)

    records["rates"] = recorded("rates", at_half)
    assert experiments.best_settings(TINY, "SimPO")["lr"] == middle / 2

    def steep_is_best(arm, settings):
        return 0.1 if settings.get("beta") == 8.0 else 3.0

    records["settings"] = recorded("settings", steep_is_best)
    best = experiments.best_settings(TINY, "SimPO")
    assert (best["beta"], best["lr"]) == (8.0, middle / 2)
    assert experiments.best_trial(TINY, "SimPO")[0] == "settings"
    assert experiments.best_trial(TINY, "DPO")[0] == "rates"
    assert experiments.best_settings(TINY, "DPO") == experiments.best_rate(TINY, "DPO")
    shuffled = experiments.shuffle_arms(TINY)
    assert shuffled["DPO, shuffled"]["lr"] == shuffled["SimPO, shuffled"]["lr"]
    assert shuffled["SimPO, real"] == {**shuffled["SimPO, shuffled"], "share": 0.0}
    means, sums, scaled = experiments.length_arms(TINY).values()
    assert {**means, "score": "sum"} == sums and {**sums, "is_scaled": True} == scaled


@pytest.mark.parametrize("simpo, found", [(1.0, "yes"), (3.0, "the opposite")])
def test_the_table_of_predictions_says_what_was_found(simpo, found):
    """SimPO was predicted to make fewer faults than its start (2) and than DPO (2): with 1 it does,
    with 3 the opposite. Pairs lie as far apart as at the start.
    """
    level = {"chosen": -1.0, "rejected": -1.0, "start_chosen": -1.0, "start_rejected": -1.0}
    same = {"start_faults": 2.0, "apart": 0.1, "start_apart": 0.1, **level}
    record = Record("3.1.8", "shuffled", "tiny")
    for arm, settings in experiments.shuffle_arms(TINY).items():
        is_simpo = arm == "SimPO, shuffled"
        for seed in range(6):
            faults = simpo + 0.002 * seed if is_simpo else 2.0 + 0.001 * seed
            metrics = {"faults": faults, **same}
            record.entries[arm, seed] = Entry(arm, seed, dict(settings), metrics, 0.0, {})
    table = lines.predictions_table(result_of("shuffled", record))
    assert [row["found?"] for row in table] == [found, found, "no"]
    assert table[0]["prediction"] == "SimPO makes fewer faults than its start"


def test_simpo_and_dpo_are_compared_at_equal_rates():
    arms = experiments.method_arms(TINY)
    assert arms[readings.SIMPO_AT_DPO]["lr"] == arms["DPO"]["lr"]
    assert arms[readings.DPO_AT_SIMPO]["lr"] == arms["SimPO"]["lr"]
    faults = {"SimPO": 1.0, readings.DPO_AT_SIMPO: 1.5, readings.SIMPO_AT_DPO: 3.0, "DPO": 2.0}
    by_arm = {arm: {"faults": value} for arm, value in faults.items()}
    assert readings.at_equal_rates("faults")(by_arm) == pytest.approx(((1 - 1.5) + (3 - 2)) / 2)


def test_the_lines_say_where_the_best_is_and_that_it_is_at_the_edge(records):
    def falling(arm, settings):
        return 1 / settings["lr"]

    rates = records["rates"] = recorded("rates", falling)
    line = sweeps.rates_line(result_of("rates", rates))
    assert line.count("grid's edge") == len(experiments.METHODS)
    more = records["settings"] = recorded("settings", lambda arm, own: own.get("beta", 1.0))
    line = sweeps.settings_line(result_of("rates", rates), result_of("settings", more))
    assert "DPO: best at β = 0.02 (the grid's edge)" in line and "SimPO: best at (β, γ/β)" in line


def test_settings_that_tie_are_all_named(records):
    rates = records["rates"] = recorded("rates", lambda arm, own: 1.0)
    more = records["settings"] = recorded("settings", lambda arm, own: own.get("beta", 0) // 8 + 1)
    line = sweeps.settings_line(result_of("rates", rates), result_of("settings", more))
    assert (
        "(β, γ/β) = (2, 0.5), exactly tied with (2, 0), (2, 1.5), (0.5, 0.5) (1 faults each)"
        in line
    )
    rows = sweeps.validation_rows(
        result_of("rates", rates), result_of("settings", more), methods_of(faults=2.0)
    )
    assert [row["method"] for row in rows] == list(experiments.METHODS)
    assert {row["faults on validation prompts"] for row in rows} == {"1.00"}


def test_a_badly_placed_rate_is_said():
    record = Record("3.1.8", "methods", "tiny")
    for seed in (0, 1):
        for arm, faults in (("DPO", 1.4), (readings.DPO_AT_SIMPO, 0.8)):
            record.entries[arm, seed] = Entry(arm, seed, {}, {"faults": faults}, 1.0, {})
    assert "the worse of the two" in sweeps.rate_line(result_of("methods", record))


def test_every_arm_is_what_its_trial_takes():
    for experiment in experiments.EXPERIMENTS:
        for settings in experiment.arms(TINY).values():
            inspect.signature(experiment.trial).bind(TINY, 0, **settings)


# --- a profile that has run less than tiny -------------------------------------------------------
def fewer_arms() -> Result:
    """Pocket's comparison: five seeds of the arms that it runs."""
    experiment = find_experiment("3.1.8", "methods")
    record = Record("3.1.8", "methods", "pocket")
    for arm, settings in experiment.arms(POCKET).items():
        for seed in range(5):
            values = {metric.name: 1.0 + 0.1 * seed for metric in experiment.metrics}
            record.entries[arm, seed] = Entry(arm, seed, dict(settings), values, 1.0, {})
    return Result(experiment, POCKET, record, {}, True, "", 0.0)


def test_lines_of_fewer_arms_tell_of_those_or_of_tinys():
    own = fewer_arms()
    assert not own.has("SFT from the base")
    assert lines.both_rates_line(own, "faults").startswith("In tiny: ")
    assert sweeps.rate_line(own).startswith("In tiny: ")
    recipes = lines.recipes_line(own)
    assert "SFT from the base" not in recipes
    assert "Steps: ORPO 24; SFT 12, then SimPO 12." in recipes
    assert "other* loss" not in lines.starts_line(own)
    assert "DPO" in lines.left_of_start_line(own, {"start_forgotten": 9.0})
    rates = Record("3.1.8", "rates", "pocket")
    experiment = find_experiment("3.1.8", "rates")
    for arm, settings in experiment.arms(POCKET).items():
        rates.entries[arm, 0] = Entry(arm, 0, dict(settings), {"faults": 2.0}, 1.0, {})
    swept = Result(experiment, POCKET, rates, {}, True, "", 0.0)
    line = sweeps.rates_line(swept)
    assert (
        "3 of 3 rates" in line and "SFT from the base" not in line and "Seeds per rate: 1" in line
    )


def test_the_start_of_runs_that_are_shown_is_their_own():
    before = {"start_faults": 2.6, "start_forgotten": 9.0}
    own = methods_of(faults=1.0, start_faults=2.5)
    assert lines.start_of(own, before) is before
    # The session goes on from its own run of lab 3.1.4: its start is not the record's.
    assert lines.start_of(own, {**before, "start_faults": 0.5}) == {"start_faults": 2.5}
    there = replace(own, shown_in="pocket")
    assert lines.start_of(there, before) == {"start_faults": 2.5}
    assert "not recorded" in lines.left_of_start_line(there, lines.start_of(there, before))
    assert "not recorded" in lines.form_line(there, lines.start_of(there, before))


def test_faults_are_counted_where_a_row_s_own_count_has_other_sorts_too():
    replies = runs.held_out_rows(POCKET, runs.TEST)
    found = lines.mean_faults(replies, "chosen")
    whole = np.mean([row["chosen_faults"] for row in replies])
    assert found.wrong + found.missing + found.unwanted == pytest.approx(whole)
    reports = runs.held_out_rows(TINY, runs.TEST)
    found = lines.mean_faults(reports, "rejected")
    assert found.wrong == np.mean([row["rejected_faults"] for row in reports])


# --- figures --------------------------------------------------------------------------------------
def test_the_explorer_counts_pairs_and_follows_its_handles():
    cloud = MarginCloud({"before": [-0.1, 0.0, 0.2, 0.7], "after": [1.0, 1.2]})
    assert "25% of the pairs lead by γ/β" in cloud.headline.value
    cloud.controls["model"].value = "after"
    assert "100% of the pairs lead by γ/β" in cloud.headline.value
    cloud.controls["beta"].value = 20.0
    assert "γ = 10" in cloud.headline.value and "100% have a weight below" in cloud.headline.value
    titles = [ax.get_title() for ax in cloud.draw("before", 2.0, 0.25).axes]
    assert titles[0] == "β 2, γ/β 0.25: what a pair costs"


def test_the_schematic_names_the_losses_and_counts_tokens():
    figure = draw_losses(chosen=7, rejected=4)
    texts = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert all(name in texts for name in ("DPO", "SimPO", "ORPO", "7 log", "4 log"))
    assert len(figure.axes[0].patches) == 11
