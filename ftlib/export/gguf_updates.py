"""What an adapter, in PEFT's format or as GGUF, does to the tensors of a GGUF file."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path

import gguf
import torch
from torch import Tensor

from ftlib.adapters.lora_layer import AdapterConfig
from ftlib.adapters.peft_format import PREFIX, WEIGHTS, OtherAdapterError, read_config, read_tensors
from ftlib.export.errors import ExportError
from ftlib.export.gguf_base import GgufBase, StoredTensor
from ftlib.export.gguf_file import read_gguf
from ftlib.export.gguf_names import ARCHITECTURES, in_file_order
from ftlib.export.trained import find_adapter

HEAD = "output.weight"
A_KEY = ".lora_A.weight"
B_KEY = ".lora_B.weight"
MAGNITUDE_KEY = ".lora_magnitude_vector"
# Options of PEFT's LoRA that only choose layers, ranks and scales: the tensors show the first two.
BY_LAYER = (
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layers_pattern",
    "exclude_modules",
)


@dataclass(frozen=True)
class Update:
    """``W + scaling·BA``, A (r, in), B (out, r) in fp32; for DoRA its rows have then the lengths
    `magnitude` (out,). Rows are in the file's order.
    """

    A: Tensor
    B: Tensor
    scaling: float
    magnitude: Tensor | None = None

    def rows(self, start: int, end: int) -> Update:
        """The same of some of W's rows alone."""
        magnitude = None if self.magnitude is None else self.magnitude[start:end]
        return Update(self.A, self.B[start:end], self.scaling, magnitude)


@dataclass(frozen=True)
class _Attention:
    """What the order of a file's rows depends on, by the names of transformers' configurations."""

    model_type: str
    num_attention_heads: int
    num_key_value_heads: int


def read_updates(adapter: str | os.PathLike, base: GgufBase) -> dict[str, Update]:
    """{name of a tensor of the base: what the adapter does to it}, all of it checked against the
    base. `adapter`: a run's folder, an adapter folder or an adapter GGUF.
    """
    if base.architecture not in ARCHITECTURES:
        raise ExportError(
            f"{base.parts[0]} is of the architecture {base.architecture!r}: adapters are merged "
            f"into {', '.join(ARCHITECTURES)}; merge into the checkpoint, and convert that with "
            "llama.cpp's convert_hf_to_gguf.py"
        )
    adapter = Path(adapter).expanduser()
    if adapter.is_file():
        updates = _of_gguf(adapter, base)
    else:
        folder, _ = find_adapter(adapter)
        updates = _of_folder(folder, base)
    stored = {tensor.name: tensor for tensor in base.tensors}
    for name, update in updates.items():
        _check(name, update, stored, adapter, base)
    return updates


def _check(
    name: str, update: Update, stored: dict[str, StoredTensor], adapter: Path, base: GgufBase
) -> None:
    """ExportError unless the base has such a tensor, of the update's shape, and all is finite."""
    if name not in stored:
        if name == HEAD:
            raise ExportError(
                f"{adapter} changes lm_head, which in {base.parts[0]} is tied to the embeddings: "
                "merge it into the checkpoint with export_gguf, which gives the head a weight of "
                "its own"
            )
        raise ExportError(f"{adapter} changes {name}, which {base.parts[0]} lacks")
    tensor = stored[name]
    shape = (update.B.shape[0], update.A.shape[1])
    if tensor.shape != shape:
        raise ExportError(
            f"{adapter} changes {name} by a matrix of shape {shape}, that of {base.parts[0]} has "
            f"{tensor.shape}: is this the base model that the adapter was trained on?"
        )
    for values in (update.A, update.B, update.magnitude):
        if values is not None and not torch.isfinite(values).all():
            raise ExportError(f"{adapter}: what it does to {name} has NaN or infinite values")


# --- PEFT's format --------------------------------------------------------------------------------
def _config_of(folder: Path) -> tuple[AdapterConfig, dict]:
    try:
        return read_config(folder, also=BY_LAYER)
    except OtherAdapterError as other:
        raise ExportError(
            f"{other}: into a GGUF go low-rank updates of its matrices alone; merge the adapter "
            "into the checkpoint with export_gguf (leave `into` out), where PEFT does it"
        ) from None


def _check_layer(module: str, fields: dict, folder: Path) -> None:
    """ExportError for a tensor of a layer that the adapter's own fields leave out."""
    chosen = fields.get("layers_to_transform")
    found = re.search(r"\.layers\.(\d+)\.", module)
    if chosen is None or chosen == [] or found is None:
        return
    layers = [chosen] if isinstance(chosen, int) else list(chosen)
    if int(found[1]) not in layers:
        raise ExportError(
            f"{folder / WEIGHTS} holds {module}, a layer that layers_to_transform={chosen!r} "
            "leaves out: copy the adapter again"
        )


