"""What the experiments of lab 3.1.7 take for granted: losses have the optima that the lab derives,
what can be reached is computed right, and controls differ from DPO in one thing.
"""

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from ftlib.core.profiles import get_profile
from ftlib.course.lab_3_1_7 import (
    experiments,
    judges,
    lines,
    losses,
    measures,
    pictures,
    side_by_side,
    starts,
    tabular,
    trials,
)
from ftlib.course.lab_3_1_7.frontier import Levels, best_of_course, bound, optimum_course, win_at
from ftlib.course.lab_3_1_7.implicit_reward import implicit_reward
from ftlib.course.lab_3_1_7.preference_loss import preference_loss
from ftlib.course.lab_3_1_7.schematic import draw_dpo
from ftlib.course.lab_3_1_7.swapped_win_rate import swapped_win_rate
from ftlib.course.records import shown
from ftlib.course.records.experiment import find_experiment
from ftlib.course.records.live import Result
from ftlib.course.records.store import Entry, Record
from ftlib.losses.preference import dpo_loss

TINY = get_profile("tiny")
LEVELS = Levels(np.array([0.1, 0.2, 0.3, 0.4]))


def margins(values):
    """Log-probabilities of chosen answers whose margins are these, and zeros for the rest."""
    chosen = torch.as_tensor(values, dtype=torch.float64)
    return chosen, torch.zeros_like(chosen), torch.zeros_like(chosen), torch.zeros_like(chosen)


def minimum(loss) -> float:
    """The place of the lowest value of a function of many places, to a hundredth."""
    places = torch.arange(-500, 2500, dtype=torch.float64) / 100
    return float(places[loss(places).argmin()])


# --- losses ---------------------------------------------------------------------------------------
def test_dpo_of_the_students_parts_is_the_librarys_loss():
    g = torch.Generator().manual_seed(0)
    logps = [-20 * torch.rand(6, generator=g, dtype=torch.float64) for _ in range(4)]
    made = losses.dpo_of_parts(implicit_reward, preference_loss)
    for mine, theirs in zip(made(*logps, 0.3, 0.1), dpo_loss(*logps, 0.3, 0.1), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_ipo_wants_half_of_one_over_beta_nats():
    def of(h):
        return losses.ipo_loss(*margins(h), beta=0.05)[0]

    assert minimum(of) == pytest.approx(10.0, abs=0.011)
    with pytest.raises(ValueError, match="label_smoothing"):
        losses.ipo_loss(*margins([1.0]), label_smoothing=0.1)


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_where_the_losses_have_their_optimum_on_noisy_labels(noise):
    """Plain DPO's expected loss at ln((1−ε)/ε), as cDPO's on clean labels; cDPO's nearer to 0."""
    plain = losses.loss_function("DPO")

    def expected(loss, smoothing):
        def of(z):
            right = loss(*margins(z), 1.0, smoothing)[0]
            wrong = loss(*margins(-z), 1.0, smoothing)[0]
            return (1 - noise) * right + noise * wrong

        return minimum(of)

    best = lines.optimum_margin(noise)
    assert expected(plain, 0.0) == pytest.approx(best, abs=0.011)
    smoothed = minimum(lambda z: plain(*margins(z), 1.0, noise)[0])
    assert smoothed == pytest.approx(best, abs=0.011)
    assert 0 < expected(plain, noise) < best - 0.2


def test_rdpo_is_on_average_dpo_on_clean_labels():
    z = torch.tensor([1.7])
    right = losses.robust_dpo_loss(*margins(z), 1.0, 0.3)[0]
    wrong = losses.robust_dpo_loss(*margins(-z), 1.0, 0.3)[0]
    clean = dpo_loss(*margins(z), 1.0)[0]
    torch.testing.assert_close(0.7 * right + 0.3 * wrong, clean)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="'SimPO'"):
        losses.loss_function("SimPO")


# --- five answers ---------------------------------------------------------------------------------
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_tabular_dpo_arrives_at_the_closed_form(beta):
    best = tabular.closed_form(tabular.REFERENCE, tabular.REWARDS, beta)
    assert best.sum() == pytest.approx(1)
    log_ratio = np.log(best / tabular.REFERENCE)
    np.testing.assert_allclose(np.diff(beta * log_ratio), np.diff(tabular.REWARDS))
    np.testing.assert_allclose(tabular.trained(beta), best, atol=2e-3)


