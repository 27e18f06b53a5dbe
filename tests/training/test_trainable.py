"""What a run refuses before its first step: adapters that would get no gradient, weights without
values, float16; and what it says of bfloat16.
"""

import logging

import pytest
import torch
from conftest import llama
from safetensors.torch import load_file

import ftlib as ft
from ftlib.training.options import check_trainable

PAIRS = [{"prompt": f"Say {w}.", "chosen": w, "rejected": f"no {w}!"} for w in ("ab", "c", "de")]
OPTIONS = {"steps": 1, "learning_rate": 1e-3, "batch_size": 2, "show": False}


def finetune(model, tokenizer, rows):
    return ft.finetune(model, tokenizer, rows, **OPTIONS)


def prefer(model, tokenizer, rows):
    return ft.prefer(model, tokenizer, PAIRS, **OPTIONS)


BOTH = pytest.mark.parametrize("train", [finetune, prefer])


@BOTH
def test_a_merged_adapter_is_refused_by_name(train, tokenizer, rows):
    """Its A and B act no more, and would get no gradient."""
    model = ft.merge_adapter(ft.add_lora(llama(), r=2))
    with pytest.raises(ft.RunError, match=r"q_proj is merged .* unmerge_adapter .* merge_and_unl"):
        train(model, tokenizer, rows)


@BOTH
def test_an_adapter_that_is_switched_off_is_refused_by_name(train, tokenizer, rows):
    model = ft.add_lora(llama(), r=2)
    with ft.disable_adapter(model), pytest.raises(ft.RunError, match="switched off"):
        train(model, tokenizer, rows)


@BOTH
def test_a_model_without_values_is_refused_by_name(train, tokenizer, rows):
    with torch.device("meta"):
        model = ft.add_lora(llama(), r=2)
    with pytest.raises(ft.RunError, match=r"training: .* on the meta device"):
        train(model, tokenizer, rows)


@BOTH
def test_a_model_in_dataparallel_is_refused_by_name(train, tokenizer, rows):
    model = torch.nn.DataParallel(ft.add_lora(llama(), r=2))
    with pytest.raises(ft.RunError, match=r"model is a DataParallel: pass .* \(model.module\)"):
        train(model, tokenizer, rows)


def test_a_run_of_a_model_with_compiled_blocks_leaves_the_same_adapter(tokenizer, rows, tmp_path):
    """The file's names are the base's, and the weights those of the run without torch.compile."""
    for name in ("plain", "compiled"):
        torch.manual_seed(0)
        model = ft.add_lora(llama(layers=1), r=2, target_modules=["q_proj"])
        if name == "compiled":
            block = model.model.layers[0]
            model.model.layers[0] = torch.compile(block, backend="eager")
        ft.finetune(model, tokenizer, rows, **OPTIONS, output_dir=tmp_path / name)
    plain, compiled = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
        for name in ("plain", "compiled")
    )
    assert plain.keys() == compiled.keys()
    for key in plain:
        assert torch.allclose(plain[key], compiled[key], atol=1e-6)


@BOTH
def test_float16_weights_are_not_trained(train, tokenizer, rows):
    """AdamW divides by sqrt(v) + 1e-8, which is 0 in float16 where the gradient is small: losses
    went from 5 to 52.
    """
    model = llama(dtype=torch.float16).requires_grad_(True)
    with pytest.raises(ft.RunError, match=r"embed_tokens.weight trains in torch.float16, .*dtype="):
        train(model, tokenizer, rows)


@pytest.mark.parametrize(
    "dtype, adapter, said",
    [
        (torch.float32, False, None),
        (torch.float32, True, None),
        (torch.bfloat16, True, None),
        (torch.bfloat16, False, r"weights train in torch.bfloat16"),
        (torch.float16, True, r"computes in torch.float16"),
    ],
)
def test_what_is_said_of_sixteen_bits(dtype, adapter, said, caplog):
    model = llama(dtype=dtype)
    model = ft.add_lora(model, r=2) if adapter else model.requires_grad_(True)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "ftlib"):
        check_trainable(model)
    if said is None:
        assert not caplog.records
    else:
        assert said in caplog.text and "torch.float32" in caplog.text


def test_an_adapter_over_float16_trains_as_over_float32(tokenizer, rows):
    """A and B are fp32 whatever the base has."""
    losses = []
    for dtype in (torch.float32, torch.float16):
        torch.manual_seed(0)
        model = ft.add_lora(llama(dtype=dtype), r=2)
        run = ft.finetune(model, tokenizer, rows, **{**OPTIONS, "steps": 3, "log_steps": 3})
        losses.append(run.history[-1]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
