"""DoRA's row norms ‖W + sBA‖, computed once for each state of A, B and W."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from ftlib.adapters.functional import dora_norm, row_squares


class StepCounter:
    """Counts the steps of every optimizer in this process, from the first question on: PyTorch's
    hook for that is global, so it is installed only where a DoRA layer asks.
    """

    def __init__(self):
        self._steps = 0
        self._installed = False

    def steps(self) -> int:
        if not self._installed:
            register_optimizer_step_post_hook(self._count)
            self._installed = True
        return self._steps

    def _count(self, optimizer, args, kwargs) -> None:
        self._steps += 1


_step_counter = StepCounter()


def _version(t: Tensor) -> tuple[int, int]:
    """What changes when the tensor's values do: its place in memory, and PyTorch's counter of
    in-place operations.
    """
    return t.data_ptr(), t._version  # noqa: SLF001 (PyTorch has no public name for it)


class KeptNorm:
    """‖W + sBA‖ (out,) of one layer, computed once for each state of A, B and W: micro-batches and
    recomputation share it.

    The state is told by PyTorch's version counters, which in-place operations advance, and by the
    number of optimizer steps: fused optimizers, Trainer's default, advance no counter. Nor does
    writing through `.data`: call `forget()` after it.
    """

    def __init__(self):
        self._norm: Tensor | None = None
        self._state: tuple | None = None  # what the kept norm was computed of
        self._squares: Tensor | None = None  # ‖W_i‖² of each row
        self._squares_of: tuple | None = None

    def norm(
        self, stored: Tensor, dense: Callable[[], Tensor], A: Tensor, B: Tensor, scaling: float
    ) -> Tensor:
        """The norm of the present state. `stored`: the weight as the layer holds it, perhaps in 4
        bits; `dense`: gives W (out, in), which is asked for only where the state has changed.
        """
        state_of_weight = _version(stored)
        state = (_step_counter.steps(), _version(A), _version(B), state_of_weight)
        if self._norm is not None and self._state == state:
            return self._norm
        weight = dense()
        if self._squares_of != state_of_weight:
            self._squares = row_squares(weight)
            self._squares_of = state_of_weight
        # autocast would round the products to 16 bits
        with torch.autocast(weight.device.type, enabled=False):
            self._norm = dora_norm(weight, A, B, scaling, self._squares)
        self._state = state
        return self._norm

    def forget(self) -> None:
        self._state = None
