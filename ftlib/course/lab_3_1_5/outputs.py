"""What the rounding of a weight does to a layer's output, on the layer's own inputs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ftlib.course.lab_3_1_5.bases import linear_layers


@torch.no_grad()
def layer_inputs(
    model: nn.Module, batches: Iterable[Tensor], paths: Iterable[str]
) -> dict[str, Tensor]:
    """The inputs of the linear layers at `paths`, (tokens, in), fp32, by path.

    batches: token ids (rows, length) without padding.
    """
    seen: dict[str, list[Tensor]] = {}
    handles = []
    layers = linear_layers(model)
    for path in paths:
        seen[path] = []
        handles.append(layers[path].register_forward_pre_hook(_keeping(seen[path])))
    model.eval()
    try:
        for ids in batches:
            model(ids)
    finally:
        for handle in handles:
            handle.remove()
    return {path: torch.cat(parts) for path, parts in seen.items()}


def _keeping(parts: list[Tensor]):
    def keep(module, arguments) -> None:
        x = arguments[0].detach().float()
        parts.append(x.reshape(-1, x.shape[-1]))

    return keep


def output_error(x: Tensor, weight: Tensor, again: Tensor) -> float:
    """‖X(Ŵ − W)ᵀ‖ / ‖XWᵀ‖. x (tokens, in), weights (out, in)."""
    return ((x @ (again - weight).T).norm() / (x @ weight.T).norm()).item()


def channel_sizes(x: Tensor) -> Tensor:
    """Root mean square of every input channel, (in,)."""
    return x.square().mean(0).sqrt()


def outlier_ratio(x: Tensor) -> float:
    """How much larger the largest channel is than the median one."""
    sizes = channel_sizes(x)
    return (sizes.max() / sizes.median()).item()


def channel_shares(x: Tensor, weight: Tensor, again: Tensor) -> Tensor:
    """The part of ‖X(Ŵ − W)ᵀ‖² that each input channel brings, (in,), sum 1; taken as if channels
    were uncorrelated.
    """
    brought = x.square().sum(0) * (again - weight).square().sum(0)
    return brought / brought.sum()


def shuffled_channels(x: Tensor, seed: int = 0) -> Tensor:
    """The same inputs with their channels in another order: outliers of equal size that meet other
    columns of the weight.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(x.shape[1], generator=generator)
    return x[:, order]
