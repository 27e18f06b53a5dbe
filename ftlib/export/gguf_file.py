"""Reading GGUF files."""

from __future__ import annotations

import os
from pathlib import Path

from gguf import GGUFReader

from ftlib.core.gguf import open_reader
from ftlib.export.errors import ExportError


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
    reader = open_gguf(path)
    if not reader.tensors:
        raise ExportError(f"{Path(path).expanduser()} holds no tensor: export it again")
    _sound.add(_state(path))
    return reader


# Files that were read without a fault. A header with a vocabulary of 100,000 takes seconds to read.
_sound: set[tuple[int, ...]] = set()


def check_gguf(path) -> None:
    """ExportError as `read_gguf`; a file that was read before and has not changed since is not read
    again.
    """
    if not Path(path).expanduser().is_file() or _state(path) not in _sound:
        read_gguf(path)


def _state(path) -> tuple[int, ...]:
    """What another file, or another content, has otherwise."""
    found = os.stat(Path(path).expanduser())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def tensor_types(reader: GGUFReader) -> dict[str, str]:
    """Type of every matrix by name; one-dimensional tensors are always F32."""
    return {t.name: t.tensor_type.name for t in reader.tensors if len(t.shape) > 1}