def _with_own_rank(
    config: AdapterConfig, fields: dict, module: str, r: int, folder: Path
) -> AdapterConfig:
    """The options of one module, of rank r. A pattern stands for a name's end, the first that fits
    counts, as in PEFT.
    """
    alpha = config.lora_alpha
    try:
        for pattern, value in (fields.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
                break
        return dataclasses.replace(config, r=r, lora_alpha=alpha)
    except (re.error, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"{folder}: alpha_pattern of {module}: {error}") from None


def _of_folder(folder: Path, base: GgufBase) -> dict[str, Update]:
    config, fields = _config_of(folder)
    tensors = read_tensors(folder)
    names = gguf.get_tensor_name_map(ARCHITECTURES[base.architecture], base.number("block_count"))
    attention = _attention(base)
    updates = {}
    for module in _modules(tensors, folder, config.use_dora):
        _check_layer(module, fields, folder)
        there = names.get_name(module)
        if there is None:
            raise ExportError(
                f"{folder / WEIGHTS}: {module} has no tensor of its own in a GGUF of "
                f"{base.architecture!r}: is this the base model that the adapter was trained on?"
            )
        A = tensors[PREFIX + module + A_KEY].float()
        B = tensors[PREFIX + module + B_KEY].float()
        r = len(A) if fields.get("rank_pattern") else config.r
        if len(A) != r or B.shape[1] != r:
            raise ExportError(
                f"{folder / WEIGHTS}: {module} has A {tuple(A.shape)} and B {tuple(B.shape)}, the "
                f"rank is {r}"
            )
        own = _with_own_rank(config, fields, module, r, folder)
        magnitude = None
        if config.use_dora:
            magnitude = tensors[PREFIX + module + MAGNITUDE_KEY].float()
            magnitude = in_file_order(f"{module}.weight", magnitude, attention)
        B = in_file_order(f"{module}.weight", B, attention)
        updates[f"{there}.weight"] = Update(A, B, own.scaling, magnitude)
    return updates


def _attention(base: GgufBase) -> _Attention:
    heads = base.number("attention.head_count")
    has_groups = f"{base.architecture}.attention.head_count_kv" in base.fields
    groups = base.number("attention.head_count_kv") if has_groups else heads
    return _Attention(base.architecture, heads, groups)


def _modules(tensors: dict[str, Tensor], folder: Path, use_dora: bool) -> list[str]:
    """The modules that have an A, a B and for DoRA a magnitude each. ExportError for a tensor that
    is none of these, and for one without its others.
    """
    suffixes = [A_KEY, B_KEY, MAGNITUDE_KEY] if use_dora else [A_KEY, B_KEY]
    modules: dict[str, set[str]] = {}
    for key in tensors:
        suffix = next((suffix for suffix in suffixes if key.endswith(suffix)), None)
        if suffix is None or not key.startswith(PREFIX):
            raise ExportError(
                f"{folder / WEIGHTS} holds {key}, which is no low-rank update of a matrix: merge "
                "the adapter into the checkpoint with export_gguf (leave `into` out)"
            )
        module = key.removeprefix(PREFIX).removesuffix(suffix)
        modules.setdefault(module, set()).add(suffix)
    for module, found in modules.items():
        if lacking := sorted(set(suffixes) - found):
            raise ExportError(f"{folder / WEIGHTS} lacks {PREFIX}{module}{lacking[0]}")
    if not modules:
        raise ExportError(f"{folder / WEIGHTS} holds no tensor: copy the adapter again")
    return list(modules)


# --- GGUF -----------------------------------------------------------------------------------------
def _of_gguf(file: Path, base: GgufBase) -> dict[str, Update]:
    """llama.cpp scales BA by alpha/r, and by 1 where alpha is 0."""
    reader = read_gguf(file)
    fields = {}
    for key, field in reader.fields.items():
        if field.types[0] != gguf.GGUFValueType.ARRAY:
            fields[key] = field.contents()
    kind = fields.get("adapter.type")
    if fields.get("general.type") != "adapter" or kind != "lora":
        raise ExportError(f"{file} is no adapter of the kind 'lora': it says {kind!r}")
    if fields.get("general.architecture") != base.architecture:
        raise ExportError(
            f"{file} is an adapter for {fields.get('general.architecture')!r}, {base.parts[0]} is "
            f"of the architecture {base.architecture!r}"
        )
    factors = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        factors[tensor.name] = torch.from_numpy(values.copy())
    alpha = float(fields.get("adapter.lora.alpha", 0.0))
    updates = {}
    for name in sorted({key.rpartition(".")[0] for key in factors}):
        if f"{name}.lora_a" not in factors or f"{name}.lora_b" not in factors:
            raise ExportError(f"{file}: {name} has not both a lora_a and a lora_b")
        A = factors[f"{name}.lora_a"]
        B = factors[f"{name}.lora_b"]
        scaling = alpha / len(A) if alpha else 1.0
        updates[name] = Update(A, B, scaling)
    return updates
