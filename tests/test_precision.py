"""Precision is a setting, of the profile or of the call, and never what the processor happens to
have.

Every test here runs bf16 on every machine: where the processor has no units for it, it is emulated,
slow and right.
"""

import json
import math

import pytest
import torch
from conftest import chat, llama, randomize

import ftlib as ft
from ftlib.adapters.prefix import add_prefix
from ftlib.core.profiles import PROFILES
from ftlib.core.runtime import configure
from ftlib.training.options import PRECISIONS

BF16_ROUNDING = 2**-8  # half a unit in the last of eight bits, relative
SETTINGS = {"steps": 3, "learning_rate": 1e-3, "batch_size": 4, "log_steps": 1, "show": False}
PAIRS = [
    {"prompt": f"Say {w}.", "chosen": w, "rejected": f"no {w}!"}
    for w in ("ab", "cde", "f", "gh", "ijk", "l")
]
per_precision = pytest.mark.parametrize("precision", PRECISIONS)


def adapted(dtype=torch.float32, **options):
    torch.manual_seed(0)
    model = llama(layers=1, dtype=dtype, initializer_range=0.3)
    return ft.add_lora(model, r=2, target_modules="all-linear", **options)


def computed_in(model) -> list[torch.dtype]:
    """Dtypes of what the model's last linear layer before the head gives, noted at every call from
    now on.
    """
    seen = []
    layer = model.model.layers[-1].mlp.down_proj
    layer.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    return seen


def trained(model) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


# --- what computes in what ------------------------------------------------------------------------
def test_the_profiles_say_in_what_they_train():
    assert {name: p.precision for name, p in PROFILES.items()} == {
        "tiny": "fp32",
        "pocket": "fp32",
        "small": "bf16",
        "spark": "bf16",
    }


@pytest.mark.parametrize("profile, dtype", [("tiny", torch.float32), ("small", torch.bfloat16)])
def test_without_a_word_it_is_the_profiles(profile, dtype, tokenizer, rows, monkeypatch):
    monkeypatch.setenv("FTLIB_PROFILE", profile)
    model = adapted()
    seen = computed_in(model)
    ft.finetune(model, tokenizer, rows, **SETTINGS)
    assert set(seen) == {dtype}


@pytest.mark.parametrize("train", ["finetune", "prefer"])
def test_bf16_is_autocast_over_fp32_weights(train, tokenizer, rows):
    """Products in bf16; weights, gradients and optimizer in fp32; forward is itself again
    afterwards.
    """
    model = adapted()
    seen = computed_in(model)
    data = rows if train == "finetune" else PAIRS
    getattr(ft, train)(model, tokenizer, data, **SETTINGS, precision="bf16")
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert (
        model(torch.tensor([[1, 2, 3]])).logits.dtype == torch.float32 and seen[-1] == torch.float32
    )


@per_precision
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("train", ["finetune", "prefer"])
def test_weights_of_another_dtype_compute_in_their_own(train, dtype, precision, tokenizer, rows):
    model = adapted(dtype=dtype)
    seen = computed_in(model)
    data = rows if train == "finetune" else PAIRS
    run = getattr(ft, train)(model, tokenizer, data, **SETTINGS, precision=precision)
    assert set(seen) == {dtype} and math.isfinite(run.history[-1]["loss"])


@pytest.mark.parametrize("train", ["finetune", "prefer"])
def test_another_name_is_refused(train, tokenizer, rows):
    with pytest.raises(ft.RunError, match="precision='fp16': use one of fp32, bf16"):
        getattr(ft, train)(adapted(), tokenizer, rows, **SETTINGS, precision="fp16")


# --- the same numbers, to the precision's rounding ------------------------------------------------
@pytest.mark.parametrize("train", ["finetune", "dpo", "simpo", "orpo", "kto"])
def test_the_two_precisions_agree_to_rounding_and_no_further(train, tokenizer, rows):
    """Of a loss of order one, bf16 leaves two to three digits; not one of them would mean that it
    did not compute in it.
    """
    losses = {}
    for precision in PRECISIONS:
        model = randomize(adapted(), scale=0.1)
        if train == "finetune":
            run = ft.finetune(model, tokenizer, rows, **SETTINGS, precision=precision)
        else:
            reference = "adapter_off" if train in ("dpo", "kto") else None
            run = ft.prefer(
                model,
                tokenizer,
                PAIRS,
                loss=train,
                reference=reference,
                **SETTINGS,
                precision=precision,
            )
        losses[precision] = [entry["loss"] for entry in run.history]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=16 * BF16_ROUNDING)
    assert losses["bf16"] != losses["fp32"]


def tolerance(precision: str) -> float:
    return 1e-5 if precision == "fp32" else 16 * BF16_ROUNDING


