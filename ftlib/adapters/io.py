"""Adapters saved and loaded: what PEFT saved loads here, what is saved here loads in PEFT
(`peft_format`).

Everything is checked before the model is touched, and an adapter that would be applied in part is
refused.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path

import torch
from torch import nn
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from ftlib.adapters.embeddings import (
    changed_embeddings,
    embedding_weights,
    put_embeddings,
    take_embeddings,
)
from ftlib.adapters.lora import add_lora
from ftlib.adapters.lora_layer import AdapterConfig, adapted_layers, lora_layers
from ftlib.adapters.peft_format import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    AdapterError,
    check_base,
    check_embeddings,
    check_kinds,
    check_tensors,
    expected_shapes,
    read_config,
    read_tensors,
    tensor_names,
    write_folder,
)
from ftlib.adapters.targets import target_names
from ftlib.models.load import base_name
from ftlib.models.skeleton import check_has_values
from ftlib.models.wrapped import plain_name, unwrapped, without_wrappers

log = logging.getLogger("ftlib")


def _suffixes(model: nn.Module, names: list[str]) -> list[str]:
    """The last parts of the names, if they pick just these layers; else the full names."""
    last_parts = sorted({name.rsplit(".", 1)[-1] for name in names})
    # Of all modules, not of the linear ones alone: PEFT refuses the "0" of an `nn.Sequential`'s
    # first layer, which also names the model's layer 0.
    picked = set()
    for name, _ in model.named_modules():
        plain = plain_name(model, name)
        if plain.rsplit(".", 1)[-1] in last_parts and not plain.endswith(".base_layer"):
            picked.add(plain)
    return last_parts if picked == set(names) else sorted(names)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on the CPU; of one that FSDP2 has sharded all parts, for which every process must
    call.
    """
    tensor = tensor.detach()
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    return tensor.contiguous().cpu()


