"""What llama-cpp-python does for an export: quantise a GGUF file, and open one. Only this needs the
slow `export` extra.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType
from tqdm.auto import tqdm

from ftlib.core.atomic import replacing
from ftlib.export.errors import ExportError
from ftlib.export.gguf_file import check_gguf, read_gguf, tensor_types
from ftlib.export.gguf_tensors import check_disk
from ftlib.export.llama_probe import fix_command, probe_llama

log = logging.getLogger("ftlib")
BLOCK = re.compile(r"\.\d+\.")  # the number of a block in a tensor's name
# Name -> (llama.cpp's number, bits per weight at most, the types that it mixes: first the one it is
# named for). Other types in the file replace these where a row is no multiple of 256.
QUANTIZATIONS = {
    "Q8_0": (7, 8.6, ("Q8_0",)),
    "Q6_K": (18, 6.7, ("Q6_K",)),
    "Q5_K_M": (17, 6.7, ("Q5_K", "Q6_K")),
    "Q4_K_M": (15, 6.7, ("Q4_K", "Q6_K")),
    "Q3_K_M": (12, 6.7, ("Q3_K", "Q4_K", "Q5_K", "Q6_K")),
    "Q2_K": (10, 6.7, ("Q2_K", "Q3_K", "Q4_K", "Q6_K")),
}
# In a process of its own: llama.cpp aborts the process on some files, and holds Ctrl-C back while
# it works. The lists that it takes end with an entry without a name.
QUANTIZE = """
import ctypes, json, logging, sys
import llama_cpp
import numpy as np
logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
source, target, kind, threads, types, importance, requantize = sys.argv[1:]
options = llama_cpp.llama_model_quantize_default_params()
options.ftype = int(kind)
options.nthread = int(threads)
options.allow_requantize = bool(requantize)
types = json.loads(types)
if (types or importance) and not hasattr(llama_cpp, "llama_model_imatrix_data"):
    sys.exit(f"llama-cpp-python {llama_cpp.__version__} takes no types and no importance matrix "
             "from Python: install 0.3.36 or newer")
if types:
    chosen = (llama_cpp.llama_model_tensor_override * (len(types) + 1))()
    for entry, (pattern, number) in zip(chosen, types.items()):
        entry.pattern = pattern.encode()
        entry.type = number
    options.tt_overrides = chosen
if importance:
    matrices = dict(np.load(importance))
    weighed = (llama_cpp.llama_model_imatrix_data * (len(matrices) + 1))()
    for entry, (name, values) in zip(weighed, matrices.items()):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    options.imatrix = weighed
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(options)))
"""


@dataclass(frozen=True)
class QuantizedFile(os.PathLike):
    """A quantised file: `path`, bytes, how many tensors have each type, and the type of those that
    `fell_back` to another.
    """

    path: Path
    nbytes: int
    types: dict[str, int]
    fell_back: dict[str, str]

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        types = ", ".join(f"{count} {name}" for name, count in sorted(self.types.items()))
        line = f"{self.path.name}: {self.nbytes / 1e6:.1f} MB, {types}"
        if self.fell_back:
            line += f"; fell back: {', '.join(_by_kind(self.fell_back))}"
        return line


def _by_kind(fell_back: Mapping[str, str]) -> list[str]:
    """A line for the matrices of one name in all blocks, instead of one for each block."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name, kind in fell_back.items():
        alike.setdefault((BLOCK.sub(".*.", name), kind), []).append(name)
    lines = []
    for (pattern, kind), names in alike.items():
        which = names[0] if len(names) == 1 else f"{len(names)} times {pattern}"
        lines.append(f"{which} to {kind}")
    return lines


