"""Llama and Qwen models as GGUF, and LoRA adapters: each tensor is read, merged, cast and written
before the next is touched.

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md. Tensors equal those of llama.cpp's
convert_hf_to_gguf.py bit for bit.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor, nn
from tqdm.auto import tqdm

from ftlib.adapters.io import read_config
from ftlib.adapters.lora import lora_layers
from ftlib.export.errors import ExportError
from ftlib.export.source import Source, Weight, find_folder, open_source, read_adapter
from ftlib.export.vocabulary import read_vocabulary
from ftlib.models.load import ready_tokenizer
from ftlib.models.skeleton import empty_model

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
INFINITY = {
    torch.float32: 0x7F800000,
    torch.float16: 0x7C00,
    torch.bfloat16: 0x7F80,
}  # its bits; NaNs lie above
CHUNK = 1 << 22  # weights that are cast and written at a time: 16 MB in fp32


def export_gguf(model, tokenizer, path, dtype: str = "f16", adapter=None, converter=None) -> Path:
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
        tokenizer = ready_tokenizer(str(find_folder(model)))
    architecture = _architecture(source.config)
    vocabulary = read_vocabulary(tokenizer, source.config.vocab_size, source.stops)
    with writing(path) as partial:
        writer = gguf.GGUFWriter(partial, gguf.MODEL_ARCH_NAMES[architecture])
        try:
            _describe(writer, source, DTYPES[dtype][1])
            vocabulary.write(writer)
            _write_tensors(
                writer, path, list(_tensors(source, architecture, DTYPES[dtype][0])), source.packed
            )
        finally:
            writer.close()
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its name when all went well, and is deleted when not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_disk(path: Path, need: float) -> None:
    free = shutil.disk_usage(path.parent).free
    if need > free:
        raise ExportError(
            f"{path} needs {need / 1e9:.2f} GB of disk, {free / 1e9:.2f} GB are free: choose "
            "another disk or a "
            f"smaller type"
        )


# --- what the file says of the model --------------------------------------------------------------
def _architecture(config) -> gguf.MODEL_ARCH:
    """The GGUF architecture of a transformers config; refuses what this writer would get wrong."""
    kind, rope = config.model_type, config.rope_parameters
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
            "--outtype f16`, "
            "or name it here, converter='…/convert_hf_to_gguf.py'"
        )
    return ARCHITECTURES[kind]


def _head_dim(config) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _describe(writer: gguf.GGUFWriter, source: Source, file_type: gguf.LlamaFileType) -> None:
    config, head = source.config, _head_dim(source.config)
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
    rope, dim = config.rope_parameters, _head_dim(config)
    if rope.get("rope_type", "default") != "llama3":
        return None
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    turns = rope["original_max_position_embeddings"] / (
        2 * math.pi / frequencies
    )  # in the original context
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
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
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(
        name.split(".")[-2]
    )
    return rotary_pairs(weight, heads) if heads and config.model_type == "llama" else weight


def _tensors(source: Source, architecture: gguf.MODEL_ARCH, kind: Type):
    """(name in the file, its type, shape, function that makes the Weight) of every tensor, in the
    file's order.
    """
    names = gguf.get_tensor_name_map(architecture, source.config.num_hidden_layers)
    factors = rope_factors(source.config)
    if factors is not None:
        yield "rope_freqs.weight", Type.F32, factors.shape, lambda: Weight(factors)
    for name, shape in source.shapes.items():
        own = Type.F32 if len(shape) == 1 else kind
        if shape[-1] % gguf.GGML_QUANT_SIZES[own][0]:
            raise ExportError(
                f"{name} has rows of {shape[-1]} weights, q8_0 takes multiples of 32: use "
                "dtype='f16'"
            )
        yield (
            names.get_name(name, try_suffixes=(".weight", ".bias")),
            own,
            shape,
            lambda name=name: _load(source, name),
        )


def _load(source: Source, name: str) -> Weight:
    weight = source.load(name)
    return Weight(_ordered(name, weight.values, source.config), weight.update)


def _write_tensors(writer: gguf.GGUFWriter, path: Path, tensors: list, packed: int = 0) -> None:
    sizes = [
        math.prod(shape) * gguf.GGML_QUANT_SIZES[kind][1] // gguf.GGML_QUANT_SIZES[kind][0]
        for _, kind, shape, _ in tensors
    ]
    check_disk(path, 1.01 * sum(sizes) + 2e7)  # 20 MB for vocabulary and names
    for (name, kind, shape, _), size in zip(tensors, sizes):
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    out, update, rounding = writer.fout[0], 0.0, 0.0
    with tqdm(
        total=sum(sizes), unit="B", unit_scale=True, desc=path.name, disable=sum(sizes) < 1e8
    ) as bar:
        for name, kind, _, make in tensors:
            writer.write_padding(out, out.tell())
            weight = make()
            for stored, lost in _stored(weight, kind, name):
                out.write(stored)
                bar.update(stored.nbytes)
                rounding += lost
            update += weight.update or 0.0
        writer.write_padding(out, out.tell())
    _report(path, max(tensors, key=lambda t: math.prod(t[2]))[1].name, update, rounding, packed)


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
            "export merge the adapter "
            "into the "
            "16-bit base: export_gguf(folder, tokenizer, path, adapter=…)",
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
    for rows in values.split(max(1, CHUNK // math.prod(values.shape[1:]))):
        rows = rows.to("cpu").contiguous()
        kept = rows.to(TORCH.get(kind, torch.float32))
        if not _finite(kept):
            wide = torch.isfinite(rows).all()
            raise ExportError(
                f"{name} "
                + (
                    f"exceeds the range of {kind.name}: use dtype='bf16'"
                    if wide
                    else "has NaN or infinite values"
                )
            )
        if kind == Type.Q8_0:
            data = gguf.quants.quantize(kept.numpy(), kind)
            kept = (
                torch.from_numpy(gguf.quants.dequantize(data, kind))
                if weight.update is not None
                else kept
            )
        else:
            data = kept.view(torch.uint8).numpy()
        lost = (
            0.0
            if weight.update is None
            else torch.linalg.vector_norm(kept.float() - rows.float()).item() ** 2
        )
        yield data, lost


# --- adapters -------------------------------------------------------------------------------------
def export_adapter_gguf(model_or_folder, path, base=None) -> Path:
    """Write a LoRA adapter as GGUF, for llama.cpp or Ollama to load beside an unmerged base;
    returns its path.

    model_or_folder: a model with ftlib's LoRA layers, or an adapter folder; `base` is then the
    base's folder or name (default: the one that the adapter names). llama.cpp scales BA by alpha/r,
    so alpha is written as s·r, which is right for rsLoRA too. A and B are fp32. ExportError for
    DoRA, whose row scaling the format cannot hold: merge it with export_gguf.
    """
    path = Path(path).expanduser()
    in_memory = isinstance(model_or_folder, nn.Module)
    config, r, updates = (
        _adapter_of_model(model_or_folder)
        if in_memory
        else _adapter_of_folder(model_or_folder, base)
    )
    architecture = _architecture(config)
    names, tensors = gguf.get_tensor_name_map(architecture, config.num_hidden_layers), []
    for name, (A, B, scaling, magnitude) in updates.items():
        if magnitude is not None:
            raise ExportError(
                "a DoRA adapter rescales rows, which a GGUF adapter cannot say: merge it with "
                "export_gguf"
            )
        if name == "lm_head.weight" and config.tie_word_embeddings:
            raise ExportError(
                "the adapter changes lm_head, which is tied to the embeddings and so not in the "
                "base file: merge "
                "it with export_gguf"
            )
        there = names.get_name(name, try_suffixes=(".weight",))
        for suffix, factor in (("lora_a", A), ("lora_b", _ordered(name, B, config))):
            tensors.append(
                (
                    f"{there}.{suffix}",
                    Type.F32,
                    factor.shape,
                    lambda factor=factor: Weight(factor.detach().float()),
                )
            )
    with writing(path) as partial:
        writer = gguf.GGUFWriter(partial, gguf.MODEL_ARCH_NAMES[architecture])
        try:
            writer.add_type(gguf.GGUFType.ADAPTER)
            writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
            writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, scaling * r)
            _write_tensors(writer, path, tensors)
        finally:
            writer.close()
    return path


def _adapter_of_model(model: nn.Module):
    layers = lora_layers(model)
    if not layers:
        raise ExportError("model has no adapter of ftlib: call add_lora or load_adapter first")
    updates = {
        f"{name}.weight": (
            m.lora_A,
            m.lora_B,
            m.scaling,
            m.lora_magnitude_vector if m.use_dora else None,
        )
        for name, m in layers.items()
    }
    return model.config, model.adapter_config.r, updates


def _adapter_of_folder(adapter, base):
    from transformers import AutoConfig

    options, fields = read_config(adapter)
    folder = find_folder(base or fields.get("base_model_name_or_path") or "")
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return config, options.r, read_adapter(Path(adapter), folder, empty_model(config))


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
    with tempfile.TemporaryDirectory(dir=_parent(path)) as temporary, writing(path) as partial:
        folder = (
            _saved(model, tokenizer, Path(temporary))
            if isinstance(model, nn.Module)
            else find_folder(model)
        )
        run = subprocess.run(
            [
                sys.executable,
                str(converter),
                str(folder),
                "--outfile",
                str(partial),
                "--outtype",
                dtype,
            ],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        if run.returncode or not partial.is_file():
            raise ExportError(
                f"{converter.name} failed ({run.returncode}): {run.stderr.strip()[-800:]}"
            )
    return path


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent


def _saved(model: nn.Module, tokenizer, folder: Path) -> Path:
    """The merged model as a checkpoint; it is held a second time while it is written."""
    from ftlib.export.source import from_model

    source = from_model(model)
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    from safetensors.torch import save_file

    merged = {
        name: source.load(name).values.to("cpu", dtype).contiguous() for name in source.shapes
    }
    save_file(merged, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
