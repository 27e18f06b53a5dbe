"""GGUF export of a 1B-shape checkpoint: seconds, MB/s beside a plain copy, peak memory: `python -m
benchmarks.export`.

With `FTLIB_CONVERTER` naming llama.cpp's convert_hf_to_gguf.py it runs beside, with the tokenizer's
hash check bypassed (the checkpoint holds the embedded tokenizer, which it does not know) and
without sentencepiece. Each run is a fresh process. 7.5 GB of disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch
from transformers import LlamaConfig

from benchmarks.harness import in_turn, provenance, table, table_row, write_section
from benchmarks.processes import run_code
from benchmarks.resident import MEBIBYTE
from ftlib.models.random_checkpoint import write_random_checkpoint
from ftlib.training.memory_plan import MODELS

OURS = """
import sys
from ftlib.export import export_gguf
export_gguf(sys.argv[1], None, sys.argv[2], sys.argv[3])
"""
COPY = """
import sys
source = open(sys.argv[1] + "/model.safetensors", "rb")
target = open(sys.argv[2], "wb")
while part := source.read(1 << 24):
    target.write(part)
"""
THEIRS = """
import os, runpy, sys, types, transformers
folder, target, dtype = sys.argv[1:]
converter = os.environ["FTLIB_CONVERTER"]
sys.modules["sentencepiece"] = types.SimpleNamespace(SentencePieceProcessor=object)
sys.path[:0] = [os.path.dirname(converter), os.path.join(os.path.dirname(converter), "gguf-py")]
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: "llama-bpe"
sys.argv = [converter, folder, "--outfile", target, "--outtype", dtype]
runpy.run_path(converter, run_name="__main__")
"""
HEAD = ["type", "program", "seconds, median", "range", "MB/s of the source", "peak, MiB"]


def fresh(code: str, *arguments: str) -> tuple[float, int]:
    """(seconds, peak resident MiB) of a process; its target file is deleted."""
    run = run_code(code, *arguments)
    Path(arguments[1]).unlink()
    return run.seconds, run.peak // MEBIBYTE


def measured(programs: dict[str, str], arguments: list[str], rounds: int) -> dict[str, list]:
    """(seconds, peak MiB) of each program in each round, one of each in turn."""
    runs = {name: partial(fresh, code, *arguments) for name, code in programs.items()}
    return in_turn(runs, rounds)


def cells_of(dtype: str, name: str, runs: list[tuple[float, int]], size: float) -> list[str]:
    """A row of the table; `size` in MB."""
    times = [seconds for seconds, _ in runs]
    peak = max(megabytes for _, megabytes in runs)
    median = statistics.median(times)
    return [
        dtype,
        name,
        f"{median:.1f}",
        f"{min(times):.1f}–{max(times):.1f}",
        f"{size / median:.0f}",
        f"{peak:,}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", default="llama-3.2-1b", choices=[n for n in MODELS if n.startswith("llama-3")]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", default=["f16", "bf16", "q8_0"])
    args = parser.parse_args()
    config = LlamaConfig(**MODELS[args.model], bos_token_id=0, eos_token_id=6, pad_token_id=2)
    programs = {"plain copy": COPY, "ftlib": OURS}
    if os.environ.get("FTLIB_CONVERTER"):
        programs["llama.cpp's converter"] = THEIRS
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / args.model
        target = Path(temporary) / "out.gguf"
        write_random_checkpoint(config, folder, shard_gb=1000)
        size = (folder / "model.safetensors").stat().st_size / 1e6
        for dtype in args.dtypes:
            runs = measured(programs, [str(folder), str(target), dtype], args.rounds)
            for name, values in runs.items():
                rows.append(cells_of(dtype, name, values, size))
                print(table_row(rows[-1]), flush=True)
    setting = (
        f"A bf16 checkpoint of {size:,.0f} MB in one file; a fresh process each, its start and "
        f"imports included; {args.rounds} alternating rounds, the copy's target alike for all "
        "types; peak: resident memory, mapped pages of the source included."
    )
    where = provenance(("torch", "gguf", "transformers"))
    write_section(
        f"GGUF export of random weights: {args.model}",
        f"{setting} {where}\n\n{table(HEAD, rows)}",
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
