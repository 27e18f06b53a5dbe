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


def without_values(model: nn.Module) -> list[str]:
    """Names of the parameters on the meta device: they have a shape and no values."""
    return [name for name, parameter in model.named_parameters() if parameter.is_meta]


def check_has_values(model: nn.Module, doing: str, error: type[ValueError] = ValueError) -> None:
    """`error` where parameters are on the meta device: `doing` would write or copy nothing, in part
    without a word.
    """
    names = without_values(model)
    if names:
        raise error(
            f"{doing}: {len(names)} parameters are on the meta device, without values, the first "
            f"{names[0]!r}: load the model whole, onto one device (load_model does), not offloaded "
            "to disk nor under torch.device('meta')"
        )
