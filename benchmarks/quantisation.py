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
from benchmarks.harness import alternate, provenance, ratio, table, table_row, write_section
from ftlib.training.memory_meter import peak_bytes

HEAD = [
    "dtype",
    "quantise: bitsandbytes / ftlib, time",
    "ftlib, MB",
    "dequantise: bitsandbytes / ftlib, time",
    "ftlib, MB",
]


def measure(dtype: torch.dtype, rounds: int) -> list[str]:
    """The table's row of one dtype."""
    weight = torch.randn(4096, 4096).to(dtype)

    def quantise():
        return ft.quantize_nf4(weight)

    def their_quantise():
        return bnb.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")

    ours = quantise()
    packed, state = their_quantise()

    def their_restore():
        return bnb.dequantize_4bit(packed, state)

    assert torch.equal(ours.packed, packed.view(-1))
    assert torch.equal(ours.dequantize(), their_restore())
    cells = [str(dtype).removeprefix("torch.")]
    for mine, theirs in ((quantise, their_quantise), (ours.dequantize, their_restore)):
        times = alternate({"ftlib": mine, "bitsandbytes": theirs}, rounds)
        cells.append(ratio(times["bitsandbytes"], times["ftlib"]))
        cells.append(f"{peak_bytes(mine) / 1e6:.0f}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        cells = measure(dtype, args.rounds)
        rows.append(cells)
        print(table_row(cells), flush=True)
    setting = (
        f"A 4096 × 4096 normal matrix; every bit equal, asserted first; {args.rounds} alternating "
        "rounds; MB: held at the peak by ftlib, result included (what bitsandbytes' operators "
        "hold inside is not seen by the same meter)."
    )
    where = provenance(("torch", "bitsandbytes"))
    write_section(
        "NF4 with double quantisation against bitsandbytes",
        f"{setting} {where}\n\n{table(HEAD, rows)}",
    )


if __name__ == "__main__":
    main()
