"""Adapters in models that something wraps: torch.compile, data parallelism. Files hold the base's
names, and an adapter that would be dead is refused.
"""

import pytest
import torch
from conftest import llama, randomize
from safetensors.torch import load_file, save_file
from torch import nn

import ftlib as ft
from ftlib.adapters.bottleneck import add_bottleneck, load_bottleneck, save_bottleneck
from ftlib.adapters.hooked import parts_of
from ftlib.adapters.peft_format import WEIGHTS
from ftlib.adapters.prefix import add_prefix, load_prefix, save_prefix
from ftlib.models.wrapped import plain_name, unwrapped, without_wrappers


def compiled(model):
    return torch.compile(model, backend="eager")


def with_a_compiled_block(model):
    """As torchtune does: every block is compiled by itself."""
    model.model.layers[1] = compiled(model.model.layers[1])
    return model


WRAPS = {
    "compiled": compiled,
    "parallel": nn.DataParallel,
    "both": lambda model: nn.DataParallel(compiled(model)),
    "a block": with_a_compiled_block,
}


def distributed(model):
    """DistributedDataParallel's type without its process group."""
    wrapper = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = model
    return wrapper


def test_names_by_hand():
    model = with_a_compiled_block(llama())
    inside = "model.layers.1._orig_mod.mlp.up_proj"
    assert plain_name(model, inside) == "model.layers.1.mlp.up_proj"
    assert plain_name(model, f"{inside}.weight") == "model.layers.1.mlp.up_proj.weight"
    whole = nn.DataParallel(compiled(model))
    assert unwrapped(whole) is model
    assert plain_name(whole, f"module._orig_mod.{inside}") == "model.layers.1.mlp.up_proj"
    assert without_wrappers("_orig_mod.model.norm") == "model.norm"


def test_a_module_that_is_called_module_is_none_of_ours():
    model = nn.Sequential()
    model.module = nn.Linear(2, 2)
    assert unwrapped(model) is model and plain_name(model, "module.weight") == "module.weight"


@pytest.mark.parametrize("wrap", WRAPS)
def test_peft_reads_what_a_wrapped_model_saves(wrap, tmp_path, ids):
    """The adapter acts in PEFT as it does here; with `_orig_mod` in its names it acted nowhere."""
    from peft import PeftModel

    model = WRAPS[wrap](llama())
    assert ft.add_lora(model, r=3) is model
    randomize(model)
    ft.save_adapter(model, tmp_path)
    plain = randomize(ft.add_lora(llama(), r=3))
    assert load_file(tmp_path / WEIGHTS).keys() == {
        f"base_model.model.{name}.{matrix}.weight"
        for name in ft.lora_layers(plain)
        for matrix in ("lora_A", "lora_B")
    }
    theirs = PeftModel.from_pretrained(llama(), tmp_path)(ids).logits
    ours = unwrapped(model)(ids).logits
    assert torch.allclose(theirs, ours, atol=1e-5)
    assert not torch.allclose(ours, llama()(ids).logits, atol=1e-3)


@pytest.mark.parametrize("wrap", WRAPS)
def test_adapters_load_into_wrapped_models_and_merge_there(wrap, tmp_path, ids):
    saved = randomize(ft.add_lora(llama(), r=3))
    want = saved(ids).logits
    ft.save_adapter(saved, tmp_path)
    model = WRAPS[wrap](llama())
    assert ft.load_adapter(model, tmp_path) is model
    assert torch.allclose(unwrapped(model)(ids).logits, want, atol=1e-5)
    with ft.disable_adapter(model):
        assert torch.allclose(unwrapped(model)(ids).logits, llama()(ids).logits, atol=1e-5)
    ft.unmerge_adapter(ft.merge_adapter(model))
    ft.merge_and_unload(model)
    assert not ft.lora_layers(model)
    assert torch.allclose(unwrapped(model)(ids).logits, want, atol=1e-5)


def test_a_model_that_ran_compiled_takes_an_adapter(ids):
    """The compiled code is of the model without one; it must be compiled anew."""
    torch._dynamo.reset()
    model = compiled(llama(layers=1))
    base = model(ids).logits
    randomize(ft.add_lora(model, r=3, target_modules=["q_proj", "down_proj"]))
    assert not torch.allclose(model(ids).logits, base, atol=1e-3)
    assert torch.allclose(model(ids).logits, unwrapped(model)(ids).logits, atol=1e-5)


