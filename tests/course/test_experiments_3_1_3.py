"""What the experiments of lab 3.1.3 take for granted: every kind of noise has the size that it
claims, the frozen one is there at test too, curvature is measured right, and copying is counted.
"""

import dataclasses
import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ftlib.core.profiles import get_profile
from ftlib.course.lab_3_1_3 import (
    answers,
    ball,
    curvature,
    experiments,
    lines,
    noise,
    schematic,
    trials,
)
from ftlib.course.records.live import open_experiments
from ftlib.course.records.store import Record

TINY = get_profile("tiny")
ALPHA = 5.0


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(config)
    model.get_input_embeddings().weight.data *= 50  # norms like a trained model's, not 0.02
    return model


@pytest.fixture
def batch():
    torch.manual_seed(0)
    ids = torch.randint(0, 60, (2, 12))
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 8:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def token_norms(drawn):
    """Root-mean-square norm of the noise on a real token of each row (of 12 and of 8 tokens)."""
    squares = drawn.square().sum(-1)
    return squares[0].mean().sqrt(), squares[1, :8].mean().sqrt()


@pytest.mark.parametrize("draw", [noise.uniform(ALPHA), noise.gaussian(ALPHA)])
def test_uniform_and_gaussian_noise_have_one_size(draw, batch):
    torch.manual_seed(0)
    drawn = draw(torch.zeros(2, 12, 512), batch["attention_mask"])
    for norm, length in zip(token_norms(drawn), (12, 8), strict=True):
        assert float(norm) == pytest.approx(ALPHA / math.sqrt(3 * length), rel=0.03)
    assert not drawn[1, 8:].any()


def test_frozen_noise_has_the_size_is_drawn_once_and_stays_on_at_test(model):
    table = torch.zeros(400, 128)
    shifts = noise.frozen_table(table, ALPHA, length=27.0, seed=3)
    assert float(shifts.norm(dim=1).mean()) == pytest.approx(ALPHA / 9, rel=0.02)
    torch.testing.assert_close(shifts, noise.frozen_table(table, ALPHA, 27.0, 3))
    assert not torch.equal(shifts, noise.frozen_table(table, ALPHA, 27.0, 4))
    own = noise.frozen_table(model.get_input_embeddings().weight, ALPHA, 27.0, 3)
    ids = torch.tensor([[4, 9, 4]])
    clean = model.eval().get_input_embeddings()(ids)
    with noise.shifted(model, own):
        shifted = model.get_input_embeddings()(ids)
    torch.testing.assert_close(shifted - clean, own[ids])
    torch.testing.assert_close(model.get_input_embeddings()(ids), clean)


def test_noise_is_on_in_training_only_and_gone_afterwards(model, batch):
    def loss():
        with torch.no_grad():
            return model(**batch).loss.item()

    clean = model.eval() and loss()
    draw = noise.uniform(50.0)
    assert noise.with_noise(model, draw, loss) == clean
    model.train()
    assert abs(noise.with_noise(model, draw, loss) - clean) > 1e-3
    assert loss() == pytest.approx(clean)
    model.eval()
    assert abs(noise.with_noise(model, draw, loss, noise.always_on) - clean) > 1e-3


def test_curvature_agrees_with_small_noise_and_with_the_hessian_itself(model, batch):
    loss = curvature.LossAt(model, batch)
    sigma = 0.05
    trace = curvature.hessian_trace(loss, 3)
    risen = curvature.rises(loss, [sigma], 3)[0]
    assert risen == pytest.approx(sigma**2 * trace / 2, rel=0.1)