def _is_first_process() -> bool:
    """Whether this process writes: the only one, or the first of a distributed run."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not distributed or torch.distributed.get_rank() == 0


def save_adapter(model: nn.Module, path: str | os.PathLike, state_dict: dict | None = None) -> Path:
    """Write the adapter as PEFT's `adapter_config.json` and `adapter_model.safetensors`; returns
    the folder. An embedding or head that was resized or trains is part of it, as in PEFT.

    Files are written beside and renamed, so a folder that held a good adapter holds one at every
    moment. In a distributed run every process calls it and the first one writes; or the first
    alone, with the gathered `state_dict` of the model. The names in the file are the base model's,
    whatever wraps the model or its parts (`torch.compile`, data parallelism). AdapterError for
    weights on the meta device.
    """
    layers = adapted_layers(model)
    model = unwrapped(model)
    check_has_values(model, f"save_adapter({str(path)!r})", AdapterError)
    config = model.adapter_config
    path = Path(path)
    plain = {name: plain_name(model, name) for name in layers}
    if state_dict is not None:
        state_dict = {without_wrappers(key): tensor for key, tensor in state_dict.items()}
    tensors = {}
    for name, layer in layers.items():
        for attribute, key in tensor_names(plain[name], config.use_dora).items():
            if state_dict is None:
                tensor = getattr(layer, attribute)
            else:
                tensor = state_dict[f"{plain[name]}.{attribute}"]
            tensors[key] = _whole(tensor)
    for name, weight in changed_embeddings(model).items():
        tensors[PREFIX + name] = _whole(weight if state_dict is None else state_dict[name])
    if not _is_first_process():
        return path
    names = list(plain.values())
    _say_what_peft_reads_otherwise(model, names)
    return write_folder(path, tensors, _peft_fields(model, config, names))


def _say_what_peft_reads_otherwise(model: nn.Module, names: list[str]) -> None:
    """In families of mixtures, whose experts transformers fuses into one tensor, PEFT takes the
    names of their former layers, full ones too, for those experts. What has the same name beside
    them, as the shared expert and the dense layers, it then leaves without the adapter.
    """
    former = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
    alike = sorted(name for name in names if name.rsplit(".", 1)[-1] in former)
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if alike and model_type and _fuses_experts(model_type):
        log.warning(
            "%s and %d more: ftlib loads this adapter as it is, but with %s PEFT may take these "
            "names for the fused experts and leave the layers out; for PEFT, adapt the attention "
            "alone (target_modules)",
            alike[0],
            len(alike) - 1,
            model_type,
        )


def _fuses_experts(model_type: str) -> bool:
    """Whether transformers makes one tensor of the experts that a checkpoint of this type holds."""
    for conversion in get_checkpoint_conversion_mapping(model_type) or ():
        if any(target.endswith("gate_up_proj") for target in conversion.target_patterns):
            return True
    return False


def _peft_fields(model: nn.Module, config: AdapterConfig, names: list[str]) -> dict:
    """The content of `adapter_config.json` of an adapter on these layers."""
    alpha = config.lora_alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name(model),
        "r": config.r,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": _suffixes(model, names),
        "use_rslora": config.use_rslora,
        "use_dora": config.use_dora,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def _without_copies(model: nn.Module, tensors: dict, names: list[str], file: Path) -> dict:
    """The tensors without the copy of an adapted head's own weight that PEFT saves beside its
    adapter. AdapterError where that is not this model's weight.
    """
    kept = dict(tensors)
    for name in names:
        key = f"{PREFIX}{plain_name(model, name)}.base_layer.weight"
        if key not in kept:
            continue
        copied = kept.pop(key)
        here = model.get_submodule(name).weight.detach()
        same = copied.shape == here.shape and torch.equal(copied.to(here), here)
        if not same:
            raise AdapterError(
                f"{file}: {key} {tuple(copied.shape)} is another weight than this model's "
                f"{name} {tuple(here.shape)}: merge the adapter with PEFT, or load the base that "
                "it was trained on"
            )
    return kept


def _same_update(one: AdapterConfig, other: AdapterConfig) -> bool:
    """Whether equal A, B and magnitudes make the same update of the weights under both."""
    return one.r == other.r and one.scaling == other.scaling and one.use_dora == other.use_dora


def load_adapter(model: nn.Module, path: str | os.PathLike, trainable: bool = True) -> nn.Module:
    """Put the saved adapter onto the model, or into the equal adapter that it has; returns the
    model. An embedding or head in the file takes the place of the model's, whose rows become as
    many.

    Raises AdapterError (a ValueError) for another base model, missing or extra tensors, wrong
    shapes, options that ftlib does not implement and damaged files; the model is then untouched.
    """
    path = Path(path)
    config, fields = read_config(path)
    whole = model
    model = unwrapped(model)
    check_base(path, fields, model)
    check_has_values(model, f"load_adapter({str(path)!r})", AdapterError)
    present = lora_layers(model)
    tensors = read_tensors(path)
    embeddings = take_embeddings(tensors, PREFIX, model)
    try:
        names = list(present) or target_names(model, config.target_modules)
    except (TypeError, ValueError) as error:
        raise AdapterError(f"{path / CONFIG}: {error}") from None
    if present and not _same_update(config, model.adapter_config):
        raise AdapterError(
            f"{path}: an adapter with {config}, but the model has one with {model.adapter_config}"
        )
    expected = expected_shapes(model, names, config)
    tensors = _without_copies(model, tensors, names, path / WEIGHTS)
    check_kinds(tensors, path / WEIGHTS)
    check_tensors(tensors, expected, path / WEIGHTS)
    check_embeddings(embeddings, embedding_weights(model), path / WEIGHTS)
    if any(layer.merged for layer in present.values()):
        raise AdapterError(
            "the model's adapter is merged into its weights: unmerge_adapter before loading"
        )
    put_embeddings(model, embeddings)
    if not present:
        add_lora(whole, **dataclasses.asdict(config))
    with torch.no_grad():
        for name, layer in lora_layers(model).items():
            for attribute, key in tensor_names(plain_name(model, name), config.use_dora).items():
                parameter = getattr(layer, attribute)
                parameter.copy_(tensors[key])
                parameter.requires_grad_(trainable)
    return whole
