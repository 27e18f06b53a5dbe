"""LoRA and DoRA in a model: put in, taken out again merged into the weights, and switched off.

The layer and its formulas are in `lora_layer`, merging in `merging`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from torch import nn

from ftlib.adapters.lora_layer import AdapterConfig, LoRALinear, adapted_layers, lora_layers
from ftlib.adapters.merging import merge_adapter
from ftlib.adapters.targets import output_head, target_names
from ftlib.adapters.trainable import describe_trainable
from ftlib.adapters.whole import guard_saving, has_tied_head, unguard_saving
from ftlib.models.matrices import describe_others
from ftlib.models.nf4 import fix_4bit_layers
from ftlib.models.skeleton import check_has_values, without_values
from ftlib.models.wrapped import takes_new_parameters, unwrapped

log = logging.getLogger("ftlib")


def add_lora(
    model: nn.Module,
    r: int = 8,
    lora_alpha: float = 16,
    target_modules: str | Iterable[str] = "all-linear",
    lora_dropout: float = 0.0,
    use_rslora: bool = False,
    use_dora: bool = False,
) -> nn.Module:
    """Freeze the model and put a LoRA or DoRA adapter on its linear layers, in place; returns the
    model.

    `target_modules`: "all-linear" (without the output head; a warning names the matrices that are
    no linear layers and stay as they are), module names or suffixes such as ("q_proj", "v_proj"),
    or a regular expression (`ftlib.adapters.targets`). B starts at zero, so the adapted model
    starts as the base model. A model inside `torch.compile` is adapted where it is. Raises
    ValueError for an unknown target, a bad value, or a model that has an adapter already.
    """
    inner = unwrapped(model)
    _check_can_adapt(model)
    targets = _in_order(target_modules)
    config = AdapterConfig(r, lora_alpha, targets, lora_dropout, use_rslora, use_dora)
    names = target_names(inner, targets)
    if targets == "all-linear":
        _say_others(inner)
    if has_tied_head(inner, output_head(inner)) and output_head(inner) in _modules(inner, names):
        log.warning(
            "the head is tied to the input embeddings: it is adapted alone, and merging gives it a "
            "weight of its own"
        )
    fix_4bit_layers(inner)
    new = {name: LoRALinear(inner.get_submodule(name), config) for name in names}
    inner.requires_grad_(False)
    for name, layer in new.items():
        parent, _, child = name.rpartition(".")
        setattr(inner.get_submodule(parent), child, layer)
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(True)
    inner.adapter_config = config
    guard_saving(inner)
    log.info("%s", describe_trainable(inner))
    return model


def _in_order(target_modules: str | Iterable[str]) -> str | tuple[str, ...]:
    """As given; a set, as PEFT's, sorted: its own order is another in each process."""
    if isinstance(target_modules, str):
        return target_modules
    if isinstance(target_modules, (set, frozenset)):
        return tuple(sorted(target_modules))
    return tuple(target_modules)


def _modules(model: nn.Module, names: list[str]) -> list[nn.Module]:
    return [model.get_submodule(name) for name in names]


def _check_can_adapt(model: nn.Module) -> None:
    """ValueError for a model on which an adapter would not train, or not with what it has."""
    if any(isinstance(m, LoRALinear) or getattr(m, "is_adapter", False) for m in model.modules()):
        raise ValueError("model already has an adapter: merge or remove it, or load the base again")
    if not takes_new_parameters(model):
        raise ValueError(
            f"model is a {type(model).__name__}, which synchronises only the parameters that it "
            "was made with: add the adapter first, then wrap"
        )
    # A model that is on the meta device as a whole is there to be counted.
    if 0 < len(without_values(model)) < len(list(model.parameters())):
        check_has_values(model, "add_lora")


def _say_others(model: nn.Module) -> None:
    """Name the matrices that "all-linear" passes over."""
    others = describe_others(model)
    if others:
        log.warning(
            "all-linear adapts linear layers (torch.nn.Linear); it leaves out %s: they stay frozen",
            others,
        )


def merge_and_unload(model: nn.Module) -> nn.Module:
    """`merge_adapter`, then plain layers in place of the adapted ones, so that another adapter can
    be added; returns the model.

    With that one disabled the model is the one merged here: an SFT adapter taken in this way is
    DPO's reference. The model's name says what was done, since an adapter trained from here on does
    not fit the base as it was.
    """
    layers = lora_layers(merge_adapter(model))
    inner = unwrapped(model)
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        setattr(inner.get_submodule(parent), child, layer.base_layer)
    vars(inner).pop("head_untied_by_merging", None)
    del inner.adapter_config
    if not any(layer.was_4bit for layer in layers.values()):  # else config.json would say 4 bits
        unguard_saving(inner)
    config = getattr(inner, "config", None)
    if config is not None:
        config.name_or_path = f"{config.name_or_path}, with an adapter merged"
    return model


@contextlib.contextmanager
def disable_adapter(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block the model is the base model, bit for bit and without a copy of it, whichever
    adapter of ftlib it has. ValueError if it has none, or one that is merged.
    """
    beside = [m for m in unwrapped(model).modules() if getattr(m, "is_adapter", False)]
    parts: list = beside or list(adapted_layers(model).values())
    if any(getattr(part, "merged", False) for part in parts):
        raise ValueError(
            "the adapter is merged into the weights: unmerge_adapter before disabling it"
        )
    before = [part.enabled for part in parts]
    try:
        for part in parts:
            part.enabled = False
        yield model
    finally:
        for part, enabled in zip(parts, before, strict=True):
            part.enabled = enabled


def adapter_config_dict(model: nn.Module) -> dict:
    """The options that `add_lora` was called with."""
    adapted_layers(model)
    return asdict(unwrapped(model).adapter_config)