def test_hutchinson_finds_the_trace_of_a_known_hessian():
    class Bowl:
        """L(x) = Σ kᵢ xᵢ²/2, whose Hessian has the trace Σ kᵢ."""

        embeddings = torch.zeros(1, 2, 500, dtype=torch.float64)
        stiffness = torch.linspace(0, 2, 1000, dtype=torch.float64).reshape(1, 2, 500)

        def draw(self, seed):
            torch.manual_seed(seed)
            return torch.randn_like(self.embeddings)

        def __call__(self, shift):
            return (self.stiffness * shift.square()).sum() / 2

    assert curvature.hessian_trace(Bowl(), 40) == pytest.approx(1000, rel=0.05)


def test_rmsnorm_turns_size_into_an_angle():
    torch.manual_seed(0)
    table = torch.randn(50, 4096)
    parts = curvature.measured_parts(table, [0.5, 2.0], torch.randn_like)
    for ratio, (along, across) in zip((0.5, 2.0), parts, strict=True):
        assert along == pytest.approx(1 / math.sqrt(1 + ratio**2), abs=0.02)
        assert across == pytest.approx(ratio / math.sqrt(1 + ratio**2), abs=0.02)


def test_the_ball_counts_how_often_a_token_is_mistaken():
    """The formula, against draws of the noise itself, for two tokens."""
    torch.manual_seed(0)
    alpha, length, d = 40.0, 16, 64
    table = torch.zeros(2, d)
    table[1, 0] = 2.0
    assert ball.nearest_other(table, 0) == (1, 2.0)
    bound = alpha / math.sqrt(length * d)
    drawn = bound * (2 * torch.rand(20_000, d) - 1)
    mistaken = (torch.cdist(drawn, table).argmin(1) == 1).float().mean()
    assert float(mistaken) == pytest.approx(ball.share_mistaken(alpha, length, d, 2.0), abs=0.02)


def test_the_ball_and_the_schematic_draw_for_every_value_of_the_handles():
    torch.manual_seed(0)
    shown = ball.NoiseBall(torch.randn(9, 16), {"a": 0, "b": 3}, list("abcdefghi"))
    for alpha in ball.ALPHAS:
        shown.controls["alpha"].value = alpha
        assert "nearest other token" in shown.headline.value
    assert len(shown.draw(**shown.values).axes) == 2
    assert len(schematic.draw_neftune(16, 1.5, 0.4).axes) == 2


def test_what_is_copied_is_counted_with_the_name_left_open():
    training = [{"answer": "Ann lives in Rome now. She likes to swim.", "name": "Ann"}]
    row = {"name": "Bob"}
    assert answers.copied_share("Bob lives in Rome now.", row, training) == 1
    assert answers.copied_share("Bob lives in Oslo now.", row, training) == 0
    assert answers.copied_share("too short", row, training) == 0
    twice = ["Ann is so very kind", "Bob is so very kind"]
    rows = [{"name": "Ann"}, {"name": "Bob"}]
    assert answers.distinct_share(twice, rows) == 0.5


def test_only_answers_alike_in_length_count_for_the_wins():
    short = {"words": [10] * 6, "score": [1.0] * 6}
    long = {"words": [10, 10, 10, 10, 11, 30], "score": [0.0, 0.0, 1.0, 1.0, 1.0, 0.0]}
    assert answers.wins_less_losses(short, long) == pytest.approx(2 / 5)
    assert answers.wins_less_losses(long, short) == pytest.approx(-2 / 5)
    assert answers.wins_less_losses(short, {"words": [30] * 6, "score": [0.0] * 6}) == 0


def test_seeds_train_on_rows_of_their_own_and_never_on_tested_ones():
    first, second = trials.run_rows(TINY, 0), trials.run_rows(TINY, 1)
    assert len(first) == len(second) == TINY.open.rows // trials.SHARE and first != second
    trained = {row["key"] for row in first + second}
    assert not trained & {row["key"] for row in trials.test_rows(TINY)}
    assert not trained & {row["key"] for row in trials.validation_rows(TINY)}


