"""Prefix tuning: numbers by hand, equality with PEFT and with the text it may replace,
generation. Saving and loading: test_hooked.py.
"""

import copy

import pytest
import torch
from conftest import assert_untouched, llama, snapshot
from safetensors.torch import load_file
from transformers import DynamicCache

import ftlib as ft
from ftlib.adapters import hooked
from ftlib.adapters import prefix as prefix_module

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def sharp(dtype=torch.float64, **more):
    """A random Llama whose greedy answers vary from token to token."""
    return llama(dtype=dtype, tie_word_embeddings=False, initializer_range=0.3, **more)


def tokens(*shape, seed=3):
    return torch.randint(8, 280, shape, generator=torch.Generator().manual_seed(seed))


# --- by hand --------------------------------------------------------------------------------------
@pytest.mark.parametrize("padding", [0, 2])
def test_attention_by_hand(padding):
    """Zero queries make every score 0, so each position averages the values it may see. The text's
    values are 0, those of the three virtual tokens are 1: the first real token sees 3 + 1 of them
    and gets 3/4, the next ones 3/5 and 3/6. Keys do not matter, and padding on the left is not
    seen.
    """
    model = prefix_module.add_prefix(llama(layers=1, dtype=torch.float64), 3, "random")
    attention = model.model.layers[0].self_attn
    seen = []
    with torch.no_grad():
        attention.q_proj.weight.zero_()
        attention.v_proj.weight.zero_()
        model.model.prefix.prompt_embeddings[:, 16:] = (
            1.0  # 2 heads of width 8: 16 numbers of keys, then 16 of values
        )
    attention.o_proj.register_forward_hook(lambda m, args, y: seen.append(args[0]))
    mask = torch.tensor([[0] * padding + [1, 1, 1]])
    model(tokens(1, padding + 3), attention_mask=mask)
    want = torch.tensor([3 / 4, 3 / 5, 3 / 6], dtype=torch.float64)[:, None].expand(3, 32)
    assert torch.allclose(seen[0][0, padding:], want, rtol=1e-12)


def test_parameter_count_by_hand():
    """5 virtual tokens × 2 layers × (keys and values) × 2 key-value heads × width 8 = 5·2·2·16 =
    320.
    """
    model = prefix_module.add_prefix(llama(), 5)
    assert ft.count_parameters(model)[0] == 320 and [
        n for n, p in model.named_parameters() if p.requires_grad
    ] == ["model.prefix.prompt_embeddings"]


# --- the prefix that replaces a text ------------------------------------------------------------
def test_activations_of_tokens_are_those_tokens():
    """Keys, values, masks and positions all right: the prefix of five tokens' activations is the
    base that has read the five.
    """
    base = sharp()
    text = tokens(5, seed=1)
    ids = tokens(3, 7)
    want = base(torch.cat([text.expand(3, -1), ids], 1)).logits[:, 5:]
    model = prefix_module.add_prefix(copy.deepcopy(base), 5, text)
    assert torch.allclose(model(ids).logits, want, rtol=1e-9, atol=1e-12)
    assert torch.allclose(
        model(ids, position_ids=torch.arange(7)[None]).logits, want, rtol=1e-9, atol=1e-12
    )
    assert torch.allclose(
        model(inputs_embeds=base.model.embed_tokens(ids)).logits, want, rtol=1e-9, atol=1e-12
    )
    assert torch.allclose(
        model.model(ids, torch.ones(3, 7)).last_hidden_state @ base.lm_head.weight.T,
        want,
        rtol=1e-9,
        atol=1e-12,
    )
    assert not torch.allclose(base(ids).logits, want, rtol=1e-2)


def test_generation_with_left_padding_equals_the_base_that_reads_the_text():
    base = sharp()
    text = tokens(4, seed=1)
    model = prefix_module.add_prefix(copy.deepcopy(base), 4, text.tolist())
    rows = [tokens(n, seed=n) for n in (6, 2, 4)]
    ids = torch.stack([torch.cat([torch.full((6 - len(r),), 2), r]) for r in rows])
    out = model.generate(
        ids,
        attention_mask=(torch.arange(6) >= torch.tensor([[0], [4], [2]])).long(),
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=None,
    )[:, 6:]
    for row, got in zip(rows, out, strict=True):
        whole = torch.cat([text, row])[None]
        want = base.generate(whole, max_new_tokens=8, do_sample=False, eos_token_id=None)
        assert got.tolist() == want[0, whole.shape[1] :].tolist()
    assert len({tuple(row.tolist()) for row in out}) == 3 and all(
        len(set(row.tolist())) > 2 for row in out
    )


