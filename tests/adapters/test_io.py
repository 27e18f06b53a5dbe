"""Adapters on disk: both ways with PEFT, bit for bit, and every damaged folder refused with the
model left alone.
"""

import copy
import json
import os
import shutil
import struct
import warnings

import pytest
import torch
from conftest import assert_untouched, llama, randomize, snapshot
from safetensors.torch import load_file, save_file

import ftlib as ft
from ftlib.adapters.peft_format import CONFIG, WEIGHTS
from ftlib.core.paths import pocket_folder

VARIANTS = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}
TARGETS = {
    "all-linear": "all-linear",
    "suffixes": ["q_proj", "down_proj"],
    "full names": ["model.layers.0.self_attn.k_proj", "model.layers.1.mlp.up_proj"],
}


def saved(path, seed=1, **options):
    model = randomize(ft.add_lora(llama(), **{"r": 3, "lora_alpha": 5, **options}), seed=seed)
    ft.save_adapter(model, path)
    return model


def adapter(model) -> dict:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# --- with PEFT ------------------------------------------------------------------------------------
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_peft_loads_ours(variant, targets, tmp_path, ids):
    """No warning of missing keys, exactly the adapted layers, and equal logits."""
    from peft import PeftModel

    ours = saved(tmp_path, target_modules=TARGETS[targets], **VARIANTS[variant])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        theirs = PeftModel.from_pretrained(llama(), tmp_path)
    wrapped = {
        n.removeprefix("base_model.model.")
        for n, m in theirs.named_modules()
        if type(m).__name__ == "Linear" and hasattr(m, "lora_A")
    }
    assert wrapped == set(ft.lora_layers(ours))
    assert torch.allclose(theirs(ids).logits, ours(ids).logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours(ids).logits, llama()(ids).logits, atol=1e-3)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_we_load_pefts(variant, targets, tmp_path, ids):
    from peft import LoraConfig, get_peft_model

    theirs = get_peft_model(
        llama(),
        LoraConfig(
            r=3,
            lora_alpha=5,
            target_modules=TARGETS[targets],
            task_type="CAUSAL_LM",
            **VARIANTS[variant],
        ),
    )
    randomize(theirs).eval()
    theirs.save_pretrained(tmp_path)
    ours = ft.load_adapter(llama(), tmp_path)
    assert torch.allclose(ours(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours(ids).logits, llama()(ids).logits, atol=1e-3)


def test_more_layers_than_peft_lists_one_by_one(tmp_path, ids):
    """From 20 targets on PEFT shortens the list to suffixes; a deep model loads all the same."""
    from peft import LoraConfig, get_peft_model

    theirs = randomize(
        get_peft_model(
            llama(layers=4), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    ours = ft.load_adapter(llama(layers=4), tmp_path)
    assert len(ft.lora_layers(ours)) == 28 and torch.allclose(
        ours(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-5
    )


def test_the_files_are_pefts(tmp_path):
    model = saved(tmp_path, use_dora=True, target_modules=["q_proj"])
    assert sorted(os.listdir(tmp_path)) == [CONFIG, WEIGHTS]
    tensors, layer = (
        load_file(tmp_path / WEIGHTS),
        ft.lora_layers(model)["model.layers.1.self_attn.q_proj"],
    )
    stem = "base_model.model.model.layers.1.self_attn.q_proj."
    assert torch.equal(tensors[stem + "lora_A.weight"], layer.lora_A) and tensors[
        stem + "lora_A.weight"
    ].shape == (3, 32)
    assert torch.equal(tensors[stem + "lora_B.weight"], layer.lora_B) and tensors[
        stem + "lora_B.weight"
    ].shape == (32, 3)
    assert (
        torch.equal(tensors[stem + "lora_magnitude_vector"], layer.lora_magnitude_vector)
        and len(tensors) == 6
    )
    config = json.loads((tmp_path / CONFIG).read_text())
    want = {
        "peft_type": "LORA",
        "r": 3,
        "lora_alpha": 5,
        "use_dora": True,
        "use_rslora": False,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    assert {k: config[k] for k in want} == want


def test_target_names_on_disk_pick_just_the_adapted_layers(tmp_path):
    """Suffixes where they suffice, full names where a suffix would also pick other layers."""
    saved(tmp_path / "a")
    saved(tmp_path / "b", target_modules=TARGETS["full names"])

    def read(name):
        return json.loads((tmp_path / name / CONFIG).read_text())["target_modules"]

    assert read("a") == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]
    assert read("b") == sorted(TARGETS["full names"])


# --- round trip -----------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_bit_for_bit(variant, tmp_path, ids):
    model = saved(tmp_path, lora_dropout=0.25, **VARIANTS[variant])
    fresh = llama()
    assert ft.load_adapter(fresh, tmp_path) is fresh
    assert same(adapter(fresh), adapter(model)) and torch.equal(
        fresh(ids).logits, model(ids).logits
    )
    assert all(p.requires_grad == ("lora_" in n) for n, p in fresh.named_parameters())
    twice = ft.save_adapter(fresh, tmp_path / "again")
    for name in (CONFIG, WEIGHTS):
        assert (twice / name).read_bytes() == (tmp_path / name).read_bytes()


def test_loading_into_an_adapter_that_is_there(tmp_path, ids):
    model = saved(tmp_path)
    other = randomize(ft.add_lora(llama(), r=3, lora_alpha=5), seed=8)
    ft.load_adapter(other, tmp_path)
    assert same(adapter(other), adapter(model))


def test_trainable_false_freezes(tmp_path):
    saved(tmp_path)
    assert not any(
        p.requires_grad for p in ft.load_adapter(llama(), tmp_path, trainable=False).parameters()
    )


def test_a_loaded_adapter_with_dropout_does_not_drop_in_evaluation(tmp_path, ids):
    saved(tmp_path, lora_dropout=0.5)
    model = ft.load_adapter(llama(), tmp_path)
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_float64_and_half_precision_bases(tmp_path):
    model = randomize(ft.add_lora(llama(dtype=torch.bfloat16), r=2))
    ft.save_adapter(model, tmp_path)
    assert all(t.dtype == torch.float32 for t in load_file(tmp_path / WEIGHTS).values())
    assert same(adapter(ft.load_adapter(llama(dtype=torch.bfloat16), tmp_path)), adapter(model))


def test_save_without_adapter(model, tmp_path):
    with pytest.raises(ValueError, match="no adapter"):
        ft.save_adapter(model, tmp_path / "x")
    assert not (tmp_path / "x").exists()


# --- bad folders ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good")
    saved(path, use_dora=True, target_modules=["q_proj", "v_proj"])
    return path


KEY = "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight"


def refuse(folder, *words):
    """load_adapter raises AdapterError with all the words; a model without and one with an adapter
    stay as they were.
    """
    for model in (
        llama(),
        ft.add_lora(llama(), r=3, lora_alpha=5, target_modules=["q_proj", "v_proj"], use_dora=True),
    ):
        before = snapshot(model)
        with pytest.raises(ft.AdapterError) as caught:
            ft.load_adapter(model, folder)
        assert isinstance(caught.value, ValueError)
        for word in words:
            assert str(word) in str(caught.value), (word, str(caught.value))
        assert_untouched(model, before)
        assert hasattr(model, "adapter_config") == bool(ft.lora_layers(model))


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "adapter")


def edit_config(folder, **changes):
    fields = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(
        json.dumps({k: v for k, v in {**fields, **changes}.items() if v != "remove"})
    )


def edit_tensors(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def test_the_good_folder_is_good(folder):
    ft.load_adapter(llama(), folder)


def test_missing_folder_and_files(folder, tmp_path):
    refuse(tmp_path / "nowhere", "nowhere", "does not exist")
    (folder / WEIGHTS).rename(tmp_path / "elsewhere")
    refuse(folder, WEIGHTS, "does not exist", ".bin")
    (folder / CONFIG).unlink()
    refuse(folder, CONFIG, "does not exist")


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.5, 0.99, -1])
def test_truncated_weights(keep, folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(
        data[: int(keep * len(data)) if isinstance(keep, float) else keep]
    )
    refuse(folder, WEIGHTS, "damaged or truncated")


@pytest.mark.parametrize("at", [0, 3, 7, 8, 12, 40])
def test_bit_flip_in_the_header(at, folder):
    """A flipped bit in the length or the header is noticed: as damage, or as a tensor that the
    model does not know.
    """
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[at] ^= 0x10
    (folder / WEIGHTS).write_bytes(data)
    refuse(folder, WEIGHTS)


def test_header_that_promises_more_than_there_is(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**40) + data[8:])
    refuse(folder, WEIGHTS, "damaged or truncated")


def test_renamed_extra_and_missing_tensors(good, tmp_path):
    changes = {
        "renamed": lambda t: t.update({KEY + "x": t.pop(KEY)}),
        "missing": lambda t: t.pop(KEY),
        "extra": lambda t: t.update({KEY.replace("layers.0", "layers.7"): torch.ones(3, 32)}),
        "empty": lambda t: t.clear(),
    }
    for name, change in changes.items():
        folder = shutil.copytree(good, tmp_path / name)
        edit_tensors(folder, change)
        refuse(folder, WEIGHTS, {"extra": "layers.7", "empty": "lacks 12 tensors"}.get(name, KEY))


@pytest.mark.parametrize(
    "change",
    [lambda t: t[:, :-1], lambda t: t.T, lambda t: t[:2], lambda t: t[None], lambda t: t.flatten()],
)
def test_wrong_shape(change, folder):
    edit_tensors(folder, lambda t: t.update({KEY: change(t[KEY]).contiguous()}))
    refuse(folder, KEY, "shape", "(3, 32)")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(value, folder):
    edit_tensors(folder, lambda t: t[KEY].view(-1).__setitem__(5, value))
    refuse(folder, KEY, "NaN")


def test_another_base(folder):
    edit_config(folder, base_model_name_or_path="org/some-other-base")
    model = llama()
    model.config._name_or_path = "org/this-base"
    before = snapshot(model)
    with pytest.raises(ft.AdapterError, match=r"org/some-other-base.*org/this-base"):
        ft.load_adapter(model, folder)
    assert_untouched(model, before)
    model.config._name_or_path = "/models/some-other-base"  # a local copy of that base is that base
    ft.load_adapter(model, folder)
    edit_config(folder, base_model_name_or_path=f"/another/cache/{pocket_folder().name}")
    model = llama()
    model.config._name_or_path = str(pocket_folder())  # written on another machine
    ft.load_adapter(model, folder)


def test_the_base_of_another_size(folder):
    for model, word in (
        (llama(hidden=16), "shape"),
        (llama(layers=1), "unknown to this model"),
        (llama(layers=3), "lacks"),
    ):
        before = snapshot(model)
        with pytest.raises(ft.AdapterError, match=word):
            ft.load_adapter(model, folder)
        assert_untouched(model, before)


@pytest.mark.parametrize("text", ["", "{", "null", "[1]", '{"peft_type": "LORA"', "\ufeff{}x"])
def test_broken_json(text, folder):
    (folder / CONFIG).write_text(text, encoding="utf-8")
    refuse(folder, CONFIG)


def test_config_that_is_not_utf8(folder):
    (folder / CONFIG).write_bytes(b'{"peft_type": "\xff"}')
    refuse(folder, CONFIG)


@pytest.mark.parametrize("kind", ["IA3", "ADALORA", "PREFIX_TUNING", None, 5])
def test_another_kind_of_adapter(kind, folder):
    edit_config(folder, peft_type=kind)
    refuse(folder, "peft_type", repr(kind), "LORA")


UNSUPPORTED = {
    "modules_to_save": ["lm_head"],
    "rank_pattern": {"q_proj": 4},
    "alpha_pattern": {"q_proj": 4},
    "lora_bias": True,
    "bias": "all",
    "fan_in_fan_out": True,
    "layers_to_transform": [0],
    "layers_pattern": "layers",
    "layer_replication": [[0, 1]],
    "target_parameters": ["w"],
    "trainable_token_indices": [1],
    "exclude_modules": ["q_proj"],
    "alora_invocation_tokens": [1, 2],
    "use_qalora": True,
    "use_bdlora": {"x": 1},
    "arrow_config": {"x": 1},
    "lora_ga_config": {"x": 1},
    "kasa_config": {"x": 1},
    "velora_config": {"x": 1},
    "monteclora_config": {"x": 1},
    "init_lora_weights": "pissa",
}


@pytest.mark.parametrize("option", UNSUPPORTED)
def test_unsupported_options_are_refused_by_name(option, folder):
    edit_config(folder, **{option: UNSUPPORTED[option]})
    refuse(folder, option, "PEFT")


def test_every_field_of_pefts_config_is_known_here():
    """PEFT's next release may add an option: this says that it must be judged."""
    import dataclasses

    from peft import LoraConfig

    from ftlib.adapters.peft_format import NEUTRAL

    harmless = {
        "task_type",
        "peft_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "r",
        "target_modules",
        "lora_alpha",
        "lora_dropout",
        "use_rslora",
        "init_lora_weights",
        "megatron_core",
        "loftq_config",
        "eva_config",
        "use_dora",
        "qalora_group_size",
        "runtime_config",
        "ensure_weight_tying",
    }
    assert {f.name for f in dataclasses.fields(LoraConfig)} - harmless - NEUTRAL.keys() == set()


@pytest.mark.parametrize("initialisation", ["pissa", "pissa_niter_4", "olora"])
def test_peft_adapters_that_changed_the_base_are_refused(initialisation, tmp_path):
    """PiSSA and OLoRA subtract their start from the base weights: onto the plain base they would
    compute something else.
    """
    from peft import LoraConfig, get_peft_model

    get_peft_model(
        llama(), LoraConfig(r=3, target_modules=["q_proj"], init_lora_weights=initialisation)
    ).save_pretrained(tmp_path)
    with pytest.raises(ft.AdapterError, match=f"init_lora_weights='{initialisation}'"):
        ft.load_adapter(llama(), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"r": "remove"},
        {"r": 0},
        {"r": "3"},
        {"r": 2.5},
        {"lora_alpha": "remove"},
        {"lora_alpha": -1},
        {"lora_alpha": "x"},
        {"lora_alpha": float("inf")},
        {"lora_alpha": float("nan")},
        {"lora_dropout": 2},
        {"lora_dropout": "x"},
        {"target_modules": None},
        {"target_modules": []},
        {"target_modules": 5},
        {"target_modules": [5]},
    ],
    ids=str,
)
def test_nonsense_in_the_config(changes, folder):
    edit_config(folder, **changes)
    model = llama()
    before = snapshot(model)
    with pytest.raises(ft.AdapterError, match=CONFIG):
        ft.load_adapter(model, folder)
    assert_untouched(model, before)


