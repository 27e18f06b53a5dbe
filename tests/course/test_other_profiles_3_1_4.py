"""Lab 3.1.4 where the session's profile has records of fewer arms, or none: what is shown is named,
and what is not there is left out.
"""

import dataclasses

import matplotlib.pyplot as plt
import pytest
import torch

from ftlib.batches.encode import encode_rows
from ftlib.core.profiles import get_profile
from ftlib.course.lab_3_1_4 import (
    embedding_rows,
    experiments,
    form_readings,
    lines,
    loss_groups,
    method_rows,
    open_requests,
    pictures,
    readings,
    trials,
)
from ftlib.course.records.experiment import find_experiment
from ftlib.course.records.live import Result, open_experiments
from ftlib.course.records.store import Entry, Record

TINY = get_profile("tiny")
POCKET = get_profile("pocket")


def result_of(name, profile, metrics, seeds=5):
    """A recorded result of the profile's own arms, each with these metrics."""
    experiment = find_experiment("3.1.4", name)
    record = Record("3.1.4", name, profile.name)
    for arm, settings in experiment.arms(profile).items():
        for seed in range(seeds):
            record.entries[arm, seed] = Entry(arm, seed, dict(settings), metrics(seed), 1.0, {})
    return Result(experiment, profile, record, {}, True, "", 0.0)


def methods(seed):
    rise = 0.1 * (seed + 1)
    return {
        "loss": rise,
        "forgotten": rise,
        "right": [1.0],
        "loss_by_step": [rise, rise],
        "forgotten_by_step": [rise, rise],
        "training_by_step": [rise],
    }


def form(seed):
    return {"right": [1.0, 0.0], "right_uncut": [1.0], "form": [1.0], "stopped": [1.0]}


def test_lines_over_a_record_of_fewer_arms_say_what_it_lacks():
    own = result_of("methods", POCKET, methods)
    for line in (
        lines.half_rate_line(own),
        lines.beside_loss_line(own, trials.BOTTLENECK),
        lines.prompt_families_line(result_of("form", POCKET, form)),
    ):
        assert line.startswith("Not in the record of pocket: ")
    assert "LoRA" in lines.last_looks_line(own, ["LoRA", trials.PREFIX])
    assert trials.PREFIX not in lines.last_looks_line(own, ["LoRA", trials.PREFIX])


def test_figures_over_a_record_of_fewer_arms_are_drawn():
    (ax,) = pictures.frontier(result_of("methods", POCKET, methods)).axes
    assert ax.get_title() == "Ends of finished runs, at the best rates"
    swept = result_of("rates", POCKET, lambda seed: {"validation_loss": 1.0, "forgotten": 0.1}, 1)
    series = {}
    for method in experiments.swept_methods(POCKET):
        series[method] = experiments.rates_of(POCKET, method)
    chosen = {method: min(arms) for method, arms in series.items()}
    line = pictures.best_line(swept, series, chosen)
    assert "LoRA" in line and "DoRA" not in line
    assert "too few seeds" in pictures.halves_line(swept, series, 0.05)
    plt.close("all")


def test_tinys_runs_are_named_in_another_session():
    shown = dataclasses.replace(result_of("methods", TINY, methods), shown_in="pocket")
    assert lines.half_rate_line(shown).startswith("In tiny: ")
    (ax,) = pictures.frontier(shown).axes
    assert ax.get_title().endswith("(tiny)")
    assert method_rows.rows_title(shown).endswith("(tiny)")
    assert not lines.half_rate_line(result_of("methods", TINY, methods)).startswith("In ")
    plt.close("all")


def test_costs_of_another_profile_stand_in_no_row():
    def costs(seed):
        return dict.fromkeys(method_rows.COSTS, 1.0)

    of_tiny = result_of("costs", TINY, costs, 1)
    (row, *_) = method_rows.method_rows(result_of("methods", TINY, methods), of_tiny, ["LoRA"])
    assert "weights (MB)" in row
    own = result_of("methods", POCKET, methods)
    (row, *_) = method_rows.method_rows(own, of_tiny, ["LoRA"])
    assert list(row) == ["method", "right (end)", "forgot (nats)"]


@pytest.mark.parametrize("claims", [form_readings.FORM, readings.METHODS])
def test_no_reading_takes_its_base_for_the_embedded_one(claims):
    for claim in claims:
        for outcome in ("above", "below", "none"):
            assert "this base was made" not in claim.reading(outcome)


