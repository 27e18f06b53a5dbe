"""Log-probabilities in tiles: equal to full logits in every dtype, gradients too, in bounded
memory, through adapters and hooks.
"""

import math

import pytest
import torch
import transformers
from conftest import llama, randomize
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, tensor
from torch.autograd import gradcheck

import ftlib as ft
from ftlib.losses import logps as logps_module
from ftlib.training.memory_meter import peak_bytes

F64 = torch.float64


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Seven rows of a vocabulary of 50 in a tile, so that every test needs several."""
    monkeypatch.setattr(logps_module, "tile_rows", lambda vocabulary: max(1, 350 // vocabulary))


def data(B=3, T=9, H=8, V=50, dtype=F64, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(V, (B, T), generator=g)
    labels[torch.rand(B, T, generator=g) < 0.4] = -100
    return (
        torch.randn(B, T, H, generator=g, dtype=F64).to(dtype),
        torch.randn(V, H, generator=g, dtype=F64).to(dtype),
        labels,
    )


def full(hidden, weight, labels):
    """The plain way: all logits, log-softmax, gather."""
    logp = (hidden[:, :-1] @ weight.T).log_softmax(-1)
    picked = logp.gather(-1, labels[:, 1:].clamp(min=0)[..., None]).squeeze(-1) * (
        labels[:, 1:] != -100
    )
    return nn.functional.pad(picked, (0, 1))


def test_by_hand():
    """One hidden state (1, 0) over rows (0, 0), (1, 0): logits 0 and 1; log p(1) = 1 - ln(1 + e) =
    -0.3132617.
    """
    hidden, weight = tensor([[[1.0, 0.0], [5.0, 5.0]]]), tensor([[0.0, 0.0], [1.0, 0.0]])
    assert ft.token_logps(hidden, weight, tensor([[0, 1]])).tolist()[0] == pytest.approx(
        [-0.3132617, 0.0]
    )
    assert ft.token_logps(hidden, weight, tensor([[1, -100]])).tolist() == [[0.0, 0.0]]


@given(
    B=st.integers(1, 4),
    T=st.integers(1, 12),
    H=st.integers(1, 9),
    V=st.integers(2, 60),
    seed=st.integers(0, 99),
)
def test_equal_to_full_logits(B, T, H, V, seed):
    hidden, weight, labels = data(B, T, H, V, seed=seed)
    torch.testing.assert_close(
        ft.token_logps(hidden, weight, labels), full(hidden, weight, labels), rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize("head", [False, True], ids=["frozen head", "trained head"])
@pytest.mark.parametrize("body", [False, True], ids=["frozen body", "trained body"])
def test_gradients_are_those_of_full_logits(head, body):
    hidden, weight, labels = data()
    up = torch.randn(labels.shape, dtype=F64)
    found = []
    for function in (ft.token_logps, full):
        h, W = hidden.clone().requires_grad_(body), weight.clone().requires_grad_(head)
        if head or body:
            (function(h, W, labels) * up).sum().backward()
        found.append((h.grad, W.grad))
    for mine, theirs in zip(*found, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


SHAPES = {
    "plain": {},
    "bias": {"bias": True},
    "softcap": {"softcap": 2.0},
    "scale": {"scale": 0.3},
    "all": {"bias": True, "softcap": 2.0, "scale": -1.7},
}


@pytest.mark.parametrize("trained", ["none", "weight", "bias", "both"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradcheck(shape, trained):
    hidden, weight, labels = data(2, 5, 3, 11)
    options = dict(SHAPES[shape])
    b = (
        torch.linspace(-1, 1, 11, dtype=F64).requires_grad_(trained in ("bias", "both"))
        if options.pop("bias", False)
        else None
    )
    inputs = [hidden.requires_grad_(), weight.requires_grad_(trained in ("weight", "both"))] + (
        [] if b is None else [b]
    )

    def call(h, W, b=None):
        return ft.token_logps(h, W, labels, bias=b, **options)

    assert gradcheck(call, inputs)
    products = hidden @ weight.T + (0 if b is None else b)
    logits = options.get("scale", 1) * products
    logits = logits if "softcap" not in options else 2.0 * torch.tanh(logits / 2.0)
    want = logits[:, :-1].log_softmax(-1).gather(-1, labels[:, 1:].clamp(min=0)[..., None]).squeeze(
        -1
    ) * (labels[:, 1:] != -100)
    torch.testing.assert_close(call(*inputs)[:, :-1], want, rtol=1e-11, atol=1e-12)


def test_a_softcap_by_hand():
    """Logits 0 and 1 capped at 1: 0 and tanh 1 = 0.7615942; log p(1) = 0.7615942 - ln(1 +
    e^0.7615942) = -0.3831660.
    """
    hidden, weight = tensor([[[1.0, 0.0], [5.0, 5.0]]]), tensor([[0.0, 0.0], [1.0, 0.0]])
    assert ft.token_logps(hidden, weight, tensor([[0, 1]]), softcap=1.0)[
        0, 0
    ].item() == pytest.approx(-0.3831660)


def test_the_gradient_of_a_sixteen_bit_head_is_summed_in_fp32():
    """4,000 equal tokens in tiles of 7: a sum in bf16 would stop at 256 times its addend."""
    hidden, weight, _ = data(1, 4001, 8, 50)
    hidden[:] = hidden[0, 0].clone()
    labels = torch.full((1, 4001), 3)
    found = []
    for dtype in (torch.bfloat16, F64):
        W = weight.bfloat16().to(dtype).requires_grad_()
        ft.token_logps(hidden.bfloat16().to(dtype), W, labels).sum().backward()
        found.append(W.grad.double())
    assert (found[0] - found[1]).norm() < 0.02 * found[1].norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_in_sixteen_bits_no_worse_than_full_logits(dtype):
    """Against float64, the error is at most that of full 16-bit logits widened to fp32, as
    transformers computes them.
    """
    hidden, weight, labels = data(4, 30, 64, 200)
    exact = full(hidden, weight, labels)
    h, W = hidden.to(dtype), weight.to(dtype)
    logits = (
        (h[:, :-1] @ W.T)
        .float()
        .log_softmax(-1)
        .gather(-1, labels[:, 1:].clamp(min=0)[..., None])
        .squeeze(-1)
    )
    stock = nn.functional.pad(logits * (labels[:, 1:] != -100), (0, 1))
    mine = ft.token_logps(h, W, labels)
    assert mine.dtype == torch.float32 and (mine - exact).norm() <= 1.05 * (stock - exact).norm()


def test_hidden_and_head_of_unlike_dtypes():
    hidden, weight, labels = data(dtype=torch.float32)
    h = hidden.bfloat16().requires_grad_()
    out = ft.token_logps(h, weight, labels)
    out.sum().backward()
    torch.testing.assert_close(out, full(h.float(), weight, labels))
    assert h.grad.dtype == torch.bfloat16


def test_under_autocast():
    hidden, weight, labels = data(dtype=torch.float32)
    h = hidden.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = ft.token_logps(h, weight, labels)
    assert torch.equal(out, ft.token_logps(hidden.bfloat16(), weight.bfloat16(), labels))
    out.sum().backward()
    assert h.grad.dtype == torch.float32 and h.grad.isfinite().all()


def test_memory_does_not_grow_with_the_vocabulary_times_the_tokens(monkeypatch):
    monkeypatch.setattr(logps_module, "tile_rows", lambda vocabulary: 32)
    hidden, weight, labels = data(4, 128, 16, 8000, torch.float32)
    h = hidden.requires_grad_()
    mine, theirs = (
        peak_bytes(lambda f=f: f(h, weight, labels).sum().backward())
        for f in (ft.token_logps, full)
    )
    assert mine < 5 << 20 and theirs > 10 * mine


# Sequences


def batch(V=280, B=4, T=11):
    g = torch.Generator().manual_seed(5)
    ids = torch.randint(8, V, (B, T), generator=g)
    mask, labels = torch.ones_like(ids), ids.clone()
    labels[:, :4] = -100
    for row, length in enumerate((11, 9, 6, 11)):
        ids[row, length:], mask[row, length:], labels[row, length:] = 2, 0, -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def plain(model, b, average):
    logp = (
        model(input_ids=b["input_ids"], attention_mask=b["attention_mask"])
        .logits[:, :-1]
        .log_softmax(-1)
    )
    on = b["labels"][:, 1:] != -100
    picked = logp.gather(-1, b["labels"][:, 1:].clamp(min=0)[..., None]).squeeze(-1) * on
    return picked.sum(1) / (on.sum(1) if average else 1)


@pytest.mark.parametrize("average", [False, True], ids=["sum", "mean"])
@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_sequences_and_their_gradients(average, tied, kind):
    found = []
    for function in (
        lambda m, b: ft.sequence_logps(m, **b, average=average),
        lambda m, b: plain(m, b, average),
    ):
        model = llama(dtype=F64, tie_word_embeddings=tied)
        model = randomize(ft.add_lora(model, r=3)) if kind == "lora" else model.requires_grad_(True)
        out = function(model, batch())
        out.sum().backward()
        found.append(
            (out.detach(), {n: p.grad for n, p in model.named_parameters() if p.requires_grad})
        )
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-10, atol=1e-12)
    for name, grad in found[1][1].items():
        torch.testing.assert_close(
            found[0][1][name], grad, rtol=1e-8, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_the_reference_is_the_model_without_its_adapter():
    model = randomize(ft.add_lora(llama(dtype=F64), r=3))
    base = ft.sequence_logps(llama(dtype=F64), **batch())
    with torch.no_grad(), ft.disable_adapter(model):
        reference = ft.sequence_logps(model, **batch())
    assert torch.equal(reference, base) and not torch.equal(
        base, ft.sequence_logps(model, **batch())
    )


def test_hooks_on_the_model_act():
    """NEFTune reads the mask from the model's own forward pass: it must not be gone around."""
    model = llama().train()
    torch.manual_seed(1)
    quiet = ft.sequence_logps(model, **batch())
    with ft.neftune(model, 50.0):
        noisy = ft.sequence_logps(model, **batch())
    assert not torch.allclose(quiet, noisy)


