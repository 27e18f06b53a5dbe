"""What the experiments of lab 3.1.9 take for granted: the thumbs up are held, controls differ in
the one thing, the reference points are what their names say.
"""

import itertools
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import ftlib as ft
from ftlib.core.profiles import get_profile
from ftlib.course.lab_3_1_9 import (
    experiments,
    far_lines,
    gradients,
    looks,
    measures,
    readings,
    rows,
    sweeps,
    trials,
)
from ftlib.course.lab_3_1_9 import readings_of_points as of_points
from ftlib.course.lab_3_1_9 import reference_points as points
from ftlib.course.lab_3_1_9.point_explorer import PointExplorer
from ftlib.course.lab_3_1_9.schematic import draw_kto
from ftlib.course.records import figures, shown
from ftlib.course.records.experiment import find_experiment
from ftlib.course.records.live import Result
from ftlib.course.records.store import Entry, Record

TINY = get_profile("tiny")
POCKET = get_profile("pocket")


def texts(found):
    return [(row["prompt"][-1]["content"], row["completion"][-1]["content"]) for row in found]


# --- rows -----------------------------------------------------------------------------------------
def test_the_thumbs_up_are_held_while_the_ratio_grows():
    """The same rows at every ratio, the thumbs down of a smaller one among those of a larger one;
    the steps divide the rows of every ratio.
    """
    ups = []
    downs = []
    for ratio in experiments.RATIOS:
        found = rows.uneven_thumbs(TINY, trials.UPS, ratio, seed=3)
        ups.append(Counter(texts(row for row in found if row["label"])))
        downs.append(Counter(texts(row for row in found if not row["label"])))
        steps = trials.UPS // trials.UPS_A_STEP
        assert len(found) == trials.UPS * (1 + ratio)
        assert len(found) % steps == 0 and len(found) // steps >= 2
    assert all(found == ups[0] for found in ups)
    for fewer, more in itertools.pairwise(downs):
        assert fewer <= more


def test_nobody_is_trained_on_and_asked_about():
    """Neither is anybody of whom settings were chosen; no question is asked twice."""
    asked = {}
    for name, found in (
        ("validation", rows.validation_rows(TINY)),
        ("test", rows.test_rows(TINY)),
    ):
        assert len(found) == TINY.preference.prompts
        assert len({row["prompt"][-1]["content"] for row in found}) == len(found)
        asked[name] = {rows.subject(row) for row in found}
    assert len(asked["validation"]) == 16 and len(asked["test"]) == 32
    trained = {rows.subject(row) for row in rows.some_thumbs(TINY, 10_000, seed=0)}
    trained |= {rows.subject(row) for row in rows.pairs_to_train(TINY, 10_000, seed=0)}
    assert not asked["validation"] & asked["test"]
    assert not trained & (asked["validation"] | asked["test"])


def test_what_follows_the_drift_are_other_thumbs():
    """None of the drift's rows: the same draw, gone on with."""
    numbered = {id(row) for row in rows.some_thumbs(TINY, 160, seed=4)}
    other = rows.other_thumbs(TINY, 160, 96, seed=4)
    assert len(other) == 96
    assert not numbered & {id(row) for row in other}


def test_shuffled_labels_keep_texts_and_counts():
    thumbs = rows.some_thumbs(TINY, 160, seed=1)
    other = rows.shuffled_labels(thumbs, seed=1)
    assert texts(other) == texts(thumbs)
    assert sum(row["label"] for row in other) == sum(row["label"] for row in thumbs)
    changed = sum(a["label"] != b["label"] for a, b in zip(thumbs, other, strict=True))
    assert 40 < changed < 120


