"""Kinds of noise for a training run of lab 3.1.3, each of the size that NEFTune's has, and the
hooks that put them on a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ftlib.course.lab_3_1_3.gaussian_noise import gaussian_noise
from ftlib.course.lab_3_1_3.masked_noise import masked_noise
from ftlib.course.lab_3_1_3.noise_hook import noise_hook
from ftlib.course.lab_3_1_3.run_with_hook import run_with_hook

FROZEN_SEED = 10_000  # added to the run's seed: the numbers of the frozen noise are no others


class Drawer:
    """Draws the noise of one batch after another; `remember`, a hook on the model, notes the
    attention mask with which it is called.
    """

    def __init__(self, draw: Callable[[Tensor, Tensor], Tensor]):
        self.draw = draw
        self.mask: Tensor | None = None

    def remember(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self.mask = kwargs.get("attention_mask")

    def __call__(self, output: Tensor) -> Tensor:
        """Noise of the shape (B, T, d) of the output."""
        if self.mask is None:
            self.mask = torch.ones(output.shape[:2], device=output.device)
        return self.draw(output, self.mask).to(output.dtype)


def uniform(alpha: float, masked_noise: Callable = masked_noise) -> Callable:
    """NEFTune's own noise."""

    def draw(output: Tensor, mask: Tensor) -> Tensor:
        return masked_noise(torch.rand_like(output), mask, alpha)

    return draw


def gaussian(alpha: float, gaussian_noise: Callable = gaussian_noise) -> Callable:
    """Normal noise with the uniform noise's standard deviation."""

    def draw(output: Tensor, mask: Tensor) -> Tensor:
        return gaussian_noise(torch.randn_like(output), mask, alpha)

    return draw


def frozen_table(table: Tensor, alpha: float, length: float, seed: int) -> Tensor:
    """One noise vector for each token of the vocabulary, (V, d), drawn once: uniform in
    ±alpha/√(length·d), with `length` the mean of the rows trained on.
    """
    generator = torch.Generator().manual_seed(FROZEN_SEED + seed)
    bound = alpha / math.sqrt(length * table.shape[1])
    numbers = 2 * torch.rand(table.shape, generator=generator) - 1
    return (bound * numbers).to(table)


@contextmanager
def shifted(model: nn.Module, shifts: Tensor) -> Iterator[nn.Module]:
    """Within the block every token's embedding has its own fixed shift (V, d), in training and in
    evaluation mode.
    """

    def shift(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return output + shifts[inputs[0]].to(output.dtype)

    handle = model.get_input_embeddings().register_forward_hook(shift)
    try:
        yield model
    finally:
        handle.remove()


def with_noise(
    model: nn.Module,
    draw: Callable[[Tensor, Tensor], Tensor],
    run: Callable[[], Any],
    noise_hook: Callable = noise_hook,
    run_with_hook: Callable = run_with_hook,
) -> Any:
    """What `run()` returns, called while the noise of `draw(output, mask)` is on the model's input
    embeddings.
    """
    drawer = Drawer(draw)

    def hook(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return noise_hook(module, inputs, output, drawer)

    handle = model.register_forward_pre_hook(drawer.remember, with_kwargs=True)
    try:
        return run_with_hook(model.get_input_embeddings(), hook, run)
    finally:
        handle.remove()


def always_on(module: nn.Module, inputs: tuple, output: Tensor, noise_of: Callable) -> Tensor:
    """A hook that does not ask for the mode: for a test under noise."""
    return output + noise_of(output)
