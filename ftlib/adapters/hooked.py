"""What adapters have in common that sit beside a model's modules, in hooks: attach, remove, switch
off, save, load.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

import torch
from torch import nn

from ftlib.adapters.lora_layer import lora_layers
from ftlib.adapters.peft_format import (
    CONFIG,
    WEIGHTS,
    AdapterError,
    check_base,
    check_tensors,
    read_fields,
    read_tensors,
    write_folder,
)
from ftlib.adapters.trainable import count_parameters
from ftlib.adapters.whole import guard_saving, unguard_saving
from ftlib.models.load import base_name
from ftlib.models.skeleton import check_has_values
from ftlib.models.wrapped import plain_name, takes_new_parameters, unwrapped

log = logging.getLogger("ftlib")


class Baseline(nn.Module):
    """Trained weights that act by a hook on the module that they are in, `before` or `after` it;
    `options` go into the config file.
    """

    is_adapter = True  # tells add_lora that the model has one
    kind = ""  # peft_type
    key = "{part}.{parameter}"  # how a tensor is named in the file

    def __init__(self, options: dict):
        super().__init__()
        self.options = {"peft_type": self.kind, **options}
        self.enabled = True
        self.handles: list = []

    def register(self, owner: nn.Module) -> list:
        """Set the hooks on `owner`, which the part is in; returns their handles. Bound methods: a
        deep copy of the model gets hooks on its own parts.
        """
        if hasattr(self, "before"):
            return [owner.register_forward_pre_hook(self.before, with_kwargs=True)]
        return [owner.register_forward_hook(self.after)]


def parts_of(model: nn.Module, kind: type[Baseline] = Baseline) -> dict[str, Baseline]:
    """All parts of this kind by module path, as it is without wrappers around the model."""
    inner = unwrapped(model)
    return {name: m for name, m in inner.named_modules() if isinstance(m, kind)}


def _present(model: nn.Module, kind: type[Baseline]) -> dict[str, Baseline]:
    parts = parts_of(model, kind)
    if not parts:
        raise AdapterError(f"model has no {kind.__name__.lower()}: add or load one first")
    return parts


def refuse_second(model: nn.Module) -> None:
    """One method at a time: a second one would freeze the first and be saved without it."""
    if lora_layers(model) or parts_of(model):
        raise AdapterError("model already has an adapter: remove it, or load the base again")
    if not takes_new_parameters(model):
        raise AdapterError(
            f"model is a {type(model).__name__}, which synchronises only the parameters that it "
            "was made with: add the adapter first, then wrap"
        )
    check_has_values(model, "adding an adapter", AdapterError)


def attach(model: nn.Module, parts: dict[str, Baseline]) -> nn.Module:
    """Freeze the model and put the parts at their paths."""
    inner = unwrapped(model)
    inner.requires_grad_(False)
    guard_saving(inner)
    for path, part in parts.items():
        parent, _, name = path.rpartition(".")
        owner = inner.get_submodule(parent)
        owner.add_module(name, part)
        part.handles = part.register(owner)
    trainable, total = count_parameters(model)
    kind = type(next(iter(parts.values()))).__name__.lower()
    log.info("%s of %s parameters train in %s", f"{trainable:,}", f"{total:,}", kind)
    return model


def remove(model: nn.Module, kind: type[Baseline]) -> nn.Module:
    for path, part in _present(model, kind).items():
        for handle in part.handles:
            handle.remove()
        parent, _, name = path.rpartition(".")
        delattr(unwrapped(model).get_submodule(parent), name)
    unguard_saving(unwrapped(model))
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


def _by_key(model: nn.Module, parts: dict[str, Baseline]) -> dict[str, nn.Parameter]:
    """Every parameter of the parts by its name in the file."""
    parameters = {}
    for path, part in parts.items():
        plain = plain_name(unwrapped(model), path)
        for name, parameter in part.named_parameters():
            parameters[part.key.format(part=plain, parameter=name)] = parameter
    return parameters


def _options_of(parts: dict[str, Baseline]) -> dict:
    """The options that all parts of a model share."""
    return next(iter(parts.values())).options


def save(model: nn.Module, path: str | os.PathLike, kind: type[Baseline], **fields) -> Path:
    """Config and weights, written beside and renamed: a folder that held a good adapter holds one
    at every moment.
    """
    parts = _present(model, kind)
    fields |= {
        **_options_of(parts),
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name(model),
    }
    tensors = {key: p.detach().contiguous().cpu() for key, p in _by_key(model, parts).items()}
    return write_folder(Path(path), tensors, fields)


def _read_fields(path: Path, kind: type[Baseline]) -> dict:
    """The fields of an adapter folder. AdapterError where it holds another kind."""
    fields = read_fields(path, kind.kind)
    found = fields["peft_type"]
    if found != kind.kind:
        raise AdapterError(
            f"{path / CONFIG}: peft_type is {found!r}, this function reads {kind.kind!r}"
        )
    return fields


def _built(model: nn.Module, fields: dict, build, file: Path) -> dict[str, Baseline]:
    """New parts of the file's fields. AdapterError where they do not fit the model."""
    try:
        new = build(unwrapped(model), fields)
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{file}: {error}") from None
    for option, here in _options_of(new).items():
        if fields.get(option, here) != here:  # PEFT leaves out what it takes from the model
            raise AdapterError(
                f"{file}: {option}={fields[option]!r}, this model has {here!r}: "
                "load that base instead"
            )
    return new


def load(
    model: nn.Module, path: str | os.PathLike, kind: type[Baseline], build, trainable: bool
) -> nn.Module:
    """Read everything into new parts, which `build(model, fields)` makes, and only then touch the
    model.
    """
    path = Path(path)
    fields = _read_fields(path, kind)
    check_base(path, fields, model)
    new = _built(model, fields, build, path / CONFIG)
    tensors = read_tensors(path)
    present = parts_of(model, kind)
    expected = {key: tuple(p.shape) for key, p in _by_key(model, new).items()}
    check_tensors(tensors, expected, path / WEIGHTS)
    if not present:
        refuse_second(model)
    else:
        options_here = {name: part.options for name, part in present.items()}
        options_read = {name: part.options for name, part in new.items()}
        if options_here != options_read:
            raise AdapterError(
                f"{path}: {_options_of(new)}, but the model has {_options_of(present)}"
            )
    parts = present or new
    with torch.no_grad():
        for key, parameter in _by_key(model, parts).items():
            parameter.copy_(tensors[key])
    if not present:
        attach(model, parts)
    for part in parts.values():
        part.requires_grad_(trainable)
    return model
