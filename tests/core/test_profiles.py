"""Profiles: chosen by name, environment or machine; sizes that a lab may rely on."""

import pytest
import torch

import ftlib as ft
from ftlib.core.profiles import PROFILES
from ftlib.data.hub import HUB


def test_by_name_environment_and_machine(monkeypatch):
    assert (
        ft.get_profile("spark").name == "spark"
        and ft.get_profile(PROFILES["small"]) is PROFILES["small"]
    )
    monkeypatch.setenv("FTLIB_PROFILE", "small")
    assert ft.get_profile().name == "small" and ft.get_profile("tiny").name == "tiny"
    monkeypatch.delenv("FTLIB_PROFILE")
    for gpu, want in ((False, "tiny"), (True, "small")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        assert ft.get_profile().name == want


def test_unknown(monkeypatch):
    monkeypatch.setenv("FTLIB_PROFILE", "huge")
    with pytest.raises(
        ValueError,
        match="profile 'huge' is unknown: set FTLIB_PROFILE to one of tiny, small, spark",
    ):
        ft.get_profile()
    with pytest.raises(ValueError, match="'Tiny'"):
        ft.get_profile("Tiny")


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_complete(name):
    p = ft.get_profile(name)
    assert p.name == name and isinstance(p.torch_dtype, torch.dtype) and len(p.seeds) >= 3
    assert p.lr_full < p.lr_lora and 0 < p.short_steps <= p.steps and p.eval_examples >= 100
    assert p.dataset == "embedded" or HUB[p.dataset][1]["golden"].stop == 100
    assert (p.download_gb == 0) == (p.dataset == "embedded")
