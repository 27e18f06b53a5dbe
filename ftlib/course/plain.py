"""Values as bytes that hold no code: how results leave a process that is not trusted.

What pickle reads may run whatever its writer likes. A message here is a tree in JSON, and behind it
the bytes of tensors and arrays; reading it makes values of the types named below, and calls nothing
that the message names.

| in JSON | value |
|---|---|
| `null`, `true`, `1`, `1.5`, `"a"` | as in Python |
| `["list", […]]`, also `tuple`, `set`, `frozenset` | with its items |
| `["dict", [[key, value], …]]` | in its order |
| `["bytes", i]`, `["complex", re, im]`, `["dtype", "torch.float32"]` | `i`: the i-th block |
| `["tensor", dtype, shape, i, number]` | `number`: which of the results that train it is; null |
| `["array", dtype, shape, i]`, `["number", dtype, i]` | of NumPy |
| `["kin", class, words, value]` | of a class made from one of those above, or that acts as one |
| `["thing", class, words, state]` | any other object: what is said of it |
"""

from __future__ import annotations

import dataclasses
import functools
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.course.comparing import Thing, kind_of, module_state, shown

LENGTH = struct.Struct("<Q")
SCALARS = (bool, int, float, str)
ITEMS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
NUMPY_KINDS = "biufcSU"  # truth values, numbers and texts: no objects
LONGEST_NAME = 100  # characters of a class's name
DEEPEST = 50  # values in values
LONGEST_INTEGER = 10_000  # bits


class PlainError(ValueError):
    """A message that is no value."""


class _Kin:
    """Mixed into a built-in type for an object of a class made from it."""

    words = ""

    def __repr__(self) -> str:
        return self.words


@functools.lru_cache(maxsize=1000)
def _class(name: str, *bases: type) -> type:
    return type(name, bases, {})


# --- writing --------------------------------------------------------------------------------------
def encode(value, trained: list[Tensor] | None = None) -> bytes:
    """The value as a message. Tensors that require grad are numbered and added to `trained`."""
    writer = _Writer(trained)
    header = json.dumps(writer.node(value)).encode()
    parts = [header, *writer.blocks]
    sizes = [LENGTH.pack(len(part)) for part in parts]
    return b"".join([LENGTH.pack(len(parts)), *sizes, *parts])


