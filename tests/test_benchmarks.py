"""The benchmarks' own instruments; no timings."""

import sys

import pytest
import torch
from transformers import LlamaConfig

import ftlib as ft
from benchmarks import adapters, harness, processes, resident
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


@pytest.mark.parametrize("dtype, factor", [(torch.float32, 1.01), (torch.bfloat16, 1.1)])
def test_all_ways_to_log_probabilities_agree(monkeypatch, dtype, factor):
    monkeypatch.setattr(logps_benchmark, "LENGTH", 24)
    data = logps_benchmark.data(300, dtype)
    steps = {}
    for name, way in logps_benchmark.WAYS.items():
        steps[name] = logps_benchmark.step_of(way, *data)
    logps_benchmark.assert_equal(steps, dtype)

    def wrong(*tensors):
        return factor * logps_benchmark.full_logits(*tensors)

    off = logps_benchmark.step_of(wrong, *data)
    with pytest.raises(AssertionError, match="off: "):
        logps_benchmark.assert_equal({**steps, "off": off}, dtype)


def test_sft_losses_of_other_batches_are_told_apart():
    ours = {"losses": [0.6237, 0.3892]}
    close = {"losses": [0.6237, 0.3893]}
    assert sft_benchmark.assert_equal(ours, close, "fp32") == pytest.approx(1e-4)
    with pytest.raises(AssertionError):
        sft_benchmark.assert_equal(ours, {"losses": [0.6237, 0.4]}, "fp32")


def test_in_turn_keeps_what_was_returned_after_the_warmup():
    """Rounds of a and b return 1 and 2, 3 and 4, 5 and 6: the first is not kept."""
    numbers = iter(range(1, 7))

    def following():
        return next(numbers)

    found = harness.in_turn({"a": following, "b": following}, rounds=2, warmup=1)
    assert found == {"a": [3, 5], "b": [4, 6]}


# --- fresh processes ------------------------------------------------------------------------------
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
HOLDING = "import sys; held = bytearray(b'x') * int(sys.argv[1])"


def test_a_fresh_process_is_asked_whether_it_has_torch():
    seen = imports_benchmark.fresh("import ftlib")
    assert not seen["torch"] and seen["peak"] > 0
    assert imports_benchmark.fresh("import sys; sys.modules['torch'] = sys; sys.exit()")["torch"]
    with pytest.raises(RuntimeError, match="no_such_module"):
        imports_benchmark.fresh("import no_such_module")


def test_a_run_says_its_output_seconds_and_peak():
    """Its own words come back to the letter, also of one that leaves by sys.exit. Seconds are of
    the whole process: no fewer than it slept.
    """
    code = "import sys, time; time.sleep(0.2); print('one', sys.argv[1:], end='!'); sys.exit()"
    run = processes.run_code(code, "a", "b c")
    assert run.output == "one ['a', 'b c']!"
    assert run.seconds >= 0.2
    assert processes.run_code("").output == ""


@pytest.mark.parametrize("megabytes", [50, 100])
def test_a_peak_is_in_bytes_and_the_childs_own(megabytes):
    """A child that writes 50 or 100 MB peaks that much higher than one that writes none, to 5 MB;
    and Python alone stays under 64 MB, however much the process that starts it holds: this one has
    torch.
    """
    nothing = processes.run_code(HOLDING, "0")
    something = processes.run_code(HOLDING, str(megabytes * 10**6))
    assert something.peak - nothing.peak == pytest.approx(megabytes * 1e6, abs=5e6)
    assert 1e6 < nothing.peak < 64e6


@pytest.mark.parametrize(
    "code, said",
    [
        ("raise ValueError('no rows in it')", "ended with 1:.*no rows in it"),
        ("import sys; sys.exit(3)", "ended with 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended with -9"),
    ],
)
def test_a_child_that_fails_is_reported_with_its_error(code, said):
    with pytest.raises(RuntimeError, match=f"(?s){said}"):
        processes.run_code(code)


def test_a_module_gives_its_last_line(monkeypatch, tmp_path):
    (tmp_path / "measuring.py").write_text(
        "import sys\nprint('a library speaks')\nprint('\\n{\"tokens\": %d}' % int(sys.argv[1]))\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert processes.result_of("measuring", "7") == {"tokens": 7}
    with pytest.raises(RuntimeError, match=r"invalid literal for int.*'seven'"):
        processes.result_of("measuring", "seven")


def test_measuring_imports_no_torch():
    """Neither what starts the processes, nor what it puts into them."""
    code = "import sys; import benchmarks.processes; print('torch' in sys.modules)"
    assert processes.run_code(code).output == "False\n"


@linux
def test_the_peak_outlives_what_was_held_until_it_is_forgotten():
    """50 MB written and freed are in the peak, not in what is resident; then in neither."""
    code = """
import sys
from benchmarks.resident import forget_peak, peak_resident_bytes, resident_bytes
before = resident_bytes()
held = bytearray(b"x") * 50_000_000
del held
print(peak_resident_bytes() - before, resident_bytes() - before)
forget_peak()
print(peak_resident_bytes() - before)
"""
    peak, left, forgotten = map(int, processes.run_code(code).output.split())
    assert peak == pytest.approx(50e6, abs=5e6)
    assert left < 5e6
    assert forgotten < 5e6


@linux
def test_both_meters_have_one_unit(monkeypatch):
    """Without /proc getrusage's maximum serves: no lower than Linux's own, which may have begun
    later, and not 1024 times as high.
    """
    by_status = resident.peak_resident_bytes()
    monkeypatch.setattr(resident, "STATUS", "/no/such/file")
    assert 0.99 * by_status < resident.peak_resident_bytes() < 100 * by_status


@linux
def test_a_field_that_is_not_there_is_named(monkeypatch, tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmRSS:\t  12 kB\n", encoding="utf-8")
    monkeypatch.setattr(resident, "STATUS", str(status))
    assert resident.resident_bytes() == 12 * 1024
    with pytest.raises(RuntimeError, match="has no VmHWM"):
        resident.peak_resident_bytes()
