"""How many parameters of a model train."""

from __future__ import annotations

from torch import nn

from ftlib.adapters.lora_layer import lora_layers
from ftlib.models.matrices import elements


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters. bitsandbytes' 4-bit weights count by element, not by stored
    byte.
    """
    trainable = 0
    total = 0
    for parameter in model.parameters():
        count = elements(parameter)
        total += count
        if parameter.requires_grad:
            trainable += count
    return trainable, total


def describe_trainable(model: nn.Module) -> str:
    """One line: how many parameters train, of how many, in how many adapted layers."""
    trainable, total = count_parameters(model)
    return (
        f"{trainable:,} of {total:,} parameters train ({100 * trainable / total:.2f}%), "
        f"{len(lora_layers(model))} layers adapted"
    )
