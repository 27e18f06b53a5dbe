"""An adapter folder in PEFT's format: what its two files hold; written, read and checked.

`adapter_config.json` and `adapter_model.safetensors`. Reading is strict: what ftlib does not
implement is refused, and so is a file that is damaged or holds more or less than it should.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ftlib.adapters.lora_layer import AdapterConfig
from ftlib.core.atomic import replacing_together
from ftlib.core.paths import name_of
from ftlib.models.load import base_name
from ftlib.models.wrapped import plain_name, without_wrappers

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of every tensor's name in PEFT's files
PARTS = (".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector")
# The values of PEFT's options under which its adapter is the one that ftlib implements.
NEUTRAL = {
    "bias": "none",
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "layers_pattern": None,
    "layer_replication": None,
    "lora_bias": False,
    "target_parameters": None,
    "trainable_token_indices": None,
    "exclude_modules": None,
    "alora_invocation_tokens": None,
    "use_qalora": False,
    "use_bdlora": None,
    "arrow_config": None,
    "megatron_config": None,
    "corda_config": None,
    "lora_ga_config": None,
    "velora_config": None,
    "monteclora_config": None,
    "kasa_config": None,
}
# PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA … change the base weights too, so their A and B fit another
# base than the one here.
INITS = (None, True, False, "gaussian", "orthogonal", "eva", "mica")


class AdapterError(ValueError):
    """An adapter folder that cannot be used, with the reason and the fix."""


class OtherAdapterError(AdapterError):
    """An adapter of a kind that ftlib does not implement, but PEFT may."""


def tensor_names(layer_name: str, use_dora: bool) -> dict[str, str]:
    """attribute of LoRALinear -> key in the file."""
    keys = {
        "lora_A": f"{PREFIX}{layer_name}.lora_A.weight",
        "lora_B": f"{PREFIX}{layer_name}.lora_B.weight",
    }
    if use_dora:
        keys["lora_magnitude_vector"] = f"{PREFIX}{layer_name}.lora_magnitude_vector"
    return keys


def write_folder(path: Path, tensors: dict, fields: dict) -> Path:
    """Weights and config of an adapter, written beside and renamed; returns the folder."""
    text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
    with replacing_together(path / WEIGHTS, path / CONFIG) as (weights, config):
        save_file(tensors, weights, metadata={"format": "pt"})
        config.write_text(text, encoding="utf-8")
    return path


def read_fields(path: str | os.PathLike, wanted: str = "LORA") -> dict:
    """All fields of an adapter folder, of whatever kind it is. AdapterError without them. `wanted`:
    the kind that the caller reads, for the message.
    """
    file = Path(path) / CONFIG
    if not file.is_file():
        raise AdapterError(f"{file} does not exist: pass the folder that the adapter was saved to")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdapterError(f"{file} is not valid JSON ({error}): copy the adapter again") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("peft_type"), str):
        kind = fields.get("peft_type") if isinstance(fields, dict) else type(fields).__name__
        raise AdapterError(f"{file}: peft_type is {kind!r}, ftlib reads {wanted!r}")
    return fields


def read_config(path: str | os.PathLike, also: tuple[str, ...] = ()) -> tuple[AdapterConfig, dict]:
    """(options, all fields) of an adapter folder. `also`: options that the caller implements beside
    ftlib's. AdapterError if the files are damaged, OtherAdapterError if it is not a LoRA that ftlib
    implements.
    """
    file = Path(path) / CONFIG
    fields = read_fields(path)
    _check_implemented(fields, file, also)
    try:
        targets = _plain_targets(fields.get("target_modules"))
        config = AdapterConfig(
            r=fields["r"],
            lora_alpha=fields["lora_alpha"],
            target_modules=targets,
            lora_dropout=fields.get("lora_dropout") or 0.0,
            use_rslora=bool(fields.get("use_rslora")),
            use_dora=bool(fields.get("use_dora")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{file}: {error}") from None
    if not math.isfinite(config.scaling):
        raise AdapterError(f"{file}: lora_alpha={config.lora_alpha!r} is not finite")
    return config, fields


def _plain_targets(targets) -> str | tuple[str, ...]:
    """`target_modules` of a file: an expression as it is, names without what wrappers put in."""
    if isinstance(targets, str):
        return targets
    names = list(targets or ())
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"target_modules holds {name!r}: a module's name is needed")
    return tuple(without_wrappers(name) for name in names)


def _check_implemented(fields: dict, file: Path, also: tuple[str, ...]) -> None:
    """OtherAdapterError unless the fields are those of a LoRA that ftlib implements."""
    if fields["peft_type"] != "LORA":
        raise OtherAdapterError(f"{file}: peft_type is {fields['peft_type']!r}, ftlib reads 'LORA'")
    for option, neutral in NEUTRAL.items():
        if option not in also and fields.get(option) not in (neutral, None, {}, [], False):
            raise OtherAdapterError(
                f"{file}: {option}={fields[option]!r} is not implemented in ftlib; "
                "load it with PEFT"
            )
    if fields.get("init_lora_weights") not in INITS:
        raise OtherAdapterError(
            f"{file}: init_lora_weights={fields['init_lora_weights']!r} also changed the base "
            "weights: "
            "load it with PEFT, or save it there with path_initial_model_for_weight_conversion"
        )


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter folder, by the base model's names, also where what saved them left
    those of `torch.compile` in it.
    """
    file = path / WEIGHTS
    if not file.is_file():
        raise AdapterError(f"{file} does not exist; pickled adapters (.bin) are not read")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterError(
            f"{file} is damaged or truncated ({error}): copy the adapter again"
        ) from None
    return {without_wrappers(key): tensor for key, tensor in tensors.items()}


