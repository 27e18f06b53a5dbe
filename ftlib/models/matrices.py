"""Weights that are matrices without being linear layers: what 4 bits and adapters do not reach.

GPT-2's layers are transformers' `Conv1D`; mixtures keep all experts of a layer in one parameter of
three dimensions.
"""

from __future__ import annotations

import re

from torch import nn


def elements(parameter: nn.Parameter) -> int:
    """How many weights a parameter holds; bitsandbytes' 4-bit ones lie two in a byte."""
    count = parameter.numel()
    if hasattr(parameter, "quant_state"):
        count *= 2 * parameter.element_size()
    return count


def other_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """By name the parameters of two dimensions and more that belong to no linear layer and no
    embedding. Tied parameters count once, and a head that shares the embedding's not at all.
    """
    reached: set[int] = set()
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            reached.update(id(parameter) for parameter in module.parameters(recurse=False))
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim >= 2 and id(parameter) not in reached
    }


def describe_others(model: nn.Module) -> str | None:
    """One line: the names of `other_matrices`, layers' numbers as *, and their share of the model's
    weights; None where there are none.
    """
    others = other_matrices(model)
    if not others:
        return None
    kinds = dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in others)
    total = sum(elements(parameter) for parameter in model.parameters())
    share = sum(elements(parameter) for parameter in others.values()) / total
    return f"{', '.join(kinds)} ({100 * share:.3g}% of the weights)"
