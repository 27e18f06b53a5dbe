"""Prefix tuning: numbers by hand, equality with PEFT and with the text it may stand for,
generation, saving. The tests of saving and loading run on both baselines, which share that code.
"""

import copy
import json
import os
import shutil

import pytest
import torch
from conftest import EMBEDDED, assert_untouched, llama, snapshot
from safetensors.torch import load_file, save_file
from transformers import DynamicCache

import ftlib as ft
from ftlib.adapters import active, bottleneck, hooked
from ftlib.adapters import prefix as prefix_module

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
METHODS = {
    "prefix": (
        prefix_module.add_prefix,
        prefix_module.save_prefix,
        prefix_module.load_prefix,
        prefix_module.remove_prefix,
        {"num_virtual_tokens": 3, "init": "random"},
    ),
    "bottleneck": (
        bottleneck.add_bottleneck,
        bottleneck.save_bottleneck,
        bottleneck.load_bottleneck,
        bottleneck.remove_bottleneck,
        {"size": 3},
    ),
}
both = pytest.mark.parametrize("method", METHODS)


def sharp(dtype=torch.float64, **more):
    """A random Llama whose greedy answers vary from token to token."""
    return llama(dtype=dtype, tie_word_embeddings=False, initializer_range=0.3, **more)


def tokens(*shape, seed=3):
    return torch.randint(8, 280, shape, generator=torch.Generator().manual_seed(seed))


def weights(model) -> dict:
    return {
        n: p.detach().clone()
        for n, p in model.named_parameters()
        if ".prefix." in n or ".bottleneck." in n
    }


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and len(a) > 0 and all(torch.equal(a[k], b[k]) for k in a)


def trained(method: str, seed=0, **options):
    """A model with this baseline and random values in it, as if it had been trained."""
    model = METHODS[method][0](llama(), **{**METHODS[method][4], **options})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator))
    return model


# --- by hand --------------------------------------------------------------------------------------
@pytest.mark.parametrize("padding", [0, 2])
def test_attention_by_hand(padding):
    """Zero queries make every score 0, so each position averages the values it may see. The text's
    values are 0, those of the three virtual tokens are 1: the first real token sees 3 + 1 of them
    and gets 3/4, the next ones 3/5 and 3/6. Keys do not matter, and padding on the left is not
    seen.
    """
    model = prefix_module.add_prefix(llama(layers=1, dtype=torch.float64), 3, "random")
    attention, seen = model.model.layers[0].self_attn, []
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


# --- the prefix that stands for a text ------------------------------------------------------------
def test_activations_of_tokens_are_those_tokens():
    """Keys, values, masks and positions all right: the prefix of five tokens' activations is the
    base that has read the five.
    """
    base, text, ids = sharp(), tokens(5, seed=1), tokens(3, 7)
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
    base, text = sharp(), tokens(4, seed=1)
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
    for row, got in zip(rows, out):
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

    base, config = (
        sharp(),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, **options),
    )
    theirs = get_peft_model(copy.deepcopy(base), config).double()
    ours = prefix_module.add_prefix(base, 4, "random")
    with torch.no_grad():
        ours.model.prefix.prompt_embeddings.copy_(theirs.get_prompt_embedding_to_save("default"))
    return ours, theirs


def test_equals_peft_in_float64():
    """Logits, loss and gradient, with rows padded on the right as in training."""
    ours, theirs = pair()
    ids, mask = tokens(3, 7), (torch.arange(7) < torch.tensor([[7], [4], [5]])).long()
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    a, b = ours(**batch), theirs(**batch)
    assert a.logits.dtype == torch.float64 and torch.allclose(
        a.logits, b.logits, rtol=1e-12, atol=1e-12
    )
    a.loss.backward()
    b.loss.backward()
    mine, other = (
        ours.model.prefix.prompt_embeddings.grad,
        theirs.prompt_encoder["default"].embedding.weight.grad,
    )
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
    ours, ids = prefix_module.load_prefix(sharp(), tmp_path), tokens(2, 6)
    assert torch.allclose(ours(ids).logits, theirs(ids).logits, rtol=1e-9, atol=1e-12)