class _Writer:
    def __init__(self, trained: list[Tensor] | None):
        self.blocks: list[bytes] = []
        self.trained = trained
        self.depth = 0

    def node(self, value):
        """The value's place in the tree. What cannot be written is a thing: a list that holds
        itself, an object whose class raises.
        """
        self.depth += 1
        try:
            if self.depth > DEEPEST:
                raise PlainError(f"nested more than {DEEPEST} times")
            return self._node(value)
        except Exception:
            return ["thing", type(value).__name__, kind_of(value), None]
        finally:
            self.depth -= 1

    def _node(self, value):
        kind = type(value)
        if kind is int and value.bit_length() > LONGEST_INTEGER:
            raise PlainError("an integer that JSON does not read")
        if value is None or kind in SCALARS:
            return value
        if kind in ITEMS.values():
            return [kind.__name__, [self.node(item) for item in value]]
        if kind is dict:
            return ["dict", [[self.node(k), self.node(v)] for k, v in value.items()]]
        for known, write in self._writers():
            if isinstance(value, known):
                return write(value)
        return self._kin(value) or self._thing(value)

    def _writers(self) -> list[tuple[type, Callable]]:
        return [
            (Tensor, self._tensor),
            (np.ndarray, self._array),
            (np.generic, self._number),
            (torch.dtype, lambda dtype: ["dtype", str(dtype)]),
            (bytes, lambda value: ["bytes", self._block(bytes(value))]),
            (complex, lambda value: ["complex", value.real, value.imag]),
        ]

    def _block(self, content: bytes) -> int:
        self.blocks.append(content)
        return len(self.blocks) - 1

    def _tensor(self, tensor: Tensor) -> list:
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            kind = "meta" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
            return ["thing", f"{kind} tensor", shown(tensor), None]
        number = None
        if self.trained is not None and tensor.requires_grad:
            number = len(self.trained)
            self.trained.append(tensor)
        plain = tensor.detach().cpu().resolve_conj().resolve_neg()
        numbers = plain.clone(memory_format=torch.contiguous_format).reshape(-1)
        content = numbers.view(torch.uint8).numpy().tobytes() if len(numbers) else b""
        return ["tensor", str(tensor.dtype), list(tensor.shape), self._block(content), number]

    def _array(self, array: np.ndarray) -> list:
        if array.dtype.kind not in NUMPY_KINDS:
            return self._thing(array)
        return ["array", array.dtype.str, list(array.shape), self._block(array.tobytes())]

    def _number(self, number: np.generic) -> list:
        if number.dtype.kind not in NUMPY_KINDS:
            return self._thing(number)
        return ["number", number.dtype.str, self._block(number.tobytes())]

    def _kin(self, value) -> list | None:
        basic = _acts_as(value)
        if basic is None:
            return None
        return ["kin", type(value).__name__, shown(value), self.node(basic)]

    def _thing(self, value) -> list:
        state = None
        if isinstance(value, nn.Module):
            state = module_state(value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            state = vars(value)
        return ["thing", type(value).__name__, shown(value), self.node(state)]


def _acts_as(value):
    """The built-in value of an object whose class is made from a built-in one, or that acts as a
    mapping or a number; None for another.
    """
    if isinstance(value, Mapping):
        return {key: value[key] for key in value}
    for base in ITEMS.values():
        if isinstance(value, base):
            return base(value)
    for base, own in ((int, int.__int__), (float, float.__float__), (str, str.__str__)):
        if isinstance(value, base):
            return own(value)
    return float(value) if hasattr(value, "__float__") else None


# --- reading --------------------------------------------------------------------------------------
def decode(message: bytes, connect: Callable[[Tensor, int], Tensor] | None = None) -> Any:
    """The value of a message. `connect(tensor, number)` gives what to put in the place of a tensor
    that trains. PlainError if the message is no value, whatever it holds.
    """
    try:
        header, *blocks = _parts(message)
        return _Reader(blocks, connect).value(json.loads(header))
    except Exception as error:
        raise PlainError(f"no message of ours: {type(error).__name__}: {error}") from None


def _parts(message: bytes) -> list[bytes]:
    (count,) = LENGTH.unpack_from(message)
    place = LENGTH.size * (1 + count)
    parts = []
    for i in range(count):
        (size,) = LENGTH.unpack_from(message, LENGTH.size * (1 + i))
        parts.append(message[place : place + size])
        place += size
    return parts


class _Reader:
    def __init__(self, blocks: list[bytes], connect: Callable[[Tensor, int], Tensor] | None):
        self.blocks = blocks
        self.connect = connect
        self.readers: dict[str, Callable] = {
            "dict": self._dict,
            "bytes": lambda i: blocks[i],
            "complex": complex,
            "dtype": lambda name: DTYPES[name],
            "tensor": self._tensor,
            "array": self._array,
            "number": self._number,
            "kin": self._kin,
            "thing": self._thing,
        }

    def value(self, node):
        if not isinstance(node, list):
            return node
        kind, *rest = node
        if kind in ITEMS:
            return ITEMS[kind](self.value(item) for item in rest[0])
        return self.readers[kind](*rest)

    def _dict(self, pairs):
        return {self.value(key): self.value(value) for key, value in pairs}

    def _tensor(self, dtype: str, shape: list[int], i: int, number: int | None) -> Tensor:
        empty = torch.empty(0, dtype=DTYPES[dtype])
        block = self.blocks[i]
        numbers = torch.frombuffer(bytearray(block), dtype=empty.dtype) if block else empty
        tensor = numbers.reshape(shape)
        if number is None or self.connect is None:
            return tensor
        return self.connect(tensor, int(number))

    def _array(self, dtype: str, shape: list[int], i: int) -> np.ndarray:
        return self._numbers(dtype, i).reshape(shape).copy()

    def _number(self, dtype: str, i: int) -> Any:
        return self._numbers(dtype, i)[0]

    def _numbers(self, dtype: str, i: int) -> np.ndarray:
        kind = np.dtype(str(dtype))
        if kind.kind not in NUMPY_KINDS:
            raise PlainError(f"an array of {kind}")
        return np.frombuffer(self.blocks[i], kind)

    def _kin(self, name: str, words: str, node):
        basic = self.value(node)
        if not isinstance(basic, (int, float, str, list, tuple, set, frozenset, dict)):
            raise PlainError(f"nothing is made from a {type(basic).__name__}")
        if isinstance(basic, bool):
            return basic
        builtin: type = type(basic)
        value = _class(str(name)[:LONGEST_NAME], _Kin, builtin)(basic)
        value.words = str(words)
        return value

    def _thing(self, name: str, words: str, state) -> Thing:
        thing = _class(str(name)[:LONGEST_NAME], Thing)()
        thing.words = str(words)
        thing.state = self.value(state)
        return thing
