"""What lab E6 takes for granted: the tables say what the installed libraries do, both sides train
alike where all is set alike and are told apart where it is not, adapters and logs travel.
"""

import dataclasses
import json
import math
import sys
import types

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import ftlib as ft
from ftlib.batches.encode import encode_rows
from ftlib.core.errors import DataError
from ftlib.core.profiles import get_profile
from ftlib.course.lab_e6 import (
    arms,
    by_hand,
    defaults,
    exchange,
    lines,
    looks,
    ours,
    pictures,
    readings,
    schedules,
    settings,
    start,
    theirs,
    tracking,
    trials,
    unsloth_run,
)
from ftlib.course.lab_e6.clip_factor import clip_factor
from ftlib.course.lab_e6.linear_factor import linear_factor
from ftlib.course.lab_e6.schematic import STATIONS, draw_stations
from ftlib.course.records.live import Result
from ftlib.course.records.store import Entry, Record

TINY = get_profile("tiny")
SEED = 91  # none of the record's, so that nothing cached is met


@pytest.fixture
def short(monkeypatch):
    """Runs of a few steps, of which the first has rate 0."""
    few = dataclasses.replace(
        settings.TINY, steps=4, warmup=0.25, dpo_steps=4, test_rows=8, test_pairs=8
    )
    monkeypatch.setattr(settings, "TINY", few)
    cached = (ours.sft_ours, ours.dpo_ours)
    for function in cached:
        function.cache_clear()
    yield few
    for function in cached:
        function.cache_clear()


def all_defaults() -> list[defaults.Default]:
    return [
        *defaults.adapter_defaults(TINY),
        *defaults.sft_defaults(TINY),
        *defaults.dpo_defaults(TINY),
    ]


# --- the tables -----------------------------------------------------------------------------------
def test_what_is_switched_back_is_the_installed_librarys_default():
    """TRL's rates, PEFT's alpha and layers: read from their classes, not remembered."""
    from peft import LoraConfig
    from trl import DPOConfig, ModelConfig, SFTConfig

    sft = defaults.fields_of(SFTConfig)
    for name, value in {**arms.TRL_RATE, **arms.TRL_REST}.items():
        wanted = True if name == "bf16" else value  # None there: on, unless fp16 is
        assert (sft[name] if sft[name] is not None else True) == wanted, name
    assert sft["lr_scheduler_type"] == "linear"
    assert sft["per_device_train_batch_size"] == settings.TINY.batch
    lora = defaults.fields_of(LoraConfig)
    assert {name: lora[name] for name in arms.PEFT_ADAPTER} == arms.PEFT_ADAPTER
    line = defaults.fields_of(ModelConfig)
    assert arms.SFT[arms.DROPOUT]["adapter"] == {"lora_dropout": line["lora_dropout"]}
    dpo = defaults.fields_of(DPOConfig)
    assert arms.DPO[arms.DPO_RATE]["arguments"] == {"learning_rate": dpo["learning_rate"]}
    assert dpo["loss_type"] == ["sigmoid"] and dpo["beta"] == settings.TINY.beta
    torchs = defaults.defaults_of(torch.optim.AdamW.__init__)
    assert arms.SFT[arms.DECAY]["by_hand"] == {"weight_decay": torchs["weight_decay"]}
    assert defaults.defaults_of(ft.finetune)["schedule"] == "cosine"


def test_the_tables_name_runs_that_are_there():
    named = {default.arm for default in all_defaults() if default.arm}
    runs = {*arms.SFT, *arms.DPO}
    assert named <= runs
    together = {arms.BUT_RATE, arms.EVERYTHING, arms.ALIKE, arms.BY_HAND}
    assert runs - named == together
    assert all(list(default.row()) == list(all_defaults()[0].row()) for default in all_defaults())


def test_what_the_tables_set_alike_is_what_the_runs_are_told():
    """A row whose common value is a number: the arguments of the run have it."""
    told = theirs.sft_arguments(TINY, SEED)
    by_name = {default.what: default for default in defaults.sft_defaults(TINY)}
    assert by_name["learning rate"].common == f"{told['learning_rate']:g}"
    assert by_name["schedule"].common == told["lr_scheduler_type"]
    steps = f"{told['warmup_steps']} of {told['max_steps']} steps"
    assert by_name["warmup"].common == steps
    rows = f"{told['per_device_train_batch_size']} × {told['gradient_accumulation_steps']}"
    assert by_name["rows per step"].common == rows
    assert not told["bf16"] and not told["gradient_checkpointing"]
    assert told["train_sampling_strategy"] == "sequential"


