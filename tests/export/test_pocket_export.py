"""The pocket model through the whole export: a real language model, its template, its tokenizer."""

from __future__ import annotations

import pytest
import torch
from conftest import needs_llama

import ftlib as ft
from ftlib.core.paths import POCKET, POCKET_HUB, resolve
from ftlib.export.gguf_writer import export_gguf
from ftlib.export.llamacpp import quantize_gguf
from ftlib.export.parity import check_export

QUESTIONS = ["What is the capital of France?", "Name two colours."]


@pytest.fixture(scope="module")
def pocket():
    """(model in fp32, tokenizer)."""
    needs_llama()
    if resolve(POCKET) == POCKET_HUB:
        pytest.skip("the pocket model is not here: run `make pocket`")
    return ft.load_model(profile="pocket", dtype=torch.float32)


def test_the_files_give_the_models_tokens_and_answers(pocket, tmp_path):
    """f16 as the model, within what thirty layers of rounding explain; Q8_0 near it."""
    model, tokenizer = pocket
    path = export_gguf(model, tokenizer, tmp_path / "pocket.gguf")
    smaller = quantize_gguf(path, tmp_path / "pocket-q8.gguf", "Q8_0")
    report = check_export(model, tokenizer, [path, smaller], QUESTIONS, max_new_tokens=12).check()
    first, second = report.files
    assert first.same_prompt == first.same_answer == len(QUESTIONS)
    assert second.kl < 0.02 and second.megabytes < 0.6 * first.megabytes


def test_its_go_template_has_the_default_system_message(pocket):
    """ChatML, and a system message of its own where there is none."""
    _, tokenizer = pocket
    template = ft.go_template(tokenizer)
    for messages in (
        [{"role": "user", "content": "Hi"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    ):
        wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert ft.render_go(template, messages) == wanted
    assert '{{ if eq .System "" }}' in template and "SmolLM" in template