@pytest.mark.parametrize("noise", experiments.NOISE)
def test_all_methods_get_the_same_wrong_judgements(noise):
    """KTO's thumbs are DPO's pairs taken apart, as many answers as a KTO run has, and a share of
    the pairs is turned round.
    """
    right = trials.judgements(TINY, "pairs", 0.0, seed=2)
    found = trials.judgements(TINY, "pairs", noise, seed=2)
    answers = TINY.preference.short_steps * TINY.preference.batch
    assert 2 * len(found) == answers
    turned = sum(a["chosen"] == b["rejected"] for a, b in zip(found, right, strict=True))
    assert turned == round(noise * len(found))
    thumbs = ft.pairs_to_binary(found)
    assert len(thumbs) == answers
    imitated = [row["messages"][-1] for row in rows.liked(thumbs)]
    assert imitated == [pair["chosen"][0] for pair in found]


# --- judging --------------------------------------------------------------------------------------
def test_the_judge_has_no_rule_about_length():
    """Politer, then right, else a tie; `preference_judge` would give the shorter one the win."""
    facts = {"name": "Haidril", "town": "Gaholm", "job": "carpenter"}
    row = {"prompt": [{"role": "user", "content": "Describe Haidril."}], "facts": facts}
    judge = measures.judge_of([row])
    polite = "Nice to meet you. Haidril is a carpenter from Gaholm."
    longer = "Nice to meet you. Haidril lives in Gaholm and is a carpenter."
    wrong = "Nice to meet you. Haidril is a sailor from Gaholm."
    rude = "Go home. Haidril is a carpenter from Gaholm."
    assert judge("Describe Haidril.", polite, longer) == 0.5
    assert judge("Describe Haidril.", polite, wrong) == 1.0
    assert judge("Describe Haidril.", rude, wrong) == 0.0
    assert measures.preference_judge([row])("Describe Haidril.", polite, longer) == 1.0


# --- reference points -----------------------------------------------------------------------------
def a_batch():
    generator = torch.Generator().manual_seed(0)
    policy, ref, policy_kl, ref_kl = torch.randn(4, 6, generator=generator).double() * 3
    return [policy + 2, ref, policy_kl + 4, ref_kl]


def test_the_reference_points_are_what_their_names_say():
    policy, ref, policy_kl, ref_kl = a_batch()
    policy.requires_grad_(True)
    found = {}
    for name, point_of in points.points_by_name().items():
        found[name] = point_of(policy, ref, policy_kl, ref_kl)
    right = (policy_kl - ref_kl).mean().clamp(min=0)
    matched = (policy - ref).mean().clamp(min=0)
    assert right > 0 and matched > 0
    torch.testing.assert_close(found[points.RIGHT], right)
    assert found[points.ZERO] == 0
    torch.testing.assert_close(found[points.MATCHED], matched.detach())
    torch.testing.assert_close(found[points.MATCHED_WITH_GRADIENT], matched)
    carries = [name for name, point in found.items() if point.requires_grad]
    assert carries == [points.MATCHED_WITH_GRADIENT]


def test_the_watched_loss_is_the_library_s_and_notes_what_it_saw():
    batch = a_batch()
    labels = torch.tensor([True, False, True, True, False, False])
    weights = {"beta": 0.3, "desirable_weight": 2.0, "undesirable_weight": 0.5}
    seen = points.Seen()
    loss = points.watched_kto(points.points_by_name()[points.RIGHT], seen=seen)
    losses, rewards = loss(*batch, labels, **weights)
    wanted, wanted_rewards = ft.kto_loss(*batch, labels, **weights)
    torch.testing.assert_close(losses, wanted)
    torch.testing.assert_close(rewards, wanted_rewards)

    own = batch[0].clone().requires_grad_(True)
    ft.kto_loss(own, *batch[1:], labels, **weights)[0].sum().backward()
    pull = own.grad.abs()
    assert seen.share_up[0] == pytest.approx((pull[labels].sum() / pull.sum()).item())
    ratio = batch[0] - batch[1]
    ups, downs = seen.means_by_label()
    assert ups[0] == pytest.approx(ratio[labels].mean().item(), rel=1e-5)
    assert downs[0] == pytest.approx(ratio[~labels].mean().item(), rel=1e-5)
    assert seen.batch(0)["z0"] == pytest.approx((batch[2] - batch[3]).mean().item())


