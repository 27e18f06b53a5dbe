"""What came beside what was wanted, as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

CLOSEST = 1e-6  # relative: two right formulas in fp32 round differently


@dataclass(frozen=True)
class Pair:
    """Two results as float64 tensors; what rounding in the result's own dtype explains is equal."""

    got: Tensor
    want: Tensor
    given: Mapping[str, Any]
    rounding: float

    def gives(self, expected: Tensor, tolerance: float) -> bool:
        """Whether what came is the expected."""
        return equal(self.got, expected, max(tolerance, self.rounding))


def as_pair(came: Any, wanted: Any, given: Mapping[str, Any]) -> Pair | None:
    """Two results as numbers; None where one is none."""
    got = as_numbers(came)
    want = as_numbers(wanted)
    if got is None or want is None:
        return None
    dtypes = [v.dtype for v in (came, wanted) if isinstance(v, Tensor)]
    half = [torch.finfo(d).eps for d in dtypes if d in (torch.float16, torch.bfloat16)]
    return Pair(got, want, given, max(half, default=0.0))


def as_numbers(value) -> Tensor | None:
    """A tensor, an array, a number or a rectangular list of numbers in float64; else None."""
    if isinstance(value, (list, tuple)):
        if not value or not all(is_number(v) for v in _flat(value)):
            return None
    elif not isinstance(value, (Tensor, np.ndarray)) and not is_number(value):
        return None
    try:
        if isinstance(value, Tensor):
            return None if value.is_complex() else value.detach().cpu().to_dense().double()
        return torch.from_numpy(np.asarray(value, dtype=np.float64))
    except (RuntimeError, TypeError, ValueError, NotImplementedError, OverflowError):
        return None


def _flat(values) -> Iterator:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def is_number(value) -> bool:
    """A number of Python's or NumPy's, and no truth value."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def equal(got: Tensor, want: Tensor, tolerance: float) -> bool:
    """Within the exercise's tolerance of the largest number."""
    if got.shape != want.shape:
        return False
    finite = want[want.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 1.0
    allowed = max(tolerance, CLOSEST)
    return torch.allclose(got, want, rtol=allowed, atol=allowed * scale, equal_nan=True)


def several(pairs: Sequence[Pair]) -> bool:
    """Whether enough different numbers are wanted that a relation is no accident."""
    wanted = torch.cat([pair.want.flatten() for pair in pairs])
    different = wanted[wanted != 0].unique()
    whole = bool((different == different.round()).all())
    return different.numel() >= (3 if whole else 2)
