"""Where an export's weights come from: a model or a checkpoint folder; one tensor at a time,
adapters merged on the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ftlib.adapters.embeddings import embedding_weights, take_embeddings
from ftlib.adapters.functional import dense_weight, merged_weight
from ftlib.adapters.lora_layer import LoRALinear, lora_layers
from ftlib.adapters.peft_format import (
    PREFIX,
    WEIGHTS,
    OtherAdapterError,
    check_embeddings,
    check_kinds,
    check_tensors,
    expected_shapes,
    read_config,
    read_fields,
    read_tensors,
    tensor_names,
)
from ftlib.adapters.targets import target_names
from ftlib.batches.stops import configured_stops
from ftlib.core.paths import name_of, resolve
from ftlib.export.errors import ExportError
from ftlib.export.peft_merge import merge_by_peft
from ftlib.models.load import base_name, check_folder, quantised_already
from ftlib.models.nf4 import dequantize_packed
from ftlib.models.skeleton import check_has_values, empty_model, shapes_of
from ftlib.models.wrapped import plain_name, unwrapped

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@dataclass(frozen=True)
class StoredRows:
    """A matrix that stays in its file and is read some rows at a time: the embedding of 128k tokens
    is a fifth of a 1B model.
    """

    file: Path
    name: str
    shape: torch.Size

    def split(self, count: int) -> Iterator[Tensor]:
        """The rows, `count` at a time. The file is opened again for each part, as `_read` says."""
        for start in range(0, self.shape[0], count):
            with safe_open(self.file, "pt") as opened:
                yield opened.get_slice(self.name)[start : start + count]


@dataclass(frozen=True)
class Weight:
    """A weight (on any device, in any float dtype), and where an adapter was merged into it the
    squared norm of the update.
    """

    values: Tensor | StoredRows
    update: float | None = None


@dataclass(frozen=True)
class Source:
    """A model's weights by transformers' names: `load(name)` makes one, and keeps none."""

    config: Any  # transformers' configuration of the architecture
    name: str
    shapes: dict[str, torch.Size]
    load: Callable[[str], Weight]
    packed: int  # weights that are stored in 4 bits and dequantised on the way
    stops: list[int]  # the token ids that end generation


def open_source(model, adapter=None) -> Source:
    """A model, or a checkpoint by name or folder with an optional adapter folder, as a Source."""
    if not isinstance(model, nn.Module):
        return from_folder(find_folder(model), adapter)
    if adapter is not None:
        raise ExportError(
            f"adapter={str(adapter)!r} goes with a checkpoint folder: put it on the model with "
            "load_adapter instead"
        )
    return from_model(model)


def find_folder(name) -> Path:
    """The folder of a checkpoint: a path, the embedded model's name, or a Hub id that is in the
    cache.
    """
    folder = Path(resolve(name)).expanduser()
    if not folder.exists() and _may_be_hub_id(str(name)):
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(str(name), local_files_only=True))
        except OSError:
            raise ExportError(
                f"{name!r} is neither a folder nor a Hub model in the cache: load it once with "
                "load_model"
            ) from None
    check_folder(folder)
    return folder


def _may_be_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "~", "/"))


def gguf_name(folder: Path) -> str:
    """What the model is called: a profile's name for the folder, or the folder's own; in the Hub's
    cache the repository's.
    """
    for part in folder.parts:
        if part.startswith("models--"):
            return part.rpartition("--")[2]
    return Path(name_of(folder)).name


@torch.no_grad()
def _merge(
    weight: Tensor, A: Tensor, B: Tensor, scaling: float, magnitude: Tensor | None
) -> Weight:
    merged = merged_weight(weight, A, B, scaling, magnitude)
    norm = torch.linalg.vector_norm(merged - weight, dtype=torch.float32).item()
    return Weight(merged, update=norm**2)


# --- a model in memory ----------------------------------------------------------------------------
def from_model(model: nn.Module) -> Source:
    """ftlib's adapters are merged into copies of the weights, one at a time; the model is left as
    it is. ExportError for weights on the meta device, and for other parameters than the base's.
    """
    model = unwrapped(model)
    check_has_values(model, "export", ExportError)
    shapes = shapes_of(empty_model(model.config))
    layers = lora_layers(model)
    _check_parameters(model, layers, shapes)
    if HEAD not in shapes and "lm_head" in layers:  # tied, but with an adapter of its own
        shapes[HEAD] = shapes[EMBEDDING]

    def load(name: str) -> Weight:
        return _from_module(model, name)

    return Source(
        config=model.config,
        name=Path(base_name(model)).name or model.config.model_type,
        shapes=shapes,
        load=load,
        packed=sum(hasattr(p, "quant_state") for p in model.parameters()),
        stops=configured_stops(getattr(model, "generation_config", None), model.config),
    )


def _check_parameters(
    model: nn.Module, layers: dict[str, LoRALinear], shapes: dict[str, torch.Size]
) -> None:
    """Refuse a model that has other parameters than the base's and those of ftlib's layers."""
    of_adapters = set()
    for name, layer in layers.items():
        of_adapters |= {f"{name}.{p}" for p, _ in layer.named_parameters(recurse=False)}
    of_base = {name for name, _ in model.named_parameters() if name not in of_adapters}
    names = {plain_name(model, name).replace(".base_layer.", ".") for name in of_base}
    if names != shapes.keys():
        odd = min(names ^ shapes.keys())
        raise ExportError(
            f"the model {'has' if odd in names else 'lacks'} {odd!r}: only LoRA and DoRA layers of "
            "ftlib can be merged on the way; of a PEFT model pass model.merge_and_unload(), and "
            "remove other adapters"
        )


def _from_module(model: nn.Module, name: str) -> Weight:
    owner, _, attribute = name.rpartition(".")
    module = model.get_submodule(owner)
    if isinstance(module, LoRALinear):
        if attribute == "weight" and module.enabled and not module.merged:
            magnitude = module.lora_magnitude_vector if module.use_dora else None
            return _merge(
                module.dense_weight(), module.lora_A, module.lora_B, module.scaling, magnitude
            )
        module = module.base_layer
    parameter = getattr(module, attribute)
    values = parameter.detach()
    state = getattr(values, "quant_state", None) or getattr(parameter, "quant_state", None)
    if state is None:
        return Weight(values)
    return Weight(dense_weight(values.data, state, state.dtype))


# --- a folder -------------------------------------------------------------------------------------
def _files(folder: Path) -> dict[str, Path]:
    """Name of every stored tensor -> its file."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in weight_map.items()}
    single = folder / "model.safetensors"
    with safe_open(single, "pt") as file:
        return dict.fromkeys(file.keys(), single)


