"""What an architecture consists of, from its configuration alone: the model is built without its
storage and looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ftlib.models.matrices import other_matrices
from ftlib.models.skeleton import empty_model

# What transformers and PyTorch raise for a configuration of which they make no model.
UNBUILDABLE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
    AssertionError,
    ZeroDivisionError,
)


@dataclass(frozen=True)
class Architecture:
    """Parameters by kind. `linear`: (in, out) of every linear layer but the head, in the model's
    order, by the last part of their names; `others`: names of the matrices in no linear layer and
    no embedding; `tables`: weights of the embedding and of a head that is not tied to it; `total`:
    all weights.
    """

    linear: dict[str, list[tuple[int, int]]]
    others: list[str]
    tables: int
    total: int


def describe_type(kind: str, fields: dict):
    """transformers' configuration of a model type, with that type's defaults for what `fields` do
    not say. Raises one of `UNBUILDABLE`.
    """
    from transformers import AutoConfig

    return AutoConfig.for_model(kind, **fields)


def architecture_of(config) -> Architecture:
    """Of the causal language model of a transformers config. Raises one of `UNBUILDABLE`."""
    model = empty_model(config)
    head = model.get_output_embeddings()
    linear: dict = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            own = (module.in_features, module.out_features)
            linear.setdefault(name.rpartition(".")[2], []).append(own)
    tables = {model.get_input_embeddings().weight, head.weight}  # one where they are tied
    return Architecture(
        linear=linear,
        others=list(other_matrices(model)),
        tables=sum(table.numel() for table in tables),
        total=sum(parameter.numel() for parameter in model.parameters()),
    )
