"""The adapter that a model has, whichever kind it is, and how it is saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ftlib.adapters.bottleneck import load_bottleneck, save_bottleneck
from ftlib.adapters.hooked import parts_of
from ftlib.adapters.io import load_adapter, save_adapter
from ftlib.adapters.lora import adapter_config_dict, lora_layers
from ftlib.adapters.prefix import Prefix, load_prefix, save_prefix


@dataclass(frozen=True)
class AdapterIO:
    """A model's adapter to one who checkpoints it without its base: its options, as its file has
    them, `save(model, folder)` and `load(model, folder)`.
    """

    options: dict
    save: Callable
    load: Callable


def baseline_io(model: nn.Module) -> AdapterIO | None:
    """Of the prefix or the bottleneck adapters that the model has; None without any."""
    for part in parts_of(model).values():
        if isinstance(part, Prefix):
            return AdapterIO(part.options, save_prefix, load_prefix)
        return AdapterIO(part.options, save_bottleneck, load_bottleneck)
    return None


def adapter_of(model: nn.Module) -> AdapterIO | None:
    """Of the adapter that the model has, LoRA or another; None where the model itself trains."""
    if lora_layers(model):
        return AdapterIO(adapter_config_dict(model), save_adapter, load_adapter)
    return baseline_io(model)