def _read(file: Path, name: str) -> Tensor:
    """One tensor. The file is opened for it alone: pages of a mapped file count as this process's
    memory until it is closed.
    """
    with safe_open(file, "pt") as opened:
        return opened.get_tensor(name)


def _check_stored(files: dict[str, Path], shapes: dict[str, torch.Size], folder: Path) -> set[str]:
    """Refuse a checkpoint with missing, extra or misshapen weights; returns the names of those in 4
    bits.
    """
    packed = {name.partition(".quant_state.")[0] for name in files if ".quant_state." in name}
    names = {name for name in files if _is_weight(name, packed)}
    if HEAD not in shapes:  # a tied head may be stored all the same
        names.discard(HEAD)
    if names != shapes.keys():
        odd = min(names ^ shapes.keys())
        raise ExportError(
            f"{folder} {'has' if odd in names else 'lacks'} {odd!r}, which does not fit its "
            "config.json: download or copy it again"
        )
    for name in names - packed:
        with safe_open(files[name], "pt") as file:
            stored = tuple(file.get_slice(name).get_shape())
        wanted = tuple(shapes[name])
        if stored != wanted:
            raise ExportError(
                f"{files[name]}: {name} has shape {stored}, config.json asks for {wanted}"
            )
    return packed


def _is_weight(name: str, packed: set[str]) -> bool:
    """Not a scale or table of a 4-bit weight, and not a buffer that old checkpoints store."""
    owner = name.partition(".weight.")[0] + ".weight"
    return owner not in packed and not name.endswith("rotary_emb.inv_freq")


