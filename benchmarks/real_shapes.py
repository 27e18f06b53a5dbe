"""QLoRA steps of a model of the real shape, on random weights: `python -m benchmarks.real_shapes
llama-3.1-8b`.

The labs' own code path: a random pre-quantised checkpoint on the disk, `ft.load_model`,
`ft.add_lora`, `ft.finetune`; what it took, beside what `ft.plan_memory` said. 8B needs 7 GB of disk
and 14 GB of memory, 70B 45 GB of disk and a GPU.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaConfig

import ftlib as ft
from benchmarks.harness import provenance, table, write_section
from benchmarks.resident import peak_resident_bytes
from ftlib.models.random_checkpoint import write_random_checkpoint
from ftlib.training.memory_plan import MODELS


def rows(tokens: int) -> list[dict]:
    """Conversations of the embedded world, several turns together until they fill about `tokens`
    tokens.
    """
    turns = []
    for row in ft.load_rows("train", ft.get_profile("tiny")):
        turns += row["messages"]
    pairs = tokens // 14 // 2  # a turn has 14 tokens or so
    per_row = max(2, 2 * pairs)
    return [{"messages": turns[i : i + per_row]} for i in range(0, 40 * per_row, per_row)]


def peak_gb() -> float:
    """The most that this process held: of GPU memory where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return peak_resident_bytes() / 1e9


def run(name: str, steps: int, batch: int, length: int, folder: Path) -> dict[str, str]:
    """Write, load and train the model; returns the table's row, by the heads of its columns."""
    config = LlamaConfig(**MODELS[name], bos_token_id=0, eos_token_id=6, pad_token_id=2)
    checkpoint = folder / name
    start = time.perf_counter()
    if not checkpoint.exists():
        write_random_checkpoint(config, checkpoint, "nf4")
    wrote = time.perf_counter() - start
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plan = ft.plan_memory(name, "qlora", batch_size=batch, seq_len=length, device=device).check()
    model, tokenizer = ft.load_model(checkpoint, "nf4", dtype=torch.bfloat16)
    loaded = time.perf_counter() - start - wrote
    ft.add_lora(model, r=16, lora_alpha=32)
    result = ft.finetune(
        model,
        tokenizer,
        rows(length),
        steps=steps,
        learning_rate=1e-4,
        batch_size=batch,
        max_length=length,
        log_steps=1,
        optimizer="paged_adamw_8bit",
        show=False,
    )
    return {
        "model": name,
        "steps": f"{steps} of {batch} × {length}",
        "write, s": f"{wrote:.0f}",
        "load, s": f"{loaded:.0f}",
        "train, s": f"{result.seconds:.0f}",
        "real tokens/s": f"{result.tokens_per_second:.1f}",
        "first loss": f"{result.history[0]['loss']:.2f}",
        "planned, GB": f"{plan.total / 1e9:.1f}",
        "peak, GB": f"{peak_gb():.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=[n for n in MODELS if n.startswith("llama-3")])
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument(
        "--folder", help="where the checkpoint is kept (default: written each time, and deleted)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        row = run(args.model, args.steps, args.batch_size, args.length, folder)
    print(row)
    meter = "the process's resident memory, Python and libraries included"
    if torch.cuda.is_available():
        meter = "the GPU's allocator"
    setting = "NF4 checkpoint, LoRA r=16 on all linear layers, activations recomputed."
    where = provenance(("torch", "transformers", "bitsandbytes"))
    write_section(
        f"QLoRA on random weights of the real shape: {args.model}",
        f"{setting} Peak: {meter}. {where}\n\n{table(list(row), [list(row.values())])}",
    )


if __name__ == "__main__":
    main()
