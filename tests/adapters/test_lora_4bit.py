"""LoRA and DoRA over bitsandbytes 4-bit layers: the fused path, what it saves, merging with its
drift.
"""

import logging

import peft
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from bitsandbytes_avx512 import bitsandbytes_is_right, dequantize_as_avx512
from torch import nn

import ftlib as ft

N_IN = 128
N_OUT = 192
R = 8
DORA = pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
BIAS = pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])


class Model(nn.Module):
    def __init__(self, bias=False, n_in=N_IN):
        super().__init__()
        torch.manual_seed(0)
        dense = nn.Linear(n_in, N_OUT, bias=bias)
        self.dense = [dense.weight.detach().bfloat16()]  # in a list: not a parameter
        self.proj = Linear4bit(
            n_in, N_OUT, bias=bias, compute_dtype=torch.bfloat16, quant_type="nf4"
        )
        self.proj.load_state_dict(dense.state_dict())
        self.to(torch.bfloat16).to("cpu")  # quantised as it goes to the CPU, from bf16
        self.proj.support_avx512bf16_for_cpu = False

    def forward(self, x):
        return self.proj(x)


def filled(model):
    """The adapter with numbers in B (and m) as after some training."""
    g = torch.Generator().manual_seed(1)
    for layer in ft.lora_layers(model).values():
        layer.lora_B.data.normal_(0, 0.05, generator=g)
        if layer.use_dora:
            layer.lora_magnitude_vector.data.mul_(1 + 0.1 * torch.randn(N_OUT, generator=g))
            layer.forget_norm()
    return model


def adapted(use_dora, bias=False, **options):
    return filled(
        ft.add_lora(
            Model(bias),
            r=R,
            lora_alpha=2 * R,
            target_modules=("proj",),
            use_dora=use_dora,
            **options,
        )
    )


def data():
    g = torch.Generator().manual_seed(2)
    return torch.randn(3, 5, N_IN, generator=g), torch.randn(3, 5, N_OUT, generator=g)


def run(function, x, dy, dtype, parameters):
    """Output, and gradients of x and of the parameters, all in float64."""
    x = x.to(dtype).requires_grad_()
    for p in parameters:
        p.grad = None
    y = function(x)
    y.backward(dy.to(y.dtype))
    return [t.detach().double() for t in (y, x.grad, *(p.grad for p in parameters))]


def exact(layer, x, dy):
    """The same layer in float64 by autograd, over the dequantised weight."""
    W = dequantize_4bit(layer.weight.data, layer.weight.quant_state).double()
    A, B = (p.detach().double().requires_grad_() for p in (layer.lora_A, layer.lora_B))
    m = layer.lora_magnitude_vector.detach().double().requires_grad_() if layer.use_dora else None
    bias = 0 if layer.bias is None else layer.bias.double()

    def forward(x):
        V = W + layer.scaling * B @ A
        return x @ V.T + bias if m is None else (m / V.detach().norm(dim=1)) * (x @ V.T) + bias

    return run(forward, x, dy, torch.float64, [A, B] + ([m] if m is not None else []))


def trained(layer):
    return [layer.lora_A, layer.lora_B] + ([layer.lora_magnitude_vector] if layer.use_dora else [])


@DORA
@BIAS
def test_no_further_from_float64_than_peft(use_dora, bias):
    """Output and all gradients in bf16: an error at most twice PEFT's own (m: y is rounded once
    more in y − b).
    """
    x, dy = data()
    model = adapted(use_dora, bias)
    layer = ft.lora_layers(model)["proj"]
    theirs = peft.get_peft_model(
        Model(bias),
        peft.LoraConfig(r=R, lora_alpha=2 * R, target_modules=["proj"], use_dora=use_dora),
    )
    other = theirs.base_model.model.proj
    with torch.no_grad():
        other.lora_A.default.weight.copy_(layer.lora_A)
        other.lora_B.default.weight.copy_(layer.lora_B)
        if use_dora:
            other.lora_magnitude_vector.default.weight.copy_(layer.lora_magnitude_vector)
    more = [other.lora_magnitude_vector.default.weight] if use_dora else []
    want = exact(layer, x.bfloat16().float(), dy.bfloat16().float())
    mine = run(model, x, dy, torch.bfloat16, trained(layer))
    peft_s = run(
        theirs,
        x,
        dy,
        torch.bfloat16,
        [other.lora_A.default.weight, other.lora_B.default.weight, *more],
    )
    assert len(mine) == len(want) == len(peft_s)
    for a, b, w in zip(mine, peft_s, want, strict=True):
        assert (a - w).norm() <= max(2 * (b - w).norm(), 0.004 * w.norm())


@DORA
def test_nothing_dense_is_kept_for_backward(use_dora):
    """Saved: the packed weight, x, xAᵀ, the factors, g and y. Never a dequantised (or cast) W."""
    model = adapted(use_dora)
    saved = []
    x, dy = data()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = model(x.bfloat16().requires_grad_())
    assert not [t for t in saved if t.is_floating_point() and t.numel() == N_IN * N_OUT]
    assert any(t.dtype == torch.uint8 for t in saved)
    y.backward(dy.bfloat16())


def test_autocast_keeps_no_copy_of_a_cast_weight():
    model = nn.Sequential(nn.Linear(N_IN, N_OUT))
    ft.add_lora(model, r=R, target_modules=("0",))
    saved = []
    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t),
    ):
        model(data()[0].requires_grad_())
    weights = [t for t in saved if t.numel() == N_IN * N_OUT]
    assert weights and all(t.data_ptr() == model[0].weight.data_ptr() for t in weights)


