"""Merging and unmerging: exact to rounding, all layers or none, its cost said or refused."""

import logging

import pytest
import torch
from conftest import VARIANTS, assert_untouched, llama, randomize, snapshot
from torch import nn

import ftlib as ft


def adapted(scale=0.05, **options):
    """A model whose adapter does something."""
    return randomize(ft.add_lora(llama(**options), r=4), scale=scale)


@pytest.mark.parametrize("variant", VARIANTS)
def test_merge_and_unmerge(variant, model, ids):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    randomize(ft.add_lora(model, r=4, **VARIANTS[variant]))
    adapted = model(ids).logits
    assert ft.merge_adapter(model) is model
    assert torch.allclose(model(ids).logits, adapted, rtol=1e-4, atol=1e-5)
    assert ft.unmerge_adapter(model) is model
    assert torch.allclose(model(ids).logits, adapted, rtol=1e-4, atol=1e-5)
    for name, layer in ft.lora_layers(model).items():
        assert torch.allclose(
            layer.base_layer.weight, before[f"{name}.weight"], rtol=1e-5, atol=1e-6
        )


def test_a_merge_that_fails_half_way_leaves_nothing_merged(monkeypatch):
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    ft.add_lora(model, r=2, target_modules=("0", "1", "2"))
    layers = list(ft.lora_layers(model).values())
    for layer in layers:
        layer.lora_B.data.normal_()
    before = [layer.weight.clone() for layer in layers]

    def fail():
        raise MemoryError("no room")

    monkeypatch.setattr(layers[2], "merge", fail)
    with pytest.raises(MemoryError):
        ft.merge_adapter(model)
    for layer, W in zip(layers, before, strict=True):
        assert not layer.merged and torch.allclose(layer.weight, W, atol=1e-6)


def test_float16_that_cannot_hold_the_merged_weight_is_refused_by_name():
    """float16 ends at 65,504; B of 1e5 takes W + sBA beyond. Nothing is merged, not even the
    layers before.
    """
    model = adapted(dtype=torch.float16)
    last = list(ft.lora_layers(model))[-1]
    with torch.no_grad():
        ft.lora_layers(model)[last].lora_B.fill_(1e7)
    before = snapshot(model)
    with pytest.raises(ValueError, match=rf"{last}: .* torch.float16 holds 6.55e\+04: load the"):
        ft.merge_adapter(model)
    assert_untouched(model, before)
    with torch.no_grad():
        ft.lora_layers(model)[last].lora_B.fill_(float("nan"))
    with pytest.raises(ValueError, match=rf"{last}: the merged weight has NaN"):
        ft.merge_adapter(model)


@pytest.mark.parametrize("scale, level", [(1e-3, logging.WARNING), (1.0, logging.INFO)])
def test_a_bf16_merge_says_what_rounding_takes(scale, level, caplog):
    """An update of about bf16's step beside a weight is mostly rounded away; a large one is not."""
    model = adapted(scale=scale, dtype=torch.bfloat16)
    with caplog.at_level(logging.INFO, "ftlib"):
        ft.merge_adapter(model)
    said = [r for r in caplog.records if "rounding to torch.bfloat16" in r.getMessage()]
    assert [r.levelno for r in said] == [level]
    assert ("dtype=torch.float32" in said[0].getMessage()) is (level == logging.WARNING)


def test_an_fp32_merge_has_nothing_to_say(caplog):
    with caplog.at_level(logging.INFO, "ftlib"):
        ft.merge_adapter(adapted())
    assert "rounding" not in caplog.text


def test_a_merge_under_autocast_is_exact_all_the_same():
    """In bf16 the product BA would be put into the base, and taken out of it again in fp32."""
    model = adapted(scale=0.5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        ft.merge_adapter(model)
    ft.unmerge_adapter(model)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-5, atol=1e-6)


def test_merge_and_unload_of_a_plain_module():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    x = torch.randn(2, 8)
    randomize(ft.add_lora(model, r=2, target_modules=("0",)))
    adapted_output = model(x)
    merged = ft.merge_and_unload(model)
    assert type(merged[0]) is nn.Linear
    torch.testing.assert_close(merged(x), adapted_output)
