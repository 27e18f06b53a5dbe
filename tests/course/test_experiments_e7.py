"""What lab E7 takes for granted: its steps are a mean over all tokens, its rows are dealt as
PyTorch deals them, its tables count what is there.
"""

import math

import pytest
import torch
from torch.utils.data import DistributedSampler

import ftlib as ft
from ftlib.core.profiles import get_profile
from ftlib.course.lab_e7 import holding, launch, pair, steps, tables, trials
from ftlib.course.lab_e7.combine_gradients import combine_gradients
from ftlib.course.lab_e7.cut_flat import cut_flat
from ftlib.course.lab_e7.join_flat import join_flat
from ftlib.course.lab_e7.nf4_shard_bytes import nf4_shard_bytes
from ftlib.course.lab_e7.rows_of_rank import rows_of_rank
from ftlib.course.lab_e7.settings import at_scale, settings_of
from ftlib.course.lab_e7.several_planner import SeveralPlanner, traffic_of
from ftlib.course.lab_e7.step_traffic import step_traffic
from ftlib.course.lab_e7.zero_bytes import zero_bytes

TINY = get_profile("tiny")


@pytest.fixture(scope="module", autouse=True)
def nobody_left():
    yield
    pair.close()


# --- exercises by other means ---------------------------------------------------------------------
@pytest.mark.parametrize("stage, gigabytes", [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_zero_is_the_papers_figure_1(stage, gigabytes):
    """7.5B parameters on 64 GPUs."""
    assert round(sum(zero_bytes(7_500_000_000, 64, stage)) / 1e9, 1) == gigabytes


def test_traffic_where_all_weights_train_is_the_papers():
    """Section 7: of Ψ numbers 2Ψ for data parallel and stage 2, 3Ψ for stage 3, for many GPUs."""
    n = 1_000_000
    many = [step_traffic(1.0, 1.0, n, strategy) for strategy in ("ddp", "zero2", "full")]
    assert many == pytest.approx([2, 2, 3], rel=1e-5)


@pytest.mark.parametrize("count, processes", [(12, 2), (10, 3), (11, 4), (3, 4)])
def test_rows_are_dealt_as_pytorchs_sampler_deals_them(count, processes):
    for rank in range(processes):
        sampler = DistributedSampler(range(count), processes, rank, shuffle=True, seed=3)
        sampler.set_epoch(2)
        assert rows_of_rank(count, rank, processes, 3, 2) == list(sampler)


def test_weighting_by_hand():
    """Means 2 of one token and 6 of three: (2 + 18)/4 = 5; the mean of means would be 4."""
    gradients = torch.tensor([[2.0], [6.0]])
    assert combine_gradients(gradients, torch.tensor([1, 3])).tolist() == [5.0]


def test_what_is_cut_comes_together_again():
    tensors = [torch.randn(3, 5), torch.randn(2), torch.randn(1, 1, 4)]
    for processes in (1, 2, 5):
        shards = cut_flat(tensors, processes)
        again = join_flat(shards, [tuple(tensor.shape) for tensor in tensors])
        assert all(torch.equal(a, b) for a, b in zip(again, tensors, strict=True))


def test_scales_are_those_of_ftlibs_nf4():
    """256 × 512 weights: 65,536 packed bytes; 2,048 scales of a byte, 8 groups of 4 bytes."""
    assert nf4_shard_bytes(256, 512, 1) == (65_536, 2_048 + 4 * 8)
    found = ft.quantize_nf4(torch.randn(512, 256))
    whole = sum(nf4_shard_bytes(256, 512, 1))
    assert 0 <= found.nbytes - whole <= 16  # ftlib keeps the scales' mean besides


# --- rows and steps -------------------------------------------------------------------------------
def test_two_processes_read_what_one_reads():
    parts = trials.parts_of_steps(TINY, 4, 3)
    each = settings_of(TINY).rows_each
    assert all(len(numbers) == each for step in parts for numbers in step)
    read = [number for step in parts for number in trials.together(step)]
    order = torch.randperm(
        len(steps.encoded(TINY, "train")), generator=torch.Generator().manual_seed(4)
    )
    assert read == order[: len(read)].tolist()


def test_small_and_spark_share_tinys_model():
    assert at_scale(get_profile("spark")).model == TINY.model
    assert at_scale(get_profile("pocket")).name == "pocket"
    assert settings_of(get_profile("pocket")).rows_each < settings_of(TINY).rows_each


def test_norms_in_float64_are_those_in_fp32():
    task = trials.task_of(TINY, "lora", "", 0, "float64")
    double = steps.new_model(TINY, task)
    single = steps.new_model(TINY, trials.task_of(TINY, "lora", "", 0))
    batch = steps.batch_of(TINY, "train", [0, 1])
    wanted, tokens = steps.loss_sum(double, batch)
    found, same = steps.loss_sum(single, batch)
    assert wanted.dtype == torch.float64 and tokens == same
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


# --- two processes --------------------------------------------------------------------------------
def test_a_right_run_is_equal_and_the_control_is_not():
    right = trials.equality_trial(TINY, 1, "lora", "full", "float64", steps.TOKENS)
    control = trials.equality_trial(TINY, 1, "lora", "ddp", "float32", steps.MEANS)
    assert right["gradient"] < -12 and right["weights"] < -10
    assert control["gradient"] > -2


def test_the_same_rows_are_counted():
    """One step: half of the rows that two processes should read."""
    task = trials.task_of(TINY, "lora", "ddp", 0)
    parts = trials.parts_of_steps(TINY, 0, 1)
    found = trials.first_gradient(TINY, trials.SAME_ROWS, task, [parts[0][0]] * 2)
    half = steps.own_gradient(0, TINY, task, [parts[0][0]], "train")["gradient"]
    assert trials.relative_gap(found, half) < 1e-5


def test_weights_held_through_a_step():
    """DDP's never change. FSDP2's come back to the shards, ZeRO-2's do not before the end of the
    backward pass: then all is whole, and the shards are there too.
    """
    courses = {shard: tables.holding(TINY, shard) for shard in tables.SHARD_NAMES}
    ddp = {size for _, size in courses["ddp"]}
    assert len(ddp) == 1
    whole = ddp.pop()
    zero2 = dict(courses["zero2"])
    full = dict(courses["full"])
    assert full[holding.BEFORE] == full[holding.AFTER] < 0.51 * whole
    assert zero2[holding.LOSS] == whole + zero2[holding.BEFORE]
    assert max(full.values()) < max(zero2.values())
    moments = [moment for moment, _ in courses["full"]]
    assert moments.index("block 1, forward") < moments.index(holding.LOSS)
    assert moments[-2] == "block 1, backward"


def test_what_is_sent_is_what_gloo_is_asked_for():
    measured = tables.measure_sent(TINY, [("lora", "ddp"), ("lora", "full")])
    for case, found in measured.items():
        if found["sent"] is None:
            pytest.skip("this system does not count what a process writes")
        assert found["sent"] == pytest.approx(tables.gloo_traffic(found, case[1]), rel=0.02)
    assert "within" in tables.sent_line(measured)


def test_planned_is_measured():
    found = tables.measure_held(TINY, [("lora", "full"), ("qlora", "full")])
    assert {held.part for held in found} == {
        "weights",
        "adapter",
        "gradients",
        "optimizer",
        tables.CONSTANTS,
    }
    assert all(held.apart == 0 for held in found if held.part != tables.CONSTANTS)
    assert "8 of 8" in tables.held_line(found)


# --- planning and launching -----------------------------------------------------------------------
def test_offloading_leaves_what_is_not_cut():
    plan = ft.plan_memory("llama-3.1-70b", "qlora", gpus=2, shard="full")
    stays = {k: v for k, v in plan.parts.items() if k not in tables.CUT and v > 0}
    assert tables.offloaded(plan) == sum(stays.values())
    assert "quantisation constants" in stays and not plan.fits(24e9)


def test_the_least_cutting_that_fits():
    row = tables.fits_table(["llama-3.1-8b"], ["qlora", "full"], 1024)
    assert row[0]["2 × 24 GB"].startswith("DDP")
    assert row[1]["4 × 80 GB"].startswith("ZeRO-2") and row[1]["2 × 24 GB"].startswith("no")
    assert "on the CPU" not in row[1]["2 Sparks, 128 GB each"]


def test_the_explorable_is_the_planner():
    shown = SeveralPlanner(model="llama-3.1-8b", method="lora", gpus=4, shard="ddp")
    assert shown.plan.total == ft.plan_memory("llama-3.1-8b", "lora", gpus=4, shard="ddp").total
    shown.controls["gpus"].value = 1
    assert shown.plan.total == ft.plan_memory("llama-3.1-8b", "lora").total
    assert traffic_of("llama-3.1-8b", "lora", 1, "ddp") == 0
    with pytest.raises(ValueError, match="no handle machines"):
        SeveralPlanner(machines=2)


def test_accelerate_reads_what_is_written(tmp_path):
    given = launch.launch_settings(2, 2, 1, "10.0.0.1")
    config, plugin = launch.read_launch(launch.write_launch(tmp_path / "spark-1.yaml", given))
    assert (config.num_machines, config.num_processes, config.machine_rank) == (2, 2, 1)
    assert (config.main_process_ip, config.main_process_port) == ("10.0.0.1", launch.PORT)
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    offload = launch.launch_settings(2, offload=True)
    row = launch.read_back(launch.write_launch(tmp_path / "offload.yaml", offload))
    assert row["shards on the CPU"] and row["machines × processes"] == "1 × 2"
    assert "spark-1.yaml" in launch.launch_command("spark-1.yaml")


def test_the_committed_file_is_what_is_written_for_two_gpus(tmp_path):
    from conftest import ROOT

    config, plugin = launch.read_launch(ROOT / "configs" / "fsdp2.yaml")
    own, again = launch.read_launch(
        launch.write_launch(tmp_path / "two.yaml", launch.launch_settings(2))
    )
    assert config.to_dict() == own.to_dict()
    assert plugin.reshard_after_forward == again.reshard_after_forward


@pytest.mark.parametrize(
    "key, value, words",
    [("processes", 3, "unknown keys"), ("fsdp_auto_wrap_policy", "BLOCKS", "BLOCKS")],
)
def test_accelerate_refuses(key, value, words, tmp_path):
    given = launch.launch_settings(2)
    inside = given["fsdp_config"] if key in given["fsdp_config"] else given
    inside[key] = value
    with pytest.raises(ValueError, match=words):
        launch.read_launch(launch.write_launch(tmp_path / "bad.yaml", given))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"gpus": 3, "machines": 2, "address": "a"}, "gpus=3 over machines=2"),
        ({"machines": 2}, "without address"),
        ({"machine": 1}, "machine=1: use a number from 0 to 0"),
    ],
)
def test_bad_launch_settings(options, words):
    with pytest.raises(ValueError, match=words):
        launch.launch_settings(**options)


def test_a_gap_of_nothing_has_a_logarithm():
    assert trials.decades(0.0) == math.log10(trials.LEAST)
    assert trials.decades(1e-3) == pytest.approx(-3)
