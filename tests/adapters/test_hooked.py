"""What the adapters beside the weights share, tested on each: adding, removing, training, saving
and loading.
"""

import copy
import json
import os
import shutil

import pytest
import torch
from conftest import EMBEDDED, assert_untouched, llama, snapshot
from safetensors.torch import load_file, save_file

import ftlib as ft
from ftlib.adapters import active, bottleneck, hooked, ia3, reft
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
    "reft": (reft.add_reft, reft.save_reft, reft.load_reft, reft.remove_reft, {"r": 3}),
    "ia3": (ia3.add_ia3, ia3.save_ia3, ia3.load_ia3, ia3.remove_ia3, {}),
}
both = pytest.mark.parametrize("method", METHODS)


def tokens(*shape, seed=3):
    return torch.randint(8, 280, shape, generator=torch.Generator().manual_seed(seed))


def weights(model) -> dict:
    return {
        n: p.detach().clone()
        for n, p in model.named_parameters()
        if any(part in n for part in (".prefix.", ".bottleneck.", ".reft.", ".ia3_l."))
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


# --- both baselines -------------------------------------------------------------------------------
@both
def test_removing_and_disabling_give_the_base_bit_for_bit(method, ids):
    remove = METHODS[method][3]
    base = llama()
    want, before = base(ids).logits, {k: v.clone() for k, v in base.state_dict().items()}
    model = trained(method)
    assert not torch.allclose(model(ids).logits, want, atol=1e-3)
    with pytest.raises(RuntimeError), ft.disable_adapter(model):
        assert torch.equal(model(ids).logits, want)
        with hooked.disable_baseline(model):
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
    for model in (*map(trained, METHODS), ft.add_lora(llama(), r=2)):
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
        out.logits.float(), exact(ids, labels=ids).logits, atol=0.15
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
    rate = {"prefix": 0.3, "bottleneck": 0.02, "reft": 0.02, "ia3": 0.3}[
        method
    ]  # a prefix is few numbers, far from the loss
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
    assert {CONFIG, WEIGHTS, "tokenizer.json"} <= set(os.listdir(folder / "adapter")) and not list(
        folder.rglob("model.safetensors")
    )
    assert equal(weights(METHODS[method][2](llama(), folder / "adapter")), weights(whole))
    assert equal(weights(model), weights(whole)) and not equal(
        weights(model), weights(trained(method))
    )


# --- on disk --------------------------------------------------------------------------------------
@both
def test_round_trip_bit_for_bit(method, tmp_path, ids):
    _, save, load, _, _options = METHODS[method]
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
        assert len(model.model._forward_pre_hooks) == (
            method in ("prefix", "reft") and bool(weights(model))
        )


@both
@pytest.mark.parametrize("keep", [0, 8, 100, 0.5, 0.99, -1])
def test_truncated_weights(method, keep, folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(
        data[: int(keep * len(data)) if isinstance(keep, float) else keep]
    )
    refuse(method, folder, WEIGHTS, "damaged or truncated")


KEYS = {
    "prefix": "prompt_embeddings",
    "bottleneck": "model.layers.1.mlp.bottleneck.down",
    "reft": "model.layers.1.reft.weight",
    "ia3": "base_model.model.model.layers.1.mlp.down_proj.ia3_l",
}
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
    "reft": [
        {"r": 4},
        {"r": 0},
        {"r": "3"},
        {"layers": [0]},
        {"layers": [2]},
        {"positions": ["first-x"]},
        {"positions": 5},
        {"variant": "none"},
    ],
    "ia3": [
        {"target_modules": ["k_proj", "v_proj"]},
        {"target_modules": 5},
        {"target_modules": ["attn"]},
        {"feedforward_modules": []},
        {"feedforward_modules": ["up_proj"]},
        {"modules_to_save": ["lm_head"]},
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
            json.dumps(
                {
                    k: v
                    for k, v in fields.items()
                    if k not in ("num_virtual_tokens", "size", "r", "target_modules")
                }
            )
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
    with pytest.raises(ft.AdapterError, match=r"org/other.*org/this"):
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
    with pytest.raises(ft.AdapterError, match=r"but the model has|shape"):
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
    peft_type = {"prefix": "PREFIX_TUNING"}.get(method, method.upper())
    assert adapter.options["peft_type"] == peft_type
    folder = adapter.save(model, tmp_path)
    assert equal(weights(adapter.load(llama(), folder)), weights(model))
