"""A LoRA or DoRA layer: numbers by hand, equality with PEFT, properties, the fused function."""

import copy
import math

import pytest
import torch
from conftest import VARIANTS, llama, randomize
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import ftlib as ft
from ftlib.adapters.functional import dora_norm, lora_delta, lora_forward
from ftlib.adapters.lora_layer import AdapterConfig, LoRALinear

frozen_or_not = pytest.mark.parametrize("frozen", [True, False], ids=["fused", "plain"])


def relative(a, b):
    return ((a - b).norm() / b.norm().clamp_min(1e-300)).item()


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def linear_layer(W, b, A, B, magnitude=None, frozen=True, **options):
    """A LoRALinear with the given numbers. A frozen base takes the fused function, one that trains
    plain autograd.
    """
    base = nn.Linear(W.shape[1], W.shape[0], bias=b is not None, dtype=W.dtype).requires_grad_(
        not frozen
    )
    with torch.no_grad():
        base.weight.copy_(W)
        if b is not None:
            base.bias.copy_(b)
    layer = LoRALinear(base, AdapterConfig(r=A.shape[0], use_dora=magnitude is not None, **options))
    with torch.no_grad():
        layer.lora_A.copy_(A)
        layer.lora_B.copy_(B)
        if magnitude is not None:
            layer.lora_magnitude_vector.copy_(magnitude)
    return layer


# --- by hand --------------------------------------------------------------------------------------
@frozen_or_not
def test_lora_by_hand(frozen):
    """W = [[1, 2], [3, 4]], b = [10, 20], A = [[1, -1]], B = [[2], [3]], alpha = 4, r = 1, x = [1,
    3].

    Wx = [1·1 + 2·3, 3·1 + 4·3] = [7, 15]; Ax = 1 − 3 = −2; B(Ax) = [−4, −6]; s = 4/1 = 4, so s·BAx
    = [−16, −24]; y = [7 − 16 + 10, 15 − 24 + 20] = [1, 11]. The merged weight is W + 4·[[2, −2],
    [3, −3]] = [[9, −6], [15, −8]]. With dy = [1, 1]: dA = s·Bᵀdy·xᵀ = 4·5·[1, 3] = [20, 60]; dB =
    s·dy·(Ax) = [−8, −8]; dx = column sums = [24, −14].
    """
    W = torch.tensor([[1.0, 2], [3, 4]])
    b = torch.tensor([10.0, 20])
    A = torch.tensor([[1.0, -1]])
    B = torch.tensor([[2.0], [3]])
    x = torch.tensor([1.0, 3], requires_grad=True)
    layer = linear_layer(W, b, A, B, frozen=frozen, lora_alpha=4)
    assert layer._fusible() is frozen
    y = layer(x)
    assert y.tolist() == [1, 11] == lora_forward(x, W, b, A, B, 4).tolist()
    y.sum().backward()
    assert (
        layer.lora_A.grad.tolist() == [[20, 60]]
        and layer.lora_B.grad.tolist() == [[-8], [-8]]
        and x.grad.tolist() == [24, -14]
    )
    layer.merge()
    assert layer.base_layer.weight.tolist() == [[9, -6], [15, -8]] and layer(x).tolist() == [1, 11]


