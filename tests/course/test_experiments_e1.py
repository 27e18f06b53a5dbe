"""What the experiments of lab E1 take for granted: PPO's maths on an episode computed by hand, the
student's functions inside the training, costs that are counted, and what lines and pictures say.
"""

import math

import numpy as np
import pytest
import torch
from conftest import llama

import ftlib as ft
from ftlib.core.profiles import get_profile
from ftlib.course.lab_3_1_7 import experiments as dpo_lab
from ftlib.course.lab_e1 import experiments, lines, readings, settings, trials
from ftlib.course.lab_e1.calibration_error import calibration_error
from ftlib.course.lab_e1.clipped_loss import ppo_policy_loss
from ftlib.course.lab_e1.gae import gae
from ftlib.course.lab_e1.kl_shaped_rewards import answer_masks, kl_shaped_rewards
from ftlib.course.lab_e1.knobs import LENGTH, RATIOS, Knobs, gains, reached
from ftlib.course.lab_e1.leave_one_out import leave_one_out
from ftlib.course.lab_e1.reward_loss import reward_loss
from ftlib.course.lab_e1.schematic import draw_rlhf
from ftlib.course.records.experiment import find_experiment
from ftlib.training.run import Run

TINY = get_profile("tiny")


def double(*numbers) -> torch.Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


# --- an episode by hand ---------------------------------------------------------------------------
def test_an_episode_by_hand():
    """Three tokens of an answer, between one of the prompt and one of padding. Score 1, β = 0.1,
    log-ratios 0.5, 0, 1: rewards -0.05, 0, 1 - 0.1 = 0.9. Values 0.2, 0.4, 0.6, γ = 1, λ = 0.5:
    δ₃ = 0.9 - 0.6 = 0.3, δ₂ = 0 + 0.6 - 0.4 = 0.2, δ₁ = -0.05 + 0.4 - 0.2 = 0.15;
    A₃ = 0.3, A₂ = 0.2 + 0.15 = 0.35, A₁ = 0.15 + 0.175 = 0.325.
    Ratios 1.5, 0.5, 1.1 with ε = 0.2 and A > 0: min is 1.2·0.325, 0.5·0.35, 1.1·0.3 = 0.39, 0.175,
    0.33, their mean 0.895/3. With -A: max of the losses is 1.5·0.325, 0.8·0.35, 1.1·0.3.
    """
    mask = answer_masks((1, 4), length=5)
    ref = double(9, -2, -1, -3, 9)
    logps = ref + double(5, 0.5, 0, 1, 5)
    rewards = kl_shaped_rewards(double(1)[0], logps, ref, mask, 0.1)
    assert torch.allclose(rewards, double(0, -0.05, 0, 0.9, 0), atol=1e-15)
    advantages = gae(rewards, double(7, 0.2, 0.4, 0.6, 7), mask, 1.0, 0.5)
    assert torch.allclose(advantages, double(0, 0.325, 0.35, 0.3, 0), atol=1e-15)
    new = logps + double(3, math.log(1.5), math.log(0.5), math.log(1.1), 3)
    loss = ppo_policy_loss(new, logps, advantages, mask, 0.2)
    assert loss.item() == pytest.approx(-0.895 / 3, abs=1e-15)
    turned = ppo_policy_loss(new, logps, -advantages, mask, 0.2)
    assert turned.item() == pytest.approx((0.4875 + 0.28 + 0.33) / 3, abs=1e-15)


def test_the_loss_of_a_pair_by_hand():
    """σ(ln 3) = 3/4, so a lead of ln 3 costs ln 4/3; with a margin of ln 3 it costs ln 2."""
    lead = torch.tensor([math.log(3)], dtype=torch.float64)
    assert reward_loss(lead, 0 * lead).item() == pytest.approx(math.log(4 / 3))
    assert reward_loss(lead, 0 * lead, math.log(3)).item() == pytest.approx(math.log(2))


def test_calibration_by_hand():
    """Four pairs at σ = 3/4, three right: no error. With two wrong ones at 0.9: 2/6·0.9."""
    sure = math.log(3)
    assert calibration_error(torch.tensor([sure, sure, sure, -sure])) == pytest.approx(0, abs=1e-6)
    gaps = torch.tensor([sure, sure, sure, -sure, -math.log(9), -math.log(9)])
    assert calibration_error(gaps) == pytest.approx(0.3, abs=1e-6)


