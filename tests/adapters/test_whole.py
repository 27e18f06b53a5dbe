"""Models with a merged adapter: a tied head gets a weight of its own, what is saved is what loads
again.
"""

import copy
import gc
import pickle
import weakref

import bitsandbytes  # noqa: F401  # before any test: pytest keeps what it logs once, frames and all
import pytest
import torch
from conftest import byte_tokenizer, chat, llama, randomize
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import ftlib as ft
from ftlib.adapters.bottleneck import add_bottleneck, remove_bottleneck
from ftlib.adapters.prefix import add_prefix, remove_prefix

F64 = torch.float64
HEAD = ["lm_head", "q_proj"]


def adapted(targets="all-linear", scale=0.05, **options):
    """A model whose adapter does something."""
    use_dora = options.pop("use_dora", False)
    model = ft.add_lora(llama(**options), r=4, target_modules=targets, use_dora=use_dora)
    return randomize(model, scale=scale)


# Tied heads


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_merging_a_tied_head_leaves_the_embeddings_alone(use_dora, ids):
    """W of the head becomes W + sBA; the embeddings, which were the same tensor, stay W. So the
    logits after merging are those before.
    """
    model = adapted(HEAD, dtype=F64, use_dora=use_dora)
    want = model(ids).logits
    table = model.get_input_embeddings().weight.detach().clone()
    ft.merge_adapter(model)
    assert torch.allclose(model(ids).logits, want, atol=1e-12)
    assert torch.equal(model.get_input_embeddings().weight, table)
    assert model.config.tie_word_embeddings is False


def test_unmerging_ties_the_head_again_bit_for_bit(ids):
    model = adapted(HEAD, dtype=F64)
    table = model.get_input_embeddings().weight
    before = table.detach().clone()
    keys = dict(model.all_tied_weights_keys)
    ft.unmerge_adapter(ft.merge_adapter(model))
    assert model.get_output_embeddings().weight is table is model.get_input_embeddings().weight
    assert torch.equal(table, before)
    assert model.config.tie_word_embeddings is True and model.all_tied_weights_keys == keys


@pytest.mark.parametrize("unload", [False, True], ids=["merged", "unloaded"])
def test_a_merged_tied_head_is_saved_and_loads_with_its_own_weight(unload, ids, tmp_path):
    model = adapted(HEAD, dtype=F64)
    want = model(ids).logits
    model = ft.merge_and_unload(model) if unload else ft.merge_adapter(model)
    model.tie_weights()  # transformers calls it at many places: it must not undo the untying
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=F64)
    assert torch.allclose(again(ids).logits, want, atol=1e-12)
    assert again.get_output_embeddings().weight is not again.get_input_embeddings().weight


def test_a_merge_that_fails_leaves_the_head_tied(monkeypatch):
    model = adapted(HEAD)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    head = ft.lora_layers(model)["lm_head"]

    def fail(merged):
        raise MemoryError("no room")

    monkeypatch.setattr(head, "_requantising", fail)
    with pytest.raises(MemoryError):
        ft.merge_adapter(model)
    assert model.config.tie_word_embeddings is True
    assert not any(layer.merged for layer in ft.lora_layers(model).values())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, p in model.named_parameters():
        assert torch.allclose(p, before[name], atol=1e-6)


def test_any_weight_that_two_layers_share_is_untied():
    """Two linear layers hold one W; the adapter is on the first. Merged, the second still gives Wx,
    and after unmerging they share W again.
    """
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(6, 6), "b": torch.nn.Linear(6, 6)})
    model["b"].weight = model["a"].weight
    W = model["a"].weight.detach().clone()
    x = torch.randn(3, 6)
    other = model["b"](x)
    randomize(ft.add_lora(model, r=2, target_modules=["a"]))
    want = model["a"](x)
    ft.merge_adapter(model)
    assert torch.allclose(model["a"](x), want, atol=1e-6)
    assert torch.equal(model["b"](x), other)
    ft.unmerge_adapter(model)
    assert model["a"].weight is model["b"].weight and torch.equal(model["b"].weight, W)


# Saving the whole model


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_what_is_saved_after_merging_loads_again(use_dora, ids, tmp_path):
    model = adapted(use_dora=use_dora, dtype=F64)
    want = model(ids).logits
    ft.merge_adapter(model)
    model.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert names == llama().state_dict().keys() - {"lm_head.weight"}
    again, info = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=F64, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.allclose(again(ids).logits, want, atol=1e-12)


def test_a_copy_of_a_merged_model_saves_itself(ids, tmp_path):
    model = ft.merge_adapter(adapted())
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.model.norm.weight.fill_(3.0)
    twin.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert (saved["model.norm.weight"] == 3).all()


@pytest.mark.parametrize(
    "add, words",
    [
        (ft.add_lora, "not merged: save_adapter"),
        (add_bottleneck, "save_bottleneck"),
        (add_prefix, "save_prefix"),
    ],
)
def test_an_adapter_that_is_not_merged_is_not_saved_with_the_model(add, words, tmp_path):
    model = add(llama())
    with pytest.raises(ValueError, match=words):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_once_the_adapter_is_gone_saving_is_transformers_own(tmp_path):
    for model in (
        remove_bottleneck(add_bottleneck(llama())),
        remove_prefix(add_prefix(llama())),
        ft.merge_and_unload(adapted()),
    ):
        assert type(model) is LlamaForCausalLM
        model.save_pretrained(tmp_path)