def test_the_drawn_stations_are_those_of_the_tables():
    """α and the layers of both, cosine and linear; hatched where the defaults differ."""
    words = {name: (one, other, differs) for name, one, other, differs in STATIONS}
    rows = {default.what: default for default in all_defaults()}
    assert f"α = {rows['lora_alpha'].ours}" in words["adapter"][0]
    assert f"α = {rows['lora_alpha'].theirs}" in words["adapter"][1]
    schedule = next(d for d in defaults.sft_defaults(TINY) if d.what == "schedule")
    assert schedule.ours in words["schedule"][0] and schedule.theirs in words["schedule"][1]
    clipping = rows["clipping by the norm of all gradients"]
    assert clipping.ours == clipping.theirs and not words["gradient"][2]
    assert len(draw_stations().axes) == 1


# --- equal where all is set alike -----------------------------------------------------------------
def test_sft_is_one_run_in_ftlib_in_trl_and_written_out(short):
    """Losses of every step, and A and B afterwards, within the rounding of fp32 (1e-5 of entries
    that AdamW has moved by up to the sum of the rates, 6e-3).
    """
    mine = ours.sft_ours(TINY, SEED)
    trl = theirs.sft_theirs(TINY, SEED)
    hand = by_hand.sft_by_hand(TINY, SEED)
    assert len(mine.losses) == short.steps
    for other in (trl, hand):
        assert lines.largest_gap(mine.losses, other.losses) < 1e-5
        assert other.rates == pytest.approx(mine.rates, abs=1e-12)
        assert lines.adapter_gap(mine.adapter, other.adapter) < 1e-4
    moved = max(tensor.abs().max().item() for n, tensor in mine.adapter.items() if "lora_B" in n)
    assert moved > 1e-3
    line = lines.parity_line("TRL", mine, trl)
    assert "equal to 0.0001 in all 4 steps" in line


def test_dpo_is_one_run_in_ftlib_and_in_trl(short):
    """And its first loss is ln 2: policy and reference are one model then, SFT's adapter included.
    Against the model before SFT it is not.
    """
    mine = ours.dpo_ours(TINY, SEED)
    trl = theirs.dpo_theirs(TINY, SEED)
    assert lines.largest_gap(mine.losses, trl.losses) < 1e-5
    assert mine.losses[0] == pytest.approx(math.log(2), abs=1e-6)
    other = theirs.dpo_theirs(TINY, SEED, base_as_reference=True)
    assert abs(other.losses[0] - math.log(2)) > 1e-2
    measured = ours.dpo_test(TINY, mine.adapter, SEED)
    assert measured == pytest.approx(ours.dpo_test(TINY, trl.adapter, SEED), abs=1e-4)
    untouched = ours.dpo_test(TINY, ours.adapter_of(start.dpo_start(TINY, SEED)[0]), SEED)
    assert untouched["test_loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize(
    "arm, parts_at",
    [(arms.EVERY_TOKEN, 1), (arms.ALPHA, 3), (arms.NO_WARMUP, 2), (arms.OWN_DRAW, 3)],
)
def test_a_default_switched_back_parts_where_it_acts(short, arm, parts_at):
    """Labels act at once. The first step has rate 0, so that weights move in the second and show in
    the third; without the warmup they move in the first. B is 0 before that, so alpha and A do
    nothing.
    """
    found = trials.sft_trial(TINY, SEED, **arms.SFT[arm])
    assert found["parted"] == parts_at
    assert found["apart"] == max(found["gaps"]) > settings.TOLERANCE
    assert len(found["gaps"]) == len(found["losses"]) == short.steps


def test_a_run_without_a_parting_has_none(short):
    """One more than the last step stands for "never"."""
    found = trials.sft_trial(TINY, SEED, **arms.SFT[arms.BY_HAND])
    assert found["parted"] == short.steps + 1 and found["apart"] < 1e-5


def test_an_order_that_leaves_rows_out_is_refused(short):
    _, tokenizer = start.sft_start(TINY, SEED)
    with pytest.raises(ValueError, match=r"max_length=20 leaves out \d+ of \d+ rows"):
        start.sft_order(tokenizer, start.sft_rows(TINY, SEED), short, SEED, 20)


