"""The gradients of an answer beside those of the reference."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ftlib.course.comparing import difference

TOLERANCE = 1e-3  # of the largest gradient: two right formulas round differently


@dataclass(frozen=True)
class Trained:
    """The gradients on one case by the parameters' names: the answer's, None where none arrives,
    and the reference's.
    """

    got: dict[str, Tensor | None]
    want: dict[str, Tensor]

    def missing(self) -> list[str]:
        """The parameters that the reference trains and the answer does not reach."""
        return [name for name, want in self.want.items() if want.any() and self.got[name] is None]

    def beside(self, name: str) -> tuple[Tensor, Tensor]:
        """A parameter's two gradients, with 0 where the reference's own is not finite."""
        want = self.want[name]
        finite = want.isfinite()
        got = self.got[name]
        one = torch.zeros_like(want) if got is None else torch.where(finite, got, 0.0)
        return one, torch.where(finite, want, 0.0)

    def different(self) -> tuple[str, str] | None:
        """The first parameter whose gradient differs, and how. Where the reference's own is not
        finite, nothing is asked.
        """
        for name in self.want:
            one, other = self.beside(name)
            scale = max(1.0, float(other.abs().max()))
            if difference(one / scale, other / scale, TOLERANCE):
                return name, difference(one, other, 0.0) or "values differ"
        return None


def train(
    function: Callable, reference: Callable, names: Sequence[str], cases: Iterable[tuple]
) -> list[Trained]:
    """Both functions' gradients on every case by the reference's parameters `names`. Whatever the
    function raises where its inputs require grad reaches the caller.
    """
    parameters = list(inspect.signature(reference).parameters)
    places = {name: parameters.index(name) for name in names}
    found = []
    for args in cases:
        want = _gradients(reference, places, args)
        known = {name: gradient for name, gradient in want.items() if gradient is not None}
        found.append(Trained(_gradients(function, places, args), known))
    return found


def _gradients(function: Callable, places: dict[str, int], args: tuple) -> dict[str, Tensor | None]:
    """The gradients of a weighted sum of the result."""
    inputs = list(copy.deepcopy(args))
    leaves = {}
    for name, i in places.items():
        inputs[i] = leaves[name] = inputs[i].detach().clone().requires_grad_()
    with warnings.catch_warnings():
        # Of tensors that are made into numbers: the missing gradient says it by name.
        warnings.simplefilter("ignore")
        result = function(*inputs)
    if not result.requires_grad:
        return dict.fromkeys(leaves)
    g = torch.Generator().manual_seed(1)
    weights = torch.randn(result.shape, generator=g, dtype=torch.float64).to(result.dtype)
    total = (result * weights).sum()
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, found, strict=True))
