"""DoRA's row norms: computed once for each state of A, B and W."""

import copy

import torch
from torch import nn

import ftlib as ft
from ftlib.adapters.functional import dora_norm, lora_delta, row_squares
from ftlib.adapters.lora_layer import AdapterConfig, LoRALinear


def test_doras_norm_is_computed_once_for_each_state(monkeypatch):
    """Forward passes share it; an optimizer step, loading, and merging each make a new one; `.data`
    needs forget_norm.
    """
    calls = []
    monkeypatch.setattr(
        "ftlib.adapters.row_norm.dora_norm", lambda *a: calls.append(1) or dora_norm(*a)
    )
    base = nn.Linear(6, 9, dtype=torch.float64).requires_grad_(False)
    layer = LoRALinear(base, AdapterConfig(r=2, lora_alpha=3, use_dora=True))
    nn.init.normal_(layer.lora_B)

    def true_norm():
        return (
            layer.base_layer.weight + lora_delta(layer.lora_A, layer.lora_B, layer.scaling)
        ).norm(dim=1)

    x = torch.randn(4, 6, dtype=torch.float64)
    for _ in range(3):
        layer(x)
    assert len(calls) == 1
    for optimizer in (
        torch.optim.SGD,
        torch.optim.AdamW,
        lambda p, lr: torch.optim.AdamW(p, lr=lr, fused=True),
        lambda p, lr: torch.optim.AdamW(p, lr=lr, foreach=True),
    ):
        before = len(calls)
        layer(x).sum().backward()
        optimizer([p for p in layer.parameters() if p.requires_grad], lr=0.1).step()
        assert torch.allclose(layer._row_norm(), true_norm()) and len(calls) == before + 1
    layer.load_state_dict({k: v + 0.1 for k, v in layer.state_dict().items()})
    assert torch.allclose(layer._row_norm(), true_norm())
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.lora_B.add_(1)
    assert torch.allclose(layer._row_norm(), true_norm()) and not torch.allclose(
        twin._row_norm(), true_norm()
    )
    layer.lora_B.data += 1
    layer.forget_norm()
    assert torch.allclose(layer._row_norm(), true_norm())


def test_row_squares_are_kept_until_the_weight_changes():
    model = nn.Sequential(nn.Linear(8, 6))
    ft.add_lora(model, r=2, target_modules=("0",), use_dora=True)
    layer = ft.lora_layers(model)["0"]
    layer._row_norm()
    kept = layer._kept_norm
    first = kept._squares
    layer.lora_B.data.add_(1)
    layer.forget_norm()
    layer._row_norm()
    assert kept._squares is first
    with torch.no_grad():
        layer.weight.mul_(2)
    layer._row_norm()
    assert torch.allclose(kept._squares, row_squares(layer.weight))
    assert not torch.allclose(kept._squares, first)