def test_a_run_is_ten_passes_over_its_rows_and_a_short_one_four():
    rows = len(trials.run_rows(TINY, 0))
    steps_a_pass = len(range(0, rows, trials.run_batch(TINY)))  # the last batch is what is left
    assert trials.run_steps(TINY) == trials.EPOCHS * steps_a_pass
    assert trials.run_steps(TINY, experiments.SHORT) == 4 * steps_a_pass
    looked_at = [share * trials.run_steps(TINY) / steps_a_pass for share in trials.LOOKS]
    assert looked_at == pytest.approx([1, 2, 4, 7, 10])


def test_a_sweep_has_seeds_of_its_own():
    compared = {own.seeds for own in experiments.EXPERIMENTS if own.claims}
    assert max(compared) <= trials.SWEEP_SEED


def test_what_is_compared_at_the_fast_rate_differs_from_it_in_one_setting():
    cures = experiments.cure_arms(TINY)
    fast = cures["fast"]
    assert fast["lr"] == experiments.FAST * cures["best rate"]["lr"] == 2 * cures["half fast"]["lr"]
    for arm, setting in (("noise", "alpha"), ("dropout", "dropout"), ("short", "part")):
        own = cures[f"fast, {arm}"]
        assert own == {**fast, setting: own[setting]}
    controls = experiments.control_arms(TINY)
    assert controls["fast, noise"] == cures["fast, noise"]
    for kind in ("Gaussian", "frozen"):
        assert controls[f"fast, {kind}"] == {**cures["fast, noise"], "kind": kind}


def test_every_claim_reads_arms_that_its_experiment_has():
    for experiment in experiments.EXPERIMENTS:
        for claim in experiment.claims:
            assert set(claim.contrast.arms) <= set(experiment.arms(TINY)), claim.name


@pytest.fixture
def short(monkeypatch):
    """Two steps on two rows, and two rows to be measured on."""
    rows = trials.run_rows(TINY, 0)[:2]

    def two_steps(profile, part=1.0):
        return 2

    def two_rows(profile, seed):
        return rows

    monkeypatch.setattr(trials, "run_steps", two_steps)
    monkeypatch.setattr(trials, "run_rows", two_rows)
    for name in ("TESTED", "ASKED", "NOISED", "VALIDATED"):
        monkeypatch.setattr(trials, name, 2)
    monkeypatch.setattr(trials, "LOOKS", (0.5, 1.0))


@pytest.mark.parametrize("name", ["strengths", "courses", "noise", "cure", "controls"])
def test_a_trial_measures_all_that_its_experiment_names(short, name):
    experiment = next(own for own in experiments.EXPERIMENTS if own.name == name)
    settings = list(experiment.arms(TINY).values())[-1]
    found = experiment.trial(TINY, 0, **settings)
    assert {metric.name for metric in experiment.metrics} <= set(found)


def test_frozen_noise_alone_changes_the_loss_when_it_is_taken_away_at_test(short):
    fresh = trials.cure_trial(TINY, 0, lr=1e-3, alpha=ALPHA, kind="Gaussian")
    assert fresh["loss_without_shift"] == fresh["loss"]
    frozen = trials.cure_trial(TINY, 0, lr=1e-3, alpha=ALPHA, kind="frozen")
    assert frozen["loss_without_shift"] != frozen["loss"]


def test_answers_that_the_limit_cuts_are_counted(short, monkeypatch):
    """Of an untrained adapter: at a limit of one token every answer is cut that does not end there;
    at a long one each that ends by itself is not.
    """
    model, tokenizer = trials.fresh_model(TINY, 0)
    asked = trials.test_rows(TINY)
    one_token = dataclasses.replace(TINY, open=dataclasses.replace(TINY.open, max_new_tokens=1))
    texts, cut = trials.answered(one_token, model, tokenizer, asked)
    assert cut == [1.0, 1.0] and all(texts)
    _, cut = trials.answered(TINY, model, tokenizer, asked)
    assert cut == [0.0, 0.0]