def whole_weights(path: Path) -> list[str]:
    """Names of the tensors in an adapter folder that are no low-rank update: an embedding or head
    of its own.
    """
    return [name for name in read_tensors(path) if ".lora_" not in name]


def expected_shapes(model: nn.Module, names: list[str], config: AdapterConfig) -> dict[str, tuple]:
    """Shape of every tensor that an adapter on these layers has, by its key in the file."""
    expected = {}
    for name in names:
        layer = model.get_submodule(name)
        shapes = {
            "lora_A": (config.r, layer.in_features),
            "lora_B": (layer.out_features, config.r),
            "lora_magnitude_vector": (layer.out_features,),
        }
        for attribute, key in tensor_names(plain_name(model, name), config.use_dora).items():
            expected[key] = shapes[attribute]
    return expected


def check_kinds(tensors: dict, file: Path) -> None:
    """OtherAdapterError for a tensor that is no part of a linear layer's LoRA or DoRA."""
    for key in sorted(tensors):
        if not key.endswith(PARTS):
            raise OtherAdapterError(
                f"{file} has {key}, which is no part of a linear layer's LoRA or DoRA: load it "
                "with PEFT"
            )


def check_tensors(tensors: dict, expected: dict[str, tuple], file: Path) -> None:
    """AdapterError unless the tensors have the names and shapes expected, and finite values."""
    missing = sorted(expected.keys() - tensors.keys())
    extra = sorted(tensors.keys() - expected.keys())
    for problem, keys in (("lacks", missing), ("has, unknown to this model,", extra)):
        if keys:
            raise AdapterError(
                f"{file} {problem} {len(keys)} tensors, the first {keys[0]!r}: "
                "is this the base model that the adapter was trained on, and is it adapted on the "
                "same layers?"
            )
    for key, shape in expected.items():
        if tuple(tensors[key].shape) != shape:
            raise AdapterError(
                f"{file}: {key} has shape {tuple(tensors[key].shape)}, this model needs {shape}"
            )
        if not torch.isfinite(tensors[key]).all():
            raise AdapterError(
                f"{file}: {key} has NaN or infinite values: "
                "the file is damaged or the training diverged"
            )


def check_embeddings(stored: dict, present: dict, file: Path) -> None:
    """AdapterError unless the embedding and head of an adapter's file fit the model but for their
    rows, of which all have equally many, and are finite.
    """
    rows = {len(tensor) for tensor in stored.values()}
    for name, tensor in stored.items():
        width = present[name].shape[1]
        if tensor.shape[1] != width or len(rows) != 1:
            raise AdapterError(
                f"{file}: {name} has shape {tuple(tensor.shape)}, this model needs rows of {width}"
            )
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"{file}: {name} has NaN or infinite values: the file is damaged")


def same_base(recorded: str, model: nn.Module) -> bool:
    """Whether an adapter with this base recorded may belong to the model; unknown names may."""
    here = base_name(model)
    if not recorded or not here:
        return True
    return Path(name_of(recorded)).name == Path(here).name


def check_base(path: Path, fields: dict, model: nn.Module) -> None:
    """AdapterError where an adapter folder's fields name another base than the model."""
    recorded = fields.get("base_model_name_or_path") or ""
    if not same_base(recorded, model):
        raise AdapterError(
            f"{path}: trained on {recorded!r}, this model is {base_name(model)!r}: "
            "load that base instead"
        )