def test_checkpointing_changes_nothing():
    model = ft.add_lora(llama(dtype=F64), r=3).train()
    kept = ft.sequence_logps(model, **batch())
    model.activation_checkpointing_enable({"use_reentrant": False})
    again = ft.sequence_logps(model, **batch())
    torch.testing.assert_close(kept, again)
    again.sum().backward()
    assert all(layer.lora_B.grad is not None for layer in ft.lora_layers(model).values())


FAMILIES = {
    "Gemma2": {"final_logit_softcapping": 0.3},
    "Cohere": {"logit_scale": 3.0},
    "RecurrentGemma": {"logits_soft_cap": 0.3, "block_types": ("attention",)},
    "Granite": {"logits_scaling": 0.25},
}


def family(name: str, **more):
    """A tiny random decoder of another family, its logits changed enough to be seen."""
    options = {
        **dict(
            vocab_size=280,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            pad_token_id=2,
            bos_token_id=0,
            eos_token_id=6,
            initializer_range=0.2,
        ),
        **FAMILIES.get(name, {}),
        **more,
    }
    torch.manual_seed(0)
    return (
        getattr(transformers, f"{name}ForCausalLM")(
            getattr(transformers, f"{name}Config")(**options)
        )
        .to(F64)
        .eval()
    )


