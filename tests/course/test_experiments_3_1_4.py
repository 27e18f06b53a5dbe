"""What the experiments of lab 3.1.4 take for granted: batches, controls that keep what they claim
to keep, the scoring, markers, and the reading of curves.
"""

import numpy as np
import pytest
import torch
from torch import nn

from ftlib.core.errors import DataError
from ftlib.core.profiles import get_profile
from ftlib.course.lab_3_1_4 import (
    experiments,
    form_readings,
    form_trials,
    loop,
    marker_trials,
    open_requests,
    pictures,
    readings,
    trials,
)
from ftlib.course.lab_3_1_4.schematic import draw_pipeline
from ftlib.course.lab_3_1_4.trade_off import TradeOff
from ftlib.course.records.experiment import find_experiment
from ftlib.course.records.live import Result
from ftlib.course.records.store import Entry, Record

TINY = get_profile("tiny")


def answers(rows):
    return sorted(row["messages"][-1]["content"] for row in rows)


# --- rows and batches -----------------------------------------------------------------------------
def test_batches_hold_every_row_once_a_round_and_count_their_answer_tokens():
    rows = [{"input_ids": [i, 1, 2], "labels": [-100, i, 2]} for i in range(10)]
    batches = loop.shuffled_batches(rows, steps=5, batch=4, seed=0, micro=2)
    assert [len(batch) for batch in batches] == [2] * 5
    seen = [row["input_ids"][0] for batch in batches for part, _ in batch for row in part]
    assert sorted(seen) == sorted([*range(10), *range(10)])
    assert {count for batch in batches for _, count in batch} == {4}
    assert loop.shuffled_batches(rows, 5, 4, 0, 2) == batches
    assert loop.shuffled_batches(rows, 5, 4, 1, 2) != batches


def test_no_rows_and_rows_of_one_family_are_refused(monkeypatch):
    with pytest.raises(DataError, match="rows is empty"):
        loop.shuffled_batches([], steps=2, batch=2, seed=0)
    monkeypatch.setattr(form_trials, "golden_rows", lambda profile: [{"family": "sql"}])
    with pytest.raises(DataError, match="one family, 'sql'"):
        form_trials.asked_families(TINY, seed=0)


def test_a_look_in_between_changes_nothing_of_the_training():
    xs = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))

    def run(places):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        batches = [[(xs[i : i + 2], 2)] for i in range(0, 12, 2)]
        losses, seen = loop.fit(
            model, lambda rows: model(rows).square().mean(), batches, 0.1, places, lambda: 1
        )
        return losses, len(seen)

    whole, looks = run([6])
    parted, more_looks = run([1, 3, 6])
    assert (looks, more_looks) == (1, 3)
    np.testing.assert_allclose(whole, parted)
    assert len(whole) == 6 and whole[-1] < whole[0]


def test_shuffled_answers_stay_in_their_family_and_leave_their_question():
    rows = trials.train_rows(TINY)[:300]
    other = form_trials.shuffle_answers(rows, seed=3)
    for family in trials.families_of(rows):
        own = form_trials.of_families(rows, [family])
        given = form_trials.of_families(other, [family])
        assert answers(own) == answers(given)
        assert [r["messages"][:-1] for r in own] == [r["messages"][:-1] for r in given]
    moved = [a["messages"][-1] != b["messages"][-1] for a, b in zip(rows, other, strict=True)]
    assert np.mean(moved) > 0.8  # short answers such as "positive" come back by chance


def test_the_few_rows_are_those_that_the_prompt_shows_and_others_hold_none_of_the_asked():
    asked = form_trials.asked_families(TINY, seed=1)
    every = trials.families_of(trials.golden_rows(TINY))
    assert len(asked) == 6 and set(asked) < set(every)
    assert asked != form_trials.asked_families(TINY, seed=2)
    few = form_trials.first_of_each(trials.train_rows(TINY), asked, seed=1)
    assert len(few) == trials.SHOTS * len(asked)
    assert trials.families_of(few) == asked
    assert form_trials.training_rows(TINY, 1, "few") == few


