"""Training refuses by name what would be wrong without a word: packed conversations that see each
other, models that see the answer; prompts that cannot be shared are run twice.
"""

import logging

import pytest
import torch
from conftest import chat, llama
from preference_runs import PAIRS, SETTINGS

import ftlib as ft
from ftlib.training.prefer import prefer
from ftlib.training.row_checks import token_rows

SIZES = {
    "vocab_size": 280,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "pad_token_id": 2,
    "bos_token_id": 0,
    "eos_token_id": 6,
    "initializer_range": 0.3,
}
ROWS = [chat(f"Say {word}.", word * 3) for word in ("ab", "cde", "f", "gh")]


def built(config):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def mamba():
    from transformers import MambaConfig

    return built(MambaConfig(**{**SIZES, "state_size": 8}))


def opt():
    """It counts its positions, and makes its mask, from the attention mask alone."""
    from transformers import OPTConfig

    return built(OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32, init_std=0.3))


def gpt_oss():
    from transformers import GptOssConfig

    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    return built(GptOssConfig(**SIZES, **experts, head_dim=8, num_key_value_heads=2))


def falcon():
    from transformers import FalconConfig

    return built(FalconConfig(**SIZES, alibi=False))


def bert():
    from transformers import BertConfig

    return built(BertConfig(**SIZES))


def finetuned(model, tokenizer, **options):
    options = {"steps": 1, "learning_rate": 1e-3, "batch_size": 2, "log_steps": 1, **options}
    options["show"] = False
    return ft.finetune(model.requires_grad_(True), tokenizer, ROWS, **options)


@pytest.mark.parametrize("make", [mamba, opt, gpt_oss, falcon])
def test_packing_of_what_does_not_stay_apart_is_refused_by_name(make, tokenizer, tmp_path):
    model = make()
    folder = tmp_path / "run"
    weights = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ft.RunError) as error:
        finetuned(model, tokenizer, packing=True, output_dir=folder)
    text = str(error.value)
    assert f"{type(model).__name__} ({model.config.model_type})" in text
    assert "nats per token" in text and text.endswith("use packing=False")
    assert not folder.exists()
    for before, after in zip(weights, model.parameters(), strict=True):
        assert torch.equal(before, after)
    assert finetuned(model, tokenizer).history[-1]["loss"] > 0


@pytest.mark.parametrize("make", [mamba, opt])
def test_it_is_refused_in_bf16_too(make, tokenizer):
    """The check runs under autocast, as training does, and knows that its rounding is larger."""
    with pytest.raises(ft.RunError, match="use packing=False"):
        finetuned(make(), tokenizer, packing=True, precision="bf16")
    model = llama(initializer_range=0.3)
    run = finetuned(model, tokenizer, packing=True, precision="bf16")
    assert run.history[-1]["loss"] > 0


def test_packing_of_what_takes_no_positions_is_refused_by_name(tokenizer):
    from transformers import MptConfig

    model = built(MptConfig(d_model=32, n_heads=4, n_layers=1, vocab_size=280, max_seq_len=64))
    with pytest.raises(ft.RunError, match=r"MptForCausalLM \(mpt\) does not"):
        finetuned(model, tokenizer, packing=True)


@pytest.mark.parametrize("packing", [False, True])
def test_an_encoder_is_refused_by_name(packing, tokenizer):
    """A BERT with a language model's head sees the answer that it is to predict: its loss would
    fall to nothing, and it could not answer.
    """
    with pytest.raises(ft.RunError, match=r"BertLMHeadModel \(bert\) is no causal language model"):
        finetuned(bert(), tokenizer, packing=packing)
    with pytest.raises(ft.RunError, match="is_decoder=True"):
        prefer(bert().requires_grad_(True), tokenizer, PAIRS, **SETTINGS)


def test_as_a_decoder_it_trains(tokenizer):
    from transformers import BertConfig

    run = finetuned(built(BertConfig(**SIZES, is_decoder=True)), tokenizer)
    assert run.history[-1]["loss"] > 0


def test_a_prompt_that_cannot_be_shared_is_run_twice_and_one_line_says_so(tokenizer, caplog):
    """OpenAI's first GPT takes `position_ids` and full attention, so its config tells nothing, but
    no mask of four dimensions.
    """
    from transformers import OpenAIGPTConfig

    torch.manual_seed(0)
    model = built(OpenAIGPTConfig(vocab_size=280, n_positions=64, n_embd=32, n_layer=1, n_head=4))
    caplog.set_level(logging.INFO, logger="ftlib")
    settings = {**SETTINGS, "steps": 1}
    run = prefer(model.requires_grad_(True), tokenizer, PAIRS[:8], loss="simpo", **settings)
    assert "prompts are run twice" in caplog.text and "OpenAIGPTLMHeadModel" in caplog.text
    again = prefer(
        built(model.config).requires_grad_(True),
        tokenizer,
        PAIRS[:8],
        loss="simpo",
        share_prefix=False,
        **settings,
    )
    assert run.history[0]["loss"] == pytest.approx(again.history[0]["loss"], rel=1e-5)


def test_a_model_that_keeps_them_apart_packs(tokenizer):
    model = llama(initializer_range=0.3)
    assert finetuned(model, tokenizer, packing=True).history[-1]["loss"] > 0


def test_token_rows_of_every_kind_of_row():
    assert token_rows([{"input_ids": [1], "labels": [1], "position_ids": [0]}]) == [[1]]
    pair = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
    assert token_rows([pair]) == [[1], [2], [3]]
    assert token_rows([{"prompt_ids": [1], "completion_ids": [2], "label": True}]) == [[1], [2]]
