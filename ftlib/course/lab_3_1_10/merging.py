"""Merging in few bits, done and measured: how much of the update a 16-bit weight keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.adapters.lora import disable_adapter
from ftlib.adapters.lora_layer import LoRALinear, lora_layers
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_10.files import split_kl
from ftlib.course.lab_3_1_10.held_out import own_model, sample_of
from ftlib.course.lab_3_1_10.kl_per_token import kl_per_token
from ftlib.course.lab_3_1_10.merge_weight import merge_weight
from ftlib.course.lab_3_1_10.q8_0_blocks import q8_0_blocks


def stored_as(form: str, W: Tensor, exact: Tensor, q8_0: Callable = q8_0_blocks) -> Tensor:
    """The merged weight as a form keeps it, fp32 again. W (out, in), the base's; `exact` the sum in
    fp32.

    "f16", "bf16": the fp32 sum rounded once. "bf16 sum": the update rounded to bf16, then added to
    W in bf16, as a merge of a model held in bf16 does. "Q8_0": the fp32 sum in blocks of Q8_0.
    """
    if form == "f16":
        return exact.half().float()
    if form == "bf16":
        return exact.bfloat16().float()
    if form == "bf16 sum":
        update = (exact - W).bfloat16()
        return (W.bfloat16() + update).float()
    codes, scales = q8_0(exact.flatten())
    return (codes.float() * scales.float()[:, None]).reshape(exact.shape)


def merge_trial(
    profile: Profile,
    seed: int,
    form: str,
    strength: float = 1.0,
    merge_weight: Callable = merge_weight,
    q8_0_blocks: Callable = q8_0_blocks,
    kl_per_token: Callable = kl_per_token,
) -> dict[str, Any]:
    """Merge with alpha times `strength`, keep the sum in a form, and compare with the fp32 sum.

    The base's weights are rounded to bf16 first, as published checkpoints are: rounding them again
    costs nothing, so what is lost is the update's.
    """
    sample = sample_of(profile, seed)
    model = own_model(profile, seed)
    bases = _round_base(model)
    plain = _logits(model, sample.texts)
    exact = {}
    for name, layer in lora_layers(model).items():
        A, B = layer.lora_A.detach(), layer.lora_B.detach()
        alpha = strength * layer.scaling * len(A)
        exact[name] = merge_weight(bases[name], A, B, alpha)
    _put(model, exact)
    wanted = _logits(model, sample.texts)
    stored = {name: stored_as(form, bases[name], W, q8_0_blocks) for name, W in exact.items()}
    _put(model, stored)
    kept = _logits(model, sample.texts)
    on_answers, _ = split_kl(wanted, kept, sample, kl_per_token)
    of_update, _ = split_kl(wanted, plain, sample, kl_per_token)
    return {
        "answer_kl": np.mean(on_answers),
        "lost_effect": np.mean(on_answers) / np.mean(of_update),
        "rounding": np.mean([_rounding(bases[n], exact[n], stored[n]) for n in exact]),
        "kept": np.mean([_kept(bases[n], exact[n], stored[n]) for n in exact]),
        "size": np.mean([_size(bases[n], exact[n]) for n in exact]),
    }


def _rounding(W: Tensor, exact: Tensor, stored: Tensor) -> float:
    """‖stored − exact‖ / ‖exact − W‖: the rounding beside the update."""
    return ((stored - exact).norm() / (exact - W).norm()).item()


def _kept(W: Tensor, exact: Tensor, stored: Tensor) -> float:
    """⟨stored − W, Δ⟩ / ‖Δ‖² with Δ = exact − W: how much of the update is left in its own
    direction.
    """
    update = exact - W
    return ((stored - W).flatten() @ update.flatten() / update.square().sum()).item()


def _size(W: Tensor, exact: Tensor) -> float:
    """‖exact − W‖ / ‖W‖: the update beside the weight."""
    return ((exact - W).norm() / W.norm()).item()


@torch.no_grad()
def _round_base(model: nn.Module) -> dict[str, Tensor]:
    """The base weights of the adapted layers, rounded to bf16 in place; copies by name."""
    bases = {}
    for name, layer in lora_layers(model).items():
        weight = layer.base_layer.weight
        weight.copy_(weight.bfloat16().float())
        bases[name] = weight.detach().clone()
    return bases


@torch.no_grad()
def _put(model: nn.Module, weights: dict[str, Tensor]) -> None:
    layers: dict[str, LoRALinear] = lora_layers(model)
    for name, weight in weights.items():
        layers[name].base_layer.weight.copy_(weight)


@torch.no_grad()
def _logits(model: nn.Module, texts: list[list[int]]) -> list[Tensor]:
    """Logits of each text with the base weights alone, the adapter off."""
    device = next(model.parameters()).device
    found = []
    with disable_adapter(model):
        for ids in texts:
            batch = torch.tensor([ids], device=device)
            found.append(model(input_ids=batch).logits[0].float().cpu())
    return found