# --- open requests --------------------------------------------------------------------------------
def test_a_reply_that_states_more_facts_wins():
    rows = open_requests.open_requests(POCKET)
    assert len(rows) == POCKET.live_rows // 2
    judge = open_requests.facts_judge(rows)
    asked = open_requests.question_of(rows[0])
    ideal = rows[0]["answer"]
    order = rows[0]["reply"]["order"]
    assert open_requests.all_stated([ideal, "No."], [rows[0], rows[0]]) == 1
    assert judge(asked, ideal, f"Order {order}.") == 1.0
    assert judge(asked, "No.", f"Order {order}.") == 0.0
    assert judge(asked, ideal, ideal) == 0.5
    assert open_requests.facts_of(rows) == "order, item, step and days"


def test_solved_requests_have_answers_and_are_not_the_asked_ones():
    for profile in (TINY, POCKET):
        asked = [open_requests.question_of(row) for row in open_requests.open_requests(profile)]
        solved = open_requests.solved_requests(profile, 3)
        assert len(solved) == 3 and all(row["messages"][-1]["content"] for row in solved)
        assert not set(asked) & {open_requests.question_of(row) for row in solved}


def test_rows_are_grouped_by_family_where_none_is_open():
    ids = {"labels": [-100, 1]}
    rows = [{"family": "order"}, {"family": "move"}, {"family": "order"}]
    groups = loss_groups.groups_of(rows, [ids] * 3)
    assert {name: len(group) for name, group in groups.items()} == {"`order`": 2, "`move`": 1}
    groups = loss_groups.groups_of([*rows, {"family": "about"}], [ids] * 4)
    assert list(groups) == ["open requests", "others, up to 4 tokens"]


# --- markers --------------------------------------------------------------------------------------
def test_markers_are_those_of_the_template_and_a_bos_that_opens_every_turn():
    _, tokenizer = trials.fresh_base(TINY)
    row = trials.golden_rows(TINY)[0]
    own = embedding_rows.markers_in_use(tokenizer, row)
    assert own == ["<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer.chat_template = (
        "{% for m in messages %}{{ bos_token + m['role'] + m['content'] + '<|end|>' }}{% endfor %}"
    )
    assert embedding_rows.markers_in_use(tokenizer, row) == [tokenizer.bos_token, "<|end|>"]


def test_rows_that_share_a_large_part_are_told_apart_by_their_distance():
    common = torch.tensor([10.0, 0.0, 0.0])
    own = common + torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    spare = common.repeat(3, 1)
    assert "nearly parallel too" in embedding_rows.distance_line(own, spare)
    other = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert "Both signs agree" in embedding_rows.distance_line(other, spare)
    assert "no bundle" in embedding_rows.distance_line(other, torch.eye(3))


def test_a_marker_is_replaced_only_where_it_is_read():
    class Reader(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, input_ids, labels):
            self.read = input_ids.tolist()
            return type("Output", (), {"loss": torch.tensor(1.0)})

    model = Reader()
    row = {"input_ids": [7, 1, 7, 2, 7], "labels": [-100, -100, -100, 2, 7]}
    assert embedding_rows.answer_losses(model, [row], {7: 9}).tolist() == [1.0]
    assert model.read == [[9, 1, 9, 2, 7]]


def test_the_untrained_model_prefers_its_own_stop_and_reads_its_own_markers():
    model, tokenizer = trials.fresh_base(TINY)
    rows = trials.golden_rows(TINY)[:12]
    spare = TINY.untrained_tokens
    assert "So the model reads them." in embedding_rows.swap_line(model, tokenizer, rows, spare)
    ids = tokenizer.convert_tokens_to_ids([tokenizer.eos_token, *spare])
    encoded = encode_rows(tokenizer, rows)
    logits = embedding_rows.stop_logits(model, encoded, ids)
    assert logits.shape == (12, 4) and (logits[:, 0] > logits[:, 1:].amax(1)).all()
    assert "`<|end|>`" in embedding_rows.stop_line(model, tokenizer, rows, spare)


def test_a_guess_about_what_pocket_does_not_measure_is_held_against_tinys_runs():
    """Without the arm of three rows in pocket; what pocket does measure is its own."""
    metrics = {"right": [1.0], "right_uncut": [1.0], "form": [1.0], "stopped": [1.0]}
    form = result_of("form", POCKET, lambda seed: metrics)
    assert not form.has(form_readings.FEW_TRAINED)
    in_tiny = open_experiments("3.1.4", TINY).show("form").outcome("few rows")
    assert pictures.outcome(form, "few rows") == pictures.LETTER[in_tiny] != "open"
    assert pictures.outcome(form, "own families") == "no"  # all arms alike here
