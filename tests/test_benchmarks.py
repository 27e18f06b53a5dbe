"""The benchmarks' own instruments; no timings."""

import pytest
import torch
from transformers import LlamaConfig

import ftlib as ft
from benchmarks import adapters, harness
from benchmarks import imports as imports_benchmark
from benchmarks import logps as logps_benchmark
from benchmarks import memory as memory_benchmark
from benchmarks import sft as sft_benchmark

FP32 = torch.float32


def test_alternate_runs_all_in_turn():
    order = []
    times = harness.alternate(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warmup=1
    )
    assert order == ["a", "b"] * 4 and [len(t) for t in times.values()] == [3, 3]


def test_ratio_is_the_median_of_neighbours():
    assert harness.ratio([2, 4, 60], [1, 1, 10]) == "4.00 [2.00, 6.00]"


def test_sections_replace_themselves(monkeypatch, tmp_path):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "RESULTS.md")
    harness.write_section("One", "first")
    harness.write_section("Two", "other")
    harness.write_section("One", "second")
    text = harness.RESULTS.read_text(encoding="utf-8")
    assert (
        text.count("## ") == 2
        and "second" in text
        and "first" not in text
        and "other" in text
        and text.startswith("# Benchmarks")
    )


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(adapters.SHAPES, 128, 192)


@pytest.mark.parametrize("variant", ["LoRA", "DoRA"])
def test_both_sides_compute_the_same(variant):
    options = adapters.VARIANTS[variant]
    batch = torch.randint(0, 2048, (2, 16))
    adapters.assert_equal(
        adapters.ours(128, FP32, 2, options), adapters.theirs(128, FP32, 2, options), batch, FP32
    )


def test_a_difference_would_be_seen():
    a = adapters.ours(128, FP32, 2, {})
    b = adapters.theirs(128, FP32, 2, {})
    next(p for n, p in a.named_parameters() if "lora_B" in n).data.mul_(1.05)
    with pytest.raises(AssertionError):
        adapters.assert_equal(a, b, torch.randint(0, 2048, (2, 16)), FP32)


@pytest.mark.parametrize("method, loss", [("qlora", "sft"), ("lora", "dpo")])
@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
def test_plan_and_measurement_agree(method, loss, recomputed):
    """What training/test_memory_plan.py does for the other methods, here with the benchmark's own
    measurement.
    """
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=False,
    )
    peak = memory_benchmark.measure(config, method, loss, recomputed, 2, 128, False)
    plan = ft.plan_memory(
        config,
        method,
        r=16,
        batch_size=2,
        seq_len=128,
        gradient_checkpointing=recomputed,
        loss=loss,
        dtype="float32",
        device="cpu",
    )
    assert plan.total == pytest.approx(peak, rel=0.1), f"{plan}\nmeasured {peak / 1e6:.1f} MB"


def test_all_ways_to_log_probabilities_agree(monkeypatch):
    monkeypatch.setattr(logps_benchmark, "LENGTH", 24)
    logps_benchmark.assert_equal(
        steps := {
            n: logps_benchmark.step_of(w, *logps_benchmark.data(300))
            for n, w in logps_benchmark.WAYS.items()
        }
    )

    def wrong(*a):
        return 1.01 * logps_benchmark.full_logits(*a)

    with pytest.raises(AssertionError, match="off: "):
        logps_benchmark.assert_equal(
            {**steps, "off": logps_benchmark.step_of(wrong, *logps_benchmark.data(300))}
        )


def test_sft_losses_of_other_batches_are_told_apart():
    ours = {"losses": [0.6237, 0.3892]}
    close = {"losses": [0.6237, 0.3893]}
    assert sft_benchmark.assert_equal(ours, close, "fp32") == pytest.approx(1e-4)
    with pytest.raises(AssertionError):
        sft_benchmark.assert_equal(ours, {"losses": [0.6237, 0.4]}, "fp32")


def test_a_fresh_process_is_asked_whether_it_has_torch():
    seen = imports_benchmark.fresh("import ftlib")
    assert not seen["torch"] and seen["peak"] > 0
    with pytest.raises(SystemExit, match="no_such_module"):
        imports_benchmark.fresh("import no_such_module")
