"""A whole model with an adapter in it: its weights under the base's names, for `save_pretrained`,
and a weight of its own for an adapted head that is tied to the embeddings.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ftlib.models.skeleton import empty_model
from ftlib.models.wrapped import plain_name, unwrapped

BASE = "base_layer"


# --- a checkpoint ---------------------------------------------------------------------------------
def plain_state_dict(model: nn.Module, state_dict: dict | None = None) -> dict[str, Tensor]:
    """A model's weights under the base model's names, without what adapted layers hold beside them;
    `state_dict`: the gathered weights of a sharded model.
    """
    state = model.state_dict() if state_dict is None else state_dict
    adapted = [name for name, module in model.named_modules() if hasattr(module, BASE)]
    plain = {}
    for key, value in state.items():
        owner = next((name for name in adapted if key.startswith(f"{name}.")), None)
        if owner is None:
            plain[key] = value
        elif key.startswith(f"{owner}.{BASE}."):
            plain[f"{owner}.{key.removeprefix(f'{owner}.{BASE}.')}"] = value
    return {plain_name(model, key): value for key, value in plain.items()}


def _why_not_whole(model: nn.Module) -> str | None:
    """Why the model's weights are no checkpoint that from_pretrained would read rightly."""
    for name, module in model.named_modules():
        if getattr(module, "is_adapter", False):
            return (
                f"the adapter {name!r} stands beside the weights: save_prefix, save_bottleneck, "
                "save_reft or save_ia3"
            )
        if not hasattr(module, BASE):
            continue
        if not module.merged:
            return (
                f"{name!r} has an adapter that is not merged: save_adapter writes the adapter; "
                "merge_adapter first for a whole model"
            )
    packed = [name for name, p in model.named_parameters() if hasattr(p, "quant_state")]
    if packed:
        return (
            f"merging has dequantised its layers, but {packed[0]!r} is still in 4 bits, and "
            "config.json can say only one of both: load the 16-bit base, load_adapter, "
            "merge_adapter and save that"
        )
    if getattr(model, "hf_quantizer", None) is not None and _holds_transposed(model.config):
        return (
            "4 bits hold Conv1D layers transposed, and so would the file: load the 16-bit base and "
            "save that"
        )
    return None


def _holds_transposed(config) -> bool:
    """Whether the architecture has layers that keep W as (in, out), as GPT-2's do."""
    return any(isinstance(module, Conv1D) for module in empty_model(config).modules())


class SavesWhole:
    """In front of the class of a model that has, or had, ftlib's adapter: saving it whole. A class,
    and no method on the model itself: that would hold the model, and the memory of a model that
    nobody has any more would stay taken until Python next looks for cycles.
    """

    def save_pretrained(self, save_directory: str | os.PathLike, *args, state_dict=None, **options):
        """transformers' `save_pretrained`, of the merged weights under the base model's names.

        ValueError for an adapter that is not merged: from_pretrained would fill the layers, which
        it finds under other names, with random numbers. A model whose 4-bit layers have all been
        dequantised by merging is saved as the dense model that it is.
        """
        reason = _why_not_whole(self)
        if reason:
            raise ValueError(f"save_pretrained({str(save_directory)!r}): {reason}")
        state = plain_state_dict(self, state_dict)
        with _as_dense(self):
            behind = _class_behind(self)
            return behind.save_pretrained(self, save_directory, *args, state_dict=state, **options)

    def __reduce_ex__(self, protocol):
        """For copying and pickling: by the class behind, since this one is made at run time and no
        module has it.
        """
        return _new_saves_whole, (_class_behind(self),), self.__getstate__()


@functools.cache
def _saves_whole(behind: Any) -> Any:
    """A class with SavesWhole in front, of the same name: config.json takes it from there."""
    names = {"__module__": behind.__module__, "__qualname__": behind.__qualname__}
    return type(behind.__name__, (SavesWhole, behind), names)


def _class_behind(model: SavesWhole) -> Any:
    classes = type(model).__mro__
    return classes[classes.index(SavesWhole) + 1]


def _new_saves_whole(behind: Any) -> SavesWhole:
    """An empty model: what is in it comes from the copy's or the pickle's state."""
    cls = _saves_whole(behind)
    return cls.__new__(cls)


@contextlib.contextmanager
def _as_dense(model: nn.Module):
    """Within the block nothing says that the model, which has no 4-bit weight left, had any."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None:
        yield
        return
    config = model.config
    quantization = config.quantization_config
    del config.quantization_config
    model.hf_quantizer = None
    try:
        yield
    finally:
        config.quantization_config = quantization
        model.hf_quantizer = quantizer


def guard_saving(model: nn.Module) -> None:
    """Put SavesWhole in front of the model's class, where it has a `save_pretrained`."""
    if hasattr(model, "save_pretrained") and not isinstance(model, SavesWhole):
        behind: Any = type(model)
        model.__class__ = _saves_whole(behind)


def unguard_saving(model: nn.Module) -> None:
    """Give the model its class back. One that sharding has put a class in front of keeps both:
    without an adapter SavesWhole saves what transformers does.
    """
    if isinstance(model, SavesWhole) and type(model).__bases__[0] is SavesWhole:
        model.__class__ = _class_behind(model)


# --- tied weights ---------------------------------------------------------------------------------
def shared_weights(model: nn.Module) -> set[int]:
    """Ids of the parameters that several modules of the model hold."""
    seen = set()
    shared = set()
    for _, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in seen:
            shared.add(id(parameter))
        seen.add(id(parameter))
    return shared


def say_tied(model: nn.Module, tied: bool) -> None:
    """Write into the model's configuration whether its head is tied to the embeddings, which
    decides what is saved, and what loading puts into the head.
    """
    config = model.config
    for part in (config, config.get_text_config(decoder=True)):
        part.tie_word_embeddings = tied
    if hasattr(model, "all_tied_weights_keys"):  # what tie_weights() goes by
        model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=False)


def has_tied_head(model: nn.Module, head: nn.Module | None) -> bool:
    """Whether the head's weight is the input embeddings' own, and the configuration says so."""
    config = getattr(unwrapped(model), "config", None)
    if head is None or not getattr(config, "tie_word_embeddings", False):
        return False
    return head.weight is model.get_input_embeddings().weight
