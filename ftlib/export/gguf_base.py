"""A GGUF file, or its parts, as bytes: where each tensor lies, and the metadata as it stands.

gguf's own reader makes objects of every token and merge of the vocabulary, half a gigabyte for
128k tokens. Here lists are passed over, and read only when they are asked for.
Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import gguf
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Kind

from ftlib.export.errors import ExportError

PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = "general.alignment"
FORMATS = {  # of struct, little-endian
    Kind.UINT8: "<B",
    Kind.INT8: "<b",
    Kind.UINT16: "<H",
    Kind.INT16: "<h",
    Kind.UINT32: "<I",
    Kind.INT32: "<i",
    Kind.UINT64: "<Q",
    Kind.INT64: "<q",
    Kind.FLOAT32: "<f",
    Kind.FLOAT64: "<d",
    Kind.BOOL: "<?",
}


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
class Entry:
    """A metadata entry: its bytes in the file, and its value; None for a list."""

    key: str
    start: int
    end: int
    value: object


@dataclass(frozen=True)
class GgufBase:
    """A file's content: its parts, the metadata of the first, the tensors of all in order.

    architecture: by gguf's name. fields: the metadata's numbers and texts, without lists.
    """

    parts: tuple[Path, ...]
    version: int
    entries: tuple[Entry, ...]
    tensors: tuple[StoredTensor, ...]

    @property
    def fields(self) -> dict[str, object]:
        return {entry.key: entry.value for entry in self.entries if entry.value is not None}

    @property
    def architecture(self) -> str:
        return str(self.fields.get("general.architecture", ""))

    @property
    def alignment(self) -> int:
        return int(self.fields.get(ALIGNMENT, gguf.GGUF_DEFAULT_ALIGNMENT))  # type: ignore[call-overload]

    def number(self, key: str) -> int:
        """A number of the architecture's own, such as "block_count". ExportError without it."""
        value = self.fields.get(f"{self.architecture}.{key}")
        if not isinstance(value, int):
            raise ExportError(
                f"{self.parts[0]}: {self.architecture}.{key} is {value!r}, a number is needed"
            )
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts of the metadata, such as "tokenizer.ggml.tokens". ExportError without."""
        for entry in self.entries:
            if entry.key == key and entry.value is None:
                with open(self.parts[0], "rb") as file:
                    file.seek(entry.start)
                    return _Header(file, self.parts[0]).texts()
        raise ExportError(f"{self.parts[0]} has no list {key!r}")

    def metadata(self) -> bytes:
        """The bytes of all entries."""
        with open(self.parts[0], "rb") as file:
            kept = []
            for entry in self.entries:
                file.seek(entry.start)
                kept.append(file.read(entry.end - entry.start))
        return b"".join(kept)

    def header(self, tensors: list[StoredTensor]) -> bytes:
        """What stands before the data of a file with this metadata and these tensors."""
        counts = struct.pack("<IQQ", self.version, len(tensors), len(self.entries))
        parts = [MAGIC, counts, self.metadata()]
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
    version, entries, tensors = _read(files[0])
    for file in files[1:]:
        _, _, more = _read(file)
        tensors += more
    if not tensors:
        raise ExportError(f"{files[0]} holds no tensor: export it again")
    kept = tuple(entry for entry in entries if not entry.key.startswith("split."))
    return GgufBase(tuple(files), version, kept, tuple(tensors))


def _parts(path: Path) -> list[Path]:
    """The file alone, or all parts that its name counts."""
    found = PART.match(path.name)
    if found is None:
        files = [path]
    else:
        count = int(found["count"])
        names = [f"{found['stem']}-{n:05d}-of-{count:05d}.gguf" for n in range(1, count + 1)]
        files = [path.with_name(name) for name in names]
    for file in files:
        if not file.is_file():
            which = f": {path.name} is one of {len(files)} parts" if len(files) > 1 else ""
            raise ExportError(f"{file} does not exist{which}")
    return files


def _read(path: Path) -> tuple[int, list[Entry], list[StoredTensor]]:
    """(version, metadata, tensors) of one file."""
    with open(path, "rb") as file:
        try:
            return _Header(file, path).read()
        except (struct.error, ValueError, OverflowError, MemoryError) as error:
            if isinstance(error, ExportError):
                raise
            raise ExportError(
                f"{path} is damaged or truncated, or no GGUF file ({error}): download or export it "
                "again"
            ) from None


class _Header:
    """Reads what stands before a file's data, from where the file is."""

    def __init__(self, file: BinaryIO, path: Path):
        self.file = file
        self.path = path
        self.size = os.fstat(file.fileno()).st_size

    def read(self) -> tuple[int, list[Entry], list[StoredTensor]]:
        if self._bytes(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self._number("<I")
        if version not in VERSIONS:
            turned = int.from_bytes(version.to_bytes(4, "little"), "big")
            if turned in VERSIONS:
                raise ExportError(f"{self.path} was written for a machine of the other byte order")
            raise ValueError(f"version {version}")
        tensor_count = self._number("<Q")
        entry_count = self._number("<Q")
        entries = [self._entry() for _ in range(entry_count)]
        found = [self._tensor() for _ in range(tensor_count)]
        alignment = gguf.GGUF_DEFAULT_ALIGNMENT
        for entry in entries:
            if entry.key == ALIGNMENT and isinstance(entry.value, int):
                alignment = entry.value
        begin = self.file.tell() + -self.file.tell() % alignment
        tensors = [self._placed(begin, *tensor) for tensor in found]
        return version, entries, tensors

    def texts(self) -> list[str]:
        """The list of texts of the entry at which the file is."""
        self._text()
        if (self._number("<I"), self._number("<I")) != (Kind.ARRAY, Kind.STRING):
            raise ExportError(f"{self.path}: an entry is no list of texts")
        return [self._text() for _ in range(self._number("<Q"))]

    def _bytes(self, count: int) -> bytes:
        if count > self.size - self.file.tell():
            raise ValueError("it ends too early")
        return self.file.read(count)

    def _number(self, form: str) -> int:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _text(self) -> str:
        return self._bytes(self._number("<Q")).decode("utf-8")

    def _entry(self) -> Entry:
        start = self.file.tell()
        key = self._text()
        value = self._value(Kind(self._number("<I")))
        return Entry(key, start, self.file.tell(), value)

    def _value(self, kind: Kind) -> object:
        """A number or a text; None for a list, which is passed over."""
        if kind == Kind.STRING:
            return self._text()
        if kind != Kind.ARRAY:
            return self._number(FORMATS[kind])
        inner = Kind(self._number("<I"))
        count = self._number("<Q")
        if inner == Kind.STRING:
            for _ in range(count):
                self._bytes(self._number("<Q"))
        elif inner == Kind.ARRAY:
            raise ValueError("it has a list of lists")
        else:
            skipped = count * struct.calcsize(FORMATS[inner])
            if skipped > self.size - self.file.tell():
                raise ValueError("it ends too early")
            self.file.seek(skipped, os.SEEK_CUR)
        return None

    def _tensor(self) -> tuple[str, tuple[int, ...], Type, int]:
        name = self._text()
        sizes = [self._number("<Q") for _ in range(self._number("<I"))]
        kind = Type(self._number("<I"))
        return name, tuple(reversed(sizes)), kind, self._number("<Q")

    def _placed(
        self, begin: int, name: str, shape: tuple[int, ...], kind: Type, offset: int
    ) -> StoredTensor:
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        nbytes = math.prod(shape) // block * block_bytes
        if begin + offset + nbytes > self.size:
            raise ValueError(f"it ends within {name}")
        return StoredTensor(name, shape, kind, nbytes, self.path, begin + offset)
