"""A run that version 0.1.0 began goes on: its settings, as that version stored them, are those of
the same call today.

`settings_0_1_0.json` was written by version 0.1.0 (commit e53cea8) for the two calls below.
"""

import json
from pathlib import Path

import pytest
import torch
from conftest import chat, llama

import ftlib as ft
from ftlib.training.folder import SETTINGS

STORED = json.loads((Path(__file__).parent / "settings_0_1_0.json").read_text(encoding="utf-8"))
WORDS = ["ab", "cde", "f", "gh"]
ROWS = [{**chat(f"Say {w}{i}.", f"{w}{i}"), "answer": f"{w}{i}"} for i, w in enumerate(WORDS)]
PAIRS = [{"prompt": f"Say {w}.", "chosen": w, "rejected": f"no {w}!"} for w in WORDS]
OPTIONS = {"steps": 2, "learning_rate": 1e-3, "batch_size": 2, "save_steps": 1, "show": False}


def adapted():
    torch.manual_seed(0)
    return ft.add_lora(llama(layers=1), r=2, lora_dropout=0.1)


def finetune(tokenizer, folder, **changes):
    options = {**OPTIONS, "eval_rows": ROWS[:2], **changes}
    return ft.finetune(adapted(), tokenizer, ROWS, output_dir=folder, **options)


def prefer(tokenizer, folder, **changes):
    return ft.prefer(adapted(), tokenizer, PAIRS, output_dir=folder, **{**OPTIONS, **changes})


CALLS = {"finetune": finetune, "prefer": prefer}


@pytest.mark.parametrize("name", CALLS)
def test_the_same_call_is_the_same_run(name, tokenizer, tmp_path):
    (tmp_path / SETTINGS).write_text(json.dumps(STORED[name]), encoding="utf-8")
    run = CALLS[name](tokenizer, tmp_path)
    assert run.output_dir == tmp_path
    assert json.loads((tmp_path / SETTINGS).read_text(encoding="utf-8")) == STORED[name]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("option, value", [("seed", 1), ("warmup", 0.5), ("max_length", 99)])
def test_another_call_is_not(name, option, value, tokenizer, tmp_path):
    (tmp_path / SETTINGS).write_text(json.dumps(STORED[name]), encoding="utf-8")
    with pytest.raises(ft.RunError, match=f"other settings \\({option}: .* there, {value} now"):
        CALLS[name](tokenizer, tmp_path, **{option: value})