def quantize_gguf(
    source: str | os.PathLike,
    target: str | os.PathLike,
    quantization: str = "Q4_K_M",
    threads: int | None = None,
    *,
    types: Mapping[str, str] | None = None,
    importance: Mapping[str, np.ndarray] | None = None,
    requantize: bool = False,
) -> QuantizedFile:
    """Quantise an f32, f16 or bf16 GGUF file with llama.cpp; returns the new file and what is in
    it.

    quantization: "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M" or "Q2_K". The k-quants need rows of
    a multiple of 256 weights; llama.cpp gives other matrices a larger type without a word, so the
    types are read back: what fell back is logged and returned, and if no matrix has the type asked
    for an ExportError (a ValueError) is raised. threads: default all cores. types: {pattern: type},
    such as {"attn_v": "Q6_K", "ffn_down": "F16"}, for the matrices whose name has the regular
    expression in it; the first that fits counts, and the others get what `quantization` says.
    importance: an importance matrix, {tensor's name: (columns,) mean square of what it is
    multiplied with} (`importance_matrix`): rounding errors are weighed by it. requantize: take a
    source with quantised weights too, as `merge_adapter_gguf` leaves it: those of the wanted type
    are copied, others rounded a second time. Atomic, can be interrupted.
    """
    if quantization not in QUANTIZATIONS:
        raise ExportError(f"quantization={quantization!r}: use one of {', '.join(QUANTIZATIONS)}")
    source = Path(source).expanduser()
    target = Path(target).expanduser()
    number, bits, wanted = QUANTIZATIONS[quantization]
    chosen = _types_by_number(types or {})
    reader = read_gguf(source)
    if target.exists() and target.samefile(source):
        raise ExportError(f"target {target} is the source itself: name another file")
    for kind in tensor_types(reader).values():
        if kind not in ("F32", "F16", "BF16") and not requantize:
            raise ExportError(f"{source} is quantised already ({kind}): start from an f16 export")
    _check_patterns(chosen, reader)
    _check_importance(importance or {}, reader)
    weights = sum(int(tensor.n_elements) for tensor in reader.tensors)
    if types:
        bits = 32.0  # at most: a type may be chosen that is larger than the file's
        wanted = (*types.values(), *wanted)
    expected = int(weights * bits / 8 + 2e7)  # 20 MB for vocabulary and names
    with replacing(target) as partial, tempfile.TemporaryDirectory() as scratch:
        check_disk(target, expected)
        weighed = _kept_importance(importance or {}, Path(scratch))
        again = "1" if requantize else ""
        given = [str(number), str(threads or _cores()), json.dumps(chosen), weighed, again]
        _run(source, partial, given, expected)
        result = _inspect(partial, target, quantization, wanted)
    if result.fell_back:
        log.warning("%s", result)
    return result


def _types_by_number(types: Mapping[str, str]) -> dict[str, int]:
    """{pattern: ggml's number of the type}. ExportError for a type or pattern that is none."""
    numbers = {}
    for pattern, name in types.items():
        if name not in GGMLQuantizationType.__members__:
            raise ExportError(f"types[{pattern!r}]={name!r}: use a type such as Q4_K, Q6_K or F16")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ExportError(f"types has {pattern!r}, no regular expression: {error}") from None
        numbers[pattern] = int(GGMLQuantizationType[name])
    return numbers


def _check_patterns(patterns: Iterable[str], reader) -> None:
    """ExportError for a pattern that fits no matrix."""
    names = tensor_types(reader)
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            raise ExportError(
                f"types has {pattern!r}, which fits no matrix: the names are such as "
                f"{', '.join(list(names)[:4])}"
            )


def _check_importance(importance: Mapping[str, np.ndarray], reader) -> None:
    """ExportError for a matrix that the file lacks, another width, or what is no weight."""
    columns = {t.name: int(t.shape[0]) for t in reader.tensors if len(t.shape) > 1}
    for name, values in importance.items():
        if name not in columns:
            raise ExportError(f"importance has {name!r}, which is no matrix of the file")
        if np.shape(values) != (columns[name],):
            raise ExportError(
                f"importance[{name!r}] has shape {np.shape(values)}: ({columns[name]},) is wanted, "
                "one number a column"
            )
        if not np.isfinite(values).all() or np.min(values) < 0:
            raise ExportError(
                f"importance[{name!r}] has a number that is negative or not finite: give mean "
                "squares"
            )


def _kept_importance(importance: Mapping[str, np.ndarray], folder: Path) -> str:
    """The path of a file with the importance matrix; empty without one."""
    if not importance:
        return ""
    file = folder / "importance.npz"
    arrays: dict = {name: np.asarray(v, dtype=np.float32) for name, v in importance.items()}
    np.savez(file, **arrays)
    return str(file)