@frozen_or_not
def test_dora_by_hand(frozen):
    """W = [[1, 0], [0, 2]], A = [[1, 1]], B = [[2], [4]], s = 1, so V = W + BA = [[3, 2], [4, 6]];
    m = [1, 2], b = [5, 5].

    Row norms of V: √13 and √52 = 2√13. g = m/norm = [1/√13, 1/√13]. x = [1, 2]: Vx = [7, 16]; y =
    Vx/√13 + 5. The bias is not scaled. dm_i = (Vx)_i/norm_i = [7/√13, 8/√13]. The norm is a
    constant to the gradient (section 4.3), so with dy = [1, 1]: dB = g·(Ax) = [3/√13, 3/√13] and dx
    = column sums of g·V = [7/√13, 8/√13].
    """
    root = math.sqrt(13)
    W = f64([1, 0], [0, 2])
    A = f64([1, 1])
    B = f64([2], [4])
    x = f64(1, 2).requires_grad_()
    layer = linear_layer(W, f64(5, 5), A, B, f64(1, 2), frozen=frozen, lora_alpha=1)
    assert torch.allclose(dora_norm(W, A, B, 1.0), f64(root, 2 * root), rtol=1e-14)
    y = layer(x)
    assert torch.allclose(y, f64(7 / root + 5, 16 / root + 5), rtol=1e-14)
    y.sum().backward()
    assert torch.allclose(layer.lora_magnitude_vector.grad, f64(7 / root, 8 / root), rtol=1e-14)
    assert torch.allclose(layer.lora_B.grad, f64([3 / root], [3 / root]), rtol=1e-14)
    assert torch.allclose(x.grad, f64(7 / root, 8 / root), rtol=1e-14)
    layer.merge()
    assert torch.allclose(layer.base_layer.weight, f64([3, 2], [4, 6]) / root, rtol=1e-14)


@pytest.mark.parametrize(
    "r, rslora, want", [(8, False, 2.0), (16, False, 1.0), (16, True, 4.0), (4, True, 8.0)]
)
def test_scaling_by_hand(r, rslora, want):
    """alpha = 16: 16/8 = 2 and 16/16 = 1; rsLoRA 16/√16 = 4 and 16/√4 = 8."""
    assert AdapterConfig(r=r, lora_alpha=16, use_rslora=rslora).scaling == want


def test_parameter_count_by_hand():
    """hidden 32, intermediate 64, 2 key-value heads of width 8, r = 3, DoRA.

    q and o: 3·(32 + 32) = 192 each; k and v: 3·(32 + 16) = 144 each; gate, up and down: 3·(32 + 64)
    = 288 each; 1,536 a layer. Magnitudes: 32 + 16 + 16 + 32 + 64 + 64 + 32 = 256. Two layers:
    2·(1,536 + 256) = 3,584.
    """
    model = ft.add_lora(llama(), r=3, use_dora=True)
    assert ft.count_parameters(model)[0] == 3584 and len(ft.lora_layers(model)) == 14
    assert "3,584 of" in ft.describe_trainable(model) and "14 layers" in ft.describe_trainable(
        model
    )


def test_dora_with_a_magnitude_of_zero_is_finite():
    """A row with W = 0 has norm 0 and m = 0: the output is the bias, and no gradient is NaN."""
    layer = linear_layer(
        torch.zeros(2, 3),
        torch.tensor([1.0, 2]),
        torch.ones(1, 3),
        torch.zeros(2, 1),
        torch.zeros(2),
    )
    y = layer(torch.ones(1, 3))
    y.sum().backward()
    assert y.tolist() == [[1, 2]]
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)


# --- against PEFT ---------------------------------------------------------------------------------
class OneLinear(nn.Module):
    def __init__(self, n_in, n_out, bias):
        super().__init__()
        self.proj = nn.Linear(n_in, n_out, bias=bias, dtype=torch.float64)

    def forward(self, x):
        return self.proj(x)


