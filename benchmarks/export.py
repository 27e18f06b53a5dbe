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
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaConfig

from benchmarks.harness import provenance, write_section
from ftlib.models.random_checkpoint import write_random_checkpoint
from ftlib.training.memory_plan import MODELS

# Not getrusage: its maximum survives exec, so a small process would report what this one held.
PEAK = """
import re
status = open("/proc/self/status").read()
kibibytes = int(re.search("VmHWM:\\\\s+([0-9]+)", status)[1])
print("PEAK", kibibytes // 1024)
"""
OURS = f"""
import sys
from ftlib.export import export_gguf
export_gguf(sys.argv[1], None, sys.argv[2], sys.argv[3])
{PEAK}
"""
COPY = f"""
import sys
source = open(sys.argv[1] + "/model.safetensors", "rb")
target = open(sys.argv[2], "wb")
while part := source.read(1 << 24):
    target.write(part)
{PEAK}
"""
THEIRS = f"""
import os, runpy, sys, types, transformers
folder, target, dtype = sys.argv[1:]
converter = os.environ["FTLIB_CONVERTER"]
sys.modules["sentencepiece"] = types.SimpleNamespace(SentencePieceProcessor=object)
sys.path[:0] = [os.path.dirname(converter), os.path.join(os.path.dirname(converter), "gguf-py")]
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: "llama-bpe"
sys.argv = [converter, folder, "--outfile", target, "--outtype", dtype]
runpy.run_path(converter, run_name="__main__")
{PEAK}
"""


def fresh(code: str, *arguments: str) -> tuple[float, int]:
    """(seconds, peak resident MB) of a process; its target file is deleted."""
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    took = time.perf_counter() - start
    if run.returncode:
        raise SystemExit(run.stderr[-2000:])
    Path(arguments[1]).unlink()
    return took, int(run.stdout.split("PEAK")[1])


def measured(programs: dict[str, str], arguments: list[str], rounds: int) -> dict[str, list]:
    """(seconds, peak MB) of each program in each round, one of each in turn."""
    runs: dict[str, list] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, code in programs.items():
            runs[name].append(fresh(code, *arguments))
    return runs


def line_of(dtype: str, name: str, runs: list[tuple[float, int]], size: float) -> str:
    """A row of the table; `size` in MB."""
    times = [seconds for seconds, _ in runs]
    peak = max(megabytes for _, megabytes in runs)
    median = statistics.median(times)
    return (
        f"| {dtype} | {name} | {median:.1f} | {min(times):.1f}–{max(times):.1f} | "
        f"{size / median:.0f} | {peak:,} |"
    )


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
    lines = [
        "| type | program | seconds, median | range | MB/s of the source | peak, MB |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / args.model
        target = Path(temporary) / "out.gguf"
        write_random_checkpoint(config, folder, shard_gb=1000)
        size = (folder / "model.safetensors").stat().st_size / 1e6
        for dtype in args.dtypes:
            runs = measured(programs, [str(folder), str(target), dtype], args.rounds)
            for name, values in runs.items():
                lines.append(line_of(dtype, name, values, size))
                print(lines[-1], flush=True)
    setting = (
        f"A bf16 checkpoint of {size:,.0f} MB in one file; a fresh process each, its start and "
        f"imports included; {args.rounds} alternating rounds, the copy's target alike for all "
        "types; peak: resident memory, mapped pages of the source included."
    )
    where = provenance(("torch", "gguf", "transformers"))
    table = "\n".join(lines)
    write_section(f"GGUF export of random weights: {args.model}", f"{setting} {where}\n\n{table}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