def test_against_a_judge_who_is_always_sure_no_beta_holds():
    few = tabular.trained(5.0, "DPO", tabular.ALWAYS, steps=100)
    more = tabular.trained(5.0, "DPO", tabular.ALWAYS, steps=400)
    assert more.max() > few.max() + 0.1
    ipo = [tabular.trained(5.0, "IPO", tabular.ALWAYS, steps=steps) for steps in (300, 600)]
    np.testing.assert_allclose(*ipo, atol=1e-3)


def test_the_explorable_redraws_for_every_handle():
    shown = tabular.FiveAnswers()
    assert shown.values == {"beta": 0.5, "loss": "DPO", "judge": tabular.BRADLEY_TERRY}
    before = shown.headline.value
    shown.controls["loss"].value = "IPO"
    assert shown.headline.value != before and "IPO" in shown.headline.value


# --- what can be reached --------------------------------------------------------------------------
def test_best_of_n_by_levels_is_the_best_of_n_draws():
    g = np.random.default_rng(0)
    draws = g.choice(4, size=(40_000, 3), p=LEVELS.p)
    counted = np.bincount(draws.min(1), minlength=4) / len(draws)
    np.testing.assert_allclose(LEVELS.best_of(3), counted, atol=0.01)
    np.testing.assert_allclose(LEVELS.best_of(1), LEVELS.p)


def test_ties_take_best_of_n_below_the_bound_and_without_ties_it_is_reached():
    for n in (2, 8, 64):
        assert LEVELS.measured(LEVELS.best_of(n))[0] < bound(n)
    fine = Levels(np.full(20_000, 1 / 20_000))
    assert fine.measured(fine.best_of(4))[0] == pytest.approx(bound(4), rel=1e-3)
    assert fine.measured(fine.best_of(4))[1] == pytest.approx(4 / 5, rel=1e-3)


def test_nothing_wins_more_often_than_the_optimum_at_its_kl():
    course = optimum_course([LEVELS], np.geomspace(0.005, 50, 400))
    best = best_of_course([LEVELS], (2, 4, 8))
    others = np.random.default_rng(0).dirichlet(np.ones(4), size=200)
    for kl, win in [*best, *(LEVELS.measured(q) for q in others)]:
        reached = win_at(course, kl)
        if reached is not None:
            assert win <= reached + 1e-3
    assert win_at(course, 99.0) is None


def test_levels_are_counted_from_faults():
    levels = Levels.of([3, 0, 3, 1])
    np.testing.assert_allclose(levels.p, [0.25, 0.25, 0.5])
    np.testing.assert_allclose(levels.win, [0.875, 0.625, 0.25])
    assert levels.p @ levels.win == pytest.approx(0.5)


# --- arms and trials ------------------------------------------------------------------------------
def test_controls_differ_from_dpo_in_one_thing():
    arms = experiments.method_arms(TINY)
    dpo = arms["DPO"]
    assert {**arms["swapped"], "swapped": 0.0} == {**dpo, "swapped": 0.0}
    assert arms["swapped"]["swapped"] == 1.0
    irrelevant = arms["irrelevant"]
    assert irrelevant["pairs"] == "faults_irrelevant"
    assert (irrelevant["loss"], irrelevant["beta"]) == (dpo["loss"], dpo["beta"])


def test_the_irrelevant_rate_is_set_where_both_go_equally_far(monkeypatch):
    """With a KL that grows like the rate squared, the rate between two of the sweep is found."""
    arms = experiments.drift_arms(TINY)

    def measured(name, arm, metric, profile):
        if name == "rates":
            return 4.0
        return (arms[arm]["lr"] / 1e-4) ** 2

    monkeypatch.setattr(experiments, "recorded_mean", measured)
    assert experiments.equal_drift(TINY)["lr"] == pytest.approx(2e-4, rel=0.01)


def test_every_method_has_five_rates_and_the_noise_arms_share_one():
    arms = experiments.rate_arms(TINY)
    for method in experiments.swept_methods():
        assert len(experiments.arms_of(arms, method)) == 5
    noise = experiments.noise_arms(TINY)
    assert len({(own["lr"], own["beta"]) for own in noise.values()}) == 1
    assert {own["swapped"] for name, own in noise.items() if name != "clean"} == {0.3}
    assert noise["clean"] == {**noise["plain"], "swapped": 0.0}