def test_leave_one_out_by_hand():
    """Scores 1, 2, 6: the others' means are 4, 3.5, 1.5."""
    found = leave_one_out(torch.tensor([1.0, 2.0, 6.0]), 3)
    assert found.tolist() == pytest.approx([-3, -1.5, 4.5])


# --- the student's functions ----------------------------------------------------------------------
def test_maths_take_the_student_s_functions():
    """Returns are advantages plus values within the answer, 0 outside."""

    def ones(rewards, values, mask, gamma, lam):
        return torch.ones_like(values) * mask

    maths = trials.maths_of(gae=ones, ppo_policy_loss=len, leave_one_out=max)
    mask = answer_masks((1, 3), length=4)
    advantages, returns = maths.advantages(None, double(5, 6, 7, 8), mask, 1.0, 1.0)
    assert torch.equal(advantages, double(0, 1, 1, 0))
    assert torch.equal(returns, double(0, 7, 8, 0))
    assert (maths.policy_loss, maths.leave_one_out) == (len, max)
    assert maths.shaped_rewards is kl_shaped_rewards


@pytest.fixture
def small(monkeypatch, tokenizer):
    """The lab's start as a random model of one layer, and few short rollouts."""
    model = llama(layers=1)
    few = settings.Settings(4, 2, 2, 1e-3, 2, 4, 2, 1e-3, 2, 6, 3, 1)
    monkeypatch.setattr(trials, "settings_of", lambda profile: few)
    monkeypatch.setattr(trials, "imitated_start", lambda profile: (model, tokenizer))

    def start(profile, seed):
        torch.manual_seed(seed)
        return ft.add_lora(llama(layers=1), r=2), tokenizer

    monkeypatch.setattr(trials, "imitation_start", start)
    for cached in (trials.reward_model, trials.start_answers):
        cached.cache_clear()
    yield few
    for cached in (trials.reward_model, trials.start_answers):
        cached.cache_clear()


def test_every_function_is_called_in_training(small):
    called = set()

    def noting(function):
        def wrapped(*args):
            called.add(function.__name__)
            return function(*args)

        return wrapped

    own = (reward_loss, kl_shaped_rewards, gae, ppo_policy_loss)
    functions = {f.__name__: noting(f) for f in own}
    found = trials.policy_trial(TINY, 0, "ppo", 0.1, 1e-3, **functions)
    assert called == set(functions)
    names = {metric.name for metric in find_experiment("E1", "methods").metrics}
    assert names <= set(found)
    assert len(found["true on the way"]) == small.rollouts
    assert found["kl on the way"][0] == pytest.approx(0, abs=1e-4)
    assert found["hacked"] == (found["proxy gain"] > 0 > found["true gain"])
    assert found["true"] == -sum(found[part] for part in trials.PARTS)


def test_judgements_are_turned_by_the_share():
    """All of them, none of them, and about half of 192: between 67 and 125 (four deviations)."""
    straight = trials.judgements(TINY, 0, 192)
    assert trials.judgements(TINY, 0, 192, 1.0)[0]["chosen"] == straight[0]["rejected"]
    half = trials.judgements(TINY, 0, 192, 0.5)
    turned = sum(a["chosen"] != b["chosen"] for a, b in zip(half, straight, strict=True))
    assert 67 < turned < 125
    better = [pair["chosen_faults"] < pair["rejected_faults"] for pair in straight]
    assert all(better)


# --- costs and readings ---------------------------------------------------------------------------
def test_passes_by_hand():
    """300 tokens trained on in 2 steps each: 150 tokens of answers. 3·300 for the steps, and of
    every token the drawing, the scoring, the policy's and the reference's reading: 4·150. DPO: 3
    for the step, 1 for the reference.
    """
    assert trials.token_passes(TINY, Run(tokens=300), "ppo") == 1500
    assert trials.token_passes(TINY, Run(tokens=300), "DPO") == 1200


