"""Llama and Qwen models as GGUF, and LoRA adapters: each tensor is read, merged, cast and written
before the next is touched.

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md. Tensors equal those of llama.cpp's
convert_hf_to_gguf.py bit for bit.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor, nn
from tqdm.auto import tqdm

from ftlib.adapters.io import read_config
from ftlib.adapters.lora import lora_layers
from ftlib.core.atomic import replacing
from ftlib.export.errors import ExportError
from ftlib.export.source import (
    Source,
    Weight,
    find_folder,
    from_model,
    open_source,
    read_adapter,
)
from ftlib.export.vocabulary import read_vocabulary
from ftlib.models.load import holds_tokenizer, ready_tokenizer
from ftlib.models.skeleton import empty_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


log = logging.getLogger("ftlib")
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
DTYPES = {
    "f32": (Type.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (Type.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
TORCH = {Type.F32: torch.float32, Type.F16: torch.float16, Type.BF16: torch.bfloat16}
# Infinity's bits; NaNs lie above.
INFINITY = {torch.float32: 0x7F800000, torch.float16: 0x7C00, torch.bfloat16: 0x7F80}
CHUNK = 1 << 22  # weights that are cast and written at a time: 16 MB in fp32


def export_gguf(
    model: nn.Module | str | os.PathLike,
    tokenizer: PreTrainedTokenizerBase | None,
    path: str | os.PathLike,
    dtype: str = "f16",
    adapter: str | os.PathLike | None = None,
    converter: str | os.PathLike | None = None,
) -> Path:
    """Write a Llama, Qwen2 or Qwen3 model and its tokenizer as one GGUF file; returns its path.

    model: a model, whose ftlib adapter is merged on the way and which stays as it is; or the folder
    or name of a checkpoint (safetensors, sharded or not), into which the folder `adapter` is
    merged, in fp32, one tensor in memory at a time. tokenizer: None takes the checkpoint's. dtype:
    "f32", "f16", "bf16" or "q8_0"; one-dimensional tensors stay fp32. 4-bit weights are
    dequantised. converter: the path of llama.cpp's convert_hf_to_gguf.py, to be run instead, for
    architectures that this writer refuses. ExportError (a ValueError) for what llama.cpp would read
    otherwise than transformers; nothing is left half-written.
    """
    if dtype not in DTYPES:
        raise ExportError(
            f"dtype={dtype!r}: use one of {', '.join(DTYPES)}; smaller ones are made from those "
            "by quantize_gguf"
        )
    path = Path(path).expanduser()
    if converter is not None:
        return _run_converter(model, tokenizer, path, dtype, adapter, converter)
    source = open_source(model, adapter)
    if tokenizer is None:
        if isinstance(model, nn.Module):
            raise ExportError("tokenizer is None: pass the model's tokenizer")
        own = adapter is not None and holds_tokenizer(adapter)
        tokenizer = ready_tokenizer(str(adapter if own else find_folder(model)))
    architecture = _architecture(source.config)
    vocabulary = read_vocabulary(tokenizer, source.config.vocab_size, source.stops)
    kind, file_type = DTYPES[dtype]
    with _gguf_writer(path, architecture) as writer:
        _describe(writer, source, file_type)
        vocabulary.write(writer)
        tensors = list(_tensors(source, architecture, kind))
        _write_tensors(writer, path, tensors, source.packed)
    return path


@contextlib.contextmanager
def _gguf_writer(path: Path, architecture: gguf.MODEL_ARCH) -> Iterator[gguf.GGUFWriter]:
    with replacing(path) as partial:
        writer = gguf.GGUFWriter(partial, gguf.MODEL_ARCH_NAMES[architecture])
        try:
            yield writer
        finally:
            writer.close()


def check_disk(path: Path, need: float) -> None:
    free = shutil.disk_usage(path.parent).free
    if need > free:
        raise ExportError(
            f"{path} needs {need / 1e9:.2f} GB of disk, {free / 1e9:.2f} GB are free: choose "
            "another disk or a smaller type"
        )


# --- what the file says of the model --------------------------------------------------------------
def _architecture(config) -> gguf.MODEL_ARCH:
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
    if wrong:
        raise ExportError(
            f"{wrong}: run llama.cpp's own converter, `python convert_hf_to_gguf.py FOLDER "
            "--outtype f16`, or name it here, converter='…/convert_hf_to_gguf.py'"
        )
    return ARCHITECTURES[kind]


def _head_dim(config) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _describe(writer: gguf.GGUFWriter, source: Source, file_type: gguf.LlamaFileType) -> None:
    config = source.config
    head = _head_dim(config)
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
def rope_factors(config) -> Tensor | None:
    """What Llama 3.1 divides each rotary frequency by, fp32 (head_dim/2,); None for plain rotary
    embeddings.

    Wavelengths below original/high_freq_factor stay, those above original/low_freq_factor are
    stretched by `factor`, between them the inverse is interpolated linearly in original/wavelength
    (transformers' `rope_type="llama3"`).
    """
    rope = config.rope_parameters
    dim = _head_dim(config)
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


def _ordered(name: str, weight: Tensor, config) -> Tensor:
    """llama.cpp turns neighbouring rows for the llama architecture, halves for Qwen's."""
    if config.model_type != "llama":
        return weight
    module = name.split(".")[-2]
    if module == "q_proj":
        return rotary_pairs(weight, config.num_attention_heads)
    if module == "k_proj":
        return rotary_pairs(weight, config.num_key_value_heads)
    return weight


@dataclass(frozen=True)
class _Tensor:
    """A tensor to be written: its name and type in the file, and a function that makes it."""

    name: str
    kind: Type
    shape: torch.Size
    make: Callable[[], Weight]

    @property
    def weights(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        block, block_bytes = gguf.GGML_QUANT_SIZES[self.kind]
        return self.weights * block_bytes // block


def _tensors(source: Source, architecture: gguf.MODEL_ARCH, kind: Type) -> Iterator[_Tensor]:
    """Every tensor, in the file's order."""
    names = gguf.get_tensor_name_map(architecture, source.config.num_hidden_layers)
    factors = rope_factors(source.config)
    if factors is not None:
        make_factors = functools.partial(Weight, factors)
        yield _Tensor("rope_freqs.weight", Type.F32, factors.shape, make_factors)
    for name, shape in source.shapes.items():
        own = Type.F32 if len(shape) == 1 else kind
        block, _ = gguf.GGML_QUANT_SIZES[own]
        if shape[-1] % block:
            raise ExportError(
                f"{name} has rows of {shape[-1]} weights, q8_0 takes multiples of 32: use "
                "dtype='f16'"
            )
        there = names.get_name(name, try_suffixes=(".weight", ".bias"))
        yield _Tensor(there, own, shape, functools.partial(_load, source, name))


def _load(source: Source, name: str) -> Weight:
    weight = source.load(name)
    return Weight(_ordered(name, weight.values, source.config), weight.update)


def _write_tensors(
    writer: gguf.GGUFWriter, path: Path, tensors: list[_Tensor], packed: int = 0
) -> None:
    total = sum(tensor.nbytes for tensor in tensors)
    check_disk(path, 1.01 * total + 2e7)  # 20 MB for vocabulary and names
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.name,
            tensor.shape,
            np.dtype(np.float32),
            tensor.nbytes,
            raw_dtype=tensor.kind,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    out = writer.fout[0]
    update = 0.0
    rounding = 0.0
    with tqdm(total=total, unit="B", unit_scale=True, desc=path.name, disable=total < 1e8) as bar:
        for tensor in tensors:
            writer.write_padding(out, out.tell())
            weight = tensor.make()
            for stored, lost in _stored(weight, tensor.kind, tensor.name):
                out.write(stored)
                bar.update(stored.nbytes)
                rounding += lost
            update += weight.update or 0.0
        writer.write_padding(out, out.tell())
    largest = max(tensors, key=lambda tensor: tensor.weights)
    _report(path, largest.kind.name, update, rounding, packed)


def _report(path: Path, kind: str, update: float, rounding: float, packed: int) -> None:
    if update:
        log.info(
            "%s: adapter merged; rounding to %s moved the merged weights by %.2g of the update's "
            "norm",
            path.name,
            kind,
            math.sqrt(rounding / update),
        )
    if packed:
        log.warning(
            "%s: %d weights were dequantised from 4 bits: the file carries that rounding. For "
            "export merge the adapter into the 16-bit base: "
            "export_gguf(folder, tokenizer, path, adapter=…)",
            path.name,
            packed,
        )


def _finite(values: Tensor) -> bool:
    """On the bits, as integers: torch.isfinite took a quarter of an export's time."""
    bits = values.view(torch.int32 if values.dtype == torch.float32 else torch.int16)
    return (bits & torch.iinfo(bits.dtype).max).max().item() < INFINITY[values.dtype]


def _stored(weight: Weight, kind: Type, name: str) -> Iterator[tuple[np.ndarray, float]]:
    """(bytes of the next rows, squared error of storing them where an adapter was merged)."""
    values = weight.values
    merged = weight.update is not None
    weights_per_row = math.prod(values.shape[1:])
    for rows in values.split(max(1, CHUNK // weights_per_row)):
        rows = rows.to("cpu").contiguous()
        kept = rows.to(TORCH.get(kind, torch.float32))
        _check_finite(rows, kept, kind, name)
        if kind == Type.Q8_0:
            data = gguf.quants.quantize(kept.numpy(), kind)
            if merged:
                kept = torch.from_numpy(gguf.quants.dequantize(data, kind))
        else:
            data = kept.view(torch.uint8).numpy()
        lost = 0.0
        if merged:
            lost = torch.linalg.vector_norm(kept.float() - rows.float()).item() ** 2
        yield data, lost


def _check_finite(rows: Tensor, kept: Tensor, kind: Type, name: str) -> None:
    """`kept` are the rows in the type that is written."""
    if _finite(kept):
        return
    if torch.isfinite(rows).all():
        raise ExportError(f"{name} exceeds the range of {kind.name}: use dtype='bf16'")
    raise ExportError(f"{name} has NaN or infinite values")


# --- adapters -------------------------------------------------------------------------------------
def export_adapter_gguf(
    model_or_folder: nn.Module | str | os.PathLike,
    path: str | os.PathLike,
    base: str | os.PathLike | None = None,
) -> Path:
    """Write a LoRA adapter as GGUF, for llama.cpp or Ollama to load beside an unmerged base;
    returns its path.

    model_or_folder: a model with ftlib's LoRA layers, or an adapter folder; `base` is then the
    base's folder or name (default: the one that the adapter names). llama.cpp scales BA by alpha/r,
    so alpha is written as s·r, which is right for rsLoRA too. A and B are fp32. ExportError for
    DoRA, whose row scaling the format cannot hold: merge it with export_gguf.
    """
    path = Path(path).expanduser()
    if isinstance(model_or_folder, nn.Module):
        adapter = _adapter_of_model(model_or_folder)
    else:
        adapter = _adapter_of_folder(model_or_folder, base)
    architecture = _architecture(adapter.config)
    tensors = list(_adapter_tensors(adapter, architecture))
    with _gguf_writer(path, architecture) as writer:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.scaling * adapter.r)
        _write_tensors(writer, path, tensors)
    return path


@dataclass(frozen=True)
class _Adapter:
    """A LoRA of rank r: its base's config, and by the weights' names (A, B, scaling, magnitude)."""

    config: Any  # transformers' configuration of the base
    r: int
    updates: dict[str, tuple]

    @property
    def scaling(self) -> float:
        """The same for every weight."""
        _, _, scaling, _ = next(iter(self.updates.values()))
        return scaling


def _adapter_tensors(adapter: _Adapter, architecture: gguf.MODEL_ARCH) -> Iterator[_Tensor]:
    config = adapter.config
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, (A, B, _, magnitude) in adapter.updates.items():
        if magnitude is not None:
            raise ExportError(
                "a DoRA adapter rescales rows, which a GGUF adapter cannot say: merge it with "
                "export_gguf"
            )
        if name == "lm_head.weight" and config.tie_word_embeddings:
            raise ExportError(
                "the adapter changes lm_head, which is tied to the embeddings and so not in the "
                "base file: merge it with export_gguf"
            )
        there = names.get_name(name, try_suffixes=(".weight",))
        yield _factor(f"{there}.lora_a", A)
        yield _factor(f"{there}.lora_b", _ordered(name, B, config))


def _factor(name: str, factor: Tensor) -> _Tensor:
    def make() -> Weight:
        return Weight(factor.detach().float())

    return _Tensor(name, Type.F32, factor.shape, make)


def _adapter_of_model(model: nn.Module) -> _Adapter:
    layers = lora_layers(model)
    if not layers:
        raise ExportError("model has no adapter of ftlib: call add_lora or load_adapter first")
    updates = {}
    for name, layer in layers.items():
        magnitude = layer.lora_magnitude_vector if layer.use_dora else None
        updates[f"{name}.weight"] = (layer.lora_A, layer.lora_B, layer.scaling, magnitude)
    return _Adapter(model.config, model.adapter_config.r, updates)


def _adapter_of_folder(folder, base) -> _Adapter:
    from transformers import AutoConfig

    options, fields = read_config(folder)
    base_folder = find_folder(base or fields.get("base_model_name_or_path") or "")
    config = AutoConfig.from_pretrained(base_folder, trust_remote_code=False)
    updates, embeddings = read_adapter(Path(folder), base_folder, empty_model(config))
    if embeddings:
        raise ExportError(
            f"{folder} holds an embedding of its own (tokens were added, or it was trained), which "
            "a GGUF adapter cannot say: merge it with export_gguf"
        )
    return _Adapter(config, options.r, updates)


# --- llama.cpp's own converter --------------------------------------------------------------------
def _run_converter(model, tokenizer, path: Path, dtype: str, adapter, converter) -> Path:
    """convert_hf_to_gguf.py in a process of its own. A model in memory is merged and saved to a
    temporary folder first.
    """
    converter = Path(converter).expanduser()
    if not converter.is_file():
        raise ExportError(
            f"converter={str(converter)!r} does not exist: pass the path of llama.cpp's "
            "convert_hf_to_gguf.py"
        )
    if adapter is not None:
        raise ExportError(
            "adapter and converter exclude each other: load the model, load_adapter, and pass the "
            "model"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary, replacing(path) as partial:
        if isinstance(model, nn.Module):
            folder = _saved(model, tokenizer, Path(temporary))
        else:
            folder = find_folder(model)
        command = [sys.executable, str(converter), str(folder)]
        command += ["--outfile", str(partial), "--outtype", dtype]
        run = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        if run.returncode or not partial.is_file():
            raise ExportError(
                f"{converter.name} failed ({run.returncode}): {run.stderr.strip()[-800:]}"
            )
    return path


def _saved(model: nn.Module, tokenizer, folder: Path) -> Path:
    """The merged model as a checkpoint; it is held a second time while it is written."""
    from safetensors.torch import save_file

    source = from_model(model)
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    merged = {}
    for name in source.shapes:
        values = cast(Tensor, source.load(name).values)  # a model in memory has no StoredRows
        merged[name] = values.to("cpu", dtype).contiguous()
    save_file(merged, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