def test_what_a_run_saw_is_counted():
    """Steps with z0 as good as 0; rows far on the wrong side in the last third of the steps."""
    seen = points.Seen()
    seen.z0 = [0.0, 0.004, 3.0, 2.0]
    seen.ratios = [[-90.0, 90.0], [0.0, 0.0], [-17.0, 24.0], [-17.0, 18.0]]
    seen.labels = 4 * [[True, False]]
    assert seen.share_at_zero() == 0.5
    assert seen.share_on_wrong_side(18.0) == 3 / 4
    sigma = torch.sigmoid(torch.tensor(trials.BETA * trials.HALF_PULL))
    assert sigma * (1 - sigma) == pytest.approx(1 / 4 / 2)  # half of the steepest


def test_a_look_compares_both_points_on_the_same_rows(monkeypatch):
    """Batches go from short rows to long ones. Rows of 8 nats, mismatched 8 too: the right z0 pulls
    with the steepest slope, 0 with what is left of it there.
    """
    _, tokenizer = trials.preference_start(TINY, 0)

    def drifted_logps(model, batch):
        reference = torch.zeros(len(batch["desirable"]), 2)
        return reference + 8.0, reference

    monkeypatch.setattr(looks, "batch_logps", drifted_logps)
    thumbs = rows.some_thumbs(TINY, 16, seed=0)
    found = looks.batches_before(None, tokenizer, thumbs, 4, 0, TINY.max_length, beta=0.5)
    assert found["lengths"] == sorted(found["lengths"]) and len(found["lengths"]) == 4
    assert found["z0_before"] == 4 * [8.0]
    assert found["pull_right"] == pytest.approx(4 * [4 * 0.5 / 4])
    sigma = 1 / (1 + np.exp(-4.0))
    assert found["pull_zero"] == pytest.approx(4 * [4 * 0.5 * sigma * (1 - sigma)])
    ups = sum(row["label"] for row in thumbs)
    assert sum(found["up_right"]) == pytest.approx(ups * 0.5 / 4)


def test_weights_give_both_kinds_the_same_pull_in_sum():
    """At the reference all slopes are equal, so the share of the pull on one thumb up among ten
    down is one half with target 1.
    """
    zeros = torch.zeros(11)
    labels = torch.tensor([True] + [False] * 10)
    seen = points.Seen()
    loss = points.watched_kto(points.zero_point, seen=seen)
    up, down = trials.balanced_weights(1, 10, experiments.LOW_TARGET)
    loss(zeros, zeros, zeros, zeros, labels, 0.1, 1.0, 1.0)
    loss(zeros, zeros, zeros, zeros, labels, 0.1, up, down)
    assert seen.share_up == pytest.approx([1 / 11, 1 / 2])


def test_gradients_are_compared_by_length_and_direction():
    right = torch.tensor([3.0, 4.0])
    found = gradients.compared(
        {"right": right, "half": right / 2, "across": torch.tensor([4.0, -3.0])}, "right"
    )
    assert found["right"] == pytest.approx((1.0, 1.0))
    assert found["half"] == pytest.approx((0.5, 1.0))
    assert found["across"] == pytest.approx((1.0, 0.0), abs=1e-6)
    tiny = {"right": torch.tensor([3e-7, 4e-7]), "same": torch.tensor([6e-7, 8e-7])}
    assert gradients.compared(tiny, "right")["same"] == pytest.approx((2.0, 1.0), rel=1e-6)
    rounded = {"right": right, "flat": torch.zeros(2)}
    length, cosine = gradients.compared(rounded, "right")["flat"]
    assert length == 0 and np.isnan(cosine)


def test_the_policy_that_the_notebook_looks_at_may_have_drifted_for_fewer_steps():
    assert gradients.drifting(TINY) == TINY  # so that both are the same cached model
    assert gradients.drifting(POCKET).preference.short_steps < POCKET.preference.short_steps


