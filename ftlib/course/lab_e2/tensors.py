"""Random tensors for the cases of lab E2."""

from __future__ import annotations

from torch import Generator, Tensor, rand, randn


def normal(g: Generator, *shape: int) -> Tensor:
    """Normal numbers in fp64."""
    return randn(*shape, generator=g).double()


def positive(g: Generator, *shape: int) -> Tensor:
    """Numbers between 0 and 1 in fp64."""
    return rand(*shape, generator=g).double()


def state(g: Generator) -> dict[str, Tensor]:
    """What trains in a small model, by name."""
    return {"layer.weight": normal(g, 3, 2), "layer.bias": normal(g, 3), "head": normal(g, 2, 4)}
