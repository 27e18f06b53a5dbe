"""A model without its weights: which parameters a configuration has, and of what shape."""

from __future__ import annotations

import torch
from torch import nn


def empty_model(config) -> nn.Module:
    """The causal language model of a transformers config, without storage."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def shapes_of(model: nn.Module) -> dict[str, torch.Size]:
    """The shape of every parameter by name; tied parameters once."""
    return {name: parameter.shape for name, parameter in model.named_parameters()}
