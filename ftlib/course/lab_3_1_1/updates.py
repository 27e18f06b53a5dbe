"""What a trained ΔW is like: its size, its rank, its intruder dimensions; and a random one that
moves the layers' outputs as far.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ftlib.course.lab_3_1_1.effective_rank import effective_rank
from ftlib.course.lab_3_1_1.layer import ALL_LINEAR, MyLoRA

LEADING = 10  # singular vectors of the tuned weight that are looked at
SAME = 0.5  # cosine below which such a vector resembles none of the base's: an intruder


def linear_weights(model: nn.Module) -> dict[str, Tensor]:
    """{name: effective weight (out, in)} of every block's linear layers, adapters put in."""
    weights = {}
    for name, module in model.named_modules():
        if not name.endswith(ALL_LINEAR):
            continue
        if isinstance(module, MyLoRA):
            weights[name] = (module.base.weight + module.delta()).detach()
        else:
            weights[name] = module.weight.detach()
    return weights


def updates(model: nn.Module, base: nn.Module) -> dict[str, Tensor]:
    """{name: ΔW} of the linear layers, against the base model."""
    before = linear_weights(base)
    return {name: weight - before[name] for name, weight in linear_weights(model).items()}


def total_norm(matrices: Mapping[str, Tensor]) -> float:
    """Frobenius norm of all matrices taken together."""
    return sum(matrix.square().sum().item() for matrix in matrices.values()) ** 0.5


def mean_rank(matrices: Mapping[str, Tensor], rank_of: Callable = effective_rank) -> float:
    """Mean over the matrices of the rank that holds 90% of the squared norm; 0 where none moved."""
    ranks = []
    for matrix in matrices.values():
        singular_values = torch.linalg.svdvals(matrix)
        moved = bool(singular_values[0] > 0)
        ranks.append(rank_of(singular_values) if moved else 0)
    return sum(ranks) / len(ranks)


def intruders(tuned: Tensor, left_of_base: Tensor) -> int:
    """How many of the `LEADING` left singular vectors of a tuned weight (out, in) have a cosine
    below `SAME` with every left singular vector of the base's, (out, n): the intruder dimensions of
    Shuttleworth et al. 2024 (arXiv 2410.21228, Algorithm 1).
    """
    left = torch.linalg.svd(tuned, full_matrices=False).U[:, :LEADING]
    cosines = (left_of_base.T @ left).abs()  # (n, LEADING)
    return int((cosines.max(0).values < SAME).sum())


def mean_intruders(tuned: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> float:
    """Intruder dimensions a matrix, mean over the tuned weights."""
    counts = []
    for name, weight in tuned.items():
        left = torch.linalg.svd(base[name], full_matrices=False).U
        counts.append(intruders(weight, left))
    return sum(counts) / len(counts)


# --- another ΔW in its place ----------------------------------------------------------------------
@torch.no_grad()
def with_updates(base: nn.Module, matrices: Mapping[str, Tensor]) -> nn.Module:
    """The base model with W + ΔW in its linear layers, in place."""
    for name, delta in matrices.items():
        base.get_submodule(name).weight += delta
    return base


@torch.no_grad()
def inputs_of(model: nn.Module, batch: Mapping[str, Tensor], names: Sequence[str]) -> dict:
    """{name: x (tokens, in)}: what the named layers of a model read on a batch, padding left
    out.
    """
    real = batch["attention_mask"].bool()
    seen: dict[str, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for name in names:

            def keep(module, inputs, name=name):
                seen[name] = inputs[0][real]

            handle = model.get_submodule(name).register_forward_pre_hook(keep)
            stack.callback(handle.remove)
        model(**batch)
    return seen


def random_updates(
    matrices: Mapping[str, Tensor], inputs: Mapping[str, Tensor], r: int | None, seed: int
) -> dict[str, Tensor]:
    """Random ΔW of rank r (None: full) whose outputs are as large as the given ones': ‖ΔW x‖ over
    all tokens x of `inputs` is kept, layer by layer.
    """
    generator = torch.Generator().manual_seed(seed)
    random = {}
    for name, delta in matrices.items():
        n_out, n_in = delta.shape
        if r is None:
            noise = torch.randn(n_out, n_in, generator=generator)
        else:
            B = torch.randn(n_out, r, generator=generator)
            noise = B @ torch.randn(r, n_in, generator=generator)
        noise = noise.to(delta)
        x = inputs[name]
        size = (x @ delta.T).norm() / (x @ noise.T).norm()
        random[name] = size * noise
    return random


# --- over the steps -------------------------------------------------------------------------------
@contextlib.contextmanager
def watching(places: Sequence[int], look: Callable[[], object]) -> Iterator[list]:
    """Call `look` after these optimizer steps of what runs inside; yields the list of what it
    returned.
    """
    found: list = []
    done = 0

    def after_step(optimizer, args, kwargs) -> None:
        nonlocal done
        done += 1
        if done in places:
            found.append(look())

    handle = register_optimizer_step_post_hook(after_step)
    try:
        yield found
    finally:
        handle.remove()
