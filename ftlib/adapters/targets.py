"""Which layers an adapter goes on: what `target_modules` names in a model."""

from __future__ import annotations

import contextlib
import functools
import inspect
import linecache
import logging
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ftlib.models.matrices import describe_others
from ftlib.models.wrapped import inner_name, plain_name, unwrapped

log = logging.getLogger("ftlib")


def output_head(model: nn.Module) -> nn.Module | None:
    return model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None


def _plain_modules(model: nn.Module) -> dict[str, str]:
    """Plain name of every module -> its name in the model, which may lead through wrappers."""
    names = {}
    for name, _ in model.named_modules():
        names[plain_name(model, name)] = name  # of a wrapper and what is in it, the latter stays
    return names


def target_names(model: nn.Module, target_modules) -> list[str]:
    """Paths of the linear layers that `target_modules` names: "all-linear", full names, suffixes,
    or as a string that is neither a regular expression, which must match a whole path
    (`re.fullmatch`), as PEFT has it.

    "all-linear" leaves the output head out, as PEFT does, and layers whose weight the model reads
    itself (see `_read_apart`). ValueError for an entry that matches
    nothing, for an expression that also matches what is no linear layer, for a model that has none,
    and for a layer that an adapter would not act in.
    """
    model = unwrapped(model)
    modules = _plain_modules(model)
    linear = {}
    for plain, name in modules.items():
        module = model.get_submodule(name)
        if _is_product(module):
            linear[plain] = module
    read_apart = _read_apart(model, linear, modules)
    if target_modules == "all-linear":
        chosen = _all_linear(model, linear, read_apart)
    elif isinstance(target_modules, str):
        chosen = _named(target_modules, linear) or _matched(model, target_modules, modules, linear)
    else:
        chosen = set()
        for entry in target_modules:
            found = _named(entry, linear)
            if not found:
                raise ValueError(_unknown(model, entry, modules, linear))
            chosen.update(found)
    barred = sorted(chosen.intersection(read_apart))
    if barred:
        raise ValueError(
            f"target_modules: {', '.join(barred)} cannot have an adapter: the model reads the "
            "weight itself and would pass the adapter by; leave it out, or use 'all-linear', which "
            "does"
        )
    names = [modules[plain] for plain in linear if plain in chosen]  # in the model's order
    _refuse_unreachable(model, names)
    return names


def _is_product(module: nn.Module) -> bool:
    """Whether the module is a linear layer that gives ``Wx + b``: not one of its subclasses that
    gives something else, as a router that is a linear layer and returns the experts chosen.
    """
    if not isinstance(module, nn.Linear):
        return False
    weight = module.weight
    known = type(module) is nn.Linear or type(module).__module__.startswith("bitsandbytes.")
    if known or weight.is_meta:
        return True
    x = torch.ones(2, module.in_features, dtype=weight.dtype, device=weight.device)
    want = F.linear(x, weight.detach(), module.bias)
    try:
        with torch.no_grad():
            given = module(x)
    except RuntimeError:  # it wants another shape
        return False
    return torch.is_tensor(given) and given.shape == want.shape and torch.allclose(given, want)


def _read_apart(model: nn.Module, linear: dict[str, nn.Module], modules: dict) -> list[str]:
    """Names of the linear layers whose weight the module above reads, beside or in place of calling
    the layer: Mamba's kernels take `dt_proj.weight` and `out_proj.weight`. An adapter on such a
    layer is passed by, wholly or in part, and yet merged. (Its dtype, device and shape may be
    read.)
    """
    found = []
    for plain in linear:
        above, _, child = modules[plain].rpartition(".")
        owner: Any = type(model.get_submodule(above))
        if child in _weights_read(owner):
            found.append(plain)
    return found


_READS_WEIGHT = re.compile(r"self\.(\w+)\.weight\b(?!\.(?:dtype|device|shape))")


@functools.cache
def _weights_read(cls: type) -> set[str]:
    """Names of the attributes whose `weight` the code of a class, or of those that it inherits
    from, reads; torch's own are left out, and what has no source.
    """
    names = set()
    for part in cls.__mro__:
        if part is object or part.__module__.startswith("torch."):
            continue
        with contextlib.suppress(OSError, TypeError):
            # A class's own text is slow to cut out, so its file is looked at first.
            file = "".join(linecache.getlines(inspect.getsourcefile(part) or ""))
            if _READS_WEIGHT.search(file):
                names.update(_READS_WEIGHT.findall(inspect.getsource(part)))
    return names


def _named(entry: str, linear: dict) -> set[str]:
    """The linear layers of that name, or whose name ends in it."""
    return {name for name in linear if name == entry or name.endswith("." + entry)}


def _matched(model: nn.Module, expression: str, modules: dict, linear: dict) -> set[str]:
    """The linear layers whose whole path the regular expression matches."""
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise ValueError(
            f"target_modules={expression!r} is neither a layer's name nor a regular expression "
            f"({error}): give a list of names, or 'all-linear'"
        ) from None
    found = {name for name in modules if pattern.fullmatch(name)}
    if not found & linear.keys():
        raise ValueError(_unknown(model, expression, modules, linear))
    others = sorted(found - linear.keys())
    if others:
        kind = type(model.get_submodule(modules[others[0]])).__name__
        raise ValueError(
            f"target_modules={expression!r} also matches {others[0]!r}, a {kind}: only linear "
            "layers are adapted; narrow the expression"
        )
    return found


def _unknown(model: nn.Module, entry: str, modules: dict, linear: dict) -> str:
    """What to say of an entry that names no linear layer: perhaps it names something else."""
    known = sorted({name.rsplit(".", 1)[-1] for name in linear})
    has = f"this model has {', '.join(known)}" if known else "this model has none"
    for plain, name in modules.items():
        if plain == entry or plain.endswith("." + entry):
            kind = type(model.get_submodule(name)).__name__
            return (
                f"target_modules: {entry!r} names {plain!r}, a {kind}, which ftlib does not adapt; "
                f"of linear layers {has}"
            )
    return f"target_modules: {entry!r} names no linear layer; {has}"


def _all_linear(model: nn.Module, linear: dict, read_apart: list[str]) -> set[str]:
    """All but the head and what would be passed by."""
    if read_apart:
        log.info("without an adapter, as their weights are read apart from them: %s", read_apart)
    head = output_head(model)
    chosen = {name for name, module in linear.items() if module is not head}
    chosen -= set(read_apart)
    _refuse_none(model, chosen)
    return chosen


def _refuse_none(model: nn.Module, chosen: set[str]) -> None:
    if chosen:
        return
    others = describe_others(model)
    raise ValueError(
        "target_modules='all-linear': this model has no linear layer (torch.nn.Linear) but its "
        f"head; its matrices are {others or 'none'}, which ftlib does not adapt"
    )


def _refuse_unreachable(model: nn.Module, names: list[str]) -> None:
    """ValueError for a layer whose place is not its own: an adapter put there would not be called,
    or not everywhere.
    """
    shared: dict = {}
    for name, module in model.named_modules(remove_duplicate=False):
        shared.setdefault(id(module), []).append(name)
    for name in names:
        parent, _, child = name.rpartition(".")
        if inner_name(model.get_submodule(parent)) == child:
            raise ValueError(
                f"target_modules: {name!r} is compiled or wrapped by itself, and an adapter inside "
                "would not be called: add the adapter first, then compile"
            )
        places = shared[id(model.get_submodule(name))]
        if len(places) > 1:
            raise ValueError(
                f"target_modules: {name!r} and {places[-1]!r} are one layer in two places: an "
                "adapter would stand in one of them only; leave it out"
            )