def test_files_with_the_names_of_torch_compile_are_read(tmp_path, ids):
    saved = randomize(ft.add_lora(llama(), r=3))
    ft.save_adapter(saved, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    named = {key.replace("model.model.", "model._orig_mod.model."): t for key, t in tensors.items()}
    assert named.keys().isdisjoint(tensors)
    save_file(named, tmp_path / WEIGHTS)
    assert torch.equal(ft.load_adapter(llama(), tmp_path)(ids).logits, saved(ids).logits)


@pytest.mark.parametrize("load", [ft.load_adapter, ft.save_adapter])
def test_the_base_is_checked_through_a_wrapper(load, tmp_path):
    """DataParallel has no config of its own: the base's name is the model's in it."""
    saved = ft.add_lora(llama(), r=3)
    saved.config._name_or_path = "org/one"
    ft.save_adapter(nn.DataParallel(saved), tmp_path)
    other = llama()
    other.config._name_or_path = "org/another"
    with pytest.raises(ft.AdapterError, match=r"trained on 'org/one', this model is 'org/another'"):
        ft.load_adapter(nn.DataParallel(other), tmp_path)


@pytest.mark.parametrize(
    "add, save, load",
    [
        (add_prefix, save_prefix, load_prefix),
        (add_bottleneck, save_bottleneck, load_bottleneck),
    ],
    ids=["prefix", "bottleneck"],
)
def test_prefix_and_bottleneck_in_a_wrapped_model(add, save, load, tmp_path, ids):
    plain = add(llama())
    for part in parts_of(plain).values():
        for parameter in part.parameters():
            nn.init.normal_(parameter, std=0.1)
    save(plain, tmp_path / "plain")
    model = load(nn.DataParallel(compiled(llama())), tmp_path / "plain")
    assert torch.allclose(unwrapped(model)(ids).logits, plain(ids).logits, atol=1e-6)
    save(model, tmp_path / "wrapped")
    keys = load_file(tmp_path / "wrapped" / WEIGHTS).keys()
    assert keys == load_file(tmp_path / "plain" / WEIGHTS).keys()


@pytest.mark.parametrize("add", [ft.add_lora, add_prefix, add_bottleneck])
def test_parameters_that_come_too_late_are_refused(add):
    """DistributedDataParallel would not synchronise them: every process would train its own."""
    model = distributed(llama())
    with pytest.raises(ValueError, match="DistributedDataParallel, which synchronises only"):
        add(model)
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_an_adapter_inside_a_compiled_layer_is_refused():
    """torch.compile keeps the layer that it was given: an adapter in its place is not called."""
    model = llama()
    model.model.layers[0].mlp.up_proj = compiled(model.model.layers[0].mlp.up_proj)
    with pytest.raises(ValueError, match=r"up_proj\._orig_mod' is compiled or wrapped by itself"):
        ft.add_lora(model, target_modules=["up_proj"])
    assert not ft.lora_layers(model)


def test_a_layer_in_two_places_is_refused():
    model = llama()
    model.model.layers[1].mlp.up_proj = model.model.layers[0].mlp.up_proj
    with pytest.raises(ValueError, match=r"layers.0.mlp.up_proj' and '.*layers.1.mlp.up_proj' are"):
        ft.add_lora(model, target_modules=["up_proj"])


# Without values


@pytest.fixture
def meta():
    with torch.device("meta"):
        return ft.add_lora(llama(), r=3)


def test_a_model_on_the_meta_device_is_counted_and_nothing_else(meta, tmp_path, model):
    assert ft.count_parameters(meta) == ft.count_parameters(ft.add_lora(model, r=3))
    ft.save_adapter(model, tmp_path / "good")
    for call in (
        ft.merge_adapter,
        lambda m: ft.save_adapter(m, tmp_path / "new"),
        lambda m: ft.load_adapter(m, tmp_path / "good"),
        lambda m: add_bottleneck(unload(m)),
    ):
        with pytest.raises(ValueError, match="parameters are on the meta device, without values"):
            call(meta)
    assert not (tmp_path / "new").exists()


def unload(_):
    with torch.device("meta"):
        return llama()


def test_an_offloaded_model_takes_no_adapter(model):
    """Some layers on the meta device: an adapter on them would have no values either."""
    model.model.layers[1].to("meta")
    with pytest.raises(ValueError, match=r"add_lora: 9 parameters .* 'model.layers.1.self_attn.q"):
        ft.add_lora(model)
