"""Writing the files that lab 3.1.10 compares, and reading what they say: logits and answers by
llama.cpp, KL on the answers and on the prompts apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import Tensor, nn

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_10.held_out import Sample, lab_model, lab_tokenizer
from ftlib.course.lab_3_1_10.kl_per_token import kl_per_token
from ftlib.export.gguf_names import ARCHITECTURES
from ftlib.export.gguf_writer import export_gguf
from ftlib.export.llama_outputs import llama_answer, llama_logits
from ftlib.export.llamacpp import open_llama, quantize_gguf

# Kinds of matrices: the pattern that finds them in a GGUF, and the name that is shown. An embedding
# that is the head too is stored once.
KINDS = {
    "attn_q": "q",
    "attn_k": "k",
    "attn_v": "v",
    "attn_output": "o",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
    r"^(token_embd|output)\.": "embedding",
}


@dataclass(frozen=True)
class Reading:
    """What a file says of a sample: logits of every text, (T, V) each, and greedy answers."""

    logits: list[Tensor]
    answers: list[list[int]]


def export_f16(profile: Profile, seed: int, folder: str | Path) -> Path:
    """The merged model as f16, its numbers in the seed's order: the file that all others are made
    of and measured against.
    """
    model = lab_model(profile, seed)
    return export_gguf(model, lab_tokenizer(profile), Path(folder) / "f16.gguf")


def quantised(f16: Path, quantization: str, **options) -> Path:
    """The f16 file in another type, beside it; itself for "F16"."""
    if quantization == "F16":
        return f16
    target = f16.with_name("quantised.gguf")
    return quantize_gguf(f16, target, quantization, threads=1, **options).path


def read_file(
    file: Path,
    sample: Sample,
    new_tokens: int = 0,
    prompts: Sequence[list[int]] | None = None,
    adapter: Path | None = None,
) -> Reading:
    """Logits of the sample's texts; and greedy answers of up to `new_tokens` to `prompts` (the
    sample's own by default), where any are asked for.
    """
    asked = list(sample.asked if prompts is None else prompts)
    longest = max(map(len, [*sample.texts, *asked]))
    width = longest + new_tokens + 8
    with open_llama(file, n_ctx=width, adapter=adapter, all_logits=True) as llama:
        logits = [llama_logits(llama, ids) for ids in sample.texts]
        answers = []
        if new_tokens:
            answers = [llama_answer(llama, ids, new_tokens) for ids in asked]
    return Reading(logits, answers)


def answer_positions(sample: Sample) -> list[slice]:
    """Of each text the positions whose next token is of the answer, its end token included."""
    return [
        slice(start - 1, len(ids) - 1)
        for start, ids in zip(sample.starts, sample.texts, strict=True)
    ]


def split_kl(
    reference: Sequence[Tensor],
    logits: Sequence[Tensor],
    sample: Sample,
    kl: Callable[[Tensor, Tensor], Tensor] = kl_per_token,
) -> tuple[list[float], list[float]]:
    """(KL on the answer, KL on the prompt) of each text, nats per token."""
    on_answers = []
    on_prompts = []
    for before, after, where in zip(reference, logits, answer_positions(sample), strict=True):
        by_position = kl(before, after)  # (T,)
        on_answers.append(by_position[where].mean().item())
        on_prompts.append(by_position[: where.start].mean().item())
    return on_answers, on_prompts


def split_loss(logits: Sequence[Tensor], sample: Sample) -> tuple[list[float], list[float]]:
    """(log-loss of the answer's tokens, of the prompt's) of each text, nats per token."""
    on_answers = []
    on_prompts = []
    for z, ids, where in zip(logits, sample.texts, answer_positions(sample), strict=True):
        targets = torch.tensor(ids[1:])
        losses = torch.nn.functional.cross_entropy(z[:-1], targets, reduction="none")
        on_answers.append(losses[where].mean().item())
        on_prompts.append(losses[: where.start].mean().item())
    return on_answers, on_prompts


# --- weights --------------------------------------------------------------------------------------
def gguf_names(model: nn.Module) -> gguf.TensorNameMap:
    """transformers' names to the file's: `.get_name(name, try_suffixes=(".weight",))`."""
    architecture = ARCHITECTURES[model.config.model_type]
    return gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)


def file_name(names: gguf.TensorNameMap, layer: str) -> str:
    """What the weight of a layer is called in the file."""
    found = names.get_name(f"{layer}.weight", try_suffixes=(".weight",))
    if found is None:
        raise ValueError(f"{layer!r} has no name in a GGUF of this architecture")
    return found


def dense(tensor) -> np.ndarray:
    """A stored matrix as fp32, (out, in)."""
    weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return weight.reshape(tensor.shape[::-1].tolist())