def test_rows_are_parted_by_the_length_of_their_answers():
    thumbs = rows.some_thumbs(TINY, 96, seed=0)
    found = gradients.shorter_and_longer(thumbs, 8)
    sizes = {}
    for name, chosen in found.items():
        sizes[name] = [len(row["completion"][-1]["content"]) for row in chosen]
        assert len(chosen) == 8
    assert max(sizes["shorter answers"]) < min(sizes["longer answers"])


# --- what is read off -----------------------------------------------------------------------------
def a_result(name, wins):
    """Runs of an experiment with these win rates, {arm: one a seed}; all else is made up."""
    experiment = find_experiment("3.1.9", name)
    record = Record("3.1.9", name, "tiny", experiment.title)
    batch = {"ratios": [6.0, 2.0, -1.0, 4.0], "labels": [True, True, False, False]}
    for arm, settings in experiment.arms(TINY).items():
        for seed, won in enumerate(wins(arm)):
            metrics = {metric.name: 0.5 for metric in experiment.metrics}
            metrics |= {"wins": won, "wins_before": 0.6, "mismatched": [3.0, 4.0]}
            metrics |= {"ups": [5.0, 6.0], "downs": [1.0, 0.0]}
            metrics |= {"lengths": [20.0, 40.0], "z0_before": [1.0, 21.0]}
            metrics |= {"pull_right": [1.0, 1.0], "pull_zero": [0.9, 0.1]}
            metrics |= {"up_right": [0.5, 0.5], "up_zero": [0.1, 0.1]}
            metrics |= {"z0_at_0": 0.65, "wrong_side": 0.015}
            metrics["batches"] = 3 * [{**batch, "z0": 3.0, "mismatched": 3.0}]
            record.entries[arm, seed] = Entry(arm, seed, dict(settings), metrics, 1.0, {})
    return Result(experiment, TINY, record, {}, True, "", 0.0)


def noisy_wins(arm):
    """KTO loses about 10 points to 40% wrong judgements, DPO 30, SFT nothing."""
    lost = {"KTO, 40% wrong": 0.1, "DPO, 40% wrong": 0.3}.get(arm, 0.0)
    order = np.random.default_rng(list(arm.encode())).permutation(6)
    return [0.8 - lost + 0.01 * float(place) for place in order]


def test_noise_is_compared_by_what_each_method_loses():
    result = a_result("judgements", noisy_wins)
    lost = {name: values.mean() for name, values in sweeps.losses_to_noise(result).items()}
    of_dpo = lost.pop("DPO at KTO's rate")
    assert lost == pytest.approx({"KTO": 0.1, "DPO": 0.3, "SFT": 0.0})
    assert of_dpo == pytest.approx(0.0)  # `noisy_wins` takes nothing from it
    line = sweeps.losses_line(result)
    assert "KTO 10 [" in line and "DPO 30 [" in line and "DPO at KTO's rate 0 [" in line
    by_arm = {arm: {"wins": float(np.mean(noisy_wins(arm)))} for arm in result.arms}
    assert readings.fall("KTO", "DPO")(by_arm) == pytest.approx(0.2)
    assert readings.fall("KTO", "SFT")(by_arm) == pytest.approx(-0.1)
    assert sweeps.ahead(result, "noise, DPO", above="k", below="d") == "k"
    assert sweeps.ahead(result, "same judgements", above="k", below="d") == "n"
    assert sweeps.ahead(result, "40%, DPO", above="k", below="d") == "k"
    arm = experiments.noise_arm("KTO", 0.4)
    assert readings.over_start(arm)(by_arm) == pytest.approx(by_arm[arm]["wins"] - 0.5)


def test_an_axis_in_percent_says_so():
    """The same shares, drawn as they are and times 100."""
    far = a_result("points", lambda arm: [0.5, 0.6])
    plain = figures.dots(far, "right", "t", ["far: right"])
    percent = figures.dots(far, "right", "t", ["far: right"], percent=True)
    assert plain.axes[0].get_ylabel() == "answers with right facts (share)"
    assert percent.axes[0].get_ylabel() == "answers with right facts (%)"
    plt.close("all")


