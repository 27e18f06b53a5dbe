"""Teacher and student as files that llama.cpp serves: bytes, and a live reading of the speed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ftlib.course.lab_3_1_10.speeds import speeds
from ftlib.export.gguf_writer import export_gguf
from ftlib.export.llamacpp import llama_counters, open_llama, quantize_gguf

ROOM = 8  # tokens of the context beyond what is asked for


@dataclass(frozen=True)
class File:
    """One served file: bytes on disk and (turns,) of generated tokens a second."""

    path: Path
    size: int
    rates: np.ndarray

    @property
    def rate(self) -> float:
        return float(np.median(self.rates))


def write_files(
    models: Mapping[str, nn.Module], tokenizer, folder: Path, kind: str = "Q8_0"
) -> dict[str, Path]:
    """{name and type: file} of every model as f16 and in another type."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, model in models.items():
        f16 = export_gguf(model, tokenizer, folder / f"{name}-f16.gguf")
        files[f"{name}, F16"] = f16
        files[f"{name}, {kind}"] = quantize_gguf(f16, folder / f"{name}-{kind}.gguf", kind).path
    return files


def _rate(llama, ids: list[int], new: int) -> float:
    """Generated tokens a second of one greedy answer of `new` tokens, by llama.cpp's counters."""
    from llama_cpp import llama_perf_context_reset

    llama.reset()
    llama_perf_context_reset(llama.ctx)
    list(itertools.islice(llama.generate(ids, temp=0.0), new))
    return speeds(llama_counters(llama))[1]


def measure_files(
    files: Mapping[str, Path], ids: list[int], new: int, turns: int
) -> dict[str, File]:
    """Sizes and speeds; of each file one answer that is not counted goes before the others."""
    found = {}
    for name, path in files.items():
        options = {"n_ctx": len(ids) + new + ROOM, "threads": torch.get_num_threads()}
        with open_llama(path, gpu=True, **options) as llama:
            rates = [_rate(llama, ids, new) for _ in range(turns + 1)]
        found[name] = File(path, path.stat().st_size, np.array(rates[1:]))
    return found


def files_table(files: Mapping[str, File], base: str) -> list[dict[str, str]]:
    """A row a file, beside the file `base`."""
    rows = []
    for name, file in files.items():
        rows.append(
            {
                "file": name,
                "MB": f"{file.size / 1e6:.2f}",
                "of the first": f"{file.size / files[base].size:.0%}",
                "tokens a second": f"{file.rate:.0f}",
                "times the first": f"{file.rate / files[base].rate:.2f}",
            }
        )
    return rows
