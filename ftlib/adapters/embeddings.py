"""The embedding and the head beside an adapter: they belong to it where they were resized or train.

PEFT keeps them in the adapter's file under the model's own names (`save_embedding_layers="auto"`),
and so does ftlib, both ways.
"""

from __future__ import annotations

import logging

import torch
from torch import nn

log = logging.getLogger("ftlib")


def plain_name(name: str) -> str:
    """A parameter's name without the adapter layer that may be around it."""
    return name.replace(".base_layer.", ".")


def embedding_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The input embedding's weight (V, H) by name, and the head's where it is another."""
    found: dict[str, nn.Parameter] = {}
    layers = []
    for getter in ("get_input_embeddings", "get_output_embeddings"):
        if hasattr(model, getter):
            layers.append(getattr(model, getter)())
    wanted = set()
    for layer in layers:
        inner = getattr(layer, "base_layer", layer)
        wanted.add(id(getattr(inner, "weight", None)))
    for name, parameter in model.named_parameters():  # a tied weight once, by its first name
        if id(parameter) in wanted:
            found[plain_name(name)] = parameter
    return found


def base_vocabulary(model: nn.Module) -> int | None:
    """The number of embedding rows that the base has on disk; None where it is not known: a model
    made from a configuration, or a Hub model that is not in the cache.
    """
    from transformers import AutoConfig

    name = getattr(getattr(model, "config", None), "_name_or_path", "")
    if not name:
        return None
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return None
    return config.get_text_config(decoder=True).vocab_size


def is_resized(model: nn.Module) -> bool:
    """Whether the embedding has other rows than the base's."""
    rows = base_vocabulary(model)
    weights = embedding_weights(model).values()
    return rows is not None and any(len(weight) != rows for weight in weights)


def changed_embeddings(model: nn.Module) -> dict[str, nn.Parameter]:
    """What of `embedding_weights` an adapter's file has to hold: those that train, or all if they
    were resized.
    """
    weights = embedding_weights(model)
    if is_resized(model):
        return weights
    return {name: weight for name, weight in weights.items() if weight.requires_grad}


def take_embeddings(tensors: dict[str, torch.Tensor], prefix: str, model: nn.Module) -> dict:
    """Remove the embedding and head from the tensors of an adapter's file; returns them by the
    model's names.
    """
    known = {prefix + name: name for name in embedding_weights(model)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    found = {}
    for key in list(tensors):
        name = known.get(plain_name(key))
        if name is not None:
            found[name] = tensors.pop(key)
        elif head is not None and plain_name(key) == f"{prefix}lm_head.weight":
            del tensors[key]  # tied: PEFT writes the embedding a second time
    return found


def put_embeddings(model: nn.Module, stored: dict[str, torch.Tensor]) -> None:
    """Copy stored weights into the model's embedding and head, resized first if need be."""
    if not stored:
        return
    rows = len(next(iter(stored.values())))
    before = len(next(iter(embedding_weights(model).values())))
    if rows != before:
        model.resize_token_embeddings(rows, mean_resizing=False)
        log.info("the embedding has %d rows now, as the adapter's; the base has %d", rows, before)
    with torch.no_grad():
        for name, weight in embedding_weights(model).items():
            if name in stored:
                weight.copy_(stored[name])