def test_every_trained_arm_has_the_families_that_it_is_named_for():
    asked = form_trials.asked_families(TINY, seed=1)
    golden = trials.families_of(trials.golden_rows(TINY))
    rows = {kind: form_trials.training_rows(TINY, 1, kind) for kind in ("all", "shuffled")}
    others = form_trials.training_rows(TINY, 1, "others")
    assert trials.families_of(rows["all"]) == trials.families_of(rows["shuffled"]) == asked
    assert sorted([*asked, *trials.families_of(others)]) == golden
    assert "about" not in golden  # its rows state what other families ask for
    assert form_trials.kept_answers(rows["all"], rows["all"]) == 1.0
    assert 0 < form_trials.kept_answers(rows["all"], rows["shuffled"]) < 0.3


def test_the_shares_of_the_families_in_the_answer_tokens_sum_to_one():
    _, tokenizer = trials.fresh_base(TINY)
    shares = trials.answer_shares(TINY, tokenizer, trials.golden_rows(TINY))
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["json"] > shares["ordering"] > 0  # longer answers, as many rows


# --- scoring --------------------------------------------------------------------------------------
def test_an_answer_ends_at_its_first_line_break():
    assert trials.first_line("\n10, 12, 30.\nThe numbers are") == "10, 12, 30."
    assert trials.first_line("warm") == "warm"


@pytest.mark.parametrize(
    "text, shape",
    [
        ("21, 40, 45", "9, 9, 9"),
        ("b-u-c", "a-a-a"),
        ("RED POT", "A A"),
        ("Tregam", "Aa"),
        ("49 crowns", "9 a"),
    ],
)
def test_a_skeleton_keeps_the_shape_and_forgets_the_words(text, shape):
    assert trials.skeleton(text) == shape


def test_right_answers_of_the_golden_set_are_in_form():
    shapes = trials.known_shapes(TINY)
    fits = []
    for row in trials.golden_rows(TINY):
        fits.append(trials.skeleton(trials.normalise(row["answer"])) in shapes[row["family"]])
    assert np.mean(fits) > 0.95


def test_the_open_judge_goes_by_facts_alone():
    rows = open_requests.open_requests(TINY)
    row = rows[0]
    judge = open_requests.facts_judge(rows)
    asked = open_requests.question_of(row)
    polite = row["chosen"][0]["content"]
    rude = row["rejected"][0]["content"]
    assert judge(asked, polite, rude) == 0.5
    assert judge(asked, polite, "I do not know.") == 1.0
    assert judge(asked, "I do not know.", polite) == 0.0
    assert open_requests.open_requests(get_profile("spark")) == []