def test_the_true_gain_at_a_distance():
    """Looks at 2 and 6 nats with gains 1 and -1, from (0, 0): half a nat short of the first 0.75;
    half way between them 0; beyond them the last.
    """
    found = {"kl on the way": [2.0, 6.0], "true on the way": [-2.0, -4.0], "true of start": -3.0}
    assert readings.at_kl(found, 1.5) == pytest.approx(0.75)
    assert readings.at_kl(found, 4.0) == pytest.approx(0.0)
    assert readings.at_kl(found, 9.0) == -1.0


def test_reliability_by_hand():
    """Three of four right at 3/4, one of one at 0.99."""
    sure = math.log(3)
    points = lines.reliability(np.array([[sure, sure, sure, -sure, math.log(99)]]))
    assert points == [(pytest.approx(0.75), 0.75, 4), (pytest.approx(0.99), 1.0, 1)]


def first_rollouts(kls, scores):
    """{way: run} with a first rollout of these values, and a second one that is far away."""
    runs = {}
    for way, kl, score in zip(("ppo", "rloo", "grpo"), kls, scores, strict=True):
        history = [{"kl": kl, "reward": score}, {"kl": 9.0, "reward": 9.0}]
        runs[way] = Run(history=history)
    return runs


def test_the_first_rollout_is_chance_while_all_are_one_policy():
    """With a KL of 0 the scores 0.1, 0.3, 0.2 differ by chance: "s", though RLOO's is the highest;
    with a KL of half a nat in one of them the highest one is named.
    """
    scores = (0.1, 0.3, 0.2)
    at_start = first_rollouts((0.0, 1e-5, 0.0), scores)
    assert lines.highest_at_first(at_start) == "s"
    said = lines.first_line(at_start)
    assert "the highest is that of rloo" in said and "chance" in said
    tied = lines.first_line(first_rollouts((0.0, 0.0, 0.0), (0.1, 0.301, 0.304)))
    assert "the highest is shared by rloo and grpo" in tied
    gone = first_rollouts((0.0, 0.5, 0.0), scores)
    assert lines.highest_at_first(gone) == "r"
    assert "no longer one policy" in lines.first_line(gone)


def test_dpo_has_the_rate_that_lab_7_chose():
    """The pairs, the start and the validation people are the same there."""
    chosen = experiments.dpo_settings(TINY)
    assert chosen["beta"] == 0.1
    assert chosen["lr"] in dpo_lab.arms_of(dpo_lab.rate_arms(TINY), "beta 0.1")
    assert experiments.method_arms(TINY)[readings.DPO]["lr"] == chosen["lr"]


def test_the_sweep_is_on_validation_people():
    arms = experiments.rate_arms(TINY)
    assert [own["lr"] for own in arms.values()] == [1e-3, 2e-3, 4e-3]
    assert all(own["split"] == "faults_validation" for own in arms.values())


# --- pictures -------------------------------------------------------------------------------------
def test_the_objective_is_flat_beyond_the_clip():
    """A = 1: ρ below 1.2, 1.2 above; A = -1: -0.8 below 0.8, -ρ above."""
    good = gains(1.0, 0.2)
    bad = gains(-1.0, 0.2)
    assert good == pytest.approx(np.minimum(RATIOS, 1.2))
    assert bad == pytest.approx(-np.maximum(RATIOS, 0.8))


def test_how_far_a_score_reaches():
    """γλ = 0.9·0.5 a token back; λ = 0 leaves it at the last."""
    assert reached(0.9, 0.5)[-3] == pytest.approx(0.45**2)
    assert reached(1.0, 0.0).tolist() == [0.0] * (LENGTH - 1) + [1.0]


def test_the_explorable_says_what_it_draws():
    knobs = Knobs()
    assert "above ρ = 1.20" in knobs.describe(1.0, 0.2, 1.0, 1.0)
    assert "below ρ = 0.70" in knobs.describe(-1.0, 0.3, 1.0, 1.0)
    assert "hears 100.0%" in knobs.describe(1.0, 0.2, 1.0, 1.0)
    assert len(knobs.draw(-1.0, 0.2, 1.0, 0.95).axes) == 2
    assert draw_rlhf().axes[0].get_title()