def test_of_betas_that_win_alike_the_usual_one_is_taken(monkeypatch):
    asked = []

    def first(lab, experiment, metric, arms, *rest):
        asked.append(arms)
        return arms[0]

    monkeypatch.setattr(experiments, "best_arm", first)
    assert experiments.best_beta(TINY) == experiments.USUAL_BETA
    assert asked[-1][0].startswith("beta 0.1,")


def test_looks_are_taken_after_the_steps_asked_for():
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    with trials.watching([2, 3], lambda: {"weight": weight.item()}) as seen:
        for _ in range(4):
            weight.grad = -torch.ones(1)
            optimizer.step()
    assert [look["weight"] for look in seen] == [2.0, 3.0]


def test_a_run_draws_other_pairs_for_another_seed_and_each_once():
    rows = [{"key": place} for place in range(50)]
    first = [row["key"] for row in starts.drawn(rows, 20, 0)]
    assert len(set(first)) == 20
    assert first == [row["key"] for row in starts.drawn(rows, 20, 0)]
    assert first != [row["key"] for row in starts.drawn(rows, 20, 1)]


def test_the_hasty_judge_favours_a_position_and_both_orders_take_it_out():
    rows = measures.asked_rows(TINY, starts.TEST)[:8]
    judge = judges.hasty_judge(rows)
    same = [row["chosen"][-1]["content"] for row in rows]
    questions = [row["prompt"][-1]["content"] for row in rows]
    forward = torch.tensor(
        [judge(question, text, text) for question, text in zip(questions, same, strict=True)]
    )
    assert forward.mean() == 1.0
    assert swapped_win_rate(forward, forward) == 0.5


# --- figures and lines ----------------------------------------------------------------------------
def recorded(name: str, metrics) -> Result:
    """A result of the experiment whose every arm has three seeds of these metrics."""
    experiment = find_experiment("3.1.7", name)
    record = Record("3.1.7", name, "tiny", experiment.title)
    for place, (arm, settings) in enumerate(experiment.arms(TINY).items()):
        for seed in range(3):
            measured = metrics(place, seed)
            record.entries[arm, seed] = Entry(arm, seed, dict(settings), measured, 1.0, {})
    return Result(experiment, TINY, record, {}, True, "", 0.0)


def policy(place, seed):
    return {
        "win": 0.5 + 0.05 * place + 0.01 * seed,
        "kl": 1.0 + place,
        "margin": 4.0,
        "win by step": [0.5, 0.55, 0.5 + 0.05 * place],
        "loss by step": [0.69, 0.6, 0.5, 0.4],
        "kl by step": [0.1, 0.4, 1.0 + place],
    }


def draws(place, seed):
    return {"faults": [0, 1, 2, 2, 3, 3, 3, 3 + seed] * 2}


def test_the_ways_are_drawn_from_the_start_on_with_what_can_be_reached():
    methods = recorded("methods", policy)
    way = pictures.mean_course(methods, "DPO")
    np.testing.assert_allclose(way[0], [0.0, 0.5])
    assert way.shape == (4, 2)
    levels = pictures.levels_of(recorded("draws", draws))
    assert len(levels) == 2 and levels[0].p.sum() == pytest.approx(1)
    figure = pictures.draw_ways([(methods, ["DPO"])], "title", recorded("draws", draws))
    labels = [line.get_label() for line in figure.axes[0].get_lines()]
    assert {"DPO", "optimum", "best of n, its KL"} <= set(labels)
    plt.close("all")


def test_lines_say_where_the_best_lies():
    rates = recorded("rates", policy)
    assert "at the grid's edge" in lines.sweep_line(rates, ["IPO"])
    assert "edge of the grid" in lines.beta_line(recorded("beta", policy))
    assert "both improve" in lines.loss_line(recorded("beta", policy), "too fast")
    assert "optimum" in lines.noise_line(recorded("noise", policy), 0.3)
    said = lines.frontier_line(recorded("draws", draws), recorded("methods", policy), "DPO")
    assert said.startswith("DPO")


