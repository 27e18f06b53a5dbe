"""The benchmarks' own instruments; no timings."""
import pytest
import torch

from benchmarks import adapters, harness

FP32 = torch.float32


def test_alternate_runs_all_in_turn():
    order = []
    times = harness.alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warmup=1)
    assert order == ["a", "b"] * 4 and [len(t) for t in times.values()] == [3, 3]


def test_ratio_is_the_median_of_neighbours():
    assert harness.ratio([2, 4, 60], [1, 1, 10]) == "4.00 [2.00, 6.00]"


def test_sections_replace_themselves(monkeypatch, tmp_path):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "RESULTS.md")
    harness.write_section("One", "first")
    harness.write_section("Two", "other")
    harness.write_section("One", "second")
    text = harness.RESULTS.read_text()
    assert text.count("## ") == 2 and "second" in text and "first" not in text and "other" in text and text.startswith("# Benchmarks")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(adapters.SHAPES, 128, 192)


@pytest.mark.parametrize("variant", ["LoRA", "DoRA"])
def test_both_sides_compute_the_same(variant):
    options = adapters.VARIANTS[variant]
    batch = torch.randint(0, 2048, (2, 16))
    adapters.assert_equal(adapters.ours(128, FP32, 2, options), adapters.theirs(128, FP32, 2, options), batch, FP32)


def test_a_difference_would_be_seen():
    a, b = adapters.ours(128, FP32, 2, {}), adapters.theirs(128, FP32, 2, {})
    next(p for n, p in a.named_parameters() if "lora_B" in n).data.mul_(1.05)
    with pytest.raises(AssertionError):
        adapters.assert_equal(a, b, torch.randint(0, 2048, (2, 16)), FP32)
