"""What merging an adapter takes of its update, as squared norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ftlib.models.nf4 import dequantize_packed


@dataclass(frozen=True)
class Drift:
    """Squared norms of a merge: the update itself, what rounding to the weight's dtype changed, and
    what 4 bits would.
    """

    update: float
    rounding: float
    requantising: float

    def __add__(self, other: Drift) -> Drift:
        return Drift(
            self.update + other.update,
            self.rounding + other.rounding,
            self.requantising + other.requantising,
        )

    def __str__(self) -> str:
        size = math.sqrt(self.update) or 1.0
        return (
            f"rounding moved the weights by {math.sqrt(self.rounding) / size:.2g} of the update's "
            f"norm; in 4 bits again it would be {math.sqrt(self.requantising) / size:.2g}"
        )


def requantising(weight: Tensor, state) -> float:
    """What storing a weight (out, in) in 4 bits, as bitsandbytes' `state` says, would take of it,
    squared.
    """
    from bitsandbytes.functional import quantize_4bit

    packed, new_state = quantize_4bit(
        weight.to(state.dtype),
        blocksize=state.blocksize,
        quant_type=state.quant_type,
        compress_statistics=state.nested,
    )
    again = dequantize_packed(packed, new_state).to(weight.dtype)
    return (again - weight).square().sum().item()
