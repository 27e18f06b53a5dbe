"""Quantising and dequantising a 4096 x 4096 matrix: ftlib against bitsandbytes in turn: `python -m
benchmarks.quantisation`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse

import bitsandbytes.functional as bnb
import torch

import ftlib as ft
from benchmarks.harness import alternate, provenance, ratio, write_section
from ftlib.training.memory_meter import peak_bytes


def measure(dtype: torch.dtype, rounds: int) -> list[str]:
    weight = torch.randn(4096, 4096).to(dtype)
    ours = ft.quantize_nf4(weight)
    packed, state = bnb.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
    assert torch.equal(ours.packed, packed.view(-1)) and torch.equal(
        ours.dequantize(), bnb.dequantize_4bit(packed, state)
    )
    quantise = {
        "ftlib": lambda: ft.quantize_nf4(weight),
        "bitsandbytes": lambda: bnb.quantize_4bit(
            weight, compress_statistics=True, quant_type="nf4"
        ),
    }
    restore = {"ftlib": ours.dequantize, "bitsandbytes": lambda: bnb.dequantize_4bit(packed, state)}
    cells = [str(dtype).removeprefix("torch.")]
    for steps in (quantise, restore):
        times = alternate(steps, rounds)
        cells += [
            ratio(times["bitsandbytes"], times["ftlib"]),
            f"{peak_bytes(steps['ftlib']) / 1e6:.0f}",
        ]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    head = [
        "dtype",
        "quantise: bitsandbytes / ftlib, time",
        "ftlib, MB",
        "dequantise: bitsandbytes / ftlib, time",
        "ftlib, MB",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for dtype in (torch.float32, torch.bfloat16):
        lines.append("| " + " | ".join(measure(dtype, args.rounds)) + " |")
        print(lines[-1], flush=True)
    write_section(
        "NF4 with double quantisation against bitsandbytes",
        f"A 4096 × 4096 normal matrix; every bit equal, asserted first; {args.rounds} alternating "
        "rounds; MB: held at the peak by ftlib, result included (what bitsandbytes' operators "
        "hold inside is not seen "
        f"by the same meter). {provenance(('torch', 'bitsandbytes'))}\n\n" + "\n".join(lines),
    )


if __name__ == "__main__":
    main()
