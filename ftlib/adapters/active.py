"""The adapter that a model has, whichever kind it is, and how it is saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ftlib.adapters.bottleneck import Bottleneck, load_bottleneck, save_bottleneck
from ftlib.adapters.embeddings import embedding_weights
from ftlib.adapters.hooked import parts_of
from ftlib.adapters.ia3 import IA3, load_ia3, save_ia3
from ftlib.adapters.io import load_adapter, save_adapter
from ftlib.adapters.lora import adapter_config_dict
from ftlib.adapters.lora_layer import lora_layers
from ftlib.adapters.prefix import Prefix, load_prefix, save_prefix
from ftlib.adapters.reft import Reft, load_reft, save_reft


@dataclass(frozen=True)
class AdapterIO:
    """What a trainer needs to checkpoint an adapter without its base."""

    options: dict  # as the adapter was made with
    save: Callable  # save(model, folder) -> the folder
    load: Callable  # load(model, folder) -> the model


KINDS = {
    Prefix: (save_prefix, load_prefix),
    Bottleneck: (save_bottleneck, load_bottleneck),
    Reft: (save_reft, load_reft),
    IA3: (save_ia3, load_ia3),
}


def baseline_io(model: nn.Module) -> AdapterIO | None:
    """That of the model's adapter beside its weights, one of KINDS; None without one."""
    parts = parts_of(model)
    if not parts:
        return None
    first = next(iter(parts.values()))
    for kind, (save, load) in KINDS.items():
        if isinstance(first, kind):
            return AdapterIO(first.options, save, load)
    raise TypeError(f"{type(first).__name__} is not in KINDS: say there how it is saved")


def unsaved_parameters(model: nn.Module) -> list[str]:
    """Names of what trains beside an adapter and is not saved with it. LoRA's file holds the
    embedding and the head too; without an adapter the whole model is saved.
    """
    layers = lora_layers(model)
    parts = parts_of(model)
    if not layers and not parts:
        return []
    saved = set()
    for layer in layers.values():
        saved |= {id(parameter) for parameter in layer.parameters(recurse=False)}
    for part in parts.values():
        saved |= {id(parameter) for parameter in part.parameters()}
    if layers:
        saved |= {id(weight) for weight in embedding_weights(model).values()}
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [name for name, p in trained if id(p) not in saved]


def adapter_of(model: nn.Module) -> AdapterIO | None:
    """That of the model's adapter, LoRA or a baseline; None where the model itself trains."""
    if lora_layers(model):
        return AdapterIO(adapter_config_dict(model), save_adapter, load_adapter)
    return baseline_io(model)