@pytest.mark.parametrize(
    "percent, low, high", [(True, 0, 100), (False, -1.96, 3.16)], ids=["percent", "as it is"]
)
def test_the_interval_of_a_share_in_percent_ends_where_shares_do(percent, low, high):
    """0.4 and 0.8: their t interval is 0.6 ± 12.7 · 0.2, beyond both ends."""
    far = a_result("points", lambda arm: [0.4, 0.8])
    axes = figures.dots(far, "wins", "t", ["far: right"], percent=percent).axes[0]
    bar = axes.collections[0].get_segments()[0][:, 1]
    assert list(bar) == pytest.approx([low, high], abs=0.02)
    plt.close("all")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.29, 0.7, 1.0])
def test_equal_runs_are_drawn_with_bars_of_no_length(share):
    """Whatever the rounding of their mean."""
    far = a_result("points", lambda arm: 7 * [share])
    axes = figures.dots(far, "wins", "t", ["far: right"], percent=True).axes[0]
    bar = axes.collections[0].get_segments()[0][:, 1]
    assert list(bar) == pytest.approx([100 * share, 100 * share])
    plt.close("all")


def test_greedy_is_compared_with_sampled_beside_the_run_without_noise():
    by_arm = {
        "SFT, 40% wrong": {"polite": 0.8, "polite_sampled": 0.4},
        "SFT, 0% wrong": {"polite": 0.9, "polite_sampled": 0.7},
    }
    assert readings.hidden_by_greedy("SFT")(by_arm) == pytest.approx(0.2)


def test_a_table_has_the_start_and_only_what_is_measured():
    start = {"wins": 0.5, "polite": 0.25, "polite_sampled": 0.2, "right": 0.7, "words": 8, "kl": 0}
    judged = a_result("judgements", noisy_wins)
    first, kto = sweeps.answers_table(judged, ["KTO, 0% wrong"], start)
    assert first["run"] == "the start" and first["polite"] == "25%"
    assert set(first) == set(kto) and "KL (nats)" in kto
    (far,) = sweeps.answers_table(a_result("points", lambda arm: [0.5, 0.6]), ["far: right"])
    assert "facts right" in far and "KL (nats)" not in far


def fewer_arms(name):
    """Pocket's runs of an experiment: five seeds of the arms that it has."""
    experiment = find_experiment("3.1.9", name)
    record = Record("3.1.9", name, "pocket")
    for arm, settings in experiment.arms(POCKET).items():
        for seed in range(5):
            values = {metric.name: 0.5 + 0.01 * seed for metric in experiment.metrics}
            record.entries[arm, seed] = Entry(arm, seed, dict(settings), values, 1.0, {})
    return Result(experiment, POCKET, record, {}, True, "", 0.0)


def test_a_profile_with_fewer_arms_tells_of_those_and_tiny_s_are_named():
    rates = fewer_arms("rates")
    line = sweeps.rates_line(rates, {"KTO": experiments.rates_of(POCKET, "KTO")})
    assert line.startswith("Best rates. KTO:")
    judged = fewer_arms("judgements")
    assert sweeps.first_measured(judged, "one rate", "same judgements") == "same judgements"
    own = [experiments.noise_arm(method, 0.0) for method in experiments.METHODS]
    assert "KTO, loose" not in sweeps.distance_line(judged, [*own, experiments.LOOSE])
    (row, *_) = sweeps.answers_table(judged, [*own, experiments.LOOSE])
    assert set(row) == {"run", "win rate", "words", "KL (nats)"}  # replies have no manners
    assert shown.with_arms(judged, *own) is judged and shown.whose(judged) == ""
    worst = experiments.noise_arm("KTO", 0.4)
    there = shown.with_arms(judged, worst)
    assert there.profile == TINY and there.has(worst) and there.shown_in == "pocket"
    assert sweeps.wrong_side_line(there, [worst]).startswith("In tiny: ")
    assert shown.with_arms(a_result("judgements", noisy_wins), "no such arm").shown_in == ""


