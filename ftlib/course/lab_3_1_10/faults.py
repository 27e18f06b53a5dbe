"""Faults of the last mile, one at a time on the same prompts: templates, tokens, files."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftlib.adapters.lora import disable_adapter
from ftlib.adapters.lora_layer import lora_layers
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_10.files import export_f16, quantised
from ftlib.course.lab_3_1_10.held_out import Sample, is_right, lab_tokenizer, own_model, sample_of
from ftlib.course.lab_3_1_10.ollama_prompt import ollama_prompt
from ftlib.export.gguf_writer import export_gguf
from ftlib.export.go_render import render_go, template_stops
from ftlib.export.go_template import CHATML, WORLD, go_template
from ftlib.export.llama_outputs import llama_answer
from ftlib.export.llamacpp import open_llama

TEMPLATE_FAULTS = (
    "no template",
    "another family's template",
    "turn not closed",
    "answer not opened",
    "newline after each turn",
    "start token twice",
)
FILE_FAULTS = ("wrong rows", "end token ignored", "base, no adapter")
PENALTY = "repeat penalty 1.1"  # what Ollama before 0.32.10 applies where none is set
RUNTIME_FAULTS = (PENALTY,)
QUANTISED = ("Q4_K_M", "Q2_K")  # that stand among the faults for scale


def spoiled(template: str, fault: str) -> str:
    """A template with one fault; the template itself for a fault that is no template's."""
    stop = template_stops(template)[0]
    if fault == "another family's template":
        return CHATML if template != CHATML else WORLD
    if fault == "turn not closed":
        return template.replace(stop, "")
    if fault == "answer not opened":
        return template[: template.rindex("{{ end }}") + len("{{ end }}")]
    if fault == "newline after each turn":
        return template.replace(stop, stop + "\n")
    return template


def prompt_ids(
    profile: Profile, sample: Sample, fault: str, ollama_prompt: Callable = ollama_prompt
) -> list[list[int]]:
    """Token ids of the prompts as a runtime makes them: the start token, and what the template
    writes. `ollama_prompt` is the one template of the embedded model's format; other models have
    that of `go_template`.
    """
    tokenizer = lab_tokenizer(profile)
    template = go_template(tokenizer)
    begin = [] if tokenizer.bos_token is None else [tokenizer.bos_token_id]
    if fault == "start token twice":
        begin = 2 * begin
    prompts = []
    for chat in sample.chats:
        if fault == "no template":
            text = chat[-1]["content"]
        elif fault in TEMPLATE_FAULTS and fault != "start token twice":
            text = render_go(spoiled(template, fault), chat)
        elif template == WORLD:
            text = ollama_prompt(render_go, chat)
        else:
            text = render_go(template, chat)
        prompts.append(begin + tokenizer(text, add_special_tokens=False)["input_ids"])
    return prompts


def faulty_file(profile: Profile, seed: int, folder: Path, fault: str) -> Path:
    """The file of a fault; the f16 file for a fault that is no file's."""
    if fault == "wrong rows":
        return _unpermuted(profile, seed, folder)
    if fault == "base, no adapter":
        model = own_model(profile, seed)
        with disable_adapter(model):
            return export_gguf(model, lab_tokenizer(profile), folder / "base.gguf")
    f16 = export_f16(profile, seed, folder)
    return quantised(f16, fault) if fault in QUANTISED else f16


@torch.no_grad()
def _unpermuted(profile: Profile, seed: int, folder: Path) -> Path:
    """A file whose q and k rows are as transformers has them: the exporter's order undone
    beforehand.
    """
    model = own_model(profile, seed)
    config = model.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, layer in lora_layers(model).items():
        count = heads.get(name.rpartition(".")[2])
        if count:
            for weight in (layer.base_layer.weight, layer.lora_B):
                pairs = weight.reshape(count, -1, 2, weight.shape[1])
                weight.copy_(pairs.transpose(1, 2).reshape(weight.shape))
    return export_gguf(model, lab_tokenizer(profile), folder / "unpermuted.gguf")


def fault_trial(
    profile: Profile, seed: int, fault: str, ollama_prompt: Callable = ollama_prompt
) -> dict[str, Any]:
    """Greedy answers with one fault: the share that is right, and the share that ends by itself."""
    sample = sample_of(profile, seed)
    tokenizer = lab_tokenizer(profile)
    prompts = prompt_ids(profile, sample, fault, ollama_prompt)
    room = profile.max_new_tokens
    width = max(map(len, prompts)) + room + 8
    with tempfile.TemporaryDirectory() as folder:
        file = faulty_file(profile, seed, Path(folder), fault)
        with open_llama(file, n_ctx=width) as llama:
            if fault == "end token ignored":
                streams = [llama.generate(ids, temp=0.0) for ids in prompts]
                answers = [list(itertools.islice(stream, room)) for stream in streams]
            else:
                penalty = 1.1 if fault == PENALTY else 1.0
                answers = [llama_answer(llama, ids, room, penalty) for ids in prompts]
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
    right = [is_right(text, row) for text, row in zip(texts, sample.rows, strict=True)]
    return {
        "right": np.mean(right),
        "ended": np.mean([len(ids) < room for ids in answers]),
        "first_answer": texts[0],
    }