# --- what a trial reports -------------------------------------------------------------------------
def test_two_curves_compared():
    """Gaps of 0, 0.5 and 0.25: the largest is 0.5, they part at step 2. Equal ones never part."""
    found = trials.compared([2.0, 1.5, 1.0], [2.0, 1.0, 1.25])
    assert found["gaps"] == [0, 0.5, 0.25] and found["apart"] == 0.5 and found["parted"] == 2
    assert trials.compared([2.0, 1.5], [2.0, 1.5])["parted"] == 3


def test_the_mean_of_means():
    """Micro-batches with one token of 4 nats and three of 0: means 4 and 0, mean of means 2; by
    tokens it is 1.
    """
    nll = torch.tensor([[[4.0, 9.0, 9.0]], [[0.0, 0.0, 0.0]]])
    scored = torch.tensor([[[True, False, False]], [[True, True, True]]])
    assert trials.mean_of_means(nll, scored) == 2
    assert trials.step_loss(nll, scored) == 1


def test_readings_of_every_claim_are_three():
    for claim in (*readings.SFT, *readings.DPO):
        assert len({claim.above, claim.below, claim.none}) == 3
        assert set(claim.contrast.arms) <= {*arms.SFT, *arms.DPO}
    names = [claim.name for claim in readings.SFT]
    assert len(set(names)) == len(names)


# --- the exercises' pieces are the libraries' -----------------------------------------------------
@pytest.mark.parametrize("warmup, steps", [(0, 7), (2, 9), (5, 5)])
def test_the_schedule_is_transformers(warmup, steps):
    found = schedules.factors_of("linear", warmup, steps)
    assert found == pytest.approx([linear_factor(i, warmup, steps) for i in range(steps)])


@pytest.mark.parametrize("size", [0.01, 5.0])
def test_the_clipping_is_pytorchs(size):
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,))]
    for parameter in parameters:
        parameter.grad = size * torch.randn_like(parameter)
    factor = clip_factor([parameter.grad.clone() for parameter in parameters], 1.0)
    wanted = [factor * parameter.grad for parameter in parameters]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    for parameter, one in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, one)


# --- tokens ---------------------------------------------------------------------------------------
def test_both_sides_make_the_same_tokens():
    """Of rows given as prompt and completion TRL makes ftlib's tokens and labels."""
    rows = start.sft_rows(TINY, 0)[:20]
    model, tokenizer = start.sft_start(TINY, 0)
    mine = encode_rows(tokenizer, rows, TINY.max_length)
    as_trl_takes_them = theirs.prompt_and_completion(rows)
    trl = looks.encoded_by_trl(tokenizer, model, as_trl_takes_them, theirs.sft_arguments(TINY, 0))
    assert [{name: row[name] for name in looks.COLUMNS} for row in mine] == trl


def test_a_cut_row_loses_its_end_and_a_left_out_one_does_not():
    """At the median half of the rows are longer: ftlib leaves these out, TRL keeps most without the
    end of their answer. As messages every token but the first is learnt.
    """
    rows = start.sft_rows(TINY, 0)[:20]
    length = looks.middle_length(TINY, rows)
    mine, completion, messages = looks.read_by_both(TINY, rows, length)
    assert mine.kept == mine.whole < completion.kept
    assert completion.whole == mine.whole
    assert messages.kept == 20 and messages.scored == messages.tokens - 20
    assert list(mine.row()) == list(messages.row())


def test_pefts_default_adapter_is_the_smaller_one():
    """q and v of each layer in the place of seven matrices."""
    shares = looks.trained_shares(TINY)
    assert shares["PEFT"][0] < shares["ftlib"][0] / 3


def test_the_first_step_that_sees_moved_weights():
    """Rates 0, 1, …: moved in step 2, seen in step 3; without a warmup seen in step 2."""
    assert looks.first_moves([0.0, 1.0, 0.5]) == 3
    assert looks.first_moves([1.0, 0.5]) == 2


# --- adapters -------------------------------------------------------------------------------------
def test_adapters_travel_both_ways():
    found = exchange.exchange_all(TINY, ("LoRA", "DoRA"))
    assert [one.way for one in found] == ["ftlib → PEFT", "PEFT → ftlib"] * 2
    for one in found:
        assert one.equal and one.moved > 100 * one.gap + 0.1, one
    assert not dataclasses.replace(found[0], gap=1.0).equal


