"""The embedding and head beside an adapter: resized or trained, they are in its file, as PEFT keeps
them, and come back from it.
"""

import pytest
import torch
from conftest import llama, randomize
from safetensors.torch import load_file, save_file

import ftlib as ft
from ftlib.adapters.active import unsaved_parameters
from ftlib.adapters.embeddings import changed_embeddings, embedding_weights

IDS = torch.tensor([[1, 7, 281, 3]])  # 281 is beyond the base's 280 tokens


def base(folder, tied: bool):
    """A checkpoint on disk, so that its size is known, and the model loaded from it."""
    llama(tie_word_embeddings=tied).save_pretrained(folder)
    return load(folder)


def load(folder):
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder).eval()


def stored_names(folder) -> set[str]:
    """Of the tensors in the adapter's file those that are not LoRA's."""
    tensors = load_file(folder / "adapter_model.safetensors")
    return {name.removeprefix("base_model.model.") for name in tensors if "lora_" not in name}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "apart"])
class TestResized:
    @pytest.fixture
    def saved(self, tmp_path, tied):
        model = base(tmp_path / "base", tied)
        model.resize_token_embeddings(283)
        ft.add_lora(model, r=2)
        randomize(model)
        return model, tmp_path / "base", ft.save_adapter(model, tmp_path / "adapter")

    def test_the_file_holds_what_the_base_lacks(self, saved, tied):
        wanted = {"model.embed_tokens.weight"}
        if not tied:
            wanted.add("lm_head.weight")
        assert stored_names(saved[2]) == wanted

    def test_it_comes_back_on_the_base_that_was_not_resized(self, saved, tied):
        model, folder, adapter = saved
        again = ft.load_adapter(load(folder), adapter)
        assert again.config.vocab_size == 283
        assert torch.equal(again(IDS).logits, model(IDS).logits)

    def test_peft_reads_it(self, saved, tied):
        peft = pytest.importorskip("peft")
        model, folder, adapter = saved
        resized = load(folder)
        resized.resize_token_embeddings(283)
        theirs = peft.PeftModel.from_pretrained(resized, adapter)
        torch.testing.assert_close(theirs(IDS).logits, model(IDS).logits)

    def test_pefts_is_read(self, tmp_path, tied):
        peft = pytest.importorskip("peft")
        model = base(tmp_path / "base", tied)
        model.resize_token_embeddings(283)
        theirs = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
        randomize(theirs)
        theirs.save_pretrained(tmp_path / "theirs")
        ours = ft.load_adapter(load(tmp_path / "base"), tmp_path / "theirs")
        torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "apart"])
def test_pefts_adapter_on_the_head_is_read(tmp_path, tied):
    """PEFT writes the head's base layer beside it, which is not another base's tensor."""
    peft = pytest.importorskip("peft")
    model = base(tmp_path / "base", tied)
    theirs = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = ft.load_adapter(load(tmp_path / "base"), tmp_path / "theirs")
    ids = torch.tensor([[1, 7, 3]])
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits)


def test_a_trained_embedding_is_saved_and_a_frozen_one_of_the_bases_size_is_not(tmp_path):
    model = ft.add_lora(base(tmp_path / "base", tied=True), r=2)
    assert not changed_embeddings(model)
    assert not stored_names(ft.save_adapter(model, tmp_path / "frozen"))
    weight = model.get_input_embeddings().weight
    weight.requires_grad_(True)
    with torch.no_grad():
        weight += 1
    adapter = ft.save_adapter(model, tmp_path / "trained")
    assert stored_names(adapter) == {"model.embed_tokens.weight"}
    again = ft.load_adapter(load(tmp_path / "base"), adapter)
    assert torch.equal(again.get_input_embeddings().weight, weight)


def test_a_model_made_from_a_configuration_has_no_base_to_differ_from():
    model = llama()
    model.resize_token_embeddings(283)
    assert not changed_embeddings(ft.add_lora(model, r=2))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda weight: weight[:, :-1], r"embed_tokens.weight has shape \(283, 31\)"),
        (lambda weight: weight * float("nan"), "has NaN"),
    ],
)
def test_damaged(tmp_path, change, message):
    model = base(tmp_path / "base", tied=True)
    model.resize_token_embeddings(283)
    adapter = ft.save_adapter(ft.add_lora(model, r=2), tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    key = "base_model.model.model.embed_tokens.weight"
    tensors[key] = change(tensors[key]).contiguous()
    save_file(tensors, file)
    fresh = load(tmp_path / "base")
    with pytest.raises(ft.AdapterError, match=message):
        ft.load_adapter(fresh, adapter)
    assert fresh.config.vocab_size == 280 and not ft.lora_layers(fresh)


def test_what_trains_beside_an_adapter_and_would_be_lost():
    model = ft.add_lora(llama(), r=2)
    assert not unsaved_parameters(model)
    model.model.norm.weight.requires_grad_(True)
    assert unsaved_parameters(model) == ["model.norm.weight"]
    model.get_input_embeddings().weight.requires_grad_(True)  # saved with the adapter
    assert unsaved_parameters(model) == ["model.norm.weight"]
    assert not unsaved_parameters(llama().requires_grad_(True))  # saved whole


def test_a_tied_weight_is_one():
    assert list(embedding_weights(llama())) == ["model.embed_tokens.weight"]
    apart = embedding_weights(llama(tie_word_embeddings=False))
    assert list(apart) == ["model.embed_tokens.weight", "lm_head.weight"]