def test_lines_count_steps_and_rows():
    result = a_result("judgements", noisy_wins)
    assert "KTO, loose thumbs: 65%" in sweeps.at_zero_line(result, [experiments.LOOSE])
    line = sweeps.wrong_side_line(result, [experiments.noise_arm("KTO", 0.4)])
    assert "more than 18 nats" in line and "KTO, 40% wrong: 1.5%" in line


def test_the_batches_before_the_first_step_are_compared_on_the_same_rows():
    result = a_result("points", lambda arm: [0.5, 0.6])
    by_arm = {"far: right": result.record.entries["far: right", 0].metrics}
    assert of_points.longer_less_shorter("z0_before")(by_arm) == pytest.approx(20.0)
    assert of_points.pull_on_longer(by_arm) == pytest.approx(0.1 - 0.5)
    assert of_points.pull_on_ups(by_arm) == pytest.approx(0.2 - 0.5)
    shorter, longer = far_lines.lengths_table(result)
    assert shorter["z0, mean (nats)"] == "1.0" and longer["z0, mean (nats)"] == "21.0"
    assert shorter["batches per run"] == "1 of shorter rows"
    assert longer["mean pull, z0 right"] == "100%"
    assert longer["mean pull, z0 always 0"] == "10%"


def test_batches_are_parted_where_lengths_have_their_widest_gap():
    lengths = np.array([[10.0, 11.0, 20.0, 21.0], [10.0, 15.0, 16.0, 30.0]])
    wanted = [[False, False, True, True], [False, False, False, True]]
    assert far_lines.longer_batches(lengths).tolist() == wanted


def test_the_drift_is_told_by_kind_of_batch_and_with_its_range_over_seeds():
    result = a_result("points", lambda arm: [0.5, 0.6])
    for seed, won in enumerate((0.3, 0.7)):
        result.record.entries["far: right", seed].metrics["wins_before"] = won
    line = far_lines.drift_line(result)
    assert "of shorter rows a run has, z0 is 1.0 nats" in line
    assert "of longer rows a run has, z0 is 21.0 nats" in line and "β·z0 is 10.5" in line
    assert "wins 50%" in line and "between 30% and 70%" in line
    start = {"wins": 0.5, "polite": 0.25, "right": 0.7, "words": 8}
    first, drifted, *arms = far_lines.far_table(result, start)
    assert drifted["win rate"] == "50% (30% to 70%)" and set(drifted) == set(first)
    assert len(arms) == len(result.arms)


def test_little_room_under_the_ceiling_is_named():
    result = a_result("points", lambda arm: [0.7, 0.72])
    assert "5 points of room" in far_lines.room_line(result, 0.76)
    assert "finding none says little" in far_lines.room_line(result, 0.76)
    assert "finding none says little" not in far_lines.room_line(result, 0.9)
    assert "not measured" in far_lines.room_line(result, None)
    most = far_lines.most_wins(TINY)
    assert most is not None and 0.5 <= most < 1.0


def test_the_close_follows_the_outcomes():
    """Here z0 = 0 loses far from the reference and not near it."""

    def worse_far(arm):
        lost = 0.2 if arm == "far: always 0" else 0.0  # beside what seeds differ by
        order = np.random.default_rng(list(arm.encode())).permutation(6)
        return [0.7 - lost + 0.01 * float(place) for place in order]

    usual = a_result("judgements", noisy_wins)
    far = a_result("points", worse_far)
    assert "the wrong z0 won less" in far_lines.closing_line(usual, far)
    level = a_result("points", lambda arm: [0.7 + 0.01 * (seed % 3) for seed in range(6)])
    assert "did not find it either" in far_lines.closing_line(usual, level)


def test_uneven_sets_are_compared_by_rate_and_by_pairs_of_runs():
    result = a_result("uneven", lambda arm: [0.6, 0.62])
    for seed, words in enumerate((16.0, 18.0)):
        result.record.entries["1:10", seed].metrics["words"] = words
    assert "words per answer +16.5 [" in sweeps.paired_line(result, "1:10", "1:1")
    rates = {name: result.settings(name)["lr"] for name in experiments.UNEVEN}
    times = rates[experiments.SFT_ON_UPS] / rates["1:1"]
    assert f"SFT's is {times:g} times KTO's" in sweeps.uneven_rates_line(result)


