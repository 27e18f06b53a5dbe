"""Open a GGUF file: the one place that knows what a damaged header raises."""

from __future__ import annotations

import functools
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gguf import GGUFReader

LENGTH = struct.Struct("=Q")  # bytes of a string, before it
ARRAY_HEADER = struct.Struct("=IQ")  # type of the items, and how many


def open_reader(path: Path, error: type[Exception], if_missing: str, if_damaged: str) -> GGUFReader:
    """The file's header, and its tensors if it has any. `error`, with what to do (`if_missing`,
    `if_damaged`), for a file that is not there, is damaged or truncated, or is none of GGUF's.
    """
    if not path.is_file():
        raise error(f"{path} does not exist: {if_missing}")
    try:
        return _reader_class()(path)
    except Exception as found:  # a damaged header raises whatever its bytes happen to mean
        raise error(
            f"{path} is damaged or truncated, or no GGUF file ({type(found).__name__}: {found}): "
            f"{if_damaged}"
        ) from None


@functools.cache
def _reader_class() -> type[GGUFReader]:
    from gguf import GGUFReader, GGUFValueType

    class Reader(GGUFReader):
        """`GGUFReader`, but quick at vocabularies. It makes several views of a memory map for every
        item of an array, tens of microseconds each, whenever a file is opened; the fields here are
        the same. Should gguf go about it in another way one day, this method is not called.
        """

        def _get_field_parts(self, orig_offs: int, raw_type: int):
            if raw_type != GGUFValueType.ARRAY or self.byte_order != "I":
                return super()._get_field_parts(orig_offs, raw_type)
            number, count = ARRAY_HEADER.unpack_from(self.data, orig_offs)
            kind = GGUFValueType(number)
            data = np.asarray(self.data)
            start = orig_offs + ARRAY_HEADER.size
            if not count or kind == GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            if kind == GGUFValueType.STRING:
                items, end = _strings(data, start, count)
            else:
                items, end = _numbers(data, start, count, np.dtype(self.gguf_scalar_to_np[kind]))
            header = [
                data[orig_offs : orig_offs + 4].view(np.uint32),
                data[orig_offs + 4 : start].view(np.uint64),
            ]
            parts = [*header, *items]
            each = len(items) // count  # a string's length is a part of its own, before it
            places = range(len(header) + each - 1, len(parts), each)
            return end - orig_offs, parts, list(places), [GGUFValueType.ARRAY, kind]

    return Reader


def _strings(data: np.ndarray, start: int, count: int) -> tuple[list[np.ndarray], int]:
    """The parts of so many strings from byte `start` on, of each its length and its bytes, and the
    byte after them.
    """
    raw = data.data
    parts: list[np.ndarray] = []
    at = start
    for _ in range(count):
        text = at + LENGTH.size
        end = text + LENGTH.unpack_from(raw, at)[0]
        if end > len(data):
            raise ValueError(f"a string at byte {at} goes on after the end of the file")
        parts.append(data[at:text].view(np.uint64))
        parts.append(data[text:end])
        at = end
    return parts, at


def _numbers(
    data: np.ndarray, start: int, count: int, dtype: np.dtype
) -> tuple[list[np.ndarray], int]:
    """So many numbers from byte `start` on, each a part, and the byte after them."""
    end = start + count * dtype.itemsize
    if end > len(data):
        raise ValueError(f"an array at byte {start} goes on after the end of the file")
    numbers = data[start:end].view(dtype)
    return [numbers[place : place + 1] for place in range(count)], end
