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
from ftlib.export.llama_probe import probe_llama
from ftlib.export.llamacpp import llama_counters, open_llama, quantize_gguf
from ftlib.export.parity import llama_answer
from ftlib.training.sampling import sample_ids

ROOM = 8  # tokens of the context beyond what is asked for


@dataclass(frozen=True)
class File:
    """One served file: bytes on disk and (turns,) of generated tokens a second; none where
    llama.cpp does not run.
    """

    path: Path
    size: int
    rates: np.ndarray

    @property
    def rate(self) -> float:
        return float(np.median(self.rates)) if len(self.rates) else float("nan")


def write_files(
    models: Mapping[str, nn.Module], tokenizer, folder: Path, kind: str = "Q8_0"
) -> dict[str, Path]:
    """{name and type: file} of every model as f16 and, where llama.cpp runs, in another type."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, model in models.items():
        f16 = export_gguf(model, tokenizer, folder / f"{name}-f16.gguf")
        files[f"{name}, F16"] = f16
        if probe_llama().fine:
            target = folder / f"{name}-{kind}.gguf"
            files[f"{name}, {kind}"] = quantize_gguf(f16, target, kind).path
    return files


def _rate(llama, ids: list[int], new: int) -> float:
    """Generated tokens a second of one greedy answer of `new` tokens, by llama.cpp's counters."""
    from llama_cpp import llama_perf_context_reset

    llama.reset()
    llama_perf_context_reset(llama.ctx)
    list(itertools.islice(llama.generate(ids, temp=0.0), new))
    return speeds(llama_counters(llama))[1]


def _rates(path: Path, ids: list[int], new: int, turns: int) -> list[float]:
    """Of some answers, after one that is not counted; none where llama.cpp does not run."""
    if not probe_llama().fine:
        return []
    options = {"n_ctx": len(ids) + new + ROOM, "threads": torch.get_num_threads()}
    with open_llama(path, gpu=True, **options) as llama:
        rates = [_rate(llama, ids, new) for _ in range(turns + 1)]
    return rates[1:]


def measure_files(
    files: Mapping[str, Path], ids: list[int], new: int, turns: int
) -> dict[str, File]:
    """Sizes and speeds of files."""
    found = {}
    for name, path in files.items():
        rates = _rates(path, ids, new, turns)
        found[name] = File(path, path.stat().st_size, np.array(rates))
    return found


def files_table(files: Mapping[str, File]) -> list[dict[str, str]]:
    """A row a file, beside the first."""
    base = next(iter(files.values()))
    rows = []
    for name, file in files.items():
        row = {"file": name, "MB": f"{file.size / 1e6:.2f}"}
        row["of the first"] = f"{file.size / base.size:.0%}"
        row["tokens per second"] = f"{file.rate:.0f}" if len(file.rates) else "not run"
        row["times the first"] = f"{file.rate / base.rate:.2f}" if len(file.rates) else "–"
        rows.append(row)
    return rows


def parity_line(model: nn.Module, tokenizer, file: Path, ids: list[int], new: int) -> str:
    """How many tokens of a greedy answer transformers and llama.cpp have alike, and the answer."""
    found = probe_llama()
    if not found.fine:
        return f"llama.cpp did not run here ({found.problem}): `make export` brings it."
    mine = sample_ids(model, tokenizer, [ids], new, 1, 0.0, 0)[0]
    with open_llama(file, n_ctx=len(ids) + new + ROOM) as llama:
        theirs = llama_answer(llama, ids, new)
    same = sum(one == other for one, other in zip(mine, theirs, strict=False))
    text = tokenizer.decode(theirs, skip_special_tokens=True)
    return (
        f"Greedy in transformers and in llama.cpp: **{same}** of {max(len(mine), len(theirs))} "
        f"tokens alike: “{text}”"
    )
