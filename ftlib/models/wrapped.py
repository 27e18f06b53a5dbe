"""Models inside wrappers: `torch.compile`, data parallelism, FSDP and recomputation put a module of
their own around one, and with it a part into every name below (`_orig_mod.`, `module.`).

An adapter's file must not hold such names: no other library finds its layers by them.
"""

from __future__ import annotations

from torch import nn

# How a wrapper calls the module inside. No model has a child by one of these names.
INNER = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def inner_name(module: nn.Module) -> str | None:
    """By what name a wrapper holds the module inside it; None for a module that is no wrapper."""
    if isinstance(module, PARALLEL):
        return "module"
    children = [name for name, _ in module.named_children()]
    if len(children) == 1 and children[0] in INNER:
        return children[0]
    return None


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, without the wrappers around it."""
    name = inner_name(model)
    while name is not None:
        model = getattr(model, name)
        name = inner_name(model)
    return model


def plain_name(model: nn.Module, name: str) -> str:
    """The name of a module or parameter of `model` without the parts that wrappers put in."""
    kept = []
    module = model
    for part in name.split("."):
        if not isinstance(module, nn.Module) or inner_name(module) != part:
            kept.append(part)
        module = getattr(module, part, None)
    return ".".join(kept)


def without_wrappers(name: str) -> str:
    """A name that was read from a file, without what `torch.compile` and its like put in."""
    parts = [part for part in name.split(".") if part not in INNER]
    return ".".join(parts)


def takes_new_parameters(model: nn.Module) -> bool:
    """Whether parameters that are added now will train: DistributedDataParallel and the first FSDP
    list theirs when they wrap a model, and synchronise no others.
    """
    for module in model.modules():
        if isinstance(module, nn.parallel.DistributedDataParallel):
            return False
        if inner_name(module) == "_fsdp_wrapped_module":
            return False
    return True
