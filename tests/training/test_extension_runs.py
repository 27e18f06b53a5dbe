"""Reward model, PPO and distillation on the embedded model and its rows: a run that was interrupted
ends where an uninterrupted one does.
"""

import pytest
import torch
from conftest import EMBEDDED, ROOT
from interrupted import interrupt_at
from preference_runs import adapter, equal

import ftlib as ft

SETTINGS = {
    "steps": 4,
    "learning_rate": 1e-3,
    "batch_size": 4,
    "save_steps": 2,
    "log_steps": 1,
    "show": False,
}


def tuned():
    """The embedded model with what SFT learnt merged into it."""
    model, tokenizer = ft.load_model(EMBEDDED)
    ft.load_adapter(model, ROOT / "data" / "sft-adapter")
    return ft.merge_and_unload(model), tokenizer


def fresh():
    """The same with a new adapter, always the same one."""
    model, tokenizer = tuned()
    torch.manual_seed(0)
    return ft.add_lora(model, r=4), tokenizer


def reward_model(model, tokenizer, **options):
    pairs = ft.load_rows("preferences", "tiny")[:16]
    _, run = ft.train_reward_model(model, tokenizer, pairs, **SETTINGS, **options)
    return run


def shortness(rows, answers):
    return [-len(answer.split()) for answer in answers]


def policy(model, tokenizer, **options):
    rows = ft.load_rows("preferences", "tiny")[:8]
    options = {"group_size": 2, "epochs": 2, "max_new_tokens": 12, **options}
    return ft.reinforce(model, tokenizer, rows, shortness, **SETTINGS, **options)


def student(model, tokenizer, **options):
    teacher, _ = ft.load_model(EMBEDDED)
    rows = ft.load_rows("train", "tiny")[:16]
    options = {"on_policy": 0.5, "max_new_tokens": 12, **options}
    return ft.distil(model, tokenizer, teacher, rows, **SETTINGS, **options)


@pytest.mark.parametrize("train", [reward_model, policy, student])
def test_resuming(train, tmp_path, monkeypatch):
    straight, tokenizer = fresh()
    run = train(straight, tokenizer, output_dir=tmp_path / "straight")
    interrupt_at(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(*fresh(), output_dir=tmp_path / "run")
    monkeypatch.undo()
    again, _ = fresh()
    resumed = train(again, tokenizer, output_dir=tmp_path / "run")
    assert resumed.resumed_from == 2
    assert resumed.history == run.history and len(run.history) == 4
    assert equal(adapter(straight), adapter(again))
    assert (tmp_path / "run" / "manifest.json").is_file()


@pytest.mark.parametrize("train", [reward_model, policy, student])
def test_bf16_is_near_fp32(train):
    """The first step's measures: products in bf16 are off by about a 256th."""
    first = []
    for precision in ("fp32", "bf16"):
        run = train(*fresh(), precision=precision)
        first.append(run.history[0])
    fp32, bf16 = first
    assert bf16["loss"] == pytest.approx(fp32["loss"], rel=0.05, abs=0.05)
    assert bf16 != fp32 or train is reward_model  # whose head starts at zero
    assert bf16.get("kl", 0) == pytest.approx(0, abs=1e-3)
