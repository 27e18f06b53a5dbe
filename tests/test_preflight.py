"""Before anything is fetched: disk, network, access and memory, each with its fix."""

import types

import pytest

import ftlib as ft
from ftlib import doctor


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with the given disk and memory, an empty cache, and no Hub token."""
    import huggingface_hub
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.setattr(doctor, "_cached", lambda model: False)
    monkeypatch.delenv("HF_HUB_OFFLINE")

    def make(disk=1e12, memory=1e12):
        monkeypatch.setattr(
            doctor.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=disk)
        )
        monkeypatch.setattr(doctor, "available_memory", lambda: memory)

    make()
    return make


def test_tiny_needs_nothing_from_the_network(machine):
    assert "nothing is downloaded" in ft.preflight("tiny")


def test_a_large_enough_machine(machine):
    text = ft.preflight("small")
    assert "Qwen/Qwen3-0.6B" in text and "1.5 GB" in text and "FAILURE" not in text


@pytest.mark.parametrize(
    "limits, word", [({"disk": 1e9}, "free some disk"), ({"memory": 3e9}, "take a smaller profile")]
)
def test_too_small(limits, word, machine):
    machine(**limits)
    with pytest.raises(ft.LoadError, match=f"(?s)FAILURE.*{word}"):
        ft.preflight("small")


def test_unknown_memory_is_no_failure(machine):
    machine(memory=None)
    ft.preflight("small")


def test_offline_and_gated(machine, monkeypatch):
    with pytest.raises(ft.LoadError, match=r"(?s)gated.*hf auth login"):
        ft.preflight("spark")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ft.LoadError, match=r"(?s)HF_HUB_OFFLINE=1.*FTLIB_MODEL"):
        ft.preflight("small")
    monkeypatch.setattr(doctor, "_cached", lambda model: True)
    assert "is in the cache" in ft.preflight("small")


def test_a_local_folder_stands_in(machine, monkeypatch, tmp_path):
    machine(disk=0)
    monkeypatch.setenv("FTLIB_MODEL", str(tmp_path))
    assert str(tmp_path) in ft.preflight("spark")


def test_a_copy_in_the_mirror_needs_no_network_and_no_token(machine, monkeypatch, tmp_path):
    """Its own files say what memory they take."""
    name = "meta-llama/Llama-3.1-8B-Instruct"
    copy = tmp_path / "mirror" / name
    copy.mkdir(parents=True)
    with (copy / "model.safetensors").open("wb") as file:
        file.truncate(4_000_000_000)
    monkeypatch.setenv("FTLIB_HUB", str(tmp_path / "mirror"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = ft.preflight("spark", name)
    assert "is there: nothing is downloaded" in text and "about 8 GB of memory" in text
    machine(memory=5e9)
    with pytest.raises(ft.LoadError, match="about 8 GB of memory"):
        ft.preflight("spark", name)