def _cores() -> int:
    """The cores that this process may use; a container or `taskset` may allow fewer than there
    are.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run(source: Path, partial: Path, given: list[str], expected: int) -> None:
    """Quantise in a subprocess, with a bar of the bytes written. ExportError if it fails.

    given: number of the type, threads, types as JSON, file of the importance matrix, and whether
    quantised weights are taken.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", QUANTIZE, str(source), str(partial), *given],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    bar = tqdm(total=expected, unit="B", unit_scale=True, desc=partial.name, disable=expected < 1e8)
    try:
        with bar:
            while process.poll() is None:
                time.sleep(0.05)
                if partial.exists():
                    bar.update(max(0, partial.stat().st_size - bar.n))
    finally:
        process.kill()
        _, problem = process.communicate()
    if process.returncode:
        raise _failure(source, process.returncode, problem)


def _failure(source: Path, code: int, problem: str) -> ExportError:
    if "No module named 'llama_cpp'" in problem:
        return ExportError(probe_llama().problem)
    if -code == signal.SIGILL:
        return ExportError(
            f"llama.cpp died quantising {source}: illegal instruction: rebuild by `{fix_command()}`"
        )
    return ExportError(
        f"llama.cpp could not quantise {source} (exit {code}): {problem.strip()[-500:]}"
    )


def _inspect(
    partial: Path, target: Path, quantization: str, wanted: tuple[str, ...]
) -> QuantizedFile:
    reader = read_gguf(partial)
    types = tensor_types(reader)
    fell_back = {name: kind for name, kind in types.items() if kind not in wanted}
    if wanted[0] not in types.values():
        rows = sorted({int(t.shape[0]) for t in reader.tensors if t.name in fell_back})
        there = ", ".join(sorted(set(fell_back.values())))
        raise ExportError(
            f"no matrix could be stored as {wanted[0]}: rows of {rows} weights are no multiple of "
            f"256. The file would be {there} under the name {quantization}: use one with more bits"
        )
    return QuantizedFile(target, partial.stat().st_size, dict(Counter(types.values())), fell_back)


@contextlib.contextmanager
def open_llama(
    path,
    n_ctx: int = 512,
    threads: int | None = None,
    adapter=None,
    all_logits: bool = False,
    gpu: bool = False,
):
    """A `llama_cpp.Llama` that is closed on leaving, its log quiet, its key-value cache in fp32.

    threads: llama.cpp's on the CPU, by default as many as PyTorch's. adapter: a GGUF adapter to
    load beside it. gpu: all layers there, where llama.cpp was built for one. ExportError if the
    file is damaged, llama.cpp refuses it, or does not run on this processor (tried in a subprocess,
    once).
    """
    found = probe_llama()
    if not found.fine:
        raise ExportError(found.problem)
    check_gguf(path)
    if adapter:
        check_gguf(adapter)
    if threads is None:
        threads = torch.get_num_threads()
    llama = _load_llama(
        path,
        n_ctx=n_ctx,
        n_batch=n_ctx,
        n_ubatch=min(n_ctx, 512),
        n_threads=threads,
        n_threads_batch=threads,
        logits_all=all_logits,
        lora_path=str(adapter) if adapter else None,
        n_gpu_layers=-1 if gpu else 0,
    )
    try:
        yield llama
    finally:
        llama.close()


def _load_llama(path, **options):
    """A `llama_cpp.Llama`, quiet, keys and values in fp32 (type 0). ExportError if llama.cpp
    refuses the file.
    """
    from llama_cpp import Llama

    # Its log says for every matrix of an adapter in which buffer it lies.
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return Llama(str(path), verbose=False, type_k=0, type_v=0, **options)
        except (ValueError, RuntimeError) as error:
            raise ExportError(f"llama.cpp refuses {path}: {error}") from None


def llama_counters(llama) -> dict[str, int]:
    """What llama.cpp has counted since the model was opened, or
    `llama_cpp.llama_perf_context_reset`, under Ollama's names.

    prompt_eval_count, eval_count in tokens (a token fed alone counts as generated), their durations
    in nanoseconds.
    """
    from llama_cpp import llama_perf_context

    seen = llama_perf_context(llama.ctx)
    return {
        "prompt_eval_count": seen.n_p_eval,
        "prompt_eval_duration": round(seen.t_p_eval_ms * 1e6),
        "eval_count": seen.n_eval,
        "eval_duration": round(seen.t_eval_ms * 1e6),
    }
