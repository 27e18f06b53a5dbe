"""What noise on the embeddings does to the loss, to second order: it rises by half the noise's
variance times the trace of the loss's Hessian. And what the first normalisation makes of the noise:
it turns its size into an angle.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


class LossAt:
    """The mean loss per answer token as a function of a shift of the embeddings, in fp64 but for
    what the model itself takes in fp32 (norms, softmax); its weights as they are.

    `batch`: input_ids, attention_mask (B, T) and labels. A shift (B, T, d) counts on real tokens
    only.
    """

    def __init__(self, model: nn.Module, batch: dict[str, Tensor]):
        self.model = copy.deepcopy(model).double().eval().requires_grad_(False)
        device = next(self.model.parameters()).device
        self.batch = {name: tensor.to(device) for name, tensor in batch.items()}
        ids = self.batch.pop("input_ids")
        self.embeddings = self.model.get_input_embeddings()(ids)  # (B, T, d)
        self.real = self.batch["attention_mask"][..., None].to(self.embeddings)  # (B, T, 1)

    def draw(self, seed: int) -> Tensor:
        """Standard normal numbers on the real tokens, (B, T, d)."""
        generator = torch.Generator().manual_seed(seed)
        numbers = torch.randn(self.embeddings.shape, generator=generator, dtype=torch.float64)
        return numbers.to(self.embeddings) * self.real

    def __call__(self, shift: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # the one that can be differentiated twice
            return self.model(inputs_embeds=self.embeddings + shift * self.real, **self.batch).loss


def rises(loss: LossAt, sigmas: Sequence[float], draws: int) -> list[float]:
    """E[L(x + ε)] - L(x) for ε ~ N(0, σ²), one number a σ: the mean over pairs +ε, -ε, which takes
    the first order away exactly.
    """
    with torch.no_grad():
        zero = torch.zeros_like(loss.embeddings)
        clean = loss(zero).item()
        found = []
        for sigma in sigmas:
            total = 0.0
            for seed in range(draws):
                step = sigma * loss.draw(seed)
                total += (loss(step) + loss(-step)).item() / 2 - clean
            found.append(total / draws)
    return found


def hessian_traces(loss: LossAt, draws: int, first: int = 0) -> list[float]:
    """vᵀHv of the loss over all embeddings for some standard normal v, whose mean is tr H
    (Hutchinson 1990); Hv is the gradient of (gradient · v). `first`: the seed of the first draw.
    """
    found = []
    for seed in range(first, first + draws):
        direction = loss.draw(seed)
        shift = torch.zeros_like(loss.embeddings, requires_grad=True)
        (gradient,) = torch.autograd.grad(loss(shift), shift, create_graph=True)
        (product,) = torch.autograd.grad((gradient * direction).sum(), shift)
        found.append((product * direction).sum().item())
    return found


def hessian_trace(loss: LossAt, draws: int) -> float:
    """tr H of the loss over all embeddings, the mean of `hessian_traces`."""
    return sum(hessian_traces(loss, draws)) / draws


# --- the first normalisation ----------------------------------------------------------------------
def unit_rms(x: Tensor) -> Tensor:
    """x/rms(x) over the last axis: RMSNorm without its gain."""
    return x / x.square().mean(-1, keepdim=True).sqrt()


def signal_and_noise(x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """What RMSNorm makes of x + noise, in parts of what it makes of x: the share along it, and the
    norm of what stands across it. x, noise (..., d) -> twice (...).
    """
    clean = unit_rms(x)
    blurred = unit_rms(x + noise)
    size = clean.square().sum(-1)
    along = (blurred * clean).sum(-1) / size
    across = (blurred - along[..., None] * clean).norm(dim=-1) / size.sqrt()
    return along, across


def measured_parts(
    table: Tensor, ratios: Sequence[float], noise_of: Callable[[Tensor], Tensor]
) -> list[tuple[float, float]]:
    """(along, across) for noise of each ratio to the embedding's norm, means over a table's rows
    (V, d). `noise_of(table)` gives noise of any size; each row's is scaled.
    """
    noise = noise_of(table)
    unit = noise / noise.norm(dim=-1, keepdim=True)
    norms = table.norm(dim=-1, keepdim=True)
    found = []
    for ratio in ratios:
        along, across = signal_and_noise(table, ratio * norms * unit)
        found.append((along.mean().item(), across.mean().item()))
    return found