def test_a_beta_that_is_not_told_apart_is_not_called_better():
    """Two betas whose wins differ by chance, and one that is always behind."""

    def policies(place, seed):
        lead = 0.1 if place == 3 else 0.01 * (-1) ** seed * (place == 0)
        return {**policy(0, seed), "win": 0.6 + 0.01 * seed - lead}

    said = lines.beta_line(recorded("beta", policies))
    assert "these runs do not say that it is better than beta" in said
    assert "beta 5: +10 points" in said or "beta 5: +11 points" in said
    assert "5." not in said.split("better than")[1]


@pytest.mark.parametrize("gain, said", [(0.5, "smaller gain"), (-0.5, "less likely")])
def test_the_line_on_distance_says_which_way_reports_have_moved(gain, said):
    moved = recorded("distance", lambda place, seed: {"chosen": gain + 0.01 * seed})
    assert said in side_by_side.distance_line(moved)


def test_a_cooler_start_stands_beside_a_policy_drawn_at_1():
    methods = recorded("methods", policy)
    better = recorded("sharpened", lambda place, seed: {"win": 0.8 + 0.01 * seed})
    assert "wins more than DPO" in side_by_side.cooler_line(better, methods, "T 0.3", "DPO")
    worse = recorded("sharpened", lambda place, seed: {"win": 0.3 + 0.01 * seed})
    assert "wins less than DPO" in side_by_side.cooler_line(worse, methods, "T 0.3", "DPO")


def test_faults_are_counted_where_they_can_be():
    counted = recorded("sharpened", lambda place, seed: {"faults": 3.0 - place + 0.01 * seed})
    said = side_by_side.faults_line(counted, recorded("draws", draws))
    assert "Fewer than those: DPO, T 0.3, SFT, T 0.3." in said
    judged = recorded("sharpened", lambda place, seed: {"win": 0.5})
    assert side_by_side.faults_line(judged, recorded("draws", draws)) == ""


def test_halves_are_told_and_drawn_seed_by_seed():
    def turned(place, seed):
        return {**policy(place, seed), "win by step": [0.6 + 0.01 * seed, 0.5], "steps": [12, 24]}

    methods = recorded("methods", turned)
    said = side_by_side.turn_line(methods, "irrelevant", "DPO")
    assert "61%" in said and "3 of 3 seeds fell" in said and "above one half" in said
    figure = pictures.draw_halves(methods, ["DPO", "irrelevant"], "title")
    assert [ax.get_title() for ax in figure.axes] == ["DPO", "irrelevant"]
    assert len(figure.axes[1].get_lines()) == 1 + 3 + 1  # one half, the seeds, their mean
    plt.close("all")


def test_what_a_pair_weighs_and_how_far_its_run_has_gone():
    assert side_by_side.weight(5.0, 1.0) == pytest.approx(1 / (1 + math.e**5))
    said = side_by_side.weight_line(recorded("beta", policy), ["beta 0.1", "beta 5"])
    assert "margin 4 [4, 4] nats" in said and "0.0067" in said


def test_a_policy_may_rank_right_and_answer_badly():
    ranks = {"right by ratio": 1.0, "right by log p": 1.0}
    bad = recorded("beta", lambda place, seed: {**ranks, "win": 0.3 + 0.01 * seed})
    assert "no measure of answers" in side_by_side.ranking_line(bad, "too fast")
    good = recorded("beta", lambda place, seed: {**ranks, "win": 0.7 + 0.01 * seed})
    assert "no measure" not in side_by_side.ranking_line(good, "too fast")


def test_longer_and_a_closing_sentence_are_one_thing_in_the_long_pairs():
    name = "preferences_long"
    assert "are one thing" in side_by_side.closing_line(starts.training_pairs(TINY, name), name)
    name = "preferences_matched"
    assert "one thing" not in side_by_side.closing_line(starts.training_pairs(TINY, name), name)
    assert side_by_side.closing_line([{"prompt": []}], "others") == ""


def test_margins_of_noisy_labels_in_numbers():
    assert lines.optimum_margin(0.3) == pytest.approx(math.log(7 / 3))


def test_schematic_and_distance_figures_draw():
    def moved(place, seed):
        return {"chosen": place - 1.0, "rejected": -2.0, "paraphrase": 0.5}

    assert "10 train" in draw_dpo(100, 10).axes[0].texts[2].get_text()
    figure = pictures.draw_distance(recorded("distance", moved))
    assert len(figure.axes[0].get_lines()) > 3
    assert pictures.draw_losses((0.0, 0.3)).axes[0].get_lines()