def test_names_that_the_file_has_not(tmp_path):
    model, _ = start.sft_start(TINY, 0)
    ft.save_adapter(model, tmp_path)
    from ftlib.course.lab_e6.peft_keys import peft_keys

    renamed = peft_keys(model.state_dict())
    assert exchange.names_apart(renamed, tmp_path) == (set(), set())
    first, *_ = renamed
    renamed["other"] = renamed.pop(first)
    assert exchange.names_apart(renamed, tmp_path) == ({first}, {"other"})


# --- tracking -------------------------------------------------------------------------------------
LOGS = {
    "ftlib": [{"step": 1, "loss": 2.0, "learning_rate": 0.1, "grad_norm": 1.0, "epoch": 0.5}],
    "TRL": [{"step": 1, "loss": 2.5, "learning_rate": 0.1, "grad_norm": 3.0, "entropy": 0.7}],
}


def write_run(folder, steps):
    state = {"log_history": [{"step": s, "loss": 1.0 / s} for s in range(1, steps + 1)]}
    checkpoint = folder / f"checkpoint-{steps}"
    checkpoint.mkdir(parents=True)
    (checkpoint / tracking.STATE).write_text(json.dumps(state))


def test_one_reader_takes_the_newest_log(tmp_path):
    """Of checkpoints 9 and 10 the tenth is newer, though "9" sorts behind "10"."""
    write_run(tmp_path, 9)
    write_run(tmp_path, 10)
    assert len(tracking.read_log(tmp_path)) == 10
    assert tracking.read_manifest(tmp_path) == {}
    with pytest.raises(DataError, match="has no checkpoint"):
        tracking.read_log(tmp_path / "elsewhere")


def test_folders_side_by_side(tmp_path):
    write_run(tmp_path / "one", 2)
    (tmp_path / "one" / "manifest.json").write_text("{}")
    write_run(tmp_path / "two", 2)
    rows = tracking.side_by_side({"one": tmp_path / "one", "two": tmp_path / "two"})
    assert rows == [
        {"file": "manifest.json", "one": "./", "two": "–"},
        {"file": tracking.STATE, "one": "checkpoint-2/", "two": "checkpoint-2/"},
    ]


def test_the_logs_in_one_table():
    rows = tracking.log_table(LOGS)
    assert [row["run"] for row in rows] == ["ftlib", "TRL"]
    assert rows[0]["also"] == "" and rows[1]["also"] == "entropy"


