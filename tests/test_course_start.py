"""Where a later lab starts: lab 4's adapter for the same model, else the shipped one, else one trained now."""
import shutil
from dataclasses import replace

import ftlib as ft
from conftest import EMBEDDED, ROOT
from ftlib.course.start import sft_adapter
from ftlib.loading import DATA
from ftlib.profiles import PROFILES

TINY, SHIPPED = PROFILES["tiny"], ROOT / "data" / "sft-adapter"


def test_lab_4_before_the_shipped_one_and_never_for_another_model(tmp_path):
    run, none = tmp_path / "run", tmp_path / "none"
    assert sft_adapter(TINY, none, none) == DATA / "sft-adapter"
    shutil.copytree(SHIPPED, run / "adapter")
    assert sft_adapter(TINY, run, none) == run / "adapter"
    config = run / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace("world-llama-4m", "some-other/model"))
    assert sft_adapter(TINY, run, none) == DATA / "sft-adapter"


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
