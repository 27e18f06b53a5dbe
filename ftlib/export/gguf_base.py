"""A GGUF file, or its parts, as bytes: where each tensor lies, and the metadata as it stands."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import gguf
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader

from ftlib.export.errors import ExportError
from ftlib.export.gguf_file import open_gguf, read_gguf

PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
VIRTUAL = "GGUF."  # fields that the reader adds: version and counts


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file: its shape with the rows first, its type, and its bytes from `offset`."""

    name: str
    shape: tuple[int, ...]
    kind: Type
    nbytes: int
    file: Path
    offset: int


@dataclass(frozen=True)
class GgufBase:
    """A file's content: its parts, its metadata as bytes, its tensors in order.

    architecture: by gguf's name. fields: the metadata's numbers and texts, without lists.
    """

    parts: tuple[Path, ...]
    architecture: str
    fields: dict[str, object]
    version: int
    metadata: bytes
    metadata_count: int
    alignment: int
    tensors: tuple[StoredTensor, ...]

    def number(self, key: str) -> int:
        """A number of the architecture's own, such as "block_count". ExportError without it."""
        value = self.fields.get(f"{self.architecture}.{key}")
        if not isinstance(value, int):
            raise ExportError(
                f"{self.parts[0]}: {self.architecture}.{key} is {value!r}, a number is needed"
            )
        return value

    def header(self, tensors: list[StoredTensor]) -> bytes:
        """What stands before the data of a file with this metadata and these tensors."""
        counts = struct.pack("<IQQ", self.version, len(tensors), self.metadata_count)
        parts = [b"GGUF", counts, self.metadata]
        offset = 0
        for tensor in tensors:
            name = tensor.name.encode()
            parts.append(struct.pack("<Q", len(name)) + name)
            parts.append(struct.pack("<I", len(tensor.shape)))
            for size in reversed(tensor.shape):
                parts.append(struct.pack("<Q", size))
            parts.append(struct.pack("<IQ", tensor.kind, offset))
            offset += tensor.nbytes + -tensor.nbytes % self.alignment
        return b"".join(parts)


def open_base(path: str | os.PathLike) -> GgufBase:
    """A GGUF file, or all parts of one of which `path` is the first. ExportError for a missing,
    damaged or big-endian file, and where a part is missing.
    """
    files = _parts(Path(path).expanduser())
    first = open_gguf(files[0]) if len(files) > 1 else read_gguf(files[0])
    if first.byte_order != "I":
        raise ExportError(f"{files[0]} was written for a machine of the other byte order")
    version = int(first.fields["GGUF.version"].contents())
    kept, count = _metadata(first, files[0])
    tensors = []
    for number, file in enumerate(files):
        reader = first if number == 0 else read_gguf(file)
        tensors += [_stored(tensor, file) for tensor in reader.tensors]
    fields = {}
    for key, field in first.fields.items():
        if field.types[0] != gguf.GGUFValueType.ARRAY:
            fields[key] = field.contents()
    architecture = str(fields.get("general.architecture", ""))
    alignment = int(first.alignment)
    return GgufBase(
        tuple(files), architecture, fields, version, kept, count, alignment, tuple(tensors)
    )


def _parts(path: Path) -> list[Path]:
    """The file alone, or all parts that its name counts."""
    found = PART.match(path.name)
    if found is None:
        return [path]
    count = int(found["count"])
    names = [f"{found['stem']}-{n:05d}-of-{count:05d}.gguf" for n in range(1, count + 1)]
    files = [path.with_name(name) for name in names]
    for file in files:
        if not file.is_file():
            raise ExportError(f"{file} does not exist: {path.name} is one of {count} parts")
    return files


def _metadata(reader: GGUFReader, file: Path) -> tuple[bytes, int]:
    """(the metadata's bytes, how many entries), without those that say how the file was split."""
    fields = [field for key, field in reader.fields.items() if not key.startswith(VIRTUAL)]
    starts = [field.offset for field in fields]
    ends = [*starts[1:], _end_of_metadata(reader, fields)]
    kept = []
    with open(file, "rb") as opened:
        for field, start, end in zip(fields, starts, ends, strict=True):
            if not field.name.startswith("split."):
                opened.seek(start)
                kept.append(opened.read(end - start))
    return b"".join(kept), len(kept)


def _end_of_metadata(reader: GGUFReader, fields: list) -> int:
    if reader.tensors:
        return reader.tensors[0].field.offset
    last = fields[-1]
    return last.offset + sum(int(part.nbytes) for part in last.parts)


def _stored(tensor, file: Path) -> StoredTensor:
    shape = tuple(int(size) for size in reversed(tensor.shape))
    return StoredTensor(
        tensor.name,
        shape,
        tensor.tensor_type,
        int(tensor.n_bytes),
        file,
        int(tensor.data_offset),
    )
