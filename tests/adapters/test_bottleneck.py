"""Bottleneck adapters: numbers by hand, start, place, freezing, checkpointing. Saving and loading:
test_hooked.py.
"""

import copy

import pytest
import torch
from conftest import assert_untouched, llama, snapshot
from torch import nn

import ftlib as ft
from ftlib.adapters import bottleneck


def filled(model, seed=0, scale=0.3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(scale * torch.randn(p.shape, generator=generator))
    return model


def test_by_hand():
    """h = [1, 2]; W_down = [[1, 1]], b_down = −1: 1 + 2 − 1 = 2, relu 2; W_up = [[3], [−1]], b_up =
    [0.5, 0]: W_up·2 + b_up = [6.5, −2]; with h, [7.5, 0]. For h = [−1, 1]: 0 − 1 = −1, relu 0, so
    [−0.5, 1].

    With dy = [1, 1]: for the first h, db_up = [1, 1], dW_up = dy·2 = [2, 2], dlow = 3 − 1 = 2, so
    dW_down = 2·[1, 2] and dh = dy + 2·[1, 1] = [3, 3]. Relu passes nothing for the second: db_up =
    [1, 1], dh = [1, 1].
    """
    layer = bottleneck.Bottleneck({"size": 1, "activation": "relu"}, 2, torch.zeros(1))
    with torch.no_grad():
        for name, value in {
            "down": [[1.0, 1.0]],
            "down_bias": [-1.0],
            "up": [[3.0], [-1.0]],
            "up_bias": [0.5, 0.0],
        }.items():
            getattr(layer, name).copy_(torch.tensor(value))
    h = torch.tensor([[1.0, 2.0], [-1.0, 1.0]], requires_grad=True)
    y = layer(h)
    assert y.tolist() == [[7.5, 0.0], [-0.5, 1.0]]
    y.sum().backward()
    assert layer.up.grad.tolist() == [[2], [2]] and layer.up_bias.grad.tolist() == [2, 2]
    assert layer.down.grad.tolist() == [[2, 4]] and layer.down_bias.grad.tolist() == [2]
    assert h.grad.tolist() == [[3, 3], [1, 1]]


@pytest.mark.parametrize(
    "sublayers, count", [(("self_attn", "mlp"), 4), (("mlp",), 2)], ids=["houlsby", "pfeiffer"]
)
def test_parameter_count_by_hand(sublayers, count):
    """2md + d + m with m = 3, d = 32: 192 + 32 + 3 = 227 each, two a layer (Houlsby) or one
    (Pfeiffer), in two layers.
    """
    model = bottleneck.add_bottleneck(llama(), size=3, sublayers=sublayers)
    assert ft.count_parameters(model)[0] == 227 * count
    assert all(p.requires_grad == (".bottleneck." in n) for n, p in model.named_parameters())


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu", "tanh"])
def test_starts_as_the_base_and_every_part_can_learn(activation, ids):
    """W_up = 0: the base bit for bit, and a gradient for W_up in every adapter; W_down gets one as
    soon as W_up is not 0.
    """
    want = llama()(ids).logits
    model = bottleneck.add_bottleneck(llama(), activation=activation)
    assert torch.equal(model(ids).logits, want)
    model(ids, labels=ids).loss.backward()
    named = {n: p for n, p in model.named_parameters()}
    assert all((p.grad is not None) == (".bottleneck." in n) for n, p in named.items())
    assert all(p.grad.norm() > 0 for n, p in named.items() if n.endswith((".up", ".up_bias")))
    assert all(p.grad.norm() == 0 for n, p in named.items() if n.endswith((".down", ".down_bias")))
    filled(model).zero_grad()
    model(ids, labels=ids).loss.backward()
    assert all(p.grad.norm() > 0 for n, p in named.items() if ".bottleneck." in n)


def test_where_it_stands(ids):
    """On the sublayer's output before the residual addition: equal to sublayers that are followed
    by the network.
    """
    model = filled(bottleneck.add_bottleneck(llama(dtype=torch.float64), size=5))
    base = llama(dtype=torch.float64)

    class Followed(nn.Module):
        def __init__(self, sublayer, adapter):
            super().__init__()
            self.sublayer, self.adapter = sublayer, adapter

        def forward(self, *args, **kwargs):
            y = self.sublayer(*args, **kwargs)
            h = y[0] if isinstance(y, tuple) else y
            low = nn.functional.gelu(h @ self.adapter.down.T + self.adapter.down_bias)
            h = h + low @ self.adapter.up.T + self.adapter.up_bias
            return (h, *y[1:]) if isinstance(y, tuple) else h

    for layer, mine in zip(base.model.layers, model.model.layers, strict=True):
        layer.self_attn, layer.mlp = (
            Followed(layer.self_attn, mine.self_attn.bottleneck),
            Followed(layer.mlp, mine.mlp.bottleneck),
        )
    assert torch.allclose(model(ids).logits, base(ids).logits, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(model(ids).logits, llama(dtype=torch.float64)(ids).logits, atol=1e-3)


def test_gradient_checkpointing_changes_nothing(ids):
    model = filled(bottleneck.add_bottleneck(llama(dtype=torch.float64))).train()
    model(ids, labels=ids).loss.backward()
    want = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model(ids, labels=ids).loss.backward()
    assert all(
        torch.allclose(p.grad, want[n], rtol=1e-10, atol=1e-14)
        for n, p in model.named_parameters()
        if p.requires_grad
    )


def test_generate_equals_whole_forwards_and_padding_does_not_matter():
    model = filled(
        bottleneck.add_bottleneck(
            llama(dtype=torch.float64, tie_word_embeddings=False, initializer_range=0.3)
        )
    )
    ids = torch.randint(8, 280, (1, 5), generator=torch.Generator().manual_seed(3))
    want = ids
    for _ in range(6):
        want = torch.cat([want, model(want).logits[:, -1:].argmax(-1)], 1)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    assert model.generate(ids, **options).tolist() == want.tolist()
    padded = torch.cat([torch.full((1, 3), 2), ids], 1)
    assert (
        model.generate(padded, attention_mask=(padded != 2).long(), **options)[:, 3:].tolist()
        == want.tolist()
    )


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": 1.5},
        {"size": True},
        {"activation": "sine"},
        {"sublayers": "mlp"},
        {"sublayers": ()},
        {"sublayers": ("mlp", "attn")},
    ],
    ids=str,
)
def test_bad_values(options, model):
    before = snapshot(model)
    with pytest.raises(ValueError, match=next(iter(options))):
        bottleneck.add_bottleneck(model, **options)
    assert_untouched(model, before)


def test_a_copied_model_trains_apart(ids):
    model = bottleneck.add_bottleneck(llama())
    other = filled(copy.deepcopy(model))
    assert torch.equal(model(ids).logits, llama()(ids).logits) and not torch.equal(
        other(ids).logits, model(ids).logits
    )