def test_our_folder_loads_in_peft(tmp_path):
    from peft import PeftModel

    ours, _ = pair()
    prefix_module.save_prefix(ours, tmp_path)
    theirs, ids = PeftModel.from_pretrained(sharp(), tmp_path), tokens(2, 6)
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
    model, ids = prefix_module.add_prefix(sharp(), 3, "random"), tokens(2, 5)
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
    base, text, ids = sharp(), tokens(3, seed=1), tokens(2, 4)
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, **options}
    want = base.generate(torch.cat([text.expand(2, -1), ids], 1), **options)[:, 7:]
    assert (
        prefix_module.add_prefix(base, 3, text).generate(ids, **options)[:, 4:].tolist()
        == want.tolist()
    )


def test_a_cache_continued_by_hand():
    model, ids = prefix_module.add_prefix(sharp(), 3, "random"), tokens(2, 6)
    first = model(ids[:, :4], attention_mask=torch.ones(2, 4), use_cache=True)
    then = model(ids[:, 4:], attention_mask=torch.ones(2, 6), past_key_values=first.past_key_values)
    assert torch.allclose(
        torch.cat([first.logits, then.logits], 1), model(ids).logits, rtol=1e-9, atol=1e-12
    )


def test_what_would_be_silently_wrong_is_refused():
    model, ids = prefix_module.add_prefix(sharp(), 3, "random"), tokens(2, 6)
    with hooked.disable_baseline(model):
        foreign = model(ids, use_cache=True).past_key_values
    ours, padded = (
        model(ids[:, :2], use_cache=True).past_key_values,
        torch.cat([torch.full((2, 1), 2), ids], 1),
    )
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
    model, ids = prefix_module.add_prefix(llama(), 3), tokens(1, 4)
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
    with pytest.raises(ValueError, match="mistral.*full attention"):
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
    ],
    ids=str,
)
def test_bad_values(options, model):
    before = snapshot(model)
    with pytest.raises(ValueError, match=next(iter(options))):
        prefix_module.add_prefix(model, **options)
    assert_untouched(model, before)


# --- both baselines -------------------------------------------------------------------------------
@both
def test_removing_and_disabling_give_the_base_bit_for_bit(method, ids):
    remove = METHODS[method][3]
    base = llama()
    want, before = base(ids).logits, {k: v.clone() for k, v in base.state_dict().items()}
    model = trained(method)
    assert not torch.allclose(model(ids).logits, want, atol=1e-3)
    with pytest.raises(RuntimeError), hooked.disable_baseline(model):
        assert torch.equal(model(ids).logits, want)
        raise RuntimeError
    assert not torch.allclose(model(ids).logits, want, atol=1e-3)
    assert remove(model) is model and torch.equal(model(ids).logits, want)
    assert model.state_dict().keys() == before.keys() and all(
        torch.equal(v, before[k]) for k, v in model.state_dict().items()
    )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for verb in (remove, lambda m: hooked.disable_baseline(m).__enter__()):
        with pytest.raises(ft.AdapterError, match="add or load"):
            verb(model)


@both
def test_a_deep_copy_has_its_own(method, ids):
    model = trained(method)
    other, want = copy.deepcopy(model), model(ids).logits
    METHODS[method][3](model)
    assert torch.equal(other(ids).logits, want) and not torch.equal(model(ids).logits, want)
    METHODS[method][3](other)
    assert torch.equal(other(ids).logits, model(ids).logits)


@both
def test_one_method_at_a_time(method):
    for model in (trained("prefix"), trained("bottleneck"), ft.add_lora(llama(), r=2)):
        before = snapshot(model)
        with pytest.raises(ft.AdapterError, match="already has an adapter"):
            METHODS[method][0](model)
        assert_untouched(model, before)


@both
@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
def test_bf16_keeps_fp32_masters(method, base):
    """A base in bf16, and a base in fp32 under autocast: fp32 weights and gradients, and about the
    logits of fp32.
    """
    exact, ids = trained(method), tokens(2, 7)
    model = copy.deepcopy(exact)
    for p in model.parameters():
        p.data = p.data if p.requires_grad else p.data.to(base)
    with torch.autocast("cpu", torch.bfloat16, enabled=base == torch.float32):
        out = model(ids, labels=ids)
    out.loss.backward()
    assert out.logits.dtype == torch.bfloat16 and torch.allclose(
        out.logits.float(), exact(ids).logits, atol=0.15
    )
    assert all(
        p.dtype == p.grad.dtype == torch.float32 and p.grad.isfinite().all()
        for p in model.parameters()
        if p.requires_grad
    )
    assert model.dtype == base


@both
@pytest.mark.parametrize(
    "base, master", [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)], ids=str
)
def test_new_weights_are_in_fp32_or_wider(method, base, master):
    model = METHODS[method][0](llama(dtype=base))
    assert {p.dtype for p in weights(model).values()} == {master}
    assert model.dtype == base and model(tokens(1, 4)).logits.dtype == base


