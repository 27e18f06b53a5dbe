"""The log-probability stage: ftlib against full logits and TRL, in one process: `python -m
benchmarks.logps [--dtype float32]`.

2 x 512 tokens, the second half of each row scored, a frozen head, H=512: from hidden states to
log-probabilities and back to the gradient of the hidden states. Equality of both is asserted before
anything is timed. TRL runs as it does on a CPU: its untuned fallback, written for other devices.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from trl.kernels import ChunkedLogProbFunction

import ftlib as ft
from benchmarks.harness import alternate, provenance, ratio, table, table_row, write_section
from ftlib.training.memory_meter import peak_bytes

ROWS = 2
LENGTH = 512
HIDDEN = 512
# Relative and absolute; the bf16 numbers next to a log-probability of -8 are 1/32 away.
TOLERANCES = {torch.float32: (1e-4, 1e-4), torch.bfloat16: (0.02, 0.1)}
CHUNK = 32768  # vocabulary entries a tile in TRL 1.16's trainers
HEAD = ["vocabulary", "way", "ms, median", "time / ftlib", "peak, MB", "peak / ftlib"]


def full_logits(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """As a model's own forward pass does it: all logits, then log-softmax and gather."""
    targets = labels[:, 1:]
    scored = targets != -100
    logps = (hidden @ weight.T)[:, :-1].log_softmax(-1)  # (rows, tokens - 1, vocabulary)
    chosen = logps.gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
    return chosen * scored


def trl_fallback(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """What TRL 1.16's fused head calls where there is no Triton: every position is scored, then
    masked.
    """
    targets = labels[:, 1:]
    flat = hidden[:, :-1].reshape(-1, hidden.shape[-1])
    flat_targets = targets.clamp(min=0).reshape(-1)
    logps, *_ = ChunkedLogProbFunction.apply(
        flat, weight, None, flat_targets, 1.0, CHUNK, None, 1.0, ("log_probs",)
    )
    return logps.view(targets.shape).masked_fill(targets == -100, 0)


def ftlib_way(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """`ft.token_logps`, without the last position, which has no next token."""
    return ft.token_logps(hidden, weight, labels)[:, :-1]


WAYS = {
    "ftlib": ftlib_way,
    "full logits": full_logits,
    "TRL, untuned CPU fallback": trl_fallback,
}


def data(vocabulary: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Random (hidden states, weight of the head, labels), the first half of each row not scored."""
    torch.manual_seed(0)
    labels = torch.randint(vocabulary, (ROWS, LENGTH))
    labels[:, : LENGTH // 2] = -100
    hidden = torch.randn(ROWS, LENGTH, HIDDEN)
    weight = torch.randn(vocabulary, HIDDEN) / HIDDEN**0.5
    return hidden.to(dtype), weight.to(dtype), labels


def step_of(way: Callable, hidden: Tensor, weight: Tensor, labels: Tensor) -> Callable:
    """Forward and backward; returns the log-probabilities and the gradient of the hidden states."""

    def step():
        h = hidden.detach().requires_grad_()
        logps = way(h, weight, labels)
        logps.sum().backward()
        return logps.detach(), h.grad

    return step


def assert_equal(steps: dict[str, Callable], dtype: torch.dtype) -> None:
    """Every way gives what the full logits give, log-probabilities and gradient."""
    expected = steps["full logits"]()
    relative, absolute = TOLERANCES[dtype]
    for name, step in steps.items():
        for mine, theirs in zip(step(), expected, strict=True):

            def say(text: str, name: str = name) -> str:
                return f"{name}: {text}"

            torch.testing.assert_close(
                mine.float(), theirs.float(), rtol=relative, atol=absolute, msg=say
            )


def measure(vocabulary: int, dtype: torch.dtype, rounds: int) -> list[list[str]]:
    """The table's rows of one vocabulary."""
    steps = {name: step_of(way, *data(vocabulary, dtype)) for name, way in WAYS.items()}
    assert_equal(steps, dtype)
    peaks = {name: peak_bytes(step) for name, step in steps.items()}
    times = alternate(steps, rounds, warmup=1)
    rows = []
    for name in steps:
        median = sorted(times[name])[len(times[name]) // 2]
        cells = [f"{vocabulary:,}", name, f"{1e3 * median:.0f}", ratio(times[name], times["ftlib"])]
        more = peaks[name] / peaks["ftlib"]
        rows.append([*cells, f"{peaks[name] / 1e6:.0f}", f"{more:.1f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[32_000, 128_256])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    rows = []
    for vocabulary in args.vocabulary:
        for cells in measure(vocabulary, dtype, args.rounds):
            rows.append(cells)
            print(table_row(cells), flush=True)
    relative, absolute = TOLERANCES[dtype]
    setting = (
        f"{ROWS} x {LENGTH} tokens, half of them scored, H={HIDDEN}, frozen head, forward "
        f"and backward; {args.rounds} alternating rounds; all "
        f"ways within {relative:.2%} and {absolute:g} of the full logits, asserted first. "
        "Peak: tensors of the stage, as `ftlib.training.memory_meter.peak_bytes` counts."
    )
    where = provenance(("torch", "trl"))
    write_section(
        f"Log-probabilities without the full logits, {args.dtype}",
        f"{setting} {where}\n\n{table(HEAD, rows)}",
    )


if __name__ == "__main__":
    main()
