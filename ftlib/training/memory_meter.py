"""Memory measured: the peak of a stretch of code, and its course through a training step, to the
byte, on a GPU or a CPU.
"""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def _storage_key(tensor: torch.Tensor) -> int:
    """One number for all tensors that share a storage; torch has no public name for it."""
    return tensor.untyped_storage()._cdata  # noqa: SLF001


def _tensors(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class _LiveBytes(TorchDispatchMode):
    """Bytes of all storages made within it that are still alive, and their peak:
    independent of allocators and of other processes.
    """

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def _gone(self, key: int, size: int) -> None:
        self.live -= size
        self.known.discard(key)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = {_storage_key(tensor) for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            if tensor.is_meta:
                continue
            key = _storage_key(tensor)
            if key in self.known or key in inputs:
                continue
            size = tensor.untyped_storage().nbytes()
            self.known.add(key)
            self.live += size
            weakref.finalize(tensor.untyped_storage(), self._gone, key, size)
        self.peak = max(self.peak, self.live)
        return out


def peak_bytes(function: Callable) -> int:
    """The most that tensors made by `function()` held at one moment, in bytes, beyond what was
    there before.

    On a GPU PyTorch's allocator counts. On a CPU every tensor operation is watched, which slows it:
    measure a step, not a run. Scratch space inside an operation, and what it frees before it
    returns, is not seen there.
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


def watched_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules whose coming and going tells a step's story: embedding, blocks, head."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    watched = {}
    for name, module in model.named_modules():
        is_block = name.rpartition(".")[2].isdigit()
        is_end = any(module is end for end in ends)
        if is_block or is_end:
            watched[name] = module
    return watched


@contextlib.contextmanager
def _marks(model: nn.Module, mark: Callable[[str], None]) -> Iterator[None]:
    hooks = []
    for name, module in watched_modules(model).items():
        hooks.append(module.register_forward_hook(lambda *_, name=name: mark(f"forward {name}")))
        if module is not model.get_input_embeddings():  # token ids have no gradient
            hooks.append(
                module.register_full_backward_hook(lambda *_, name=name: mark(f"backward {name}"))
            )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def memory_timeline(model: nn.Module, function: Callable) -> list[tuple[str, int]]:
    """(moment, bytes live then) each time a block, the embedding or the head of `model` ends its
    forward or backward pass in `function()`, beyond what was there before; as `peak_bytes` counts.
    """
    course: list[tuple[str, int]] = []
    gc.collect()
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        with _marks(
            model, lambda name: course.append((name, torch.cuda.memory_allocated() - before))
        ):
            function()
        return course
    with _LiveBytes() as meter, _marks(model, lambda name: course.append((name, meter.live))):
        function()
    return course
