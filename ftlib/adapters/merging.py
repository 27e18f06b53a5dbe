"""Merging a LoRA or DoRA adapter into the base weights of a model, and taking it out again."""

from __future__ import annotations

import logging
import math

import torch
from torch import nn

from ftlib.adapters.drift import Drift
from ftlib.adapters.lora_layer import LoRALinear, adapted_layers
from ftlib.adapters.targets import output_head
from ftlib.adapters.whole import has_tied_head, say_tied, shared_weights
from ftlib.models.skeleton import check_has_values
from ftlib.models.wrapped import unwrapped

log = logging.getLogger("ftlib")
# Share of an update's norm that rounding may move the weights by when it is merged; above, it is
# said with a warning.
ROUNDING = 0.1


def merge_adapter(model: nn.Module) -> nn.Module:
    """Put the update into the base weights, ``W ← W + sBA`` (DoRA: rows rescaled); returns the
    model.

    Reversible by `unmerge_adapter` to rounding of the weight's dtype. 4-bit layers are dequantised
    first, to the dtype that they were quantised from, and a warning says so with the drift;
    unmerging brings the 4-bit layers back. A weight that another module holds as well, such as a
    head that is tied to the embeddings, is untied: the layer gets one of its own, and the model's
    config says so (`tie_word_embeddings`), so that saving and loading keep it. `save_pretrained`
    then writes the merged weights under the base's names. A warning says where rounding to 16 bits
    takes much of the update. ValueError if merged already, on the meta device, and for values that
    the weight's dtype cannot hold; the model is then as it was.
    """
    layers = adapted_layers(model)
    inner = unwrapped(model)
    if any(layer.merged for layer in layers.values()):
        raise ValueError("the adapter is merged already: unmerge_adapter first")
    check_has_values(inner, "merge_adapter")
    for name, layer in layers.items():
        _check_range(name, layer)
    tied_head = has_tied_head(inner, output_head(inner))
    dense, packed = _merge_layers(list(layers.values()), shared_weights(inner))
    if tied_head and not has_tied_head(inner, output_head(inner)):
        say_tied(inner, False)
        inner.head_untied_by_merging = True
    _say_rounding([layer for layer in layers.values() if not layer.was_4bit], dense)
    _say_dequantised([layer for layer in layers.values() if layer.was_4bit], packed)
    return model


def _merge_layers(layers: list[LoRALinear], shared: set[int]) -> tuple[Drift, Drift]:
    """(what it cost in dense layers, and in 4-bit ones). All of them or none. `shared`: ids of the
    weights that are untied.
    """
    dense = Drift(0.0, 0.0, 0.0)
    packed = Drift(0.0, 0.0, 0.0)
    try:
        for layer in layers:
            untie = {"untie": True} if id(layer.weight) in shared else {}
            drift = layer.merge(**untie)
            if layer.was_4bit:
                packed += drift
            else:
                dense += drift
    except BaseException:  # out of memory, an interrupt
        for layer in layers:
            if layer.merged or layer.holds_original:
                layer.unmerge()
        raise
    return dense, packed


def _check_range(name: str, layer: LoRALinear) -> None:
    """ValueError where the merged weight would not be finite in the dtype that it is kept in."""
    merged = layer.merged_weight()
    dtype = layer.weight.dtype if layer.quant_state is None else layer.quant_state.dtype
    if torch.isfinite(merged.to(dtype)).all():
        return
    if torch.isfinite(merged).all():
        raise ValueError(
            f"{name}: the merged weight reaches {merged.abs().max().item():.3g}, "
            f"{dtype} holds {torch.finfo(dtype).max:.3g}: load the base with dtype=torch.bfloat16 "
            "or torch.float32, load_adapter and merge there"
        )
    raise ValueError(
        f"{name}: the merged weight has NaN or infinite values: the training diverged, or the base "
        "is damaged; load an earlier checkpoint of the adapter"
    )


def _say_rounding(layers: list[LoRALinear], drift: Drift) -> None:
    """Say how much of the update the weights' dtype rounds away, where it has 16 bits."""
    narrow = [layer.weight.dtype for layer in layers if layer.weight.dtype != layer.lora_A.dtype]
    if not narrow or not drift.update:
        return
    share = math.sqrt(drift.rounding / drift.update)
    said = f"merged: rounding to {narrow[0]} moved the weights by {share:.2g} of the update's norm"
    if share <= ROUNDING:
        log.info("%s", said)
        return
    log.warning(
        "%s: for less merge into the base in fp32 (load_model with dtype=torch.float32), or keep "
        "the adapter unmerged",
        said,
    )


def _say_dequantised(layers: list[LoRALinear], drift: Drift) -> None:
    """Say what merging 4-bit layers has cost."""
    if not layers:
        return
    held = sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)
    log.warning(
        "merged: %d 4-bit layers were dequantised to %s (%.2f GB); %s. For export merge into "
        "the 16-bit base: this one carries the 4-bit rounding of the base as well",
        len(layers),
        layers[0].weight.dtype,
        held / 1e9,
        drift,
    )


def unmerge_adapter(model: nn.Module) -> nn.Module:
    """Take a merged update out of the base weights again; returns the model. A head that merging
    untied is tied again. ValueError if it is not merged.
    """
    layers = adapted_layers(model)
    inner = unwrapped(model)
    if not all(layer.merged for layer in layers.values()):
        raise ValueError("the adapter is not merged: nothing to unmerge")
    for layer in layers.values():
        layer.unmerge()
    if vars(inner).pop("head_untied_by_merging", False):
        say_tied(inner, True)
    return model