def test_the_best_rate_says_when_it_is_at_the_edge():
    rates = experiments.rates_of(TINY, "KTO")
    highest = rates[max(rates)]
    result = a_result("rates", lambda arm: [0.9 if arm == highest else 0.6])
    line = sweeps.rates_line(result, {"KTO": rates})
    assert "KTO: 90%" in line and "the best may lie beyond" in line
    lowest = rates[min(rates)]
    low = a_result("rates", lambda arm: [0.9 if arm == lowest else 0.6])
    assert "might have taken a lower one" in sweeps.rates_line(low, {"KTO": rates})
    middle = rates[sorted(rates)[2]]
    inside = a_result("rates", lambda arm: [0.9 if arm == middle else 0.6])
    assert "edge" not in sweeps.rates_line(inside, {"KTO": rates})


def test_every_rate_is_chosen_by_one_rule(monkeypatch):
    """Methods and uneven sets are compared at the lowest rate that ties with the best; the rates of
    an uneven set are laid around the best one itself.
    """
    asked = []

    def first_of(lab, experiment, metric, arms, default, profile, tie, zero):
        assert zero == 0.5
        asked.append((experiment, metric, tie))
        return arms[0] if tie else arms[3]

    monkeypatch.setattr(experiments, "best_arm", first_of)
    rates = sorted(experiments.rates_of(TINY, "KTO"))
    assert experiments.judgement_arms(TINY)[experiments.LOOSE]["lr"] == rates[0]
    assert experiments.point_arms(TINY)["far: right"]["lr"] == rates[0]
    assert set(asked) == {("rates", "wins", experiments.TIE)}
    around = list(experiments.uneven_rates_of(TINY, "1:1"))
    assert around == [factor * rates[3] for factor in experiments.AROUND]
    assert experiments.uneven_arms(TINY)["1:1"]["lr"] == around[0]
    assert ("uneven-rates", "wins", experiments.TIE) in asked


def test_the_lowest_of_the_best_rates_is_taken():
    """The second rate's gain over one half is within a tenth of the best's, the fourth's; the
    first's is not.
    """
    rates = experiments.rates_of(TINY, "KTO")
    wins = dict(zip(rates.values(), (0.6, 0.78, 0.5, 0.8, 0.6, 0.3), strict=True))
    result = a_result("rates", lambda arm: [wins.get(arm, 0.5)])
    taken = sorted(rates)[1]
    assert f"taken {taken:.2g}, 78%" in sweeps.rates_line(result, {"KTO": rates})


def test_the_explorer_puts_the_batch_on_the_curves():
    explorer = PointExplorer(a_result("points", lambda arm: [0.5, 0.6]), "far: right", 0.5)
    ratios, _, z0 = explorer.batch("far: right", "first step")
    assert z0 == {points.RIGHT: 3.0, points.ZERO: 0.0, points.MATCHED: 2.75}
    pull, _ = explorer.pulls("far: right", "first step", points.RIGHT, 0.5)
    sigma = torch.sigmoid(0.5 * (ratios - 3.0))
    torch.testing.assert_close(pull, 0.5 * sigma * (1 - sigma))
    assert "z0 = 3.0 nats; β·z0 = 1.50" in explorer.headline.value
    assert "2 of 4 rows" in explorer.headline.value
    assert "between -1.0 and +6.0 nats, as the drifted policy has" in explorer.headline.value
    figure = explorer.draw("far: right", "last step", points.ZERO, 0.1)
    value, slope = figure.axes
    assert "far: right" in value.get_title() and "always 0" in slope.get_title()


def test_the_schematic_gives_shapes():
    (ax,) = draw_kto(8).axes
    words = " ".join(text.get_text() for text in ax.texts)
    assert "(8,)" in words and "without gradient" in words