def trained(add):
    """A model that has trained and answered with its adapter."""
    model = add(llama())
    tokenizer = byte_tokenizer()
    rows = [chat("two and two?", "four")] * 4
    ft.finetune(model, tokenizer, rows, steps=2, batch_size=2, learning_rate=1e-3, show=False)
    ft.golden_accuracy(model, tokenizer, rows, max_new_tokens=4)
    return model


@pytest.mark.parametrize("make", [lambda add: add(llama()), trained], ids=["added", "trained"])
@pytest.mark.parametrize("add", [ft.add_lora, add_bottleneck, add_prefix, ft.add_ia3, ft.add_reft])
def test_a_models_memory_is_free_as_soon_as_nobody_has_it(add, make):
    gc.collect()
    gc.disable()
    try:
        model = make(add)
        seen = weakref.ref(model)
        twin = copy.deepcopy(model)
        seen_twin = weakref.ref(twin)
        del model, twin
        assert seen() is None
        assert seen_twin() is None
    finally:
        gc.enable()


def test_a_pickled_model_with_an_adapter_is_the_same_again(ids, tmp_path):
    model = adapted()
    again = pickle.loads(pickle.dumps(model))
    assert type(again) is type(model)
    assert torch.equal(again(ids).logits, model(ids).logits)
    with pytest.raises(ValueError, match="not merged"):
        again.save_pretrained(tmp_path / "new")


def packed(tmp_path, **more):
    """A model in 4 bits with an adapter that does something."""
    llama(hidden=64, **more).save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    model, _ = ft.load_model(tmp_path / "base", quantization="nf4")
    return model


@pytest.mark.parametrize("unload", [False, True], ids=["merged", "unloaded"])
def test_a_dequantised_model_is_saved_as_the_dense_model_that_it_is(unload, ids, tmp_path):
    model = randomize(ft.add_lora(packed(tmp_path), r=4))
    model = ft.merge_and_unload(model) if unload else ft.merge_adapter(model)
    want = model(ids).logits
    model.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert type(again.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert torch.allclose(again(ids).logits, want, atol=1e-6)
    assert model.config.quantization_config and model.hf_quantizer


def test_a_model_that_is_partly_in_4_bits_is_not_saved_as_a_whole(tmp_path):
    model = ft.merge_adapter(randomize(ft.add_lora(packed(tmp_path), target_modules=["q_proj"])))
    with pytest.raises(ValueError, match=r"k_proj.weight' is still in 4 bits.*16-bit base"):
        model.save_pretrained(tmp_path / "merged")


# DoRA over rows of zeros


def zero_row_model():
    model = llama(dtype=F64)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[3] = 0
    return ft.add_lora(model, r=2, use_dora=True)


@pytest.mark.parametrize("magnitude", [0.0, 1e3], ids=["as it starts", "moved"])
@pytest.mark.parametrize("trained_base", [False, True], ids=["fused", "plain"])
def test_dora_over_a_row_of_zeros(magnitude, trained_base, ids):
    """‖W_3 + sB_3A‖ = 0: there is no direction that m could give a length to. The row's output is
    its base's, 0, its gradient 0, and everything else is finite (PEFT divides 0 by 0).
    """
    base = llama(dtype=F64)
    with torch.no_grad():
        base.model.layers[0].self_attn.q_proj.weight[3] = 0
    model = zero_row_model()
    layer = ft.lora_layers(model)["model.layers.0.self_attn.q_proj"]
    layer.weight.requires_grad_(trained_base)
    with torch.no_grad():
        layer.lora_magnitude_vector[3] = magnitude
    out = model(ids, labels=ids)
    assert torch.allclose(out.logits, base(ids).logits, atol=1e-12)
    out.loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name
    assert layer.lora_magnitude_vector.grad[3] == 0


def test_dora_over_a_row_of_zeros_merges_and_unmerges():
    """A row whose m is 0 is merged to 0; unmerging must bring W back, which 0/0 would not."""
    model = zero_row_model()
    randomize(model)
    layer = ft.lora_layers(model)["model.layers.1.mlp.up_proj"]
    with torch.no_grad():
        layer.lora_magnitude_vector[5] = 0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ft.merge_adapter(model)
    assert not layer.weight[5].any()
    ft.unmerge_adapter(model)
    for name, p in model.named_parameters():
        assert torch.allclose(p, before[name], atol=1e-12), name


def test_the_merged_weight_of_an_export_is_zero_there_too():
    from ftlib.adapters.functional import merged_weight

    W = torch.randn(4, 6, dtype=F64)
    W[2] = 0
    A, B = torch.randn(2, 6, dtype=F64), torch.randn(4, 2, dtype=F64)
    B[2] = 0
    merged = merged_weight(W, A, B, 2.0, magnitude=torch.full((4,), 1e300, dtype=F64))
    assert merged.isfinite().all() and not merged[2].any()
