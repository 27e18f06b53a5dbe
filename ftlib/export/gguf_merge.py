"""A LoRA or DoRA adapter merged into a GGUF file of any quantisation, a few rows at a time: for a
base that is too large to merge in memory, or of which nobody has the 16-bit weights.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor
from tqdm.auto import tqdm

from ftlib.adapters.functional import merged_weight
from ftlib.core.atomic import replacing
from ftlib.export.errors import ExportError
from ftlib.export.gguf_base import GgufBase, StoredTensor, open_base
from ftlib.export.gguf_tensors import CHUNK, check_disk, report_rounding, stored_rows
from ftlib.export.gguf_updates import Update, read_updates
from ftlib.export.gguf_writer import DTYPES
from ftlib.export.source import Weight

log = logging.getLogger("ftlib")
COPIED = 1 << 24  # bytes that are copied at a time
QUIET = 1e8  # bytes below which no progress is shown


def merge_adapter_gguf(
    base: str | os.PathLike,
    adapter: str | os.PathLike,
    path: str | os.PathLike,
    dtype: str = "f16",
    quant: str | None = None,
) -> Path:
    """Write the GGUF file `base` with an adapter merged into it; returns `path`.

    base: a file of the llama, qwen2 or qwen3 architecture, of any types that gguf dequantises; of a
    file in parts (…-00001-of-00003.gguf) the first, the result is one file. adapter: a run's
    folder, an adapter folder (PEFT's format) or an adapter GGUF; LoRA, rsLoRA or DoRA, also with
    PEFT's rank_pattern, alpha_pattern, layers_to_transform and exclude_modules. Each weight that it
    changes is dequantised to fp32, becomes ``W + sBA`` (for DoRA ``m·(W + sBA)/‖W + sBA‖`` by rows,
    with the norms of the dequantised W) and is written as `dtype`: "f32", "f16", "bf16" or "q8_0".
    All other tensors and the metadata are copied byte for byte. Memory holds some rows of one
    tensor, whatever the file's size.

    quant: a type of `quantize_gguf` such as "Q4_K_M", to which llama.cpp then brings the changed
    weights; those that have its type already stay as they are. ExportError (a ValueError) for
    another architecture, an adapter that does not fit and too little disk; then nothing is written.
    """
    path = Path(path).expanduser()
    _check_types(dtype, quant)
    opened = open_base(base)
    if path.exists() and any(path.samefile(part) for part in opened.parts):
        raise ExportError(f"{path} is the base itself: write to another path")
    updates = read_updates(adapter, opened)
    kind, _ = DTYPES[dtype]
    tensors = [_planned(tensor, updates, kind) for tensor in opened.tensors]
    path.parent.mkdir(parents=True, exist_ok=True)
    total = sum(tensor.nbytes for tensor in tensors)
    check_disk(path, (1.0 if quant is None else 2.0) * total + 2 * len(opened.metadata()))
    if quant is None:
        with replacing(path) as partial:
            _write(opened, tensors, updates, partial, path.name)
        return path
    return _quantised(opened, tensors, updates, path, quant)


def _check_types(dtype: str, quant: str | None) -> None:
    from ftlib.export.llamacpp import QUANTIZATIONS

    if dtype not in DTYPES:
        raise ExportError(f"dtype={dtype!r}: use one of {', '.join(DTYPES)}")
    if quant is not None and quant not in QUANTIZATIONS:
        raise ExportError(f"quant={quant!r}: use one of {', '.join(QUANTIZATIONS)}, or None")


def _quantised(
    base: GgufBase, tensors: list[StoredTensor], updates: dict[str, Update], path: Path, quant: str
) -> Path:
    """Merge into a temporary file beside `path`, which llama.cpp quantises to it."""
    from ftlib.export.llamacpp import quantize_gguf

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".merged-") as folder:
        merged = Path(folder) / path.name
        _write(base, tensors, updates, merged, path.name)
        quantize_gguf(merged, path, quant, requantize=True)
    return path


def _planned(tensor: StoredTensor, updates: dict[str, Update], kind: Type) -> StoredTensor:
    """The tensor as it will be in the new file: of another type where the adapter changes it."""
    if tensor.name not in updates:
        return tensor
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    rows, columns = tensor.shape
    if columns % block:
        raise ExportError(
            f"{tensor.name} has rows of {columns} weights, {kind.name} takes multiples of {block}: "
            "use dtype='f16'"
        )
    return StoredTensor(
        tensor.name, tensor.shape, kind, rows * columns // block * block_bytes, tensor.file, 0
    )


# --- the file -------------------------------------------------------------------------------------
def _write(
    base: GgufBase,
    tensors: list[StoredTensor],
    updates: dict[str, Update],
    partial: Path,
    name: str,
) -> None:
    """The new file: the base's metadata, the tensors' names and places, then their data."""
    total = sum(tensor.nbytes for tensor in tensors)
    done = _Merged()
    with (
        open(partial, "wb") as out,
        tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=total < QUIET) as bar,
    ):
        out.write(base.header(tensors))
        _pad(out, base.alignment)
        for stored, planned in zip(base.tensors, tensors, strict=True):
            if stored.name in updates:
                parts = _merged_rows(stored, planned.kind, updates[stored.name], done)
            else:
                parts = _bytes_of(stored)
            for part in parts:
                out.write(part)
                bar.update(len(part))
            _pad(out, base.alignment)
    _report(name, base, tensors, updates, done)


def _pad(out: BinaryIO, alignment: int) -> None:
    out.write(b"\0" * (-out.tell() % alignment))


def _bytes_of(tensor: StoredTensor) -> Iterator[bytes]:
    """The tensor's bytes, some at a time. The file is read, not mapped: what was read of a mapped
    file counts as this process's memory.
    """
    with open(tensor.file, "rb") as file:
        file.seek(tensor.offset)
        left = tensor.nbytes
        while left:
            part = file.read(min(COPIED, left))
            if not part:
                raise ExportError(f"{tensor.file} ends within {tensor.name}: download it again")
            left -= len(part)
            yield part


@dataclass
class _Merged:
    """Squared norms over all changed weights: of the update, and of what storing them lost."""

    update: float = 0.0
    lost: float = 0.0


def _merged_rows(
    tensor: StoredTensor, kind: Type, update: Update, done: _Merged
) -> Iterator[bytes]:
    """The bytes of W + sBA as `kind`, some rows at a time."""
    rows, columns = tensor.shape
    at_once = max(1, CHUNK // columns)
    with open(tensor.file, "rb") as file:
        for start in range(0, rows, at_once):
            end = min(start + at_once, rows)
            weight = _dequantised(tensor, file, start, end)
            part = update.rows(start, end)
            merged = merged_weight(weight, part.A, part.B, part.scaling, part.magnitude)
            done.update += torch.linalg.vector_norm(merged - weight).item() ** 2
            for data, lost in stored_rows(Weight(merged, update=0.0), kind, tensor.name):
                done.lost += lost
                yield data.tobytes()


def _dequantised(tensor: StoredTensor, file: BinaryIO, start: int, end: int) -> Tensor:
    """Rows `start` to `end` of a stored matrix in fp32."""
    row_bytes = tensor.nbytes // tensor.shape[0]
    file.seek(tensor.offset + start * row_bytes)
    content = file.read((end - start) * row_bytes)
    if len(content) < (end - start) * row_bytes:
        raise ExportError(f"{tensor.file} ends within {tensor.name}: download it again")
    stored = np.frombuffer(content, np.uint8).reshape(end - start, row_bytes)
    return torch.from_numpy(np.array(gguf.quants.dequantize(stored, tensor.kind), np.float32))


def _report(
    name: str,
    base: GgufBase,
    tensors: list[StoredTensor],
    updates: dict[str, Update],
    done: _Merged,
) -> None:
    changed = [tensor for tensor in tensors if tensor.name in updates]
    before = sorted({tensor.kind.name for tensor in base.tensors if tensor.name in updates})
    log.info(
        "%s: %d of %d tensors changed, from %s to %s; the others are the base's bytes",
        name,
        len(changed),
        len(tensors),
        ", ".join(before),
        changed[0].kind.name,
    )
    report_rounding(Path(name), changed[0].kind.name, done.update, done.lost, packed=0)
    if any(update.magnitude is not None for update in updates.values()):
        log.info("%s: DoRA's row norms are those of the base's dequantised weights", name)