def test_targets_that_this_model_does_not_have(folder):
    edit_config(folder, target_modules=["c_attn"])
    with pytest.raises(ft.AdapterError, match=r"c_attn.*q_proj"):
        ft.load_adapter(llama(), folder)


@pytest.mark.parametrize(
    "options",
    [{"r": 4}, {"lora_alpha": 6}, {"use_dora": False}, {"target_modules": ["q_proj"]}],
    ids=str,
)
def test_an_unequal_adapter_that_is_there_stays(options, folder):
    model = randomize(
        ft.add_lora(
            llama(),
            **{
                "r": 3,
                "lora_alpha": 5,
                "use_dora": True,
                "target_modules": ["q_proj", "v_proj"],
                **options,
            },
        )
    )
    before = snapshot(model)
    with pytest.raises(ft.AdapterError):
        ft.load_adapter(model, folder)
    assert_untouched(model, before)


def test_a_merged_adapter_is_not_overwritten(folder):
    model = ft.merge_adapter(ft.load_adapter(llama(), folder))
    before = snapshot(model)
    with pytest.raises(ft.AdapterError, match="unmerge_adapter"):
        ft.load_adapter(model, folder)
    assert_untouched(model, before)


# --- interrupted while saving ---------------------------------------------------------------------
@pytest.mark.parametrize("fail_at", [1, 2])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_interrupted_save_leaves_the_old_adapter_whole(fail_at, error, tmp_path, monkeypatch):
    """Also when the options changed, so that new weights beside the old config would be another
    adapter.
    """
    old = saved(tmp_path)
    before = {n: (tmp_path / n).read_bytes() for n in (CONFIG, WEIGHTS)}
    new, calls, replace = (
        randomize(ft.add_lora(llama(), r=3, lora_alpha=50), seed=2),
        [],
        os.replace,
    )

    def failing(source, target):
        calls.append(target)
        if len(calls) == fail_at:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(type(error)):
        ft.save_adapter(new, tmp_path)
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == [CONFIG, WEIGHTS]
    assert {n: (tmp_path / n).read_bytes() for n in (CONFIG, WEIGHTS)} == before
    assert same(adapter(ft.load_adapter(llama(), tmp_path)), adapter(old))


