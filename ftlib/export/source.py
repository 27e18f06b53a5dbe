"""Where an export's weights come from: a model or a checkpoint folder; one tensor at a time,
adapters merged on the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ftlib.adapters.functional import dense_weight, merged_weight
from ftlib.adapters.io import (
    WEIGHTS,
    base_name,
    check_tensors,
    expected_shapes,
    read_config,
    read_tensors,
    tensor_names,
)
from ftlib.adapters.lora import LoRALinear, lora_layers, target_names
from ftlib.core.paths import resolve
from ftlib.export.errors import ExportError
from ftlib.models.load import check_folder, quantised_already
from ftlib.models.nf4 import dequantize_packed
from ftlib.models.skeleton import empty_model, shapes_of

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class StoredRows:
    """A matrix that stays in its file and is read some rows at a time: the embedding of 128k tokens
    is a fifth of a 1B model.
    """

    file: Path
    name: str
    shape: torch.Size

    def split(self, count: int) -> Iterator[Tensor]:
        """The rows, `count` at a time. The file is opened anew for each part, as `_read` says."""
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

    config: object
    name: str
    shapes: dict[str, torch.Size]
    load: Callable[[str], Weight]
    packed: int  # weights that are stored in 4 bits and dequantised on the way
    stops: list[int]  # the token ids that end generation


def open_source(model, adapter=None) -> Source:
    """A model, or the name or folder of a checkpoint with an optional adapter folder, as a Source."""
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
    if (
        not folder.exists()
        and str(name).count("/") == 1
        and not str(name).startswith((".", "~", "/"))
    ):
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


def gguf_name(folder: Path) -> str:
    """What the model is called: the folder's name, or in the Hub's cache the repository's."""
    return next(
        (part.rpartition("--")[2] for part in folder.parts if part.startswith("models--")),
        folder.name,
    )


def _stops(config, generation) -> list[int]:
    ids = getattr(generation, "eos_token_id", None)
    ids = getattr(config, "eos_token_id", None) if ids is None else ids
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def _merge(
    weight: Tensor, A: Tensor, B: Tensor, scaling: float, magnitude: Tensor | None
) -> Weight:
    with torch.no_grad():
        merged = merged_weight(weight, A, B, scaling, magnitude)
        return Weight(
            merged, torch.linalg.vector_norm(merged - weight, dtype=torch.float32).item() ** 2
        )