@pytest.fixture(scope="module")
def recorded():
    """The lab's recorded comparisons by their name."""
    opened = open_experiments("3.1.3", "tiny")
    return {own.name: opened.show(own.name) for own in experiments.EXPERIMENTS if own.claims}


def test_runs_that_are_copied_and_that_are_not_make_up_all_runs(recorded):
    result = recorded["answers"]
    copied, others = lines.runs_copied(result, "fast")
    words = result.values("fast", "words")
    assert copied + others == pytest.approx((words - 4).clip(0).mean(1))
    assert (copied >= 0).all() and (others >= 0).all()


def test_who_speaks_of_another_is_seen_by_the_name_alone():
    text = "What a day it is. Ann lives in Rome."
    assert lines.speaks_of_another(text, "Bob") and not lines.speaks_of_another(text, "Ann")
    assert not lines.speaks_of_another("Good day to you. Something of Bob", "Bob")


def test_an_alpha_is_converted_by_length_alone():
    assert lines.at_length(5, 50, 200) == 10 and lines.at_length(10, 200, 50) == 5


def test_every_line_reads_its_record_and_says_so_where_there_is_none(recorded):
    empty = {}
    for name, own in recorded.items():
        nothing = Record("3.1.3", name, "tiny")
        empty[name] = dataclasses.replace(own, record=nothing, why="There is no record.")
    for found, digits in ((recorded, True), (empty, False)):
        noises, cures, controls, asked = [
            found[name] for name in ("noise", "cure", "controls", "answers")
        ]
        said = [
            lines.fits_line(cures),
            lines.taken_back_line(cures),
            lines.penalty_line(noises, asked),
            lines.unshifted_line(controls),
            lines.seconds_line(cures),
            lines.best_rate_line(noises),
            lines.copied_line(asked),
            lines.rate_copies_line(asked, noises),
            lines.others_line(asked, trials.test_rows(TINY)),
            lines.length_line(asked, noises),
            lines.distinct_line(asked),
        ]
        assert all(("[" in line) == digits for line in said)


def test_the_comparison_names_its_dose_and_its_rate(recorded):
    noised = recorded["cure"].settings("fast, noise")
    said = lines.compared_line(recorded["noise"], recorded["cure"])
    assert f"{noised['lr']:.2g}: **alpha {noised['alpha']:g}**" in said
    assert "has alpha 1, 5, 10, at the best rate" in said
    record = Record("3.1.3", "cure", "tiny")
    nothing = dataclasses.replace(recorded["cure"], record=record, why="There is no record.")
    assert lines.compared_line(recorded["noise"], nothing) == "There is no record."


def test_runs_of_two_profiles_are_never_subtracted_from_each_other(recorded):
    """A profile may have its own runs at the best rate, of fewer alphas, and show tiny's others."""
    pocket = get_profile("pocket")
    record = Record("3.1.3", "noise", "pocket")
    for (arm, seed), entry in recorded["noise"].record.entries.items():
        if arm in ("no noise", "alpha 5"):
            record.entries[arm, seed] = entry
    noises = dataclasses.replace(recorded["noise"], profile=pocket, record=record)
    asked = dataclasses.replace(recorded["answers"], shown_in="pocket")
    assert "alpha 5 − no noise" in lines.best_rate_line(noises)
    assert "is not measured there" in lines.rate_copies_line(asked, noises)
    assert lines.penalty_line(noises, asked).startswith("In pocket, noise")
    length = lines.length_line(asked, noises)
    assert length.startswith("In tiny") and "In pocket, at the best rate" in length
    assert "alpha 10" not in length
    assert "the runs are tiny's" in lines.outcomes([noises, asked])


def test_outcomes_count_every_claim_of_the_record(recorded):
    claims = sum(len(own.claims) for own in experiments.EXPERIMENTS)
    text = lines.outcomes(list(recorded.values()))
    assert f"Of {claims} claims" in text
    others = text.count("\n- ")
    assert f"{claims - others} came out as expected" in text
