"""Whether a function builds the product of two of its arguments: what it holds is measured."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ftlib.course.calls import observer

# Calls that hand a tensor's numbers to NumPy or Python, where no spy of torch's sees what they
# become.
_WAYS_OUT = ("numpy", "__array__", "tolist", "item", "__dlpack__", "__float__")


def _tensors_in(values) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors_in(list(values.values()))
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors_in(value)


class _Origins:
    """For every tensor's memory, the factors that its numbers come from; and what of it is held."""

    def __init__(self, factors: dict[str, Tensor], limit: int):
        self.names = frozenset(factors)
        self.limit = limit
        self.of_memory: dict[int, frozenset] = {}
        self.held: list[weakref.ref] = []
        self.exceeded = False
        self.left_torch = False
        for name, tensor in factors.items():
            self.of_memory[tensor.untyped_storage().data_ptr()] = frozenset({name})

    def of(self, tensors: Iterable[Tensor]) -> frozenset:
        found: frozenset = frozenset()
        for tensor in tensors:
            found |= self.of_memory.get(tensor.untyped_storage().data_ptr(), frozenset())
        return found

    def note(self, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Outputs come from all that the inputs come from. Memory that is reused forgets."""
        origins = self.of(inputs)
        known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        for tensor in outputs:
            memory = tensor.untyped_storage().data_ptr()
            before = self.of_memory.get(memory, frozenset()) if memory in known else frozenset()
            self.of_memory[memory] = before | origins
            if self.names <= self.of_memory[memory]:
                self.held.append(weakref.ref(tensor))
        self._measure()

    def _measure(self) -> None:
        """The numbers held at this moment that depend on all factors, each memory once."""
        alive = [(ref, ref()) for ref in self.held]
        self.held = [ref for ref, tensor in alive if tensor is not None]
        sizes = {}
        for _, tensor in alive:
            if tensor is not None:
                storage = tensor.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        self.exceeded |= sum(sizes.values()) >= self.limit


class _Allocations(TorchDispatchMode):
    """Follows the factors through every operation of torch's, einsum's and autograd's included."""

    def __init__(self, origins: _Origins):
        super().__init__()
        self.origins = origins

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        inputs = list(_tensors_in([args, kwargs or {}]))
        if "_local_scalar_dense" in func.__name__ and self.origins.of(inputs):
            self.origins.left_torch = True
        out = func(*args, **(kwargs or {}))
        self.origins.note(inputs, list(_tensors_in(out)))
        return out


class _WaysOut(TorchFunctionMode):
    """Notes where a factor, or what comes from one, is handed to NumPy or Python."""

    def __init__(self, origins: _Origins):
        super().__init__()
        self.origins = origins

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in _WAYS_OUT and self.origins.of(_tensors_in([args])):
            self.origins.left_torch = True
        return func(*args, **(kwargs or {}))


@observer
def holds_product(
    function: Callable, arguments: tuple, factors: tuple[int, int], limit: int | None = None
) -> bool | None:
    """Whether function(*arguments) ever holds as many numbers as the product of two of its
    arguments has, all of them made from both.

    arguments: tensors and plain values; factors: the positions of A (r, in) and B (out, r), whose
    product has out·in numbers, or of any two with a `limit` of one's own. Counts what is alive at
    one moment, whatever made it: a product, einsum, a broadcast sum, a list of rows. A copy of
    another argument as large is none. None where a factor left torch (NumPy, `.item()`,
    `.tolist()`) and nothing was seen: what is made there is not measured.
    """
    A, B = (arguments[i] for i in factors)
    most = limit or B.shape[0] * A.shape[1]
    origins = _Origins({"A": A, "B": B}, most)
    with torch.no_grad(), _WaysOut(origins), _Allocations(origins):
        result = function(*arguments)
    del result
    if origins.exceeded:
        return True
    return None if origins.left_torch else False