@both
@pytest.mark.skipif(not EMBEDDED.is_dir(), reason="the embedded model is not there")
def test_a_few_steps_lower_the_loss_and_leave_the_base(method):
    model, tokenizer = ft.load_model()
    before = {n: p.clone() for n, p in model.named_parameters()}
    METHODS[method][0](model)
    rows = ft.load_rows("train")[:8]
    rate = {"prefix": 0.3, "bottleneck": 0.02}[method]  # a prefix is few numbers, far from the loss
    run = ft.finetune(
        model, tokenizer, rows, steps=6, learning_rate=rate, batch_size=8, log_steps=1, show=False
    )
    assert run.history[-1]["loss"] < 0.8 * run.history[0]["loss"]
    assert {n for n, p in model.named_parameters() if p.grad is not None} <= weights(model).keys()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)


@both
def test_a_run_resumes_to_the_same_weights(method, tokenizer, rows, tmp_path):
    settings = {"steps": 4, "learning_rate": 1e-2, "batch_size": 4, "save_steps": 2, "show": False}
    whole, folder = trained(method), tmp_path / "run"
    ft.finetune(whole, tokenizer, rows, **settings, output_dir=folder)
    shutil.rmtree(folder / "checkpoint-4")
    model = trained(method, seed=9)  # another start: all that matters comes from the checkpoint
    assert ft.finetune(model, tokenizer, rows, **settings, output_dir=folder).resumed_from == 2
    assert sorted(os.listdir(folder / "adapter")) == [CONFIG, WEIGHTS] and not list(
        folder.rglob("model.safetensors")
    )
    assert equal(weights(METHODS[method][2](llama(), folder / "adapter")), weights(whole))
    assert equal(weights(model), weights(whole)) and not equal(
        weights(model), weights(trained(method))
    )


# --- on disk --------------------------------------------------------------------------------------
@both
def test_round_trip_bit_for_bit(method, tmp_path, ids):
    _, save, load, _, options = METHODS[method]
    model = trained(method)
    assert save(model, tmp_path) == tmp_path and sorted(os.listdir(tmp_path)) == [CONFIG, WEIGHTS]
    fresh = llama()
    assert load(fresh, tmp_path) is fresh and equal(weights(fresh), weights(model))
    assert torch.equal(fresh(ids).logits, model(ids).logits)
    assert {n for n, p in fresh.named_parameters() if p.requires_grad} == weights(fresh).keys()
    other = trained(method, seed=5)
    assert equal(weights(load(other, tmp_path)), weights(model))  # into the one that is there
    assert not any(p.requires_grad for p in load(llama(), tmp_path, trainable=False).parameters())
    with pytest.raises(ft.AdapterError, match="add or load"):
        save(llama(), tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.fixture
def folder(tmp_path, method):
    return METHODS[method][1](trained(method), tmp_path / "adapter")


def refuse(method, folder, *words):
    """Loading raises AdapterError with all the words, and leaves a model without and one with a
    baseline as they were.
    """
    for model in (llama(), trained(method, seed=5)):
        before = snapshot(model)
        with pytest.raises(ft.AdapterError) as caught:
            METHODS[method][2](model, folder)
        assert isinstance(caught.value, ValueError) and all(
            word in str(caught.value) for word in words
        ), str(caught.value)
        assert_untouched(model, before)
        assert len(model.model._forward_pre_hooks) == (method == "prefix" and bool(weights(model)))


@both
@pytest.mark.parametrize("keep", [0, 8, 100, 0.5, 0.99, -1])
def test_truncated_weights(method, keep, folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(
        data[: int(keep * len(data)) if isinstance(keep, float) else keep]
    )
    refuse(method, folder, WEIGHTS, "damaged or truncated")


KEYS = {"prefix": "prompt_embeddings", "bottleneck": "model.layers.1.mlp.bottleneck.down"}
TENSORS = {
    "lacks": lambda t, k: t.pop(k),
    "unknown": lambda t, k: t.update(extra=torch.ones(1)),
    "has shape": lambda t, k: t.update({k: t[k][:, :-1].clone()}),
    "shape": lambda t, k: t.update({k: t[k][:-1].clone()}),
    "NaN": lambda t, k: t[k].view(-1).__setitem__(3, float("nan")),
}


@both
@pytest.mark.parametrize("problem", TENSORS)
def test_tensors_that_do_not_fit(method, problem, folder):
    tensors = load_file(folder / WEIGHTS)
    TENSORS[problem](tensors, KEYS[method])
    save_file(tensors, folder / WEIGHTS)
    refuse(method, folder, WEIGHTS, problem, "extra" if problem == "unknown" else KEYS[method])


FIELDS = {
    "prefix": [
        {"num_virtual_tokens": 4},
        {"num_virtual_tokens": None},
        {"num_virtual_tokens": "3"},
        {"num_layers": 3},
        {"num_attention_heads": 4},
        {"token_dim": 8},
    ],
    "bottleneck": [
        {"size": 4},
        {"size": 0},
        {"size": "3"},
        {"activation": "relu6"},
        {"activation": ["gelu"]},
        {"sublayers": 5},
        {"sublayers": "mlp"},
        {"sublayers": ["attn"]},
        {"sublayers": ["mlp"]},
        {"sublayers": [5]},
    ],
}
OTHERS = [{"peft_type": "LORA"}, {"peft_type": None}]


@pytest.mark.parametrize(
    "method, change", [(m, c) for m in FIELDS for c in FIELDS[m] + OTHERS], ids=str
)
def test_fields_that_do_not_fit(method, change, folder):
    fields = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**fields, **change}))
    refuse(method, folder, str(folder))
    if next(iter(change)) != "peft_type":
        (folder / CONFIG).write_text(
            json.dumps({k: v for k, v in fields.items() if k not in ("num_virtual_tokens", "size")})
        )
        refuse(method, folder, CONFIG)