# --- a profile with fewer runs than tiny ----------------------------------------------------------
POCKET = get_profile("pocket")


def of_pocket(name: str, metrics) -> Result:
    """A result of the arms that pocket records, in a session of pocket."""
    experiment = find_experiment("3.1.7", name)
    record = Record("3.1.7", name, "pocket", experiment.title)
    for place, (arm, settings) in enumerate(experiment.arms(POCKET).items()):
        record.entries[arm, 0] = Entry(arm, 0, dict(settings), metrics(place, 0), 1.0, {})
    return Result(experiment, POCKET, record, {}, True, "", 0.0)


def test_what_stands_beside_tinys_runs_is_tinys_too():
    tinys = replace(recorded("drift", policy), shown_in="pocket")
    rates = shown.alongside(of_pocket("rates", policy), tinys)
    assert rates.profile == TINY and rates.shown_in == "pocket"
    assert lines.drift_line(tinys, rates).startswith("In tiny: KL of DPO")
    own = of_pocket("rates", policy)
    assert shown.alongside(own, of_pocket("methods", policy)) is own


def test_arms_that_a_profile_has_not_run_are_named_and_shown_from_tiny():
    methods = of_pocket("methods", policy)
    assert shown.fewer_line(methods, ["DPO", "swapped"]) == "Not run in pocket: swapped."
    assert shown.with_arms(methods, "DPO") is methods
    controls = shown.with_arms(methods, "irrelevant", "swapped")
    assert controls.has("swapped") and controls.shown_in == "pocket"
    said = lines.sweep_line(of_pocket("rates", policy), ["beta 0.1", "beta 5"])
    assert said.endswith("Not run in pocket: beta 5.")


def test_answers_are_read_in_one_line():
    answered = recorded("beta", lambda place, seed: {"samples": ["One.\n\nTwo."]})
    rows = side_by_side.answer_rows([(answered, "too fast"), (answered, "no such arm")])
    assert rows == [{"model": "too fast", "seed": 0, "answer": "One. Two."}]
    assert side_by_side.sample_line(answered, "too fast").endswith("*One. Two.*")


# --- the start ------------------------------------------------------------------------------------
@pytest.fixture
def short_start(monkeypatch, tmp_path):
    """tiny with a start of three steps, an empty folder around, and a list that grows by one with
    every optimizer step.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(starts, "_kept", {})
    starts.imitated_start.cache_clear()
    steps: list[int] = []

    def after_step(*args) -> None:
        steps.append(1)

    handle = register_optimizer_step_post_hook(after_step)
    yield replace(TINY, preference=replace(TINY.preference, imitation_steps=3)), steps
    handle.remove()
    starts.imitated_start.cache_clear()


def start_weights(profile) -> torch.Tensor:
    starts.imitated_start.cache_clear()
    model, _ = starts.imitated_start(profile)
    return torch.cat([weight.flatten() for weight in model.parameters()])


def test_a_kept_start_is_trained_once(short_start, tmp_path, monkeypatch):
    profile, steps = short_start
    in_memory = start_weights(profile)
    folder = starts.keep_start(profile)
    assert torch.equal(start_weights(profile), in_memory)
    assert len(steps) == 6 and (folder / "adapter").is_dir()
    assert torch.equal(start_weights(profile), in_memory)
    assert len(steps) == 6

    deeper = tmp_path / "extensions"
    deeper.mkdir()
    monkeypatch.chdir(deeper)
    starts.keep_start(profile)
    assert torch.equal(start_weights(profile), in_memory)
    assert len(steps) == 6 and not list(deeper.iterdir())


def test_another_start_is_left_alone(short_start, caplog):
    """Other settings, as after another choice of rows: trained without touching what lies there."""
    profile, steps = short_start
    folder = starts.keep_start(profile)
    first = start_weights(profile)
    kept = (folder / "settings.json").read_text()
    other = replace(profile, lr_lora=2 * profile.lr_lora)
    starts.keep_start(other)
    assert not torch.equal(start_weights(other), first)
    assert "in memory alone" in caplog.text and "learning_rate" in caplog.text
    assert len(steps) == 6 and (folder / "settings.json").read_text() == kept