@pytest.mark.parametrize("head", [False, True], ids=["frozen head", "trained head"])
@pytest.mark.parametrize("name", FAMILIES)
def test_other_families(name, head):
    found = []
    for function in (ft.sequence_logps, lambda m, **b: plain(m, b, False)):
        model = family(name).requires_grad_(True)
        model.get_output_embeddings().weight.requires_grad_(head)
        out = function(model, **batch())
        out.sum().backward()
        found.append(
            (out.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        )
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-10, atol=1e-12)
    assert found[0][1].keys() == found[1][1].keys()
    for n, grad in found[1][1].items():
        torch.testing.assert_close(
            found[0][1][n], grad, rtol=1e-8, atol=1e-11, msg=lambda m, n=n: f"{n}: {m}"
        )


def test_a_head_with_a_bias():
    model = llama(dtype=F64, tie_word_embeddings=False)
    model.lm_head.bias = nn.Parameter(torch.linspace(-1, 1, 280, dtype=F64))
    torch.testing.assert_close(
        ft.sequence_logps(model, **batch()), plain(model, batch(), False), rtol=1e-10, atol=1e-12
    )


def test_logits_that_are_changed_in_a_way_unknown_here_are_refused():
    """HyperCLOVA X multiplies by `logits_scaling`, where Granite divides."""
    with pytest.raises(
        ValueError, match=r"HyperCLOVAXForCausalLM \(hyperclovax\) does something to its logits"
    ):
        ft.sequence_logps(family("HyperCLOVAX", logits_scaling=2.0), **batch())


def test_a_softcap_that_is_not_known_is_refused_although_the_logits_are_small():
    """A cap of 10 moves logits of up to 1 by x³/(3·10²), a third of a percent: less than what 16
    bits round, and far more than what 32 do.
    """
    model = llama(initializer_range=0.05, tie_word_embeddings=False)
    with torch.no_grad():
        largest = float(model(**batch() | {"labels": None}).logits.abs().max())
    assert 0.1 < largest < 2

    class Capped(type(model)):
        def forward(self, *args, **more):
            out = super().forward(*args, **more)
            out.logits = 10 * torch.tanh(out.logits / 10)
            return out

    model.__class__ = Capped
    with pytest.raises(ValueError, match=r"Capped \(llama\) does something to its logits"):
        ft.sequence_logps(model, **batch())


