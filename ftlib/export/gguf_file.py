"""Reading GGUF files."""

from __future__ import annotations

import os
import time
from pathlib import Path

from gguf import GGUFReader

from ftlib.core.gguf import open_reader
from ftlib.export.errors import ExportError

SETTLED = 1_000_000_000  # nanoseconds since a file was written


def open_gguf(path) -> GGUFReader:
    """The file's header, and its tensors if it has any: one may hold a vocabulary alone.
    ExportError for a missing, damaged or truncated file.
    """
    return open_reader(
        Path(path).expanduser(), ExportError, "export_gguf writes one", "export it again"
    )


def read_gguf(path) -> GGUFReader:
    """The file's header and tensors, all of them there. ExportError for a missing, damaged or
    truncated file, and for one without tensors.
    """
    state = settled_state(path)  # before the reading: what comes to the file meanwhile is not read
    reader = open_gguf(path)
    if not reader.tensors:
        raise ExportError(f"{Path(path).expanduser()} holds no tensor: export it again")
    if state is not None:
        _sound.add(state)
    return reader


# Files that were read without a fault. With a vocabulary of 100,000 reading takes half a second.
_sound: set[tuple[int, ...]] = set()


def check_gguf(path) -> None:
    """ExportError as `read_gguf`; a file that was read before and has not changed since is not read
    again.
    """
    if settled_state(path) not in _sound:
        read_gguf(path)


def settled_state(path) -> tuple[int, ...] | None:
    """What is otherwise once the file's content is another. None where there is no file, and where
    it was written just now: file systems count time in steps of milliseconds, so that a second
    write within one leaves no trace.
    """
    try:
        found = os.stat(Path(path).expanduser())
    except OSError:
        return None
    if time.time_ns() - found.st_mtime_ns < SETTLED:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def tensor_types(reader: GGUFReader) -> dict[str, str]:
    """Type of every matrix by name; one-dimensional tensors are always F32."""
    return {t.name: t.tensor_type.name for t in reader.tensors if len(t.shape) > 1}
