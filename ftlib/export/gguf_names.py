"""How transformers' weights are called and ordered in a GGUF of the llama, qwen2 and qwen3
architectures.
"""

from __future__ import annotations

import math

import gguf
import torch
from torch import Tensor

from ftlib.export.errors import ExportError

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}


def architecture_of(config) -> gguf.MODEL_ARCH:
    """The GGUF architecture of a transformers config; refuses what this writer would get wrong."""
    kind = config.model_type
    rope = config.rope_parameters
    wrong = None
    if kind not in ARCHITECTURES:
        wrong = f"architecture {kind!r} is not one of {', '.join(ARCHITECTURES)}"
    elif rope.get("rope_type", "default") not in ("default", "llama3"):
        wrong = f"rope type {rope['rope_type']!r} is neither 'default' nor 'llama3'"
    elif config.hidden_act != "silu":
        wrong = f"hidden_act {config.hidden_act!r} is not 'silu'"
    elif getattr(config, "use_sliding_window", False):
        wrong = "use_sliding_window=True is not written"
    elif kind == "qwen3" and getattr(config, "attention_bias", False):
        wrong = "attention_bias=True of a qwen3 is not read by llama.cpp, which knows none there"
    if wrong:
        raise ExportError(
            f"{wrong}: run llama.cpp's own converter, `python convert_hf_to_gguf.py FOLDER "
            "--outtype f16`, or name it here, converter='…/convert_hf_to_gguf.py'"
        )
    return ARCHITECTURES[kind]


def head_dim(config) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def rope_factors(config) -> Tensor | None:
    """What Llama 3.1 divides each rotary frequency by, fp32 (head_dim/2,); None for plain rotary
    embeddings.

    Wavelengths below original/high_freq_factor stay, those above original/low_freq_factor are
    stretched by `factor`, between them the inverse is interpolated linearly in original/wavelength
    (transformers' `rope_type="llama3"`).
    """
    rope = config.rope_parameters
    dim = head_dim(config)
    if rope.get("rope_type", "default") != "llama3":
        return None
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    wavelengths = 2 * math.pi / frequencies
    turns = rope["original_max_position_embeddings"] / wavelengths  # in the original context
    low = rope["low_freq_factor"]
    high = rope["high_freq_factor"]
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - smooth) / rope["factor"] + smooth)


def rotary_pairs(weight: Tensor, heads: int) -> Tensor:
    """Rows of q or k, (heads·d, …), from transformers' order (halves of a head rotate against each
    other) to Llama's.

    Llama's own code rotates neighbouring rows against each other.
    """
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(weight.shape)


def in_file_order(name: str, weight: Tensor, config) -> Tensor:
    """The rows of a weight in the file's order: llama.cpp turns neighbouring rows for the llama
    architecture, halves for Qwen's.
    """
    if config.model_type != "llama":
        return weight
    module = name.split(".")[-2]
    if module == "q_proj":
        return rotary_pairs(weight, config.num_attention_heads)
    if module == "k_proj":
        return rotary_pairs(weight, config.num_key_value_heads)
    return weight