def test_a_head_of_another_kind_is_refused():
    class Strange(nn.Linear):
        def forward(self, x):
            return super().forward(x).sort().values

    model = llama(tie_word_embeddings=False)
    model.lm_head = Strange(32, 280, bias=False)
    with pytest.raises(ValueError, match="the head of LlamaForCausalLM is a Strange"):
        ft.sequence_logps(model, **batch())


def test_tokens_of_a_sequence_are_where_their_labels_are():
    model, b = llama(dtype=F64), batch()
    logps = logps_module.completion_logps(model, **b)
    assert torch.equal(logps[:, :-1] != 0, b["labels"][:, 1:] != -100) and not logps[:, -1].any()
    with pytest.raises(ValueError, match="differ"):
        logps_module.completion_logps(
            model, b["input_ids"], b["attention_mask"], b["labels"][:, 1:]
        )


def test_a_head_that_is_no_plain_layer_runs_whole():
    model = randomize(
        ft.add_lora(
            llama(dtype=F64, tie_word_embeddings=False), r=3, target_modules=("q_proj", "lm_head")
        )
    )
    torch.testing.assert_close(ft.sequence_logps(model, **batch()), plain(model, batch(), False))


def test_no_hook_is_left_after_an_error():
    model = llama()
    with pytest.raises(IndexError):
        ft.sequence_logps(model, **{**batch(), "input_ids": batch()["input_ids"] + 10_000})
    assert not model.lm_head._forward_hooks and not model.lm_head._forward_pre_hooks


# Bad input


@pytest.mark.parametrize(
    "change, words",
    [
        ({"hidden": torch.zeros(2, 3)}, r"hidden \(2, 3\)"),
        ({"weight": torch.zeros(5, 7)}, "do not fit"),
        ({"labels": torch.zeros(2, 4, dtype=torch.long)}, r"labels is torch.int64 \(2, 4\)"),
        ({"labels": torch.zeros(2, 3)}, "labels is torch.float32"),
        ({"labels": torch.full((2, 3), 5)}, "labels hold 5 to 5: a token id lies in 0 to 4"),
        ({"labels": torch.full((2, 3), -1)}, "labels hold -1"),
    ],
)
def test_arguments_that_do_not_fit(change, words):
    given = {
        "hidden": torch.zeros(2, 3, 4),
        "weight": torch.zeros(5, 4),
        "labels": torch.zeros(2, 3, dtype=torch.long),
    } | change
    with pytest.raises(ValueError, match=words):
        ft.token_logps(given["hidden"], given["weight"], given["labels"])


def test_a_row_without_an_answer_is_named():
    b = batch()
    b["labels"][2] = -100
    with pytest.raises(ValueError, match="row 2 of labels scores no token"):
        ft.sequence_logps(llama(), **b)
    with pytest.raises(ValueError, match="differ"):
        ft.sequence_logps(llama(), b["input_ids"], b["attention_mask"], b["labels"][:, 1:])


@pytest.mark.parametrize(
    "options, words",
    [
        ({"bias": torch.zeros(3)}, r"bias \(3,\) does not fit"),
        ({"scale": 0.0}, "scale=0.0"),
        ({"scale": math.inf}, "scale=inf"),
        ({"softcap": 0.0}, "softcap=0.0"),
        ({"softcap": -1.0}, "softcap=-1.0"),
    ],
    ids=str,
)
def test_heads_that_do_not_exist(options, words):
    with pytest.raises(ValueError, match=words):
        ft.token_logps(
            torch.zeros(2, 3, 4), torch.zeros(5, 4), torch.zeros(2, 3, dtype=torch.long), **options
        )


@pytest.mark.parametrize("fill", [math.nan, -math.inf, math.inf])
def test_what_is_not_scored_may_be_anything(fill):
    """Beside full logits too: 0 times NaN is no 0."""
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5)
    labels = torch.tensor([[-100, -100, 3, 1], [-100, 2, -100, 4]])
    want = logps_module._whole_logps(logits.clone(), labels)
    logits[0, 0] = fill  # predicts the second token, which is not scored
    logits[1, 1, 3] = fill
    logits.requires_grad_()
    found = logps_module._whole_logps(logits, labels)
    found.sum().backward()
    assert torch.equal(found, want) and (found[0, 0], found[1, 1]) == (0, 0)
    assert torch.isfinite(logits.grad).all()
