"""LoRA adapters as GGUF, for llama.cpp to load beside an unmerged base."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from gguf import GGMLQuantizationType as Type
from torch import Tensor, nn

from ftlib.adapters.lora_layer import lora_layers
from ftlib.adapters.peft_format import read_config
from ftlib.export.errors import ExportError
from ftlib.export.gguf_names import architecture_of, in_file_order
from ftlib.export.gguf_tensors import NewTensor, open_writer, write_tensors
from ftlib.export.source import Weight, find_folder, read_adapter
from ftlib.models.skeleton import check_has_values, empty_model
from ftlib.models.wrapped import plain_name, unwrapped


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
    architecture = architecture_of(adapter.config)
    tensors = list(_adapter_tensors(adapter, architecture))
    with open_writer(path, architecture) as writer:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.scaling * adapter.r)
        write_tensors(writer, path, tensors)
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


def _adapter_tensors(adapter: _Adapter, architecture: gguf.MODEL_ARCH) -> Iterator[NewTensor]:
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
        yield _factor(f"{there}.lora_b", in_file_order(name, B, config))


def _factor(name: str, factor: Tensor) -> NewTensor:
    def make() -> Weight:
        return Weight(factor.detach().float())

    return NewTensor(name, Type.F32, factor.shape, make)


def _adapter_of_model(model: nn.Module) -> _Adapter:
    layers = lora_layers(model)
    if not layers:
        raise ExportError("model has no adapter of ftlib: call add_lora or load_adapter first")
    check_has_values(model, "export_adapter_gguf", ExportError)
    updates = {}
    for name, layer in layers.items():
        magnitude = layer.lora_magnitude_vector if layer.use_dora else None
        weight = f"{plain_name(unwrapped(model), name)}.weight"
        updates[weight] = (layer.lora_A, layer.lora_B, layer.scaling, magnitude)
    inner = unwrapped(model)
    return _Adapter(inner.config, inner.adapter_config.r, updates)


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
