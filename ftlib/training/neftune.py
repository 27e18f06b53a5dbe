"""NEFTune: uniform noise on the input embeddings while training (Jain et al. 2023, arXiv
2310.05914, algorithm 1).

Each element of a sequence's embeddings gets ``u·alpha/sqrt(L·d)``, u uniform in [-1, 1], with L the
sequence's tokens and d the hidden size. An element's standard deviation is alpha/sqrt(3·L·d), the
whole sequence's norm about alpha/sqrt(3).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ftlib.core.checks import is_finite_number


def neftune_noise(
    embeddings: Tensor, noise_alpha: float, mask: Tensor | None = None, length: str = "real"
) -> Tensor:
    """Noise for embeddings (B, T, d), given the attention mask (B, T) of ones and zeros.

    length="real": L counts a sequence's own tokens and padding gets no noise. length="padded": L is
    T for every sequence and padding is noised too, which is what transformers and TRL do; padding
    then weakens the noise.
    """
    _, T, d = embeddings.shape
    if length == "padded" or mask is None:
        bound = noise_alpha / math.sqrt(T * d)
        return torch.zeros_like(embeddings).uniform_(-bound, bound)
    mask = mask.to(embeddings.dtype)
    bound = noise_alpha / (mask.sum(1).clamp_min(1) * d).sqrt()
    return torch.zeros_like(embeddings).uniform_(-1, 1) * (bound[:, None] * mask)[..., None]


@contextlib.contextmanager
def neftune(
    model: nn.Module, noise_alpha: float = 5.0, length: str = "real"
) -> Iterator[nn.Module]:
    """Within the block the model's input embeddings are noised, in training mode only; nothing
    stays behind.

    `noise_alpha` is the paper's alpha: 5, 10 or 15 there; 0 adds nothing. `length`: see
    `neftune_noise`.
    """
    if not is_finite_number(noise_alpha) or not noise_alpha >= 0:
        raise ValueError(
            f"noise_alpha={noise_alpha!r}: must be 0 or more; the paper uses 5, 10 and 15"
        )
    if length not in ("real", "padded"):
        raise ValueError(f"length={length!r}: use 'real' or 'padded'")
    embedding, seen = model.get_input_embeddings(), {}

    def remember(module, args, kwargs):
        seen["mask"] = kwargs.get("attention_mask")

    def forget(module, args, output):
        seen.clear()

    def add_noise(module, args, output):
        if not module.training or not noise_alpha:
            return output
        mask = seen.get("mask")
        fits = (
            mask is not None and mask.shape == output.shape[:2]
        )  # a 4-D mask does not say which tokens are real
        return output + neftune_noise(output, noise_alpha, mask if fits else None, length)

    hooks = [
        model.register_forward_pre_hook(remember, with_kwargs=True),
        model.register_forward_hook(forget, always_call=True),
        embedding.register_forward_hook(add_noise),
    ]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()
