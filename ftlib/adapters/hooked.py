"""What adapters have in common that sit beside a model's modules, in hooks: attach, remove, switch
off, save, load.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import torch
from torch import nn

from ftlib.adapters.io import (
    CONFIG,
    WEIGHTS,
    AdapterError,
    base_name,
    check_tensors,
    read_tensors,
    same_base,
    write_folder,
)
from ftlib.adapters.lora import count_parameters, log, lora_layers


class Baseline(nn.Module):
    """Trained weights that act on the module they stand in by a hook, `before` or `after` it;
    `options` go into the config file.
    """

    is_adapter = True  # tells add_lora that the model has one
    kind, key = "", "{part}.{parameter}"  # peft_type, and how a tensor is named in the file

    def __init__(self, options: dict):
        super().__init__()
        self.options, self.enabled = {"peft_type": self.kind, **options}, True


def whole(name: str, value) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r}: must be a whole number of at least 1")
    return value


def parts_of(model: nn.Module, kind: type[Baseline] = Baseline) -> dict[str, Baseline]:
    """All parts of this kind by module path."""
    return {name: m for name, m in model.named_modules() if isinstance(m, kind)}


def master_like(weight: torch.Tensor) -> dict:
    """Device of `weight`, and fp32 or wider: small updates would be lost in 16 bits."""
    floating = weight.is_floating_point()
    return {
        "dtype": torch.promote_types(weight.dtype, torch.float32) if floating else torch.float32,
        "device": weight.device,
    }


def _present(model: nn.Module, kind: type[Baseline]) -> dict[str, Baseline]:
    parts = parts_of(model, kind)
    if not parts:
        raise AdapterError(f"model has no {kind.__name__.lower()}: add or load one first")
    return parts


def refuse_second(model: nn.Module) -> None:
    """One method at a time: a second one would freeze the first and be saved without it."""
    if lora_layers(model) or parts_of(model):
        raise AdapterError("model already has an adapter: remove it, or load the base again")


def attach(model: nn.Module, parts: dict[str, Baseline]) -> nn.Module:
    """Freeze the model and put the parts at their paths."""
    model.requires_grad_(False)
    for path, part in parts.items():
        parent, _, name = path.rpartition(".")
        owner = model.get_submodule(parent)
        owner.add_module(name, part)
        # Bound methods: a deep copy of the model gets hooks on its own parts.
        part.handle = (
            owner.register_forward_pre_hook(part.before, with_kwargs=True)
            if hasattr(part, "before")
            else owner.register_forward_hook(part.after)
        )
    log.info(
        "%s of %s parameters train in %s",
        *(f"{n:,}" for n in count_parameters(model)),
        type(part).__name__.lower(),
    )
    return model


def remove(model: nn.Module, kind: type[Baseline]) -> nn.Module:
    for path, part in _present(model, kind).items():
        part.handle.remove()
        parent, _, name = path.rpartition(".")
        delattr(model.get_submodule(parent), name)
    return model


@contextlib.contextmanager
def disable_baseline(model: nn.Module):
    """Within the block the model is the base model, bit for bit and without a copy of it.
    AdapterError if it has no baseline.
    """
    before = {part: part.enabled for part in _present(model, Baseline).values()}
    try:
        for part in before:
            part.enabled = False
        yield model
    finally:
        for part, enabled in before.items():
            part.enabled = enabled


def _by_key(parts: dict[str, Baseline]) -> dict[str, nn.Parameter]:
    return {
        part.key.format(part=path, parameter=name): p
        for path, part in parts.items()
        for name, p in part.named_parameters()
    }


def save(model: nn.Module, path: str | os.PathLike, kind: type[Baseline], **fields) -> Path:
    """Config and weights, written beside and renamed: a folder that held a good adapter holds one
    at every moment.
    """
    parts, path = _present(model, kind), Path(path)
    fields |= {
        **next(iter(parts.values())).options,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name(model),
    }
    return write_folder(
        path, {key: p.detach().contiguous().cpu() for key, p in _by_key(parts).items()}, fields
    )


def _read_fields(file: Path, kind: type[Baseline]) -> dict:
    if not file.is_file():
        raise AdapterError(f"{file} does not exist: pass the folder that the adapter was saved to")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdapterError(f"{file} is not valid JSON ({error}): copy the adapter again") from None
    found = fields.get("peft_type") if isinstance(fields, dict) else type(fields).__name__
    if found != kind.kind:
        raise AdapterError(f"{file}: peft_type is {found!r}, this function reads {kind.kind!r}")
    return fields


def load(
    model: nn.Module, path: str | os.PathLike, kind: type[Baseline], build, trainable: bool
) -> nn.Module:
    """Read everything into new parts, which `build(model, fields)` makes, and only then touch the
    model.
    """
    path = Path(path)
    fields = _read_fields(path / CONFIG, kind)
    recorded = fields.get("base_model_name_or_path") or ""
    if not same_base(recorded, model):
        raise AdapterError(
            f"{path}: trained on {recorded!r}, this model is {base_name(model)!r}: load that base "
            "instead"
        )
    try:
        new = build(model, fields)
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{path / CONFIG}: {error}") from None
    for option, here in next(iter(new.values())).options.items():
        if fields.get(option, here) != here:  # PEFT leaves out what it takes from the model
            raise AdapterError(
                f"{path / CONFIG}: {option}={fields[option]!r}, this model has {here!r}: load "
                "that base instead"
            )
    tensors, present = read_tensors(path), parts_of(model, kind)
    check_tensors(tensors, {key: tuple(p.shape) for key, p in _by_key(new).items()}, path / WEIGHTS)
    if not present:
        refuse_second(model)
    elif {k: p.options for k, p in present.items()} != {k: p.options for k, p in new.items()}:
        raise AdapterError(
            f"{path}: {next(iter(new.values())).options}, but the model has "
            f"{next(iter(present.values())).options}"
        )
    parts = present or new
    with torch.no_grad():
        for key, parameter in _by_key(parts).items():
            parameter.copy_(tensors[key])
    if not present:
        attach(model, parts)
    for part in parts.values():
        part.requires_grad_(trainable)
    return model