@DORA
def test_input_in_fp32_gives_output_in_fp32(use_dora):
    model, (x, dy) = adapted(use_dora), data()
    want = exact(ft.lora_layers(model)["proj"], x, dy)
    got = run(model, x, dy, torch.float32, trained(ft.lora_layers(model)["proj"]))
    assert model(x).dtype == torch.float32
    for a, w in zip(got, want, strict=True):
        assert (a - w).norm() < 0.02 * w.norm()


@DORA
@BIAS
def test_merge_dequantises_says_its_drift_and_unmerges_exactly(use_dora, bias, caplog):
    model, (x, _) = adapted(use_dora, bias), data()
    layer = ft.lora_layers(model)["proj"]
    base = layer.base_layer
    packed = layer.weight.data.clone()
    before = model(x.bfloat16()).float()
    names = set(model.state_dict())
    with caplog.at_level(logging.WARNING, "ftlib"):
        ft.merge_adapter(model)
    assert "1 4-bit layers were dequantised" in caplog.text and "in 4 bits again" in caplog.text
    assert isinstance(layer.base_layer, nn.Linear) and not isinstance(layer.base_layer, Linear4bit)
    assert layer.weight.dtype == torch.bfloat16 and not layer.weight.requires_grad
    assert (model(x.bfloat16()).float() - before).norm() < 0.02 * before.norm()
    with pytest.raises(ValueError, match="merged already"):
        ft.merge_adapter(model)
    ft.unmerge_adapter(model)
    assert layer.base_layer is base and torch.equal(layer.weight.data, packed)
    assert {n for n in model.state_dict() if "lora" in n} == {n for n in names if "lora" in n}
    assert torch.equal(model(x.bfloat16()).float(), before)


def test_drift_is_what_it_says():
    """Rounding and requantising against the same sums made by hand."""
    from bitsandbytes.functional import quantize_4bit

    model = adapted(False)
    layer = ft.lora_layers(model)["proj"]
    W = layer.dense_weight().float()
    exactly = (W + layer.scaling * layer.lora_B @ layer.lora_A).detach()
    drift = layer.merge()
    nested = layer._packed[0].weight.quant_state.nested
    again = dequantize_4bit(
        *quantize_4bit(exactly.bfloat16(), quant_type="nf4", compress_statistics=nested)
    )
    assert drift.update == pytest.approx((exactly - W).square().sum().item(), rel=1e-5)
    assert drift.rounding == pytest.approx(
        (exactly.bfloat16().float() - exactly).square().sum().item(), rel=1e-3
    )
    assert drift.requantising == pytest.approx(
        (again.float() - exactly).square().sum().item(), rel=0.05
    )
    assert drift.requantising > 100 * drift.rounding > 0


# Blocks across the rows: where bitsandbytes takes wrong scales with AVX-512


@pytest.fixture
def avx512(monkeypatch):
    """bitsandbytes' dequantisation as it is with AVX-512, and none of its products."""

    def refuse(*args, **kwargs):
        raise AssertionError("bitsandbytes computed a product of its own")

    monkeypatch.setattr("bitsandbytes.functional.dequantize_4bit", dequantize_as_avx512)
    monkeypatch.setattr("bitsandbytes.matmul_4bit", refuse)


@DORA
@BIAS
@pytest.mark.parametrize("n_in", [32, 96])
def test_blocks_across_rows_are_read_rightly(use_dora, bias, n_in, avx512):
    """In training and evaluation, disabled, merged: the weight that was quantised, by ftlib's own
    dequantisation of it.
    """
    model = filled(
        ft.add_lora(
            Model(bias, n_in), r=R, lora_alpha=2 * R, target_modules=("proj",), use_dora=use_dora
        )
    )
    layer = ft.lora_layers(model)["proj"]
    W = ft.quantize_nf4(model.dense[0]).dequantize()
    assert torch.equal(layer.dense_weight(), W)
    x = torch.randn(7, n_in, generator=torch.Generator().manual_seed(3)).bfloat16()
    b = layer.bias
    with ft.disable_adapter(model):
        base = model(x)
    assert torch.equal(base, nn.functional.linear(x, W, b))
    trained_with = model(x.clone().requires_grad_())
    with torch.no_grad():
        evaluated = model(x)
    assert (trained_with - evaluated).norm() < 0.01 * evaluated.norm()
    ft.merge_adapter(model)
    assert (model(x) - evaluated).norm() < 0.01 * evaluated.norm()
    ft.unmerge_adapter(model)
    assert torch.equal(layer.dense_weight(), W)


def test_whole_blocks_stay_with_bitsandbytes():
    assert ft.models.nf4.fix_4bit_layers(Model()) == []


def test_a_fixed_layer_is_named_copied_and_computes_as_bitsandbytes_does(caplog):
    """Without AVX-512's fault both are the same: output, type and the gradient of the input. Rows
    of 72 are cut by blocks of 64, and bitsandbytes is right about them on every processor.
    """
    import copy

    n_in = 72
    assert bitsandbytes_is_right((N_OUT, n_in), 64) and not bitsandbytes_is_right((N_OUT, 96), 64)
    x, _ = data()
    model = Model(bias=True, n_in=n_in)
    want = run(model, x[..., :n_in], torch.ones(3, 5, N_OUT), torch.float32, [])
    theirs = model.proj.forward
    with caplog.at_level(logging.INFO, "ftlib"):
        assert ft.models.nf4.fix_4bit_layers(model) == ["proj"]
    assert "1 4-bit layers, the first proj, have blocks across their rows" in caplog.text
    assert model.proj.forward != theirs
    copied = copy.deepcopy(model)
    assert copied.proj.forward.args[0] is copied.proj
    got = run(copied, x[..., :n_in], torch.ones(3, 5, N_OUT), torch.float32, [])
    for mine, other in zip(got, want, strict=True):
        assert (mine - other).norm() <= 0.01 * other.norm()
