"""Where a later lab starts: lab 4's adapter for the same model, else the shipped one, else one
trained now.
"""

import shutil
from dataclasses import replace

import torch
from conftest import EMBEDDED, ROOT

import ftlib as ft
from ftlib.core.paths import DATA, name_of, pocket_folder, resolve
from ftlib.core.profiles import PROFILES
from ftlib.course.start import after_sft, sft_adapter

TINY = PROFILES["tiny"]
SHIPPED = ROOT / "data" / "sft-adapter"


def test_lab_4_before_the_shipped_one_and_never_for_another_model(tmp_path):
    run = tmp_path / "run"
    none = tmp_path / "none"
    assert sft_adapter(TINY, none, none) == DATA / "sft-adapter"
    shutil.copytree(SHIPPED, run / "adapter")
    assert sft_adapter(TINY, run, none) == run / "adapter"
    config = run / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace("world-llama-4m", "some-other/model"))
    assert sft_adapter(TINY, run, none) == DATA / "sft-adapter"
    assert sft_adapter(PROFILES["small"], none, none, train=False) is None


def test_lab_4s_adapter_is_known_by_the_folder_that_its_base_was_loaded_from(tmp_path, monkeypatch):
    """Pocket's base is loaded from the cache, and a mirrored one from the mirror: both are the
    profile's model.
    """
    monkeypatch.setenv("FTLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FTLIB_HUB", str(tmp_path / "mirror"))
    none = tmp_path / "none"
    bases = {"pocket": pocket_folder(), "small": tmp_path / "mirror" / PROFILES["small"].model}
    for name, folder in bases.items():
        run = tmp_path / name
        shutil.copytree(SHIPPED, run / "adapter")
        config = run / "adapter" / "adapter_config.json"
        config.write_text(config.read_text().replace("world-llama-4m", str(folder)))
        assert sft_adapter(PROFILES[name], run, none, train=False) == run / "adapter"
        folder.mkdir(parents=True)
        assert resolve(name_of(folder)) == str(folder)
    assert name_of(DATA / "world-llama-4m") == "world-llama-4m"
    assert name_of("elsewhere/model") == "elsewhere/model"


def test_preference_training_begins_as_the_model_after_sft():
    """With B = 0 the policy is the start; its adapter off, it is the base with the SFT adapter
    merged; the seed is the adapter's.
    """
    model, tokenizer = after_sft(TINY, seed=3)
    sft, _ = ft.load_model(profile=TINY)
    ft.load_adapter(sft, sft_adapter(TINY, train=False))
    ids = tokenizer("A line about the town.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        want = sft.eval()(ids).logits
        got = model.eval()(ids).logits
        with ft.disable_adapter(model):
            off = model(ids).logits
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    assert torch.equal(got, off)
    again, other = (dict(after_sft(TINY, seed)[0].named_parameters()) for seed in (3, 4))
    same = {n: torch.equal(w, again[n]) for n, w in model.named_parameters()}
    assert all(same.values()) and any(not torch.equal(w, again[n]) for n, w in other.items())


def test_without_either_a_short_run_is_trained_and_found_again(tmp_path):
    model = shutil.copytree(EMBEDDED, tmp_path / "own")
    profile = replace(TINY, model=str(model), short_steps=2, batch_size=2, rank=2)
    adapter = sft_adapter(profile, tmp_path / "none", tmp_path / "start")
    before = (adapter / "adapter_model.safetensors").stat().st_mtime_ns
    model, _ = ft.load_model(profile.model, profile=profile)
    ft.load_adapter(model, adapter)
    assert len(ft.lora_layers(model)) == 28
    assert sft_adapter(profile, tmp_path / "none", tmp_path / "start") == adapter
    assert (adapter / "adapter_model.safetensors").stat().st_mtime_ns == before
    # Lab 4 has not trained it: preference training begins at the model itself.
    assert sft_adapter(profile, tmp_path / "none", tmp_path / "start", train=False) is None


def test_an_extension_finds_the_run_that_lies_beside_the_labs(tmp_path, monkeypatch):
    adapter = tmp_path / "labs" / "runs" / "lab-3.1.4" / "adapter"
    shutil.copytree(SHIPPED, adapter)
    extensions = tmp_path / "labs" / "extensions"
    extensions.mkdir()
    for folder in (tmp_path / "labs", extensions):
        monkeypatch.chdir(folder)
        assert sft_adapter(TINY).resolve() == adapter
    monkeypatch.chdir(tmp_path)
    assert sft_adapter(TINY) == DATA / "sft-adapter"