def pair(n_in, n_out, bias, r, alpha, variant, seed=0):
    """The same layer with the same adapter, ours and PEFT's, in float64."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    base = OneLinear(n_in, n_out, bias)
    ours = ft.add_lora(
        copy.deepcopy(base), r=r, lora_alpha=alpha, target_modules=["proj"], **VARIANTS[variant]
    )
    theirs = get_peft_model(
        base, LoraConfig(r=r, lora_alpha=alpha, target_modules=["proj"], **VARIANTS[variant])
    )
    layer = theirs.base_model.model.proj
    layer.lora_A["default"].weight.data = torch.randn(r, n_in).double()
    layer.lora_B["default"].weight.data = torch.randn(n_out, r).double()
    mine = ours.proj
    with torch.no_grad():
        mine.lora_A.copy_(layer.lora_A["default"].weight)
        mine.lora_B.copy_(layer.lora_B["default"].weight)
        if mine.use_dora:
            magnitude = layer.lora_magnitude_vector["default"]
            magnitude.weight.data = torch.rand(n_out).double() + 0.5
            mine.lora_magnitude_vector.copy_(magnitude.weight)
    return ours, theirs


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape, n_in, n_out, r",
    [
        ((4, 6), 6, 5, 2),
        ((2, 3, 7), 7, 11, 3),
        ((3, 5), 5, 2, 9),
        ((2, 1, 1), 1, 3, 4),
        ((4, 5, 7), 7, 11, 3),
        ((13, 6), 6, 5, 2),
    ],
)
def test_equals_peft_in_float64(variant, bias, shape, n_in, n_out, r):
    """Output, input gradient and every adapter gradient; 2-D and 3-D inputs, odd sizes, ranks above
    a dimension, fewer tokens than inputs and more.
    """
    ours, theirs = pair(n_in, n_out, bias, r, 7, variant)
    x1 = torch.randn(shape).double().requires_grad_()
    x2 = x1.detach().clone().requires_grad_()
    y1 = ours(x1)
    y2 = theirs(x2)
    upstream = torch.randn_like(y1)
    y1.backward(upstream)
    y2.backward(upstream)
    mine = ours.proj
    layer = theirs.base_model.model.proj
    assert (
        y1.dtype == torch.float64 and relative(y1, y2) < 1e-9 and relative(x1.grad, x2.grad) < 1e-9
    )
    assert relative(mine.lora_A.grad, layer.lora_A["default"].weight.grad) < 1e-9
    assert relative(mine.lora_B.grad, layer.lora_B["default"].weight.grad) < 1e-9
    if mine.use_dora:
        assert (
            relative(
                mine.lora_magnitude_vector.grad, layer.lora_magnitude_vector["default"].weight.grad
            )
            < 1e-9
        )
    assert mine.base_layer.weight.grad is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_weight_equals_pefts(variant):
    ours, theirs = pair(6, 5, True, 2, 3, variant)
    ft.merge_adapter(ours)
    merged = theirs.merge_and_unload().proj
    assert relative(ours.proj.base_layer.weight, merged.weight) < 1e-9
    assert torch.equal(ours.proj.base_layer.bias, merged.bias)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_whole_llama_equals_peft(variant, ids):
    """All linear layers of a grouped-query Llama: logits and loss gradients."""
    from peft import LoraConfig, get_peft_model

    base = llama(dtype=torch.float64)
    ours = randomize(ft.add_lora(copy.deepcopy(base), r=3, lora_alpha=5, **VARIANTS[variant]))
    theirs = get_peft_model(
        base,
        LoraConfig(
            r=3,
            lora_alpha=5,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
            **VARIANTS[variant],
        ),
    )
    mine = dict(ours.named_parameters())
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if p.requires_grad:
                p.copy_(mine[peft_to_ours(name)])
    a = ours(ids, labels=ids)
    b = theirs(ids, labels=ids)
    assert relative(a.logits, b.logits) < 1e-9
    a.loss.backward()
    b.loss.backward()
    checked = 0
    for name, p in theirs.named_parameters():
        if p.requires_grad:
            assert relative(mine[peft_to_ours(name)].grad, p.grad) < 1e-8, name
            checked += 1
    assert checked == (3 if "dora" in variant else 2) * 14


def peft_to_ours(name: str) -> str:
    return (
        name.removeprefix("base_model.model.")
        .replace(".default", "")
        .replace("_A.weight", "_A")
        .replace("_B.weight", "_B")
        .replace("magnitude_vector.weight", "magnitude_vector")
    )


# --- properties -----------------------------------------------------------------------------------
sizes = st.integers(1, 9)


@given(
    n_in=sizes,
    n_out=sizes,
    r=st.integers(1, 12),
    batch=st.integers(1, 4),
    bias=st.booleans(),
    dora=st.booleans(),
    rslora=st.booleans(),
    frozen=st.booleans(),
    alpha=st.sampled_from([0.5, 1, 16]),
    seed=st.integers(0, 5),
)
def test_merged_is_unmerged_is_the_dense_formula(
    n_in, n_out, r, batch, bias, dora, rslora, frozen, alpha, seed
):
    """Forward pass, merged weight and `W' = g·(W + sBA)` agree for every shape and option;
    unmerging restores W.
    """
    torch.manual_seed(seed)
    base = nn.Linear(n_in, n_out, bias=bias, dtype=torch.float64).requires_grad_(not frozen)
    W = base.weight.detach().clone()
    layer = LoRALinear(base, AdapterConfig(r=r, lora_alpha=alpha, use_dora=dora, use_rslora=rslora))
    with torch.no_grad():
        layer.lora_B.normal_()
        if dora:
            layer.lora_magnitude_vector.uniform_(0.5, 2)
    s = alpha / (math.sqrt(r) if rslora else r)
    V = W + s * layer.lora_B @ layer.lora_A
    dense = V * (layer.lora_magnitude_vector / V.norm(dim=1))[:, None] if dora else V
    x = torch.randn(batch, n_in).double()
    want = nn.functional.linear(x, dense, base.bias)
    assert torch.allclose(layer(x), want, rtol=1e-9, atol=1e-9)
    layer.merge()
    assert torch.allclose(base.weight, dense, rtol=1e-9, atol=1e-9) and torch.allclose(
        layer(x), want, rtol=1e-9, atol=1e-9
    )
    layer.unmerge()
    assert torch.allclose(base.weight, W, rtol=1e-8, atol=1e-8)


@given(n_in=sizes, n_out=sizes, r=st.integers(1, 12), s=st.floats(0.01, 20), seed=st.integers(0, 5))
def test_dora_norm_equals_the_dense_norm(n_in, n_out, r, s, seed):
    g = torch.Generator().manual_seed(seed)
    W, A, B = (
        torch.randn(*shape, generator=g).double()
        for shape in ((n_out, n_in), (r, n_in), (n_out, r))
    )
    assert torch.allclose(
        dora_norm(W, A, B, s), (W + lora_delta(A, B, s)).norm(dim=1), rtol=1e-8, atol=1e-8
    )


def test_dora_norm_makes_no_dense_product_and_keeps_fp32_for_bf16():
    """Against float64, the norm of a bf16 weight is exact to fp32, where a bf16 sum would be off by
    1e-2.
    """
    g = torch.Generator().manual_seed(0)
    W = torch.randn(8, 64, generator=g).bfloat16()
    A = torch.randn(2, 64, generator=g)
    B = torch.randn(8, 2, generator=g)
    norm = dora_norm(W, A, B, 0.5)
    assert (
        norm.dtype == torch.float32
        and relative(norm.double(), (W.double() + 0.5 * B.double() @ A.double()).norm(dim=1)) < 1e-6
    )


# --- the fused function ---------------------------------------------------------------------------
def fused_and_plain(n_in, n_out, r, bias, dora, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g).to(dtype)

    W = draw(n_out, n_in)
    b = draw(n_out)
    A = draw(r, n_in)
    B = draw(n_out, r)
    m = draw(n_out).abs() + 0.5
    numbers = W, b if bias else None, A, B, m if dora else None
    return [linear_layer(*numbers, frozen=frozen, lora_alpha=3) for frozen in (True, False)]


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "shape", [(5,), (0, 5), (1, 5), (2, 3, 5), (2, 1, 3, 5), (3, 2, 5)], ids=str
)
def test_fused_equals_plain_autograd(shape, bias, dora):
    """Every gradient, for inputs of one to four dimensions, an empty batch included."""
    results = []
    for layer in fused_and_plain(5, 7, 2, bias, dora):
        x = torch.randn(
            shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        ).requires_grad_()
        y = layer(x)
        y.backward(
            torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        )
        results.append(
            [y, x.grad, layer.lora_A.grad, layer.lora_B.grad]
            + ([layer.lora_magnitude_vector.grad] if dora else [])
        )
    for fused, plain in zip(*results, strict=True):
        assert fused.shape == plain.shape and torch.allclose(fused, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("p", [0.0, 0.4], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("dora", [False, True])
def test_fused_passes_gradcheck(dora, p):
    """Numerical derivatives by x, A, B and DoRA's scale, at a transposed (not contiguous) input,
    one dropout mask for all calls.
    """
    from ftlib.adapters.functional import FusedLoRA

    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    W = draw(4, 3)
    b = draw(4)
    scale = (draw(4).abs() + 0.5).requires_grad_() if dora else None
    x = draw(3, 5).requires_grad_()
    A = draw(2, 3).requires_grad_()
    B = draw(4, 2).requires_grad_()

    def forward(x, A, B, *scale):
        torch.manual_seed(7)
        return FusedLoRA.apply(x.T, W, None, b, A, B, *(scale or (None,)), 1.5, p)

    assert torch.autograd.gradcheck(forward, (x, A, B) + ((scale,) if dora else ()))


@pytest.mark.parametrize("dora", [False, True])
def test_fused_dropout_by_hand(dora):
    """x = (1, 2), A = (1, 1), B = 1, s = 1, p = 1/2: the branch gives 2·(1·k1 + 2·k2), with k1 and
    k2 kept or not: 0, 2, 4 or 6.
    """
    layer = LoRALinear(
        nn.Linear(2, 1, bias=False).requires_grad_(False),
        AdapterConfig(r=1, lora_alpha=1, lora_dropout=0.5, use_dora=dora),
    )
    with torch.no_grad():
        layer.lora_A.fill_(1)
        layer.lora_B.fill_(1)
    x = torch.tensor([[1.0, 2.0]])
    base = x @ layer.weight.T
    g = layer.row_scale().item() if dora else 1.0
    seen = {round(((layer.train()(x) / g) - base).item(), 4) for _ in range(60)}
    assert seen == {0.0, 2.0, 4.0, 6.0}
    assert torch.allclose(layer.eval()(x) / g - base, torch.tensor(3.0))


@pytest.mark.parametrize("dora", [False, True])
def test_fused_keeps_only_what_it_must_for_backward(dora):
    """x, xAᵀ and the factors; for DoRA also the output and its scale. No second copy of x or y, no
    out×in tensor but W.
    """
    layer, _ = fused_and_plain(6, 9, 2, True, dora)
    x = torch.randn(4, 6, dtype=torch.float64).requires_grad_()
    kept = []
    layer(x)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = layer(x)
    large = [t for t in kept if t.shape in ((4, 6), (4, 9), (9, 6))]
    assert {t.data_ptr() for t in large} <= {
        x.data_ptr(),
        y.data_ptr(),
        layer.base_layer.weight.data_ptr(),
    }
    assert (y.data_ptr() in {t.data_ptr() for t in large}) is dora


@pytest.mark.parametrize("tokens", [1, 3])
def test_dora_magnitude_of_zero_still_learns(tokens):
    """m = [0, 1] wipes row 0 out, but ∂y₀/∂m₀ = (Vx)₀/‖V₀‖: with V = [[3, 4], [0, 2]] and x = [1,
    1], 7/5 and 2/2 a token.
    """
    for frozen in (True, False):
        layer = linear_layer(
            f64([2, 4], [0, 2]),
            f64(1, 1),
            f64([1, 0]),
            f64([1], [0]),
            f64(0, 1),
            frozen=frozen,
            lora_alpha=1,
        )
        y = layer(f64(*[[1, 1]] * tokens))
        y.sum().backward()
        assert y.tolist() == [[1, 2]] * tokens and torch.allclose(
            layer.lora_magnitude_vector.grad, tokens * f64(7 / 5, 1), rtol=1e-12
        )


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_autocast(variant, ids):
    """Under bf16 autocast the layers compute in bf16 and the fp32 adapter gets fp32 gradients near
    the exact ones.
    """
    model = randomize(ft.add_lora(llama(), r=4, **VARIANTS[variant]))
    model(ids, labels=ids).loss.backward()
    exact = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        assert (
            ft.lora_layers(model)["model.layers.0.mlp.up_proj"](torch.randn(2, 32)).dtype
            == torch.bfloat16
        )
        model(ids, labels=ids).loss.backward()
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert p.grad.dtype == torch.float32 and relative(p.grad, exact[name]) < 0.1, name
