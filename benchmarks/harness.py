"""What the benchmarks share: alternating timings, and a RESULTS.md of sections that replace
themselves.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "RESULTS.md"


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(function: Callable) -> float:
    synchronize()
    start = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - start


def alternate(steps: dict[str, Callable], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of every step, one of each in turn, so that whatever else the machine does hits all
    alike.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(warmup + rounds):
        for name, step in steps.items():
            took = seconds(step)
            if i >= warmup:
                times[name].append(took)
    return times


def ratio(a: list[float], b: list[float]) -> str:
    """Median and quartiles of a/b over rounds: each quotient is of two steps that ran one after the
    other.
    """
    q = sorted(x / y for x, y in zip(a, b, strict=True))
    low, middle, high = statistics.quantiles(q, n=4) if len(q) > 1 else (q[0],) * 3
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"model name\s*: (.*)", text)
    units = [u for u in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if u in text]
    found = units[0] if units else "no vector units named"
    return f"{name[1] if name else platform.machine()} ({found})"


def provenance(packages: tuple[str, ...]) -> str:
    """Machine, versions and commit, in a line."""

    def git(*a):
        return subprocess.run(
            ["git", *a], capture_output=True, text=True, cwd=RESULTS.parent
        ).stdout.strip()

    changed = "+ changes" if git("status", "--porcelain", "--", "../ftlib", ".") else ""
    versions = ", ".join(f"{p} {version(p)}" for p in packages)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{_processor()}, {cores} cores, {torch.get_num_threads()} threads; Python "
        f"{platform.python_version()}, {versions}; "
        f"commit {git('rev-parse', '--short', 'HEAD')} {changed}; {time.strftime('%Y-%m-%d')}"
    )


def write_section(title: str, text: str) -> None:
    """Put a section into RESULTS.md in the place of the one with the same title."""
    head = (
        "# Benchmarks\n\nWritten by `python -m benchmarks.…`, run by hand. "
        "Ratios are medians over rounds that alternate, with quartiles.\n"
    )
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else head
    sections = re.split(r"(?m)^(?=## )", old)
    new = f"## {title}\n\n{text.strip()}\n"
    kept = [s.rstrip() + "\n" for s in sections if not s.startswith(f"## {title}\n")]
    temporary = RESULTS.with_suffix(".tmp")
    temporary.write_text("\n".join([*kept, new]), encoding="utf-8")
    temporary.replace(RESULTS)