@per_precision
def test_packed_rows_train_as_apart(precision, tokenizer):
    """Six rows in one step, apart and in one packed row: one loss, and one update."""
    rows = [chat(f"Say {w}.", w) for w in ("ab", "cde", "f", "gh", "ijk", "l")]
    one = {
        **SETTINGS,
        "steps": 1,
        "warmup": 0.0,
        "batch_size": 6,
        "max_length": 512,
        "precision": precision,
    }
    apart = adapted()
    packed = adapted()
    first = ft.finetune(apart, tokenizer, rows, **one)
    second = ft.finetune(packed, tokenizer, rows, **{**one, "batch_size": 1}, packing=True)
    assert second.history[0]["loss"] == pytest.approx(
        first.history[0]["loss"], rel=tolerance(precision)
    )


@per_precision
@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_a_cached_reference_is_that_of_the_adapter_off(loss, precision, tokenizer):
    """The first loss is that of a policy that has not moved, to the rounding of two batches of
    other shapes.
    """
    for kind in ("cached", "adapter_off"):
        run = ft.prefer(
            adapted(), tokenizer, PAIRS, loss=loss, reference=kind, **SETTINGS, precision=precision
        )
        want = {"dpo": math.log(2), "kto": 0.5}[loss]
        assert run.history[0]["loss"] == pytest.approx(want, abs=tolerance(precision))


@per_precision
def test_accumulated_batches_are_one_large_batch(precision, tokenizer, rows):
    losses = []
    for options in ({"batch_size": 8}, {"batch_size": 4, "accumulate": 2}):
        run = ft.finetune(
            adapted(),
            tokenizer,
            rows[:8],
            **{**SETTINGS, "steps": 1, **options},
            precision=precision,
        )
        losses.append(run.history[0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=tolerance(precision))


@per_precision
def test_a_trained_prefix(precision, tokenizer, rows):
    run = ft.finetune(
        add_prefix(llama(layers=1), 2), tokenizer, rows, **SETTINGS, precision=precision
    )
    assert math.isfinite(run.history[-1]["loss"])


# --- runs -----------------------------------------------------------------------------------------
@per_precision
@pytest.mark.parametrize("train", ["finetune", "prefer"])
def test_a_run_records_it_and_resumes_to_the_same_bits(train, precision, tokenizer, rows, tmp_path):
    settings = {**SETTINGS, "save_steps": 1, "output_dir": tmp_path / "run", "precision": precision}
    data = rows if train == "finetune" else PAIRS
    whole = adapted()
    part = adapted()
    first = getattr(ft, train)(whole, tokenizer, data, **settings)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["precision"], manifest["dtype"]) == (precision, "float32")
    (tmp_path / "run" / "checkpoint-3" / "complete").unlink()
    again = getattr(ft, train)(part, tokenizer, data, **settings)
    assert again.resumed_from == 2 and again.history == first.history
    assert all(torch.equal(trained(part)[name], weight) for name, weight in trained(whole).items())


@pytest.mark.parametrize("train", ["finetune", "prefer"])
def test_resuming_in_another_precision_is_refused_by_name(train, tokenizer, rows, tmp_path):
    data = rows if train == "finetune" else PAIRS
    getattr(ft, train)(
        adapted(), tokenizer, data, **SETTINGS, output_dir=tmp_path / "run", precision="fp32"
    )
    with pytest.raises(ft.RunError, match=r"precision: 'fp32' there, 'bf16' now"):
        getattr(ft, train)(
            adapted(), tokenizer, data, **SETTINGS, output_dir=tmp_path / "run", precision="bf16"
        )
    with pytest.raises(ft.RunError, match=r"dtype: 'float32' there, 'bfloat16' now"):
        getattr(ft, train)(
            adapted(dtype=torch.bfloat16), tokenizer, data, **SETTINGS, output_dir=tmp_path / "run"
        )


# --- four bits ------------------------------------------------------------------------------------
@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_4_bit_layers_compute_in_the_profiles_precision(precision, dtype):
    import dataclasses

    profile = dataclasses.replace(ft.get_profile("tiny"), precision=precision)
    model, _ = ft.load_model(quantization="nf4", profile=profile)
    layer = model.model.layers[0].self_attn.q_proj
    assert layer.compute_dtype == dtype
    x = torch.ones(1, 1, layer.in_features)
    assert layer(x).dtype == torch.float32  # a layer answers in its input's dtype


# --- threads --------------------------------------------------------------------------------------
def test_a_forked_child_leaves_the_threads_alone(monkeypatch):
    """A child that sets them waits for its parent's OpenMP threads, which a fork does not copy; the
    parent sets them.
    """
    monkeypatch.setenv("FTLIB_WORKERS", "2")
    assert ft.over_seeds(threads_after_asking_for, [3, 4]) == [1, 1]
    assert threads_after_asking_for(2) == 2


def threads_after_asking_for(count: int) -> int:
    configure(threads=count)
    return torch.get_num_threads()
