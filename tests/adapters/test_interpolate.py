"""Weights between two states of a model: both ends exact, halves by hand, LoRA against the merged
weights.
"""

import pytest
import torch
from conftest import llama, randomize

import ftlib as ft
from ftlib.adapters.interpolate import trained_parameters
from ftlib.adapters.prefix import add_prefix


def moved(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=generator))
    return model


def test_by_hand():
    """θ₀ = [1, −2], θ₁ = [3, 2]: a quarter of the way [1.5, −1], twice the way [5, 6]."""
    layer = torch.nn.Linear(2, 1, bias=False)
    anchor = {"weight": torch.tensor([[1.0, -2.0]])}
    tuned = {"weight": torch.tensor([[3.0, 2.0]])}
    assert ft.interpolate_weights(layer, anchor, 0.25, tuned) is layer
    assert layer.weight.tolist() == [[1.5, -1.0]]
    assert ft.interpolate_weights(layer, anchor, 2, tuned).weight.tolist() == [[5.0, 6.0]]
    with torch.no_grad():
        layer.weight.copy_(tuned["weight"])
    assert ft.interpolate_weights(layer, anchor, 0.25).weight.tolist() == [[1.5, -1.0]]


@pytest.mark.parametrize("make", [ft.add_lora, ft.add_reft, ft.add_ia3, add_prefix, None])
def test_both_ends_are_exact(make, ids):
    """For the whole model and every adapter; in between, another model than both."""
    model = make(llama()) if make else llama().requires_grad_(True)
    anchor = ft.trained_weights(model)
    start = model(ids).logits
    end = moved(model)(ids).logits
    tuned = ft.trained_weights(model)
    assert torch.equal(ft.interpolate_weights(model, anchor, 0, tuned)(ids).logits, start)
    between = ft.interpolate_weights(model, anchor, 0.5, tuned)(ids).logits
    assert not torch.allclose(between, start) and not torch.allclose(between, end)
    assert torch.equal(ft.interpolate_weights(model, anchor, 1, tuned)(ids).logits, end)
    assert tuned.keys() == trained_parameters(model).keys() == anchor.keys()


def test_lora_from_the_base_is_wise_ft_of_the_merged_weights(ids):
    """(1 − t)·W + t·(W + sBA) = W + t·sBA, in float64; interpolating A and B would give t²."""
    base = llama(dtype=torch.float64)
    model = randomize(ft.add_lora(llama(dtype=torch.float64), r=2), scale=0.3)
    merged = randomize(ft.add_lora(llama(dtype=torch.float64), r=2), scale=0.3)
    ft.merge_and_unload(merged).requires_grad_(True)
    anchor = ft.trained_weights(base.requires_grad_(True))
    ft.interpolate_weights(merged, anchor, 0.3)
    ft.interpolate_weights(model, None, 0.3)
    assert torch.allclose(model(ids).logits, merged(ids).logits, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("t", [float("nan"), float("inf"), "half", None, True])
def test_bad_t(t):
    model = llama().requires_grad_(True)
    with pytest.raises(ValueError, match="t="):
        ft.interpolate_weights(model, ft.trained_weights(model), t)


def test_what_does_not_fit_is_refused_untouched():
    model = llama().requires_grad_(True)
    anchor = ft.trained_weights(model)
    with pytest.raises(ValueError, match="requires grad"):
        ft.trained_weights(llama().requires_grad_(False))
    with pytest.raises(ValueError, match="anchor=None"):
        ft.interpolate_weights(model, None, 0.5)
    with pytest.raises(ValueError, match="anchor=None"):
        ft.interpolate_weights(ft.add_lora(llama(), use_dora=True), None, 0.5)
    with pytest.raises(ValueError, match=r"anchor.*1 names.*lm_head|anchor.*1 names"):
        ft.interpolate_weights(model, {**anchor, "more": torch.ones(1)}, 0.5)
    short = {**anchor, "model.norm.weight": torch.ones(3)}
    with pytest.raises(ValueError, match=r"tuned\['model\.norm\.weight'\] has shape \(3,\)"):
        ft.interpolate_weights(model, anchor, 0.5, tuned=short)
    after = ft.trained_weights(model)
    assert all(torch.equal(after[name], tensor) for name, tensor in anchor.items())
