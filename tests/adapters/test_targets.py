"""What `target_modules` picks: regular expressions as PEFT has them, and what is no linear layer is
named.
"""

import logging

import pytest
import torch
from conftest import assert_untouched, llama, snapshot
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

import ftlib as ft
from ftlib.adapters.targets import target_names
from ftlib.models.matrices import other_matrices

SIZES = dict(vocab_size=100, bos_token_id=0, eos_token_id=1, pad_token_id=2)
EXPRESSIONS = [
    r".*self_attn\.(q|v)_proj",
    r"model\.layers\.1\..*_proj",
    r"(?!.*lm_head).*proj",
    r"lm_head",
]


def mixtral():
    return MixtralForCausalLM(
        MixtralConfig(
            **SIZES,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=4,
        )
    )


def gpt2():
    return GPT2LMHeadModel(GPT2Config(**SIZES, n_embd=32, n_layer=2, n_head=2))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_picks_what_it_picks_in_peft(expression, tmp_path, ids):
    from peft import LoraConfig, get_peft_model

    theirs = get_peft_model(llama(), LoraConfig(target_modules=expression, r=3))
    want = {
        name.removeprefix("base_model.model.")
        for name, module in theirs.named_modules()
        if hasattr(module, "lora_A")
    }
    assert set(target_names(llama(), expression)) == want
    # and what PEFT saved with it loads
    torch.nn.init.normal_(next(p for n, p in theirs.named_parameters() if "lora_B" in n))
    theirs.save_pretrained(tmp_path)
    ours = ft.load_adapter(llama(), tmp_path)
    assert set(ft.lora_layers(ours)) == want
    assert torch.allclose(ours(ids).logits, theirs(ids).logits, atol=1e-5)
    ft.save_adapter(ours, tmp_path / "again")
    assert set(ft.lora_layers(ft.load_adapter(llama(), tmp_path / "again"))) == want


def test_a_copy_of_the_head_in_pefts_file_must_be_this_models(tmp_path):
    """PEFT saves an adapted head's own weight as well: it may come along, and must not differ."""
    from peft import LoraConfig, get_peft_model

    theirs = get_peft_model(llama(), LoraConfig(target_modules=["lm_head"], r=3))
    theirs.save_pretrained(tmp_path)
    assert ft.lora_layers(ft.load_adapter(llama(), tmp_path)).keys() == {"lm_head"}
    other = llama(seed=1)
    before = snapshot(other)
    with pytest.raises(ft.AdapterError, match=r"lm_head.base_layer.weight \(280, 32\) is another"):
        ft.load_adapter(other, tmp_path)
    assert_untouched(other, before)


def test_a_string_that_names_layers_is_that_name():
    assert target_names(llama(), "down_proj") == [f"model.layers.{i}.mlp.down_proj" for i in (0, 1)]


@pytest.mark.parametrize(
    "targets, words",
    [
        (r".*(q_proj", r"\.\*\(q_proj' is neither a layer's name nor a regular expression"),
        (r".*norm", r"names no linear layer"),
        (r".*layers\.0\..*", r"also matches 'model.layers.0.\w+', a \w+: only linear"),
        (r".*(embed_tokens|q_proj)", r"also matches 'model.embed_tokens', a Embedding"),
        (["embed_tokens"], r"'embed_tokens' names 'model.embed_tokens', a Embedding, which ftlib"),
        (["mlp"], r"'mlp' names 'model.layers.0.mlp', a LlamaMLP"),
    ],
)
def test_what_is_no_linear_layer_is_named(targets, words, model):
    before = snapshot(model)
    with pytest.raises(ValueError, match=words):
        ft.add_lora(model, target_modules=targets)
    assert_untouched(model, before)


# Matrices that are no linear layers


def test_all_linear_names_the_experts_that_it_leaves_out(caplog):
    """A layer's attention has q and o of 32x32, k and v of 16x32: 3,072 weights; its router 4x32 =
    128, its experts 4·(96·32 + 32·48) = 18,432; its norms 64. With table, head and the last norm:
    2·(3,072 + 128 + 18,432 + 64) + 2·3,200 + 32 = 49,824, of which 2·18,560 = 37,120 are 74.5%.
    """
    with caplog.at_level(logging.WARNING, "ftlib"):
        ft.add_lora(mixtral(), r=2)
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 1
    assert "model.layers.*.mlp.experts.gate_up_proj" in said[0] and "layers.0" not in said[0]
    assert "(74.5% of the weights)" in said[0]


@pytest.mark.parametrize("targets", ["all-linear", ["c_attn"]])
def test_a_model_without_linear_layers_is_refused_by_name(targets):
    """GPT-2's layers are Conv1D; an adapter on none of them trained nothing, and said nothing."""
    with pytest.raises(ValueError, match=r"c_attn.*ftlib does not adapt") as refusal:
        ft.add_lora(gpt2(), target_modules=targets)
    if targets == ["c_attn"]:
        assert "a Conv1D" in str(refusal.value)


def test_a_llama_has_no_other_matrices(model, caplog):
    with caplog.at_level(logging.WARNING, "ftlib"):
        ft.add_lora(model)
    assert not caplog.records and not other_matrices(llama())
