"""How far a trained weight is from where it began, row by row in length and in direction, and
controls made of it: the same update turned, the trained directions with other lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.course.lab_3_1_2.layer import MyLoRA, adapters
from ftlib.course.lab_3_1_2.weight_change import weight_change

LEAST = 1e-6  # a spread below it is rounding, and has no correlation


def linear_weights(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """The weights that these layers apply, adapted or not; of a plain layer a copy."""
    adapted = adapters(model)
    weights = {}
    for name in names:
        if name in adapted:
            weights[name] = adapted[name].applied()
        else:
            weights[name] = model.get_submodule(name).weight.detach().clone()
    return weights


def rows_before_division(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """V of each layer: of DoRA W + s·BA before its row norms are divided out, of others what they
    apply.
    """
    adapted = adapters(model)
    plain = linear_weights(model, names)
    return {name: adapted[name].rows() if name in adapted else plain[name] for name in names}


@torch.no_grad()
def with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Put the weights into the model's linear layers, in place of layer and adapter."""
    for name, weight in weights.items():
        layer = model.get_submodule(name)
        if isinstance(layer, MyLoRA):
            parent, _, child = name.rpartition(".")
            layer = layer.base
            setattr(model.get_submodule(parent), child, layer)
        layer.weight.copy_(weight)
    return model


# --- how far --------------------------------------------------------------------------------------
def changes(
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    weight_change: Callable = weight_change,
) -> list[list[float]]:
    """[ΔM, ΔD] of each weight in `after`."""
    return [list(weight_change(before[name], weight)) for name, weight in after.items()]


def relative_lengths(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[float]:
    """Mean size of the rows' relative change of length, one number a weight."""
    found = []
    for name, weight in after.items():
        lengths = before[name].norm(dim=1)
        found.append(((weight.norm(dim=1) - lengths).abs() / lengths).mean().item())
    return found


def turn(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """Mean angle in degrees between a row before and after."""
    angles = []
    for name, weight in after.items():
        cosine = nn.functional.cosine_similarity(before[name].double(), weight.double(), dim=1)
        angles.append(torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).mean().item())
    return float(np.mean(angles))


def correlation(points) -> float:
    """Pearson's r of ΔM and ΔD over all points (..., 2); 0 where one of them does not vary."""
    lengths, turns = np.asarray(points, dtype=float).reshape(-1, 2).T
    if min(np.ptp(lengths), np.ptp(turns)) < LEAST:
        return 0.0
    return float(np.corrcoef(lengths, turns)[0, 1])


# --- controls -------------------------------------------------------------------------------------
def turned(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], seed: int
) -> dict[str, Tensor]:
    """W + ΔW·Q with a random rotation Q of the inputs: the update keeps its rank, its singular
    values and the length of each row, and has nothing to do with W any more.
    """
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, weight in after.items():
        W = before[name]
        size = W.shape[1]
        noise = torch.randn(size, size, generator=generator)
        Q, _ = torch.linalg.qr(noise)  # (in, in), orthogonal
        found[name] = W + (weight - W) @ Q.to(W)
    return found


def lengths_reset(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained directions, every row as long as it began."""
    found = {}
    for name, weight in after.items():
        scale = before[name].norm(dim=1) / weight.norm(dim=1)
        found[name] = scale[:, None] * weight
    return found


def lengths_scrambled(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], seed: int
) -> dict[str, Tensor]:
    """The trained directions, and each layer's relative changes of length given to other rows: the
    same sizes in the wrong places.
    """
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, weight in lengths_reset(before, after).items():
        growth = after[name].norm(dim=1) / before[name].norm(dim=1)
        order = torch.randperm(len(growth), generator=generator).to(growth.device)
        found[name] = growth[order][:, None] * weight
    return found
