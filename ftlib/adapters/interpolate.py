"""What trains in a model, kept and put back, and weights between two states of it.

WiSE-FT (Wortsman et al. 2021, arXiv 2109.01903, section 3): of a model before fine-tuning, θ₀, and
after it, θ₁, the weights ``(1 − t)·θ₀ + t·θ₁`` often keep more of what θ₀ knew than they lose of
what θ₁ learnt.
"""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor, nn

from ftlib.adapters.lora_layer import lora_layers
from ftlib.models.wrapped import plain_name, unwrapped


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter that requires grad, by its name without wrappers. ValueError if there is
    none.
    """
    inner = unwrapped(model)
    trained = {}
    for name, parameter in inner.named_parameters():
        if parameter.requires_grad:
            trained[plain_name(inner, name)] = parameter
    if not trained:
        raise ValueError(
            "no parameter of the model requires grad: call an add_… function, or "
            "model.requires_grad_(True)"
        )
    return trained


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter that requires grad, by name: an anchor for `ewc_penalty` and
    `interpolate_weights`, the whole model's or an adapter's.
    """
    return {name: p.detach().clone() for name, p in trained_parameters(model).items()}


def check_names(name: str, tensors: dict, trained: dict[str, nn.Parameter], error=ValueError):
    """`error` unless `tensors` hold one of each trained parameter's shape, by its name."""
    different = sorted(tensors.keys() ^ trained.keys())
    if different:
        raise error(
            f"{name} and the model's trained parameters differ in {len(different)} names, the "
            f"first {different[0]!r}: it must be of this model with the same adapter"
        )
    for key, parameter in trained.items():
        if tensors[key].shape != parameter.shape:
            raise error(
                f"{name}[{key!r}] has shape {tuple(tensors[key].shape)}, the parameter has "
                f"{tuple(parameter.shape)}: it must be of this model with the same adapter"
            )


@torch.no_grad()
def interpolate_weights(
    model: nn.Module,
    anchor: dict[str, Tensor] | None,
    t: float,
    tuned: dict[str, Tensor] | None = None,
) -> nn.Module:
    """Set what trains to ``(1 − t)·anchor + t·tuned``, in place; returns the model.

    `anchor`, `tuned`: what `trained_weights` returned before and after the training; `tuned` None:
    the model as it is now. t = 0 gives the anchor and t = 1 the tuned weights, bit for bit; values
    outside [0, 1] extrapolate. For several t pass `tuned`, since the model has changed after the
    first.

    An adapter's own weights are interpolated, which for LoRA is no interpolation of the weights of
    the model: ``B_t·A_t`` is a parabola in t. `anchor` None is the base model, and then B alone is
    scaled, ``W + t·s·BA``, which is WiSE-FT between the base and the merged model. ValueError for
    names and shapes that do not fit, a t that is not finite, and None with anything but plain LoRA.
    """
    is_number = isinstance(t, Real) and not isinstance(t, bool)
    if not is_number or not math.isfinite(t):
        raise ValueError(f"t={t!r}: must be a finite number, 0 for the anchor, 1 for the tuned")
    trained = trained_parameters(model)
    end = trained_weights(model) if tuned is None else tuned
    check_names("tuned", end, trained)
    start = _base_of_lora(model, end) if anchor is None else anchor
    check_names("anchor", start, trained)
    for name, parameter in trained.items():
        first = start[name].to(parameter)
        last = end[name].to(parameter)
        parameter.copy_(_between(first, last, t))
    return model


def _between(first: Tensor, last: Tensor, t: float) -> Tensor:
    """``(1 − t)·first + t·last``, exact at both ends."""
    if t == 0:
        return first
    if t == 1:
        return last
    return (1 - t) * first + t * last


def _base_of_lora(model: nn.Module, tuned: dict[str, Tensor]) -> dict[str, Tensor]:
    """The base as LoRA's weights: A as tuned, B zero."""
    layers = lora_layers(model)
    plain = not any(layer.use_dora for layer in layers.values())
    only_lora = all(name.endswith((".lora_A", ".lora_B")) for name in tuned)
    if not layers or not plain or not only_lora:
        raise ValueError(
            "anchor=None is the base model of plain LoRA; here something else trains: pass what "
            "trained_weights(model) returned before the training"
        )
    base = {}
    for name, tensor in tuned.items():
        base[name] = torch.zeros_like(tensor) if name.endswith(".lora_B") else tensor
    return base
