"""The adapter that a model has, whichever kind it is, and how it is saved and loaded."""

from __future__ import annotations

from torch import nn

from ftlib.adapters.bottleneck import load_bottleneck, save_bottleneck
from ftlib.adapters.hooked import parts_of
from ftlib.adapters.io import load_adapter, save_adapter
from ftlib.adapters.lora import adapter_config_dict, lora_layers
from ftlib.adapters.prefix import Prefix, load_prefix, save_prefix


def baseline_io(model: nn.Module):
    """(options, save, load) of the model's baseline, for a trainer that checkpoints it without its
    base; None without one.
    """
    for part in parts_of(model).values():
        return part.options, *(
            (save_prefix, load_prefix)
            if isinstance(part, Prefix)
            else (save_bottleneck, load_bottleneck)
        )
    return None


def adapter_of(model):
    """(options, save, load) of the model's adapter, LoRA or a baseline; None where the model itself
    trains.
    """
    if lora_layers(model):
        return adapter_config_dict(model), save_adapter, load_adapter
    return baseline_io(model)
