"""Profiles: chosen by name, environment or machine; sizes that a lab may rely on."""

import pytest
import torch

import ftlib as ft
from ftlib.core.profiles import PROFILES
from ftlib.data.hub import HUB
from ftlib.data.load import FOLDERS


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
        match="profile 'huge' is unknown: set FTLIB_PROFILE to one of tiny, pocket, small, spark",
    ):
        ft.get_profile()
    with pytest.raises(ValueError, match="'Tiny'"):
        ft.get_profile("Tiny")


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_complete(name):
    p = ft.get_profile(name)
    assert p.name == name and isinstance(p.torch_dtype, torch.dtype) and len(p.seeds) >= 3
    assert p.lr_full < p.lr_lora and 0 < p.short_steps <= p.steps and p.eval_examples >= 24
    assert p.dataset in FOLDERS or HUB[p.dataset][1]["golden"].stop == 100
    assert (p.download_gb == 0) == (p.dataset in FOLDERS)
    assert p.live_seeds == (p.seeds if p.runs_unrecorded else ())


@pytest.mark.parametrize("name", PROFILES)
def test_few_rows_with_open_answers_are_read_many_times(name):
    """What it takes to overfit: ten epochs at the least, of rows that the data has."""
    p = ft.get_profile(name)
    epochs = p.open.steps * p.open.batch / p.open.rows
    assert epochs >= 10 and p.open.lr_full < p.open.lr_lora
    assert p.open.max_new_tokens <= p.open.length
    if p.open.dataset in FOLDERS:
        assert len(ft.load_rows("open_train", p)) >= p.open.rows
    else:
        part = HUB[p.open.dataset][1]["open_train"]
        assert part.stop - part.start >= p.open.rows
    rule = p.open.dataset in FOLDERS
    assert rule == (not p.open.judge)
    assert p.preference.answer_tokens >= 64 and p.preference.imitation_steps > 0


def test_a_rehearsal_has_few_steps_and_everything_else(monkeypatch):
    whole = ft.get_profile("small")
    monkeypatch.setenv("FTLIB_REHEARSE", "1")
    short = ft.get_profile("small")
    assert short.name == "small" and short.model == whole.model and len(short.seeds) == 2
    assert short.steps == 10 and short.study.steps == 10 and short.preference.orpo_steps == 8
    assert short.study.ranks == whole.study.ranks and short.lr_lora == whole.lr_lora
    assert ft.get_profile("tiny") == PROFILES["tiny"]  # its records are shown beside
    pocket = ft.get_profile("pocket")
    assert pocket.open.rows == PROFILES["pocket"].open.rows  # few already