# --- a model in memory ----------------------------------------------------------------------------
def from_model(model: nn.Module) -> Source:
    """ftlib's adapters are merged into copies of the weights, one at a time; the model is left as
    it is.
    """
    shapes, layers = shapes_of(empty_model(model.config)), lora_layers(model)
    own = {
        f"{name}.{p}"
        for name, layer in layers.items()
        for p, _ in layer.named_parameters(recurse=False)
    }
    there = {
        name.replace(".base_layer.", ".") for name, _ in model.named_parameters() if name not in own
    }
    if there != shapes.keys():
        odd = sorted(there ^ shapes.keys())[0]
        raise ExportError(
            f"the model {'has' if odd in there else 'lacks'} {odd!r}: only LoRA and DoRA layers "
            "of ftlib can be "
            f"merged on the "
            "way; of a PEFT model pass model.merge_and_unload(), and remove other adapters"
        )
    if HEAD not in shapes and "lm_head" in layers:  # tied, but with an adapter of its own
        shapes[HEAD] = shapes[EMBEDDING]
    packed = sum(hasattr(p, "quant_state") for p in model.parameters())
    name = Path(base_name(model)).name or model.config.model_type
    return Source(
        model.config,
        name,
        shapes,
        lambda name: _from_module(model, name),
        packed,
        _stops(model.config, getattr(model, "generation_config", None)),
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
    values = getattr(module, attribute).detach()
    state = getattr(values, "quant_state", None) or getattr(
        getattr(module, attribute), "quant_state", None
    )
    return Weight(values if state is None else dense_weight(values.data, state, state.dtype))


# --- a folder -------------------------------------------------------------------------------------
def _files(folder: Path) -> dict[str, Path]:
    """Name of every stored tensor -> its file."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return {
            name: folder / file
            for name, file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()
        }
    with safe_open(folder / "model.safetensors", "pt") as file:
        return dict.fromkeys(file.keys(), folder / "model.safetensors")


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
    parts = {
        name for name in files if name.partition(".weight.")[0] + ".weight" in packed
    }  # their scales and tables
    names = {n for n in files.keys() - parts if not n.endswith("rotary_emb.inv_freq")} - (
        {HEAD} - shapes.keys()
    )
    if names != shapes.keys():
        odd = sorted(names ^ shapes.keys())[0]
        raise ExportError(
            f"{folder} {'has' if odd in names else 'lacks'} {odd!r}, which does not fit its "
            "config.json: download "
            f"or copy it again"
        )
    for name in names - packed:
        with safe_open(files[name], "pt") as file:
            stored = tuple(file.get_slice(name).get_shape())
        if stored != tuple(shapes[name]):
            raise ExportError(
                f"{files[name]}: {name} has shape {stored}, config.json asks for "
                f"{tuple(shapes[name])}"
            )
    return packed


def _read_packed(files: dict[str, Path], name: str) -> Tensor:
    from bitsandbytes.functional import QuantState

    parts = {n: _read(files[n], n) for n in files if n.startswith(f"{name}.")}
    state = QuantState.from_dict(parts, device="cpu")
    return dequantize_packed(_read(files[name], name), state)


def read_adapter(adapter: Path, folder: Path, skeleton: nn.Module) -> dict[str, tuple]:
    """Name of every adapted weight -> (A, B, scaling, magnitude or None). The adapter is small: all
    of it is read.
    """
    config, fields = read_config(adapter)
    recorded = fields.get("base_model_name_or_path") or ""
    if recorded and Path(recorded).name != gguf_name(folder):
        raise ExportError(
            f"{adapter}: trained on {recorded!r}, not on {folder}: pass that base, or the folder "
            "under its name"
        )
    tensors, names = read_tensors(adapter), target_names(skeleton, config.target_modules)
    check_tensors(tensors, expected_shapes(skeleton, names, config), adapter / WEIGHTS)
    keys = {name: tensor_names(name, config.use_dora) for name in names}
    part = lambda name, attribute: tensors[keys[name][attribute]].float()  # noqa: E731
    return {
        f"{name}.weight": (
            part(name, "lora_A"),
            part(name, "lora_B"),
            config.scaling,
            part(name, "lora_magnitude_vector") if config.use_dora else None,
        )
        for name in names
    }


def from_folder(folder: Path, adapter=None) -> Source:
    """A checkpoint in safetensors, sharded or not, in 16, 32 or bitsandbytes' 4 bits; and an
    adapter folder to merge into it.
    """
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    quantised_already(str(folder))
    skeleton = empty_model(config)
    shapes, files = shapes_of(skeleton), _files(folder)
    packed = _check_stored(files, shapes, folder)
    updates = {} if adapter is None else read_adapter(Path(adapter), folder, skeleton)
    if HEAD in updates and HEAD not in shapes:  # tied, but with an adapter of its own
        shapes[HEAD] = shapes[EMBEDDING]
        files[HEAD] = files[EMBEDDING]
    tied = {HEAD: EMBEDDING} if config.tie_word_embeddings else {}

    def load(name: str) -> Weight:
        stored = tied.get(name, name)
        if name in (EMBEDDING, HEAD) and name not in updates and stored not in packed:
            return Weight(StoredRows(files[stored], stored, shapes[name]))
        values = _read_packed(files, stored) if stored in packed else _read(files[stored], stored)
        return _merge(values, *updates[name]) if name in updates else Weight(values)

    generation = (
        GenerationConfig.from_pretrained(folder)
        if (folder / "generation_config.json").is_file()
        else None
    )
    return Source(config, gguf_name(folder), shapes, load, len(packed), _stops(config, generation))