def test_without_a_tracker_the_command_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "installed", list)
    assert "pip install tensorboard" in tracking.track(LOGS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_trackio_gets_a_run_each(monkeypatch, tmp_path):
    """A module in its place notes the calls: init, one log a step with its step, finish."""
    calls = []
    stand_in = types.ModuleType("trackio")
    stand_in.init = lambda project, name, embed: calls.append(("init", project, name))
    stand_in.log = lambda numbers, step: calls.append(("log", numbers, step))
    stand_in.finish = lambda: calls.append(("finish",))
    monkeypatch.setitem(sys.modules, "trackio", stand_in)
    monkeypatch.setattr(tracking, "installed", lambda: ["trackio"])
    said = tracking.track(LOGS, tmp_path, project="here")
    assert "trackio has 2 runs" in said
    numbers = {"loss": 2.0, "learning_rate": 0.1, "grad_norm": 1.0}
    assert calls[:3] == [("init", "here", "ftlib"), ("log", numbers, 1), ("finish",)]
    assert len(calls) == 6


def test_tensorboard_gets_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracking.write_tensorboard(LOGS, tmp_path)
    events = EventAccumulator(str(tmp_path / "TRL"))
    events.Reload()
    assert [event.value for event in events.Scalars("train/loss")] == [2.5]


# --- Unsloth --------------------------------------------------------------------------------------
def test_unsloth_is_left_out_with_the_reason(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "needs a GPU" in unsloth_run.report(TINY, 0, [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(unsloth_run.importlib.util, "find_spec", lambda name: None)
    assert "pip install unsloth" in unsloth_run.report(TINY, 0, [])


def test_the_losses_of_another_process_are_read():
    text = f"banner\n{unsloth_run.MARK}[2.0, 1.5]\n"
    assert unsloth_run.read_losses(text) == [2.0, 1.5]
    with pytest.raises(RuntimeError, match="no losses: banner"):
        unsloth_run.read_losses("banner")


def test_unsloths_layers_are_all_linear_ones():
    """Unsloth's list names what "all-linear" is in a Llama: every linear layer but the head."""
    model, _ = start.sft_start(TINY, 0)
    assert {name.rsplit(".", 1)[-1] for name in ft.lora_layers(model)} == set(unsloth_run.LAYERS)


# --- what the runs say ----------------------------------------------------------------------------
def result_of(runs) -> Result:
    """{arm: [(gaps, parted, loss) of each seed]} as a result of the SFT experiment."""
    from ftlib.course.records.experiment import find_experiment

    record = Record("E6", "sft", "tiny")
    for arm, seeds in runs.items():
        for seed, (gaps, parted, loss) in enumerate(seeds):
            metrics = {
                "gaps": gaps,
                "apart": max(gaps),
                "parted": parted,
                "test_loss": loss,
                "losses": [loss, loss],
            }
            record.entries[arm, seed] = Entry(arm, seed, {}, metrics, 1.0, {})
    experiment = find_experiment("E6", "sft")
    return Result(experiment, TINY, record, {}, True, "", 0.0)


RUNS = {
    arms.ALIKE: [([0.0, 1e-7], 3, 0.2), ([0.0, 1e-7], 3, 0.3)],
    arms.EVERY_TOKEN: [([1.0, 2.0], 1, 0.5), ([1.0, 2.0], 1, 0.7)],
    arms.ALPHA: [([0.0, 0.1], 2, 0.3), ([0.0, 0.0], 3, 0.3)],
}


def test_the_table_of_costs_and_the_line_of_partings():
    """Differences from all set alike, seed by seed: 0.3 and 0.4 for every token. Alpha parts in one
    seed at step 2 and in the other never.
    """
    result = result_of(RUNS)
    assert lines.parted_text(result, arms.ALIKE) == "never"
    assert lines.parted_text(result, arms.EVERY_TOKEN) == "1"
    assert "never" in lines.parted_text(result, arms.ALPHA)
    assert pictures.differences(result, arms.EVERY_TOKEN, "test_loss") == pytest.approx([0.3, 0.4])
    rows = {row["run"]: row for row in lines.cost_table(result)}
    assert rows[arms.ALIKE]["minus that of all set alike"] == ""
    assert rows[arms.EVERY_TOKEN]["minus that of all set alike"].startswith("+0.35")
    line = lines.partings_line(result)
    assert f"before any update: {arms.EVERY_TOKEN}" in line
    assert f"never: {arms.ALIKE}" in line


def test_the_share_of_the_gain():
    """From 1.25 all set alike takes 1.0 off, every token 0.65."""
    line = lines.gained_line(1.25, result_of(RUNS), [arms.EVERY_TOKEN])
    assert "takes 1.00 off" in line and f"{arms.EVERY_TOKEN} 65%" in line


@pytest.mark.parametrize(
    "values, side",
    [([1.0, 1.0], "at"), ([2.0, 1.5], "above"), ([0.5, 0.9], "below"), ([0.5, 1.5], "either")],
)
def test_the_side_of_first_losses(values, side):
    assert lines.side_of(np.array(values), 1.0) == side


def test_pictures_are_drawn():
    run = ours.Trained([2.0, 1.0], [0.0, 1.0], {}, [])
    other = ours.Trained([2.0, 1.1], [0.0, 1.0], {}, [])
    figure = pictures.draw_parity(run, {"other": other}, "A title")
    assert len(figure.axes) == 2
    result = result_of(RUNS)
    costs = pictures.draw_costs(result, "test_loss", "A title", "loss", 0.01)
    names = [label.get_text() for label in costs.axes[0].get_yticklabels()]
    assert names == [arms.ALPHA, arms.EVERY_TOKEN]
    assert pictures.draw_partings(result, [arms.ALIKE, arms.ALPHA, "gone"], "A title").axes
    plt.close("all")


def test_the_explorer_counts_rows_and_steps():
    """320 rows in steps of 4 · 2 · 2 = 16 are 20 steps; a warmup of 10% has rate 0 in the first."""
    explorer = schedules.ScheduleExplorer(320, 1e-3, 4, 2)
    explorer.controls["devices"].value = 2
    values = explorer.values
    assert explorer.steps_of(4, 2, 2) == 20
    line = explorer.describe(**values)
    assert "16 rows per step, 20 steps" in line and "in 1 of the steps the rate is 0" in line
    explorer.controls["schedule"].value = "cosine"
    assert len(explorer.draw(**explorer.values).axes[0].lines) == 2
