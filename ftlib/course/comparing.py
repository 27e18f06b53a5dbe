"""Two results compared, and values shown in a few words: what `check` says of an answer."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

INDEX_DTYPES = (torch.int64, torch.int32)
_FEW = 6  # numbers of a tensor that are shown
_ROOM = 160  # characters of a value that are shown


# --- showing --------------------------------------------------------------------------------------
def kind_of(value) -> str:
    """The value's type in words, a tensor with its shape and dtype."""
    if isinstance(value, torch.Tensor):
        return f"tensor {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, np.ndarray):
        return f"NumPy array {value.shape} {value.dtype}"
    return type(value).__name__


def shown(value) -> str:
    """A value in less than a line: large tensors by shape and dtype, long texts cut."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return _shown_array(value)
    if isinstance(value, nn.Module):
        return f"a {type(value).__name__}"
    if isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value):
        return _cut("(" + ", ".join(shown(v) for v in value) + ")")
    if isinstance(value, dict):
        return _cut("{" + ", ".join(f"{k!r}: {shown(v)}" for k, v in value.items()) + "}")
    if callable(value):
        return f"the function {getattr(value, '__name__', type(value).__name__)}"
    if dataclasses.is_dataclass(value):
        return f"a {type(value).__name__}"
    return _cut(_safe_repr(value))


def _shown_array(value) -> str:
    words = kind_of(value)
    count = value.numel() if isinstance(value, torch.Tensor) else value.size
    if not 0 < count <= _FEW:
        return words
    try:
        numbers = value.tolist()
    except (RuntimeError, TypeError, NotImplementedError):  # a sparse tensor, one on "meta"
        return words
    return f"{words} {_rounded(numbers)}"


def _rounded(numbers) -> str:
    if isinstance(numbers, list):
        return "[" + ", ".join(_rounded(v) for v in numbers) + "]"
    if isinstance(numbers, float):
        return f"{numbers:.6g}"
    return repr(numbers)


def _safe_repr(value) -> str:
    try:
        return repr(value)
    except Exception:  # the class may be the student's
        return reprlib.repr(type(value))


def _cut(text: str) -> str:
    return text if len(text) <= _ROOM else text[: _ROOM - 1] + "…"


# --- comparing results ----------------------------------------------------------------------------
def difference(got, want, tolerance: float) -> str | None:
    """None if equal, else the first difference in words.

    Floating-point numbers are equal within `tolerance`, relative and absolute; integers, texts and
    truth values are equal only if they are the same. Dtypes are not compared (`dtype_difference`
    does that).
    """
    try:
        return _difference(got, want, tolerance)
    except Exception as error:
        return (
            f"it returns {kind_of(got)}, which cannot be compared with {kind_of(want)} "
            f"({type(error).__name__}: {_cut(str(error))})"
        )


def _difference(got, want, tolerance: float) -> str | None:
    if isinstance(want, np.ndarray):
        if not isinstance(got, np.ndarray):
            return f"it returns {type(got).__name__}, an array is wanted"
        return _tensor_difference(torch.from_numpy(got), torch.from_numpy(want), tolerance)
    if isinstance(want, torch.Tensor):
        return _tensor_difference(got, want, tolerance)
    if isinstance(want, (bool, np.bool_)):
        return _truth_difference(got, want)
    if isinstance(want, str) or want is None:
        equal = isinstance(got, type(want)) and got == want
        return None if equal else f"it returns {shown(got)}, {shown(want)} is wanted"
    if isinstance(want, (int, float, np.number)):
        return _number_difference(got, want, tolerance)
    if isinstance(want, dict):
        return _dict_difference(got, want, tolerance)
    if isinstance(want, (list, tuple)):
        return _sequence_difference(got, want, tolerance)
    return None if got == want else f"it returns {shown(got)}, {shown(want)} is wanted"


def _truth_difference(got, want) -> str | None:
    equal = isinstance(got, (bool, np.bool_)) and bool(got) == bool(want)
    return None if equal else f"it returns {shown(got)}, {bool(want)} is wanted"


def _tensor_difference(got, want: torch.Tensor, tolerance: float) -> str | None:
    if not isinstance(got, torch.Tensor):
        return f"it returns {type(got).__name__}, a tensor is wanted"
    if got.shape != want.shape:
        return f"its shape is {tuple(got.shape)}, {tuple(want.shape)} is wanted"
    if got.is_complex() and not want.is_complex():
        return f"it returns {kind_of(got)}, real numbers are wanted"
    exact = not want.is_floating_point() and not want.is_complex()
    got = got.detach().cpu().double()
    want = want.detach().cpu().double()
    allowed = 0.0 if exact else tolerance
    close = torch.isclose(got, want, rtol=allowed, atol=allowed, equal_nan=True)
    return None if close.all() else _where_they_differ(got, want, close)


def _where_they_differ(got: torch.Tensor, want: torch.Tensor, close: torch.Tensor) -> str:
    """The largest difference and its place; a number that is not finite comes before all others."""
    distance = torch.where(close, 0.0, (got - want).abs()).nan_to_num(nan=math.inf)
    worst = int(distance.argmax())
    place = [int(i) for i in np.unravel_index(worst, got.shape)]
    largest = float(distance.flatten()[worst])
    amount = f" by up to {largest:.3g}," if math.isfinite(largest) else ""
    where = f" at {place}" if place else ""
    came = float(got.flatten()[worst])
    wanted = float(want.flatten()[worst])
    return f"values differ{amount}{where}: {came:.6g} came, {wanted:.6g} is wanted"


def _number_difference(got, want, tolerance: float) -> str | None:
    if isinstance(got, (str, bytes)):
        return f"it returns the text {shown(got)}, a number is wanted"
    try:
        number = float(got)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return f"it returns {kind_of(got)}, a number is wanted"
    if isinstance(want, (int, np.integer)):
        # Compared as they are: a float has no room for every integer.
        equal = bool(got == want)
        return None if equal else f"it returns {shown(got)}, {want} is wanted"
    close = math.isclose(number, float(want), rel_tol=tolerance, abs_tol=tolerance)
    if close or (math.isnan(number) and math.isnan(want)):
        return None
    return f"it returns {number:.6g}, {float(want):.6g} is wanted"


def _dict_difference(got, want: dict, tolerance: float) -> str | None:
    if not isinstance(got, Mapping):
        return f"it returns {type(got).__name__}, keys {_keys(want)} are wanted"
    if got.keys() != want.keys():
        return f"it returns {_keys(got)}, keys {_keys(want)} are wanted"
    for key, value in want.items():
        found = _difference(got[key], value, tolerance)
        if found:
            return f"at {key!r} {found}"
    return None


def _keys(mapping: Mapping) -> str:
    return _cut(str(sorted(mapping, key=str)))


def _sequence_difference(got, want, tolerance: float) -> str | None:
    if not isinstance(got, (list, tuple)):
        return f"it returns {kind_of(got)}, a {type(want).__name__} of {len(want)} items is wanted"
    if len(got) != len(want):
        return f"it returns {len(got)} items, {len(want)} are wanted"
    for i, (one, other) in enumerate(zip(got, want, strict=True)):
        found = _difference(one, other, tolerance)
        if found:
            return f"item {i}: {found}"
    return None


def unordered(values):
    """A list in an order of its own, so that two lists of the same items are equal; any other value
    as it is.
    """
    if not isinstance(values, (list, tuple, set, frozenset)):
        return values
    return sorted(values, key=repr)


# --- comparing dtypes -----------------------------------------------------------------------------
def dtype_difference(got, want, rules: Mapping[Any, str]) -> str | None:
    """None if the parts of the result that `rules` names have the dtype that was asked for.

    A part is an index or a key of the result, or None for all of it. "same": the reference's dtype.
    "index": numbers that can index, int64 or int32 in a tensor and whole numbers of Python's or
    NumPy's elsewhere.
    """
    for part, rule in rules.items():
        one = got if part is None else got[part]
        other = want if part is None else want[part]
        found = _index_fault(one) if rule == "index" else _dtype_fault(one, other)
        if found:
            return _place(part) + found
    return None


def _place(part) -> str:
    if part is None:
        return ""
    return f"item {part}: " if isinstance(part, int) else f"at {part!r} "


def _dtype_fault(got, want) -> str | None:
    if got.dtype == want.dtype:
        return None
    return f"the dtype is {got.dtype}, {want.dtype} is asked for"


def _index_fault(got) -> str | None:
    if isinstance(got, torch.Tensor):
        if got.dtype in INDEX_DTYPES:
            return None
        return f"the dtype is {got.dtype}, which cannot index: integers (torch.int64) are asked for"
    if isinstance(got, dict):
        return next(filter(None, map(_index_fault, got.values())), None)
    if isinstance(got, (list, tuple)):
        return next(filter(None, map(_index_fault, got)), None)
    if isinstance(got, (int, np.integer)) and not isinstance(got, bool):
        return None
    return f"{shown(got)} is a {type(got).__name__}, an integer is asked for"


# --- arguments before and after -------------------------------------------------------------------
class Thing:
    """In the place of an object of another process: `words` are what is said of it, `state` what of
    a module or a dataclass could be changed.
    """

    words = ""
    state: Any = None

    def __repr__(self) -> str:
        return self.words


def changed(before, after) -> bool:
    """Whether a value was changed in place: tensors by their numbers, containers and modules
    deeply. Functions and objects of other classes are not looked into.
    """
    if type(before) is not type(after):
        return True
    if isinstance(before, torch.Tensor):
        return _tensor_changed(before, after)
    if isinstance(before, np.ndarray):
        return before.shape != after.shape or before.tobytes() != after.tobytes()
    if isinstance(before, dict):
        return list(before) != list(after) or changed(list(before.values()), list(after.values()))
    if isinstance(before, (list, tuple)):
        pairs = zip(before, after, strict=False)
        return len(before) != len(after) or any(changed(one, other) for one, other in pairs)
    if isinstance(before, (nn.Module, Thing)) or dataclasses.is_dataclass(before):
        return changed(_inside(before), _inside(after))
    if isinstance(before, float):
        return before != after and not (math.isnan(before) and math.isnan(after))
    if isinstance(before, (int, str, bytes, set, frozenset)):
        return before != after
    return False


def _tensor_changed(before: torch.Tensor, after: torch.Tensor) -> bool:
    if before.shape != after.shape or before.dtype != after.dtype:
        return True
    equal = torch.isclose(before.detach(), after.detach(), rtol=0, atol=0, equal_nan=True)
    return not bool(equal.all())


def _inside(value):
    """What of an object can change."""
    if isinstance(value, Thing):
        return value.state
    return module_state(value) if isinstance(value, nn.Module) else vars(value)


def module_state(module: nn.Module) -> dict:
    """What of a module a cell could change: numbers, what trains, modes."""
    state: dict[str, Any] = {"mode": [part.training for part in module.modules()]}
    state["trains"] = {name: p.requires_grad for name, p in module.named_parameters()}
    state["numbers"] = dict(module.state_dict())
    return state
