"""What section 1 of lab 3.1.5 says of a model's weights, from what was counted."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

GROUP = 32  # successive weights that share a scale in the 4-bit types of GGUF files
GROUPS = 1000  # looked at in a matrix, at most
FEW = 16  # values that four bits can name
NEAR = 0.05  # standard deviations by which quartiles may be off the normal line
EXCESS = 0.03  # share of blocks that a test may reject beyond what it rejects by chance


def values_in_groups(matrices: Iterable[Tensor]) -> float:
    """How many different values 32 successive weights have, the median over groups."""
    counts = []
    for weights in matrices:
        whole = weights.flatten()[: weights.numel() // GROUP * GROUP]
        groups = whole.view(-1, GROUP)[:GROUPS].sort(1).values
        counts.append((groups.diff(dim=1) != 0).sum(1) + 1)
    return torch.cat(counts).float().median().item()


def four_bits_line(values: float) -> str:
    """That weights were in four bits before, where their values say so; else empty."""
    if values > FEW:
        return ""
    return (
        f"In {GROUP} successive weights there are only {values:.0f} different values (the median "
        "over such groups): these weights have been stored in four bits once, with a scale for "
        f"each {GROUP}, and taken back. So what follows rounds weights that were rounded before, "
        'and "the original" and "16 bits" mean the weights as they came back. Their grid is '
        "another one than NF4's."
    )


def bell_line(inner: float, outer: float, real: float, ideal: float) -> str:
    """In how far the weights are normal: `inner` and `outer` of quantiles off the normal line, in
    standard deviations; shares of blocks that a test rejects, and of blocks of normal numbers.
    """
    if real < ideal + EXCESS:
        blocks = "block by block nearly normal"
    else:
        blocks = f"block by block normal but for {real - ideal:.0%} more rejected than by chance"
    heavier = "heavier" if outer > NEAR else "no heavier"
    middle = "" if abs(inner) < NEAR else "; between the quartiles it leaves the normal line"
    return f"So: {blocks}, and over a whole matrix the tails are {heavier} than normal{middle}."
