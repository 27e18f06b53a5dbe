"""Llama and Qwen models as GGUF, and LoRA adapters: each tensor is read, merged, cast and written
before the next is touched.

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md. Tensors equal those of llama.cpp's
convert_hf_to_gguf.py bit for bit.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
from gguf import GGMLQuantizationType as Type
from torch import nn

from ftlib.export.converter import run_converter
from ftlib.export.cut_proof import proven
from ftlib.export.errors import ExportError
from ftlib.export.gguf_names import architecture_of, head_dim, in_file_order, rope_factors
from ftlib.export.gguf_tensors import NewTensor, open_writer, write_tensors
from ftlib.export.source import (
    Source,
    Weight,
    find_folder,
    open_source,
)
from ftlib.export.vocabulary import read_vocabulary
from ftlib.models.load import holds_tokenizer, ready_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


log = logging.getLogger("ftlib")
DTYPES = {
    "f32": (Type.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (Type.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


def export_gguf(
    model: nn.Module | str | os.PathLike,
    tokenizer: PreTrainedTokenizerBase | None,
    path: str | os.PathLike,
    dtype: str = "f16",
    adapter: str | os.PathLike | None = None,
    converter: str | os.PathLike | None = None,
    prove: bool = True,
) -> Path:
    """Write a Llama, Qwen2 or Qwen3 model and its tokenizer as one GGUF file; returns its path.

    model: a model, whose ftlib adapter is merged on the way and which stays as it is; or the folder
    or name of a checkpoint (safetensors, sharded or not), into which the folder `adapter` is
    merged, in fp32, one tensor in memory at a time; an adapter of a kind that ftlib does not
    implement is merged by PEFT, into the whole model in fp32, which one line says. tokenizer: None
    takes the adapter's, else the checkpoint's. dtype: "f32", "f16", "bf16" or "q8_0";
    one-dimensional tensors stay fp32. 4-bit weights are dequantised. converter: the path of
    llama.cpp's convert_hf_to_gguf.py, to be run instead, for architectures that this writer
    refuses. prove: where llama.cpp is there, its tokens of thousands of texts of every kind must be
    the tokenizer's (`proven`), before weights are written. ExportError (a ValueError) for what
    llama.cpp would read otherwise than transformers; nothing is left half-written.
    """
    if dtype not in DTYPES:
        raise ExportError(
            f"dtype={dtype!r}: use one of {', '.join(DTYPES)}; smaller ones are made from those "
            "by quantize_gguf"
        )
    path = Path(path).expanduser()
    if converter is not None:
        return run_converter(model, tokenizer, path, dtype, adapter, converter)
    source = open_source(model, adapter)
    if tokenizer is None:
        if isinstance(model, nn.Module):
            raise ExportError("tokenizer is None: pass the model's tokenizer")
        own = adapter is not None and holds_tokenizer(adapter)
        tokenizer = ready_tokenizer(str(adapter if own else find_folder(model)))
    architecture = architecture_of(source.config)
    vocabulary = read_vocabulary(tokenizer, source.config.vocab_size, source.stops)
    if prove:
        vocabulary = proven(vocabulary, tokenizer)
    kind, file_type = DTYPES[dtype]
    with open_writer(path, architecture) as writer:
        _describe(writer, source, file_type)
        vocabulary.write(writer)
        tensors = list(_tensors(source, architecture, kind))
        write_tensors(writer, path, tensors, source.packed)
    return path


# --- what the file says of the model --------------------------------------------------------------
def _describe(writer: gguf.GGUFWriter, source: Source, file_type: gguf.LlamaFileType) -> None:
    config = source.config
    head = head_dim(config)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(source.name)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


# --- tensors --------------------------------------------------------------------------------------
def _tensors(source: Source, architecture: gguf.MODEL_ARCH, kind: Type) -> Iterator[NewTensor]:
    """Every tensor, in the file's order."""
    names = gguf.get_tensor_name_map(architecture, source.config.num_hidden_layers)
    factors = rope_factors(source.config)
    if factors is not None:
        make_factors = functools.partial(Weight, factors)
        yield NewTensor("rope_freqs.weight", Type.F32, factors.shape, make_factors)
    for name, shape in source.shapes.items():
        own = Type.F32 if len(shape) == 1 else kind
        block, _ = gguf.GGML_QUANT_SIZES[own]
        if shape[-1] % block:
            raise ExportError(
                f"{name} has rows of {shape[-1]} weights, q8_0 takes multiples of 32: use "
                "dtype='f16'"
            )
        there = names.get_name(name, try_suffixes=(".weight", ".bias"))
        yield NewTensor(there, own, shape, functools.partial(_load, source, name))


def _load(source: Source, name: str) -> Weight:
    weight = source.load(name)
    return Weight(in_file_order(name, weight.values, source.config), weight.update)