# --- models ---------------------------------------------------------------------------------------
class Tied(nn.Module):
    """An embedding whose weight is the output layer's too."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.config = type("Config", (), {"tie_word_embeddings": True})()

    def get_input_embeddings(self):
        return self.embedding

    def get_output_embeddings(self):
        return self.head


class Words:
    def convert_tokens_to_ids(self, tokens):
        return [int(token) for token in tokens]


def test_exchanged_output_rows_leave_the_way_in_as_it_is():
    model = Tied()
    before = model.embedding.weight.detach().clone()
    marker_trials.untie(model)
    marker_trials.swap_output_rows(model, Words(), "4", "1")
    torch.testing.assert_close(model.embedding.weight.detach(), before)
    torch.testing.assert_close(model.head.weight, before[[0, 4, 2, 3, 1]])
    assert not model.config.tie_word_embeddings and not model.head.weight.requires_grad


def test_own_markers_are_named_in_the_order_user_assistant_end():
    _, tokenizer = trials.fresh_base(TINY)
    own = marker_trials.own_markers(tokenizer, trials.golden_rows(TINY)[0])
    assert own == ["<|user|>", "<|assistant|>", "<|end|>"]


def test_the_template_of_the_models_own_markers_is_its_own_template():
    model, tokenizer = trials.fresh_base(TINY)
    row = trials.golden_rows(TINY)[0]
    before = tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
    own = marker_trials.own_markers(tokenizer, row)
    _, changed = marker_trials.with_markers(model, tokenizer, *own, own[-1])
    after = changed.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
    assert after == before


def test_a_spare_stop_replaces_the_end_of_the_assistants_turn_alone():
    row = trials.golden_rows(TINY)[0]
    ids = {}
    for stop in ("own", "spare"):
        model, tokenizer = marker_trials.marked_model(TINY, 0, "own", stop)
        encoded = tokenizer.apply_chat_template(row["messages"], return_dict=True)
        ids[stop] = encoded["input_ids"]
    spare = tokenizer.convert_tokens_to_ids(TINY.untrained_tokens[2])
    assert ids["own"].count(ids["own"][-1]) == len(row["messages"])
    assert ids["spare"] == [*ids["own"][:-1], spare]
    assert model.generation_config.eos_token_id == spare


# --- curves ---------------------------------------------------------------------------------------
def finished(method, *found):
    """{arm: metrics} of runs at rising rates, each given as (loss, forgotten)."""
    runs = {}
    for arm, (loss, rise) in zip(readings.ends(method), found, strict=True):
        runs[arm] = {"loss": loss, "forgotten": rise}
    return runs


def test_forgetting_at_a_loss_is_read_between_the_ends_of_two_rates():
    runs = finished("LoRA", (2.0, 0.01), (1.0, 0.04), (0.5, 0.16))
    assert np.exp(readings.forgotten_for(runs, "LoRA", 1.0)) == pytest.approx(0.04)
    assert np.exp(readings.forgotten_for(runs, "LoRA", 1.5)) == pytest.approx(0.02)
    assert np.exp(readings.forgotten_for(runs, "LoRA", 0.75)) == pytest.approx(0.08)
    assert np.exp(readings.forgotten_for(runs, "LoRA", 3.0)) == pytest.approx(0.01)


def test_a_rate_that_ends_no_lower_does_not_count_as_the_price_of_a_loss():
    runs = finished("LoRA", (1.0, 0.01), (1.0, 0.5), (0.5, 0.04))
    assert np.exp(readings.forgotten_for(runs, "LoRA", 1.0)) == pytest.approx(0.01)
    assert np.exp(readings.forgotten_for(runs, "LoRA", 0.75)) == pytest.approx(0.02)


def test_the_two_methods_are_compared_at_a_loss_that_both_have_ended_at():
    runs = finished("LoRA", (2.0, 0.02), (1.0, 0.04), (0.6, 0.2))
    runs |= finished("full fine-tuning", (2.0, 0.01), (1.5, 0.02), (1.0, 0.08))
    claim = find_experiment("3.1.4", "methods").claim("forgotten at equal loss")
    assert claim.contrast(runs) == pytest.approx(np.log(0.04 / 0.08))


def test_the_gain_of_an_arm_is_set_against_half_of_the_whole_gain():
    right = {form_readings.BARE: 0.1, form_readings.OTHERS_TRAINED: 0.6}
    by_arm = {arm: {"right": [share]} for arm, share in right.items()}
    by_arm[form_readings.ALL_TRAINED] = {"right": [0.9]}
    contrast = form_readings.beyond_half(form_readings.OTHERS_TRAINED)
    assert contrast(by_arm) == pytest.approx(0.5 - 0.4)


def test_a_rise_is_measured_on_rows_that_did_not_choose_the_checkpoint():
    run = {
        "choosing_loss": [1.0, 0.5, 0.7, 0.4],
        "held_out_loss": [1.0, 0.8, 0.2, 0.9],
        "held_out_right": [0.1, 0.5, 0.6, 0.4],
    }
    few = find_experiment("3.1.4", "few")
    by_arm = {readings.FEW_ROWS: run}
    assert few.claim("loss rises").contrast(by_arm) == pytest.approx(0.9 - 0.8)
    assert few.claim("answers after").contrast(by_arm) == pytest.approx(0.4 - 0.5)


def curves_of(seed):
    losses = [2.0 + 0.01 * seed, 1.0, 0.5, 0.3]
    return {
        "loss": losses[-1],
        "forgotten": 0.2,
        "right": [1.0, 0.0],
        "loss_by_step": losses,
        "forgotten_by_step": [0.0, 0.05, 0.1, 0.2],
        "training_by_step": [1.0],
    }


def test_the_trade_off_draws_up_to_a_step_and_names_the_leader():
    experiment = find_experiment("3.1.4", "methods")
    record = Record("3.1.4", "methods", "tiny")
    for arm in experiment.arms(TINY):
        for seed in range(3):
            metrics = curves_of(seed)
            if arm == "DoRA":
                metrics["loss_by_step"][2] = 0.4
            record.entries[arm, seed] = Entry(arm, seed, {}, metrics, 1.0, {})
    result = Result(experiment, TINY, record, {}, True, "", 0.0)
    handles = TradeOff(result, [4, 10, 20, 40], experiments.METHODS)
    assert "DoRA" in handles.describe(20, False)
    figure = handles.draw(10, True)
    lines = [line for line in figure.axes[0].lines if line.get_label() == "LoRA"]
    assert len(lines) == 1 and len(lines[0].get_xdata()) == 2
    assert not set(handles.methods) & set(readings.frontier_arms("LoRA"))
    (ax,) = pictures.frontier(result).axes
    assert [len(line.get_xdata()) for line in ax.lines if line.get_label() in readings.TWO] == [
        3,
        3,
    ]


def test_a_best_rate_at_the_edge_is_said():
    experiment = find_experiment("3.1.4", "rates")
    record = Record("3.1.4", "rates", "tiny")
    for arm, settings in experiment.arms(TINY).items():
        best = 1.0 if settings["method"] != "LoRA" else 4.0
        distance = abs(np.log(settings["lr"] / (best * middle(settings["method"]))))
        record.entries[arm, 0] = Entry(arm, 0, settings, {"validation_loss": distance}, 1.0, {})
    result = Result(experiment, TINY, record, {}, True, "", 0.0)
    series = {m: experiments.rates_of(TINY, m) for m in experiments.SWEPT}
    chosen = {method: experiments.best_rate(TINY, method) for method in series}
    assert "At the edge of what was tried: LoRA;" in pictures.best_line(result, series, chosen)


def middle(method):
    return experiments.middle_rate(TINY, method)


def test_every_method_has_as_many_rates():
    arms = experiments.rate_arms(TINY)
    for method in experiments.SWEPT:
        assert sum(s["method"] == method for s in arms.values()) == len(experiments.FACTORS)
    assert experiments.best_rate(TINY, "QLoRA") == experiments.best_rate(TINY, "LoRA")


def test_lora_and_full_fine_tuning_run_at_lower_rates_than_their_best_as_well():
    arms = experiments.method_arms(TINY)
    for method in readings.TWO:
        rates = [arms[arm]["lr"] for arm in readings.ends(method)]
        best = experiments.best_rate(TINY, method)
        np.testing.assert_allclose(rates, [best / 4, best / 2, best])


def test_markers_are_compared_at_one_rate():
    arms = experiments.marker_arms(TINY)
    assert {settings["lr"] for settings in arms.values()} == {experiments.marker_rate(TINY)}


def test_the_halves_of_a_sweep_choose_each_for_itself():
    experiment = find_experiment("3.1.4", "rates")
    record = Record("3.1.4", "rates", "tiny")
    rates = experiments.rates_of(TINY, "LoRA")
    low, *_, high = sorted(rates)
    for seed in range(4):
        favourite = low if seed < 2 else high
        for rate, arm in rates.items():
            loss = 1.0 if rate == favourite else 2.0
            record.entries[arm, seed] = Entry(arm, seed, {}, {"validation_loss": loss}, 1.0, {})
    result = Result(experiment, TINY, record, {}, True, "", 0.0)
    said = pictures.halves_line(result, {"LoRA": rates}, experiments.TIE)
    assert f"LoRA {low:.2g} and {high:.2g}" in said
    assert pictures.lowest_of_ties({1.0: 1.04, 2.0: 1.0, 3.0: 1.0}, 0.05) == 1.0
    assert pictures.lowest_of_ties({1.0: 1.06, 2.0: 1.0, 3.0: 1.0}, 0.05) == 2.0


def test_the_schematic_has_the_models_sizes():
    figure = draw_pipeline(2048, 4, 16)
    said = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "2,048" in said and "rank 16" in said and "4 layers" in said
