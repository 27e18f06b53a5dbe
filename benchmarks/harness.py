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
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch

RESULTS = Path(__file__).parent / "RESULTS.md"
T = TypeVar("T")


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(function: Callable) -> float:
    """How long one call takes, with what it started on a GPU."""
    synchronize()
    start = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - start


def in_turn(
    measurements: Mapping[str, Callable[[], T]], rounds: int, warmup: int = 0
) -> dict[str, list[T]]:
    """What each measurement returns in each round, one of each in turn, so that whatever else the
    machine does hits all alike. `warmup` rounds go before, and are not kept.
    """
    kept: dict[str, list[T]] = {name: [] for name in measurements}
    for i in range(warmup + rounds):
        for name, measure in measurements.items():
            found = measure()
            if i >= warmup:
                kept[name].append(found)
    return kept


def alternate(steps: dict[str, Callable], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of every step, one of each in turn."""
    return in_turn({name: partial(seconds, step) for name, step in steps.items()}, rounds, warmup)


def ratio(a: list[float], b: list[float]) -> str:
    """Median and quartiles of a/b over rounds: each quotient is of two steps that ran one after the
    other.
    """
    quotients = sorted(x / y for x, y in zip(a, b, strict=True))
    if len(quotients) > 1:
        low, middle, high = statistics.quantiles(quotients, n=4)
    else:
        low = middle = high = quotients[0]
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def common_name(name: str) -> str:
    """A parameter's name without what only PEFT puts into it."""
    for part in ("base_model.model.", ".default", ".weight"):
        name = name.replace(part, "")
    return name


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [table_row(head), "|" + "---|" * len(head)]
    lines += [table_row(cells) for cells in rows]
    return "\n".join(lines)


def table_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _processor() -> str:
    """The name of the GPU, or of the processor with the best of its vector units."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    named = re.search(r"model name\s*: (.*)", text)
    name = named[1] if named else platform.machine()
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if unit in text]
    best = units[0] if units else "no vector units named"
    return f"{name} ({best})"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=RESULTS.parent)
    return done.stdout.strip()


def provenance(packages: tuple[str, ...]) -> str:
    """Machine, versions and commit, in a line."""

    changed = "+ changes" if _git("status", "--porcelain", "--", "../ftlib", ".") else ""
    commit = _git("rev-parse", "--short", "HEAD")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    return (
        f"{_processor()}, {cores} cores, {threads} threads; "
        f"Python {platform.python_version()}, {versions}; "
        f"commit {commit} {changed}; {time.strftime('%Y-%m-%d')}"
    )


def write_section(title: str, text: str) -> None:
    """Put a section into RESULTS.md in the place of the one with the same title."""
    head = (
        "# Benchmarks\n\nEach section is written by one module of "
        "`benchmarks`, such as `python -m benchmarks.sft`, run by hand. "
        "Ratios are medians over rounds that alternate, with quartiles.\n"
    )
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else head
    sections = re.split(r"(?m)^(?=## )", old)
    new = f"## {title}\n\n{text.strip()}\n"
    kept = []
    for section in sections:
        if not section.startswith(f"## {title}\n"):
            kept.append(section.rstrip() + "\n")
    temporary = RESULTS.with_suffix(".tmp")
    temporary.write_text("\n".join([*kept, new]), encoding="utf-8")
    temporary.replace(RESULTS)
