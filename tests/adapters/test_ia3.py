"""(IA)³: numbers by hand, place, start, and equality with PEFT, files both ways. Saving and loading
in general: test_hooked.py.
"""

import pytest
import torch
from conftest import assert_untouched, llama, snapshot
from torch import nn

import ftlib as ft
from ftlib.adapters import ia3
from ftlib.adapters.hooked import parts_of


def filled(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(1 + 0.5 * torch.randn(p.shape, generator=generator))
    return model


def test_by_hand():
    """W = [[1, 2], [0, 1]], b = [1, 0], x = [1, 1]: y = [4, 1]. l = [2, 3] on the output: [8, 3],
    the bias scaled too. On the input: x becomes [2, 3], y = [2 + 6 + 1, 3] = [9, 3].
    """
    for scales_input, want in ((False, [8, 3]), (True, [9, 3])):
        layer = nn.Linear(2, 2)
        part = ia3.IA3({}, layer, scales_input)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
            layer.bias.copy_(torch.tensor([1.0, 0.0]))
            part.weight.copy_(torch.tensor([2.0, 3.0]).view(part.weight.shape))
        part.register(layer)
        assert layer(torch.ones(2)).tolist() == want


def test_parameter_count_by_hand():
    """Keys and values of 2 heads of width 8, 16 each, and 64 intermediate activations: 96 a layer,
    in two layers 192.
    """
    model = ft.add_ia3(llama())
    assert ft.count_parameters(model)[0] == 192
    assert all(p.requires_grad == (".ia3_l." in n) for n, p in model.named_parameters())


def test_starts_as_the_base_and_every_vector_learns(ids):
    want = llama()(ids).logits
    model = ft.add_ia3(llama())
    assert torch.equal(model(ids).logits, want)
    model(ids, labels=ids).loss.backward()
    assert all(p.grad.norm() > 0 for p in model.parameters() if p.requires_grad)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_it_equals_scaled_weights(ids):
    """``l ⊙ (W x) = (diag(l) W) x`` and ``W (l ⊙ x) = (W diag(l)) x``: the base with its rows, or
    columns, scaled, in float64.
    """
    model = filled(ft.add_ia3(llama(dtype=torch.float64)))
    base = llama(dtype=torch.float64)
    with torch.no_grad():
        for name, part in parts_of(model, ia3.IA3).items():
            base.get_submodule(name.removesuffix(".ia3_l")).weight.mul_(part.weight)
    assert torch.allclose(model(ids).logits, base(ids).logits, rtol=1e-12, atol=1e-12)
    with ft.disable_adapter(model):
        assert torch.equal(model(ids).logits, llama(dtype=torch.float64)(ids).logits)


def test_gradient_checkpointing_changes_nothing(ids):
    model = filled(ft.add_ia3(llama(dtype=torch.float64))).train()
    model(ids, labels=ids).loss.backward()
    want = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model(ids, labels=ids).loss.backward()
    for n, p in model.named_parameters():
        if p.requires_grad:
            assert torch.allclose(p.grad, want[n], rtol=1e-10, atol=1e-14)


def peft_model(**options):
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(llama(), peft.IA3Config(task_type="CAUSAL_LM", **options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "target_modules": ["q_proj", "up_proj", "o_proj"],
            "feedforward_modules": ["o_proj", "up_proj"],
        },
    ],
    ids=["peft's own choice", "others"],
)
def test_equal_to_peft(options, ids, tmp_path):
    """The same logits, gradients and number of parameters; PEFT reads our file, we read PEFT's."""
    theirs = filled(peft_model(**options), seed=4)
    theirs.save_pretrained(tmp_path / "peft")
    ours = ft.add_ia3(llama(), **options)
    trained = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert ft.count_parameters(ours)[0] == trained
    ours = ft.load_ia3(llama(), tmp_path / "peft")
    assert torch.equal(ours(ids).logits, theirs(ids).logits)
    for model in (ours, theirs):
        model(ids, labels=ids).loss.backward()
    grads = [[p.grad for p in m.parameters() if p.requires_grad] for m in (ours, theirs)]
    assert len(grads[0]) == len(grads[1])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*grads, strict=True))
    filled(ours, seed=8)
    ft.save_ia3(ours, tmp_path / "ours")
    import peft

    again = peft.PeftModel.from_pretrained(llama(), tmp_path / "ours")
    assert torch.equal(again(ids).logits, ours(ids).logits)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["attn"]},
        {"target_modules": []},
        {"target_modules": 5},
        {"target_modules": [5]},
        {"feedforward_modules": ["up_proj"]},
        {"feedforward_modules": None},
    ],
    ids=str,
)
def test_bad_values(options, model):
    before = snapshot(model)
    with pytest.raises(ValueError, match=next(iter(options))):
        ft.add_ia3(model, **options)
    assert_untouched(model, before)


def test_a_file_of_another_ia3_is_refused(tmp_path, ids):
    """PEFT's option that would train whole modules beside the vectors."""
    peft_model(modules_to_save=["lm_head"]).save_pretrained(tmp_path)
    model = llama()
    with pytest.raises(ft.AdapterError, match="modules_to_save"):
        ft.load_ia3(model, tmp_path)
    assert torch.equal(model(ids).logits, llama()(ids).logits)