def test_failure_while_writing_leaves_the_old_adapter_whole(tmp_path, monkeypatch):
    old = saved(tmp_path)

    def half_written(tensors, path, metadata=None):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("ftlib.adapters.peft_format.save_file", half_written)
    with pytest.raises(OSError, match="disk full"):
        ft.save_adapter(randomize(ft.add_lora(llama(), r=3)), tmp_path)
    assert sorted(os.listdir(tmp_path)) == [CONFIG, WEIGHTS]
    assert same(adapter(ft.load_adapter(llama(), tmp_path)), adapter(old))


def test_saving_again_replaces(tmp_path):
    saved(tmp_path)
    new = saved(tmp_path, seed=5, r=2, target_modules=["q_proj"])
    assert sorted(os.listdir(tmp_path)) == [CONFIG, WEIGHTS]
    assert same(adapter(ft.load_adapter(llama(), tmp_path)), adapter(new))


def test_a_number_as_a_name_is_saved_in_full(tmp_path):
    """The layers of an `nn.Sequential` are called 0 and 2, as the model's layers are: as targets
    for PEFT their full names are needed.
    """
    model = llama(layers=3)
    for layer in model.model.layers:
        first = torch.nn.Linear(32, 64)
        layer.mlp = torch.nn.Sequential(first, torch.nn.SiLU(), torch.nn.Linear(64, 32))
    base = copy.deepcopy(model)
    ft.save_adapter(ft.add_lora(model, r=2), tmp_path)
    targets = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert "model.layers.0.mlp.0" in targets and "0" not in targets
    from peft import PeftModel

    loaded = PeftModel.from_pretrained(base, tmp_path)
    adapted = [name for name, _ in loaded.named_modules() if name.endswith(".lora_A")]
    assert len(adapted) == 3 * 6