def test_default_start_is_of_tokens_and_random_is_not():
    """ "tokens" leaves keys as large as the model's own; "random" is standard normal."""
    torch.manual_seed(0)
    base = llama(initializer_range=0.001)
    by_tokens = prefix_module.add_prefix(copy.deepcopy(base), 50).model.prefix.prompt_embeddings
    random = prefix_module.add_prefix(base, 50, init="random").model.prefix.prompt_embeddings
    assert (
        by_tokens.std() < 0.1
        and abs(random.std() - 1) < 0.1
        and by_tokens.dtype == random.dtype == torch.float32
    )


# --- against PEFT ---------------------------------------------------------------------------------
def pair(**options):
    """The same prefix on the same model, ours and PEFT's, in float64."""
    from peft import PrefixTuningConfig, get_peft_model

    base = sharp()
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, **options)
    theirs = get_peft_model(copy.deepcopy(base), config).double()
    ours = prefix_module.add_prefix(base, 4, "random")
    with torch.no_grad():
        ours.model.prefix.prompt_embeddings.copy_(theirs.get_prompt_embedding_to_save("default"))
    return ours, theirs


def test_equals_peft_in_float64():
    """Logits, loss and gradient, with rows padded on the right as in training."""
    ours, theirs = pair()
    ids = tokens(3, 7)
    mask = (torch.arange(7) < torch.tensor([[7], [4], [5]])).long()
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    a = ours(**batch)
    b = theirs(**batch)
    assert a.logits.dtype == torch.float64 and torch.allclose(
        a.logits, b.logits, rtol=1e-12, atol=1e-12
    )
    a.loss.backward()
    b.loss.backward()
    mine = ours.model.prefix.prompt_embeddings.grad
    other = theirs.prompt_encoder["default"].embedding.weight.grad
    assert mine.norm() > 0 and (mine - other).norm() / other.norm() < 1e-12
    assert [n for n, p in ours.named_parameters() if p.grad is not None] == [
        "model.prefix.prompt_embeddings"
    ]


@pytest.mark.parametrize(
    "options",
    [{}, {"prefix_projection": True, "encoder_hidden_size": 12}],
    ids=["plain", "projection"],
)
def test_pefts_folder_loads_here(options, tmp_path):
    _, theirs = pair(**options)
    theirs.save_pretrained(tmp_path)
    ours = prefix_module.load_prefix(sharp(), tmp_path)
    ids = tokens(2, 6)
    assert torch.allclose(ours(ids).logits, theirs(ids).logits, rtol=1e-9, atol=1e-12)


def test_our_folder_loads_in_peft(tmp_path):
    from peft import PeftModel

    ours, _ = pair()
    prefix_module.save_prefix(ours, tmp_path)
    theirs = PeftModel.from_pretrained(sharp(), tmp_path)
    ids = tokens(2, 6)
    assert torch.allclose(
        theirs(ids).logits, ours(ids).logits, rtol=1e-6, atol=1e-6
    )  # PEFT keeps the prefix in fp32
    assert load_file(tmp_path / WEIGHTS)["prompt_embeddings"].shape == (4, 64)
    again = prefix_module.save_prefix(
        prefix_module.load_prefix(sharp(), tmp_path), tmp_path / "again"
    )
    assert all((again / n).read_bytes() == (tmp_path / n).read_bytes() for n in (CONFIG, WEIGHTS))