def _read_packed(files: dict[str, Path], name: str) -> Tensor:
    from bitsandbytes.functional import QuantState

    parts = {n: _read(files[n], n) for n in files if n.startswith(f"{name}.")}
    state = QuantState.from_dict(parts, device="cpu")
    return dequantize_packed(_read(files[name], name), state)


def _check_base(adapter: Path, folder: Path) -> None:
    """ExportError where an adapter names another base than the folder."""
    recorded = read_fields(adapter).get("base_model_name_or_path") or ""
    if recorded and Path(name_of(recorded)).name != gguf_name(folder):
        raise ExportError(
            f"{adapter}: trained on {recorded!r}, not on {folder}: pass that base, or the folder "
            "under its name"
        )


def read_adapter(
    adapter: Path, folder: Path, skeleton: nn.Module
) -> tuple[dict[str, tuple], dict[str, Tensor]]:
    """(name of every adapted weight -> (A, B, scaling, magnitude or None); the embedding and head
    that the adapter has of its own, by name). The adapter is small: all of it is read.
    OtherAdapterError for a kind that ftlib does not implement.
    """
    _check_base(adapter, folder)
    config, _ = read_config(adapter)
    tensors = read_tensors(adapter)
    embeddings = take_embeddings(tensors, PREFIX, skeleton)
    check_kinds(tensors, adapter / WEIGHTS)
    check_embeddings(embeddings, embedding_weights(skeleton), adapter / WEIGHTS)
    names = target_names(skeleton, config.target_modules)
    check_tensors(tensors, expected_shapes(skeleton, names, config), adapter / WEIGHTS)
    updates = {}
    for name in names:
        keys = tensor_names(name, config.use_dora)
        A = tensors[keys["lora_A"]].float()
        B = tensors[keys["lora_B"]].float()
        magnitude = None
        if config.use_dora:
            magnitude = tensors[keys["lora_magnitude_vector"]].float()
        updates[f"{name}.weight"] = (A, B, config.scaling, magnitude)
    return updates, embeddings


def from_folder(folder: Path, adapter=None) -> Source:
    """A checkpoint in safetensors, sharded or not, in 16, 32 or bitsandbytes' 4 bits; and an
    adapter folder to merge into it; one of a kind that ftlib does not implement is merged by PEFT.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    quantised_already(str(folder))
    skeleton = empty_model(config)
    shapes = shapes_of(skeleton)
    files = _files(folder)
    packed = _check_stored(files, shapes, folder)
    updates: dict[str, tuple] = {}
    embeddings: dict[str, Tensor] = {}
    if adapter is not None:
        try:
            updates, embeddings = read_adapter(Path(adapter), folder, skeleton)
        except OtherAdapterError as other:
            merged = from_model(merge_by_peft(folder, Path(adapter), str(other)))
            return replace(merged, name=gguf_name(folder), packed=len(packed))
    for name, tensor in embeddings.items():  # resized or trained with the adapter
        config.vocab_size = len(tensor)
        shapes[name] = tensor.shape
    if HEAD in updates and HEAD not in shapes:  # tied, but with an adapter of its own
        shapes[HEAD] = shapes[EMBEDDING]
        files[HEAD] = files[EMBEDDING]
    tied = {HEAD: EMBEDDING} if config.tie_word_embeddings else {}

    def load(name: str) -> Weight:
        stored = tied.get(name, name)
        if stored in embeddings:
            values = embeddings[stored]
            return _merge(values, *updates[name]) if name in updates else Weight(values)
        if name in (EMBEDDING, HEAD) and name not in updates and stored not in packed:
            return Weight(StoredRows(files[stored], stored, shapes[name]))
        values = _read_packed(files, stored) if stored in packed else _read(files[stored], stored)
        if name in updates:
            return _merge(values, *updates[name])
        return Weight(values)

    return Source(
        config=config,
        name=gguf_name(folder),
        shapes=shapes,
        load=load,
        packed=len(packed),
        stops=_stops(folder, config),
    )


def _stops(folder: Path, config) -> list[int]:
    """The ids at which a checkpoint's own configuration ends generation."""
    from transformers import GenerationConfig

    generation = None
    if (folder / "generation_config.json").is_file():
        generation = GenerationConfig.from_pretrained(folder)
    return configured_stops(generation, config)