@both
def test_missing_files_broken_json_and_another_base(method, folder, tmp_path):
    refuse(method, tmp_path / "nowhere", "does not exist")
    good = (folder / CONFIG).read_text()
    for text in ("", "{", "null", "[1]"):
        (folder / CONFIG).write_text(text)
        refuse(method, folder, CONFIG)
    (folder / CONFIG).write_text(
        good.replace('"base_model_name_or_path": ""', '"base_model_name_or_path": "org/other"')
    )
    model = llama()
    model.config._name_or_path = "org/this"
    before = snapshot(model)
    with pytest.raises(ft.AdapterError, match="org/other.*org/this"):
        METHODS[method][2](model, folder)
    assert_untouched(model, before)
    with pytest.raises(ft.AdapterError):
        METHODS[method][2](llama(layers=3), folder)
    (folder / WEIGHTS).unlink()
    refuse(method, folder, WEIGHTS, "does not exist")


@both
def test_a_folder_of_the_other_method_is_refused_by_name(method, folder):
    other = next(m for m in METHODS if m != method)
    refuse(other, folder, "peft_type")
    with pytest.raises(ft.AdapterError, match="peft_type"):
        ft.load_adapter(llama(), folder)


@pytest.mark.parametrize(
    "options", [{"activation": "relu"}, {"sublayers": ["mlp", "self_attn"]}, {"size": 4}], ids=str
)
def test_unequal_bottlenecks_that_are_there_stay(options, tmp_path):
    """Also where every shape fits: with another activation the weights would compute something
    else.
    """
    bottleneck.save_bottleneck(trained("bottleneck"), tmp_path)
    model = trained("bottleneck", **options)
    before = snapshot(model)
    with pytest.raises(ft.AdapterError, match="but the model has|shape"):
        bottleneck.load_bottleneck(model, tmp_path)
    assert_untouched(model, before)


@both
@pytest.mark.parametrize("fail_at", [1, 2])
def test_interrupted_save_leaves_the_old_one_whole(method, fail_at, folder, monkeypatch):
    before, calls, replace = (
        {n: (folder / n).read_bytes() for n in (CONFIG, WEIGHTS)},
        [],
        os.replace,
    )

    def failing(source, target):
        calls.append(target)
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(KeyboardInterrupt):
        METHODS[method][1](trained(method, seed=5), folder)
    assert {n: (folder / n).read_bytes() for n in os.listdir(folder)} == before


@both
def test_what_a_trainer_asks_for(method, tmp_path):
    assert active.baseline_io(llama()) is None
    model = trained(method)
    adapter = active.baseline_io(model)
    assert json.loads(json.dumps(adapter.options)) == adapter.options
    assert adapter.options["peft_type"] == {"prefix": "PREFIX_TUNING", "bottleneck": "BOTTLENECK"}[method]
    folder = adapter.save(model, tmp_path)
    assert equal(weights(adapter.load(llama(), folder)), weights(model))
