"""Peak memory of a stretch of code: to the byte, on a GPU or a CPU."""
from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _LiveBytes(TorchDispatchMode):
    """Bytes of all storages made within it that are still alive, and their peak: independent of allocators and of other processes."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def _gone(self, key: int, size: int) -> None:
        self.live -= size
        self.known.discard(key)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and (key := t.untyped_storage()._cdata) not in self.known | inputs:
                size = t.untyped_storage().nbytes()
                self.known.add(key)
                self.live += size
                weakref.finalize(t.untyped_storage(), self._gone, key, size)
        self.peak = max(self.peak, self.live)
        return out


def peak_bytes(function: Callable) -> int:
    """The most that tensors made by `function()` held at one moment, in bytes, beyond what was there before.

    On a GPU PyTorch's allocator counts. On a CPU every tensor operation is watched, which slows it: measure a step, not a run.
    Scratch space inside an operation, and what it frees before it returns, is not seen there.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    with _LiveBytes() as meter:
        function()
    return meter.peak
