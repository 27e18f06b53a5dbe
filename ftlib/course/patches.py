"""What a submission's code has changed in ftlib: noted, and put back.

A submission gains nothing by it, since its marks are made in another process; a reader of the marks
wants to know. The report comes from the submission's own process: one that goes so far as to forge
it too is not noted.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

MISSING = object()
PARTS = ("__code__", "__defaults__", "__kwdefaults__")  # of a function


@dataclass(frozen=True)
class _Attribute:
    """One attribute as it was: of a module, a class, a function or a frozen dataclass."""

    owner: Any
    name: str
    value: Any
    path: str

    def changed(self) -> bool:
        return _held(self.owner).get(self.name, MISSING) is not self.value

    def put_back(self) -> None:
        frozen = dataclasses.is_dataclass(self.owner) and not isinstance(self.owner, type)
        put = object.__setattr__ if frozen else setattr
        put(self.owner, self.name, self.value)


def _held(owner) -> Mapping[str, Any]:
    """An object's own attributes; of a function the parts that it is made of."""
    if isinstance(owner, FunctionType):
        return {part: getattr(owner, part) for part in PARTS}
    return vars(owner)


class Snapshot:
    """ftlib's modules as they are now: their attributes, and those of what they define."""

    def __init__(self) -> None:
        self.attributes: list[_Attribute] = []
        for name, module in sorted(sys.modules.items()):
            if name.partition(".")[0] == "ftlib" and module is not None:
                self.attributes += _attributes(module, name)

    def put_back(self) -> list[str]:
        """Puts back what has changed since; its names."""
        changed = [attribute for attribute in self.attributes if attribute.changed()]
        for attribute in changed:
            attribute.put_back()
        return list(dict.fromkeys(attribute.path for attribute in changed))


def _attributes(module, path: str) -> Iterator[_Attribute]:
    for name, value in _named(module):
        yield _Attribute(module, name, value, f"{path}.{name}")
        if _is_frozen(value):
            yield from _of_instance(value, f"{path}.{name}")
        elif getattr(value, "__module__", None) == module.__name__:  # where it is defined
            yield from _inner(value, f"{path}.{name}")


def _inner(value, path: str) -> Iterator[_Attribute]:
    """Of a function or a class."""
    if isinstance(value, FunctionType):
        yield from _parts(value, path)
    elif isinstance(value, type):
        for name, inner in _named(value):
            yield _Attribute(value, name, inner, f"{path}.{name}")
            if isinstance(inner, FunctionType):
                yield from _parts(inner, f"{path}.{name}")


def _of_instance(value, path: str) -> Iterator[_Attribute]:
    for name, inner in vars(value).items():
        yield _Attribute(value, name, inner, f"{path}.{name}")


def _parts(function: FunctionType, path: str) -> Iterator[_Attribute]:
    for part, value in _held(function).items():
        yield _Attribute(function, part, value, path)
    decorated = getattr(function, "__wrapped__", None)
    if isinstance(decorated, FunctionType):
        yield from _parts(decorated, path)


def _named(owner) -> list[tuple[str, Any]]:
    """An owner's attributes but for what Python keeps there itself; `__init__` and the like, which
    are functions, are among them.
    """
    own = vars(owner).items()
    return [(k, v) for k, v in own if isinstance(v, FunctionType) or not k.startswith("__")]


def _is_frozen(value) -> bool:
    """Whether it is an instance of one of ftlib's dataclasses whose fields do not change."""
    kind = type(value)
    ours = kind.__module__.partition(".")[0] == "ftlib"
    params = getattr(kind, "__dataclass_params__", None)
    return ours and params is not None and params.frozen and hasattr(value, "__dict__")
