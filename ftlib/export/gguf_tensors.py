"""Tensors cast to a GGUF's types and written, one after the other, some rows at a time."""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor
from tqdm.auto import tqdm

from ftlib.core.atomic import replacing
from ftlib.export.errors import ExportError
from ftlib.export.source import Weight

log = logging.getLogger("ftlib")
TORCH = {Type.F32: torch.float32, Type.F16: torch.float16, Type.BF16: torch.bfloat16}
# Infinity's bits; NaNs lie above.
INFINITY = {torch.float32: 0x7F800000, torch.float16: 0x7C00, torch.bfloat16: 0x7F80}
CHUNK = 1 << 22  # weights that are cast and written at a time: 16 MB in fp32


@contextlib.contextmanager
def open_writer(path: Path, architecture: gguf.MODEL_ARCH) -> Iterator[gguf.GGUFWriter]:
    with replacing(path) as partial:
        writer = gguf.GGUFWriter(partial, gguf.MODEL_ARCH_NAMES[architecture])
        try:
            yield writer
        finally:
            writer.close()


def check_disk(path: Path, need: float) -> None:
    free = shutil.disk_usage(path.parent).free
    if need > free:
        raise ExportError(
            f"{path} needs {need / 1e9:.2f} GB of disk, {free / 1e9:.2f} GB are free: choose "
            "another disk or a smaller type"
        )


@dataclass(frozen=True)
class NewTensor:
    """A tensor to be written: its name and type in the file, and a function that makes it."""

    name: str
    kind: Type
    shape: torch.Size
    make: Callable[[], Weight]

    @property
    def weights(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        block, block_bytes = gguf.GGML_QUANT_SIZES[self.kind]
        return self.weights * block_bytes // block


def write_tensors(
    writer: gguf.GGUFWriter, path: Path, tensors: list[NewTensor], packed: int = 0
) -> None:
    total = sum(tensor.nbytes for tensor in tensors)
    check_disk(path, 1.01 * total + 2e7)  # 20 MB for vocabulary and names
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.name,
            tensor.shape,
            np.dtype(np.float32),
            tensor.nbytes,
            raw_dtype=tensor.kind,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    out = writer.fout[0]
    update = 0.0
    rounding = 0.0
    with tqdm(total=total, unit="B", unit_scale=True, desc=path.name, disable=total < 1e8) as bar:
        for tensor in tensors:
            writer.write_padding(out, out.tell())
            weight = tensor.make()
            for stored, lost in stored_rows(weight, tensor.kind, tensor.name):
                out.write(stored)
                bar.update(stored.nbytes)
                rounding += lost
            update += weight.update or 0.0
        writer.write_padding(out, out.tell())
    largest = max(tensors, key=lambda tensor: tensor.weights)
    report_rounding(path, largest.kind.name, update, rounding, packed)


def report_rounding(path: Path, kind: str, update: float, rounding: float, packed: int) -> None:
    if update:
        log.info(
            "%s: adapter merged; rounding to %s moved the merged weights by %.2g of the update's "
            "norm",
            path.name,
            kind,
            math.sqrt(rounding / update),
        )
    if packed:
        log.warning(
            "%s: %d weights were dequantised from 4 bits: the file carries that rounding. For "
            "export merge the adapter into the 16-bit base: "
            "export_gguf(folder, tokenizer, path, adapter=…)",
            path.name,
            packed,
        )


def _finite(values: Tensor) -> bool:
    """On the bits, as integers: torch.isfinite took a quarter of an export's time."""
    bits = values.view(torch.int32 if values.dtype == torch.float32 else torch.int16)
    return (bits & torch.iinfo(bits.dtype).max).max().item() < INFINITY[values.dtype]


def stored_rows(weight: Weight, kind: Type, name: str) -> Iterator[tuple[np.ndarray, float]]:
    """(bytes of the next rows, squared error of storing them where an adapter was merged)."""
    values = weight.values
    merged = weight.update is not None
    weights_per_row = math.prod(values.shape[1:])
    for rows in values.split(max(1, CHUNK // weights_per_row)):
        rows = rows.to("cpu").contiguous()
        kept = rows.to(TORCH.get(kind, torch.float32))
        _check_finite(rows, kept, kind, name)
        if kind == Type.Q8_0:
            data = gguf.quants.quantize(kept.numpy(), kind)
            if merged:
                kept = torch.from_numpy(gguf.quants.dequantize(data, kind))
        else:
            data = kept.view(torch.uint8).numpy()
        lost = 0.0
        if merged:
            lost = torch.linalg.vector_norm(kept.float() - rows.float()).item() ** 2
        yield data, lost


def _check_finite(rows: Tensor, kept: Tensor, kind: Type, name: str) -> None:
    """`kept` are the rows in the type that is written."""
    if _finite(kept):
        return
    if torch.isfinite(rows).all():
        raise ExportError(f"{name} exceeds the range of {kind.name}: use dtype='bf16'")
    raise ExportError(f"{name} has NaN or infinite values")
