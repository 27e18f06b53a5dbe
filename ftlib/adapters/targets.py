"""Which layers an adapter goes on: what `target_modules` names in a model."""

from __future__ import annotations

import re

from torch import nn

from ftlib.models.matrices import describe_others
from ftlib.models.wrapped import inner_name, plain_name, unwrapped


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

    "all-linear" leaves the output head out, as PEFT does. ValueError for an entry that matches
    nothing, for an expression that also matches what is no linear layer, for a model that has none,
    and for a layer that an adapter would not act in.
    """
    model = unwrapped(model)
    modules = _plain_modules(model)
    linear = {}
    for plain, name in modules.items():
        module = model.get_submodule(name)
        if isinstance(module, nn.Linear):
            linear[plain] = module
    if target_modules == "all-linear":
        head = output_head(model)
        chosen = {name for name, module in linear.items() if module is not head}
        _refuse_none(model, chosen)
    elif isinstance(target_modules, str):
        chosen = _named(target_modules, linear) or _matched(model, target_modules, modules, linear)
    else:
        chosen = set()
        for entry in target_modules:
            found = _named(entry, linear)
            if not found:
                raise ValueError(_unknown(model, entry, modules, linear))
            chosen.update(found)
    names = [modules[plain] for plain in linear if plain in chosen]  # in the model's order
    _refuse_unreachable(model, names)
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
