"""Two stand-ins for a teacher: one that remembers what it has said of a text, and one that says the
wrong things below its likeliest token.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class Stand(nn.Module):
    """What `ftlib.distil` asks of a teacher, handed on to the real one."""

    def __init__(self, teacher: nn.Module):
        super().__init__()
        self.teacher = teacher

    @property
    def device(self) -> torch.device:
        return self.teacher.device

    def get_output_embeddings(self) -> nn.Module:
        return self.teacher.get_output_embeddings()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **rest: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits_of(input_ids, attention_mask, rest))

    def logits_of(self, input_ids: Tensor, attention_mask: Tensor, rest: dict) -> Tensor:
        """(B, T, V)."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **rest}
        return self.teacher(**inputs).logits


class Remembering(Stand):
    """Keeps its logits of every text, padded on the right, so that a text that comes again costs
    nothing: distillation off-policy needs the teacher once a row, whatever the number of epochs.
    """

    def __init__(self, teacher: nn.Module):
        super().__init__(teacher)
        self.known: dict[tuple[int, ...], Tensor] = {}  # ids -> (T, V)

    def logits_of(self, input_ids: Tensor, attention_mask: Tensor, rest: dict) -> Tensor:
        lengths = attention_mask.sum(1).tolist()
        pairs = zip(input_ids.tolist(), lengths, strict=True)
        texts = [tuple(ids[:length]) for ids, length in pairs]
        if not all(text in self.known for text in texts):
            found = super().logits_of(input_ids, attention_mask, rest)
            for row, text in enumerate(texts):
                self.known[text] = found[row, : len(text)].clone()
        size = self.get_output_embeddings().weight.shape[0]
        out = torch.zeros(*input_ids.shape, size, device=input_ids.device)
        for row, text in enumerate(texts):
            out[row, : len(text)] = self.known[text]
        return out


class Shuffled(Stand):
    """Keeps its likeliest token at every position, with its probability, and deals the
    probabilities of all others out to random tokens, always the same ones.
    """

    def __init__(self, teacher: nn.Module, seed: int = 0):
        super().__init__(teacher)
        size = teacher.get_output_embeddings().weight.shape[0]
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("order", torch.randperm(size, generator=generator))

    def logits_of(self, input_ids: Tensor, attention_mask: Tensor, rest: dict) -> Tensor:
        logits = super().logits_of(input_ids, attention_mask, rest)
        return shuffled_below_the_top(logits, self.order.to(logits.device))


def shuffled_below_the_top(logits: Tensor, order: Tensor) -> Tensor:
    """(…, V) logits dealt out anew by `order` (V,), the largest back in its place; what was dealt
    there goes where the largest was dealt.
    """
    top = logits.argmax(-1, keepdim=True)  # (…, 1)
    dealt = logits[..., order]
    landed = dealt.argmax(-1, keepdim=True)
    there = dealt.gather(-1, top)
    highest = dealt.gather(-1, landed)
    return dealt.scatter(-1, landed, there).scatter(-1, top, highest)