# --- in use ---------------------------------------------------------------------------------------
def test_generate_equals_whole_forwards():
    """The cache that grows token by token gives what a forward over everything gives; the answer
    differs from the base's.
    """
    model = prefix_module.add_prefix(sharp(), 3, "random")
    ids = tokens(2, 5)
    want = ids
    for _ in range(6):
        want = torch.cat([want, model(want).logits[:, -1:].argmax(-1)], 1)
    for use_cache in (True, False):
        out = model.generate(
            ids, max_new_tokens=6, do_sample=False, eos_token_id=None, use_cache=use_cache
        )
        assert out.tolist() == want.tolist()
    with hooked.disable_baseline(model):
        assert (
            model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None).tolist()
            != want.tolist()
        )


@pytest.mark.parametrize(
    "options", [{"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}], ids=str
)
def test_beams(options):
    base = sharp()
    text = tokens(3, seed=1)
    ids = tokens(2, 4)
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, **options}
    want = base.generate(torch.cat([text.expand(2, -1), ids], 1), **options)[:, 7:]
    assert (
        prefix_module.add_prefix(base, 3, text).generate(ids, **options)[:, 4:].tolist()
        == want.tolist()
    )


def test_a_cache_continued_by_hand():
    model = prefix_module.add_prefix(sharp(), 3, "random")
    ids = tokens(2, 6)
    first = model(ids[:, :4], attention_mask=torch.ones(2, 4), use_cache=True)
    then = model(ids[:, 4:], attention_mask=torch.ones(2, 6), past_key_values=first.past_key_values)
    assert torch.allclose(
        torch.cat([first.logits, then.logits], 1), model(ids).logits, rtol=1e-9, atol=1e-12
    )


def test_what_would_be_silently_wrong_is_refused():
    model = prefix_module.add_prefix(sharp(), 3, "random")
    ids = tokens(2, 6)
    with hooked.disable_baseline(model):
        foreign = model(ids, use_cache=True).past_key_values
    ours = model(ids[:, :2], use_cache=True).past_key_values
    padded = torch.cat([torch.full((2, 1), 2), ids], 1)
    for message, call in {
        "DynamicCache": lambda: model(ids, past_key_values=foreign),
        "empty DynamicCache": lambda: model.generate(
            ids, max_new_tokens=2, cache_implementation="static"
        ),
        "position_ids": lambda: model.generate(ids, max_new_tokens=2, past_key_values=ours),
        "give generate a new cache": lambda: model.generate(
            padded, attention_mask=(padded > 2).long(), past_key_values=ours
        ),
        "attention_mask": lambda: model(
            ids, attention_mask=torch.ones(2, 1, 6, 6, dtype=torch.bool)
        ),
        "with a prefix it must be": lambda: model(ids, attention_mask=torch.ones(2, 9)),
        "packed rows": lambda: model(ids, position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]])),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
    assert model(ids, past_key_values=DynamicCache()).logits.shape == (2, 6, 280)


def test_gradient_checkpointing_is_refused_in_training(tokenizer, rows):
    model = prefix_module.add_prefix(llama(), 3)
    ids = tokens(1, 4)
    with pytest.raises(ValueError, match="gradient checkpointing"):
        ft.finetune(
            model,
            tokenizer,
            rows,
            steps=1,
            learning_rate=1e-3,
            batch_size=2,
            checkpointing=True,
            show=False,
        )
    model.eval()
    with hooked.disable_baseline(model):
        base = model(ids).logits
    assert not torch.equal(
        model(ids).logits, base
    )  # evaluation keeps the cache, so the prefix acts


def test_models_without_full_attention_are_refused():
    from transformers import MistralConfig, MistralForCausalLM

    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=4,
        )
    )
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"mistral.*full attention"):
        prefix_module.add_prefix(model)
    assert_untouched(model, before)


@pytest.mark.parametrize(
    "options",
    [
        {"num_virtual_tokens": 0},
        {"num_virtual_tokens": 2.0},
        {"num_virtual_tokens": True},
        {"init": "zeros"},
        {"init": [1, 2]},
        {"init": [5] * 15 + [280]},
        {"init": [-1] * 16},
        {"init": [1.5] * 16},
        {"init": None},
        {"init": 5},
    ],
    ids=str,
)
def test_bad_values(options, model):
    before = snapshot(model)
    with pytest.raises(ValueError, match=next(iter(options))):
        prefix_module.add_prefix(model, **options)
    assert_untouched(model, before)
