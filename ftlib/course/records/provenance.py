"""Where an entry was computed: machine, versions, commit."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from ftlib.core.paths import ROOT

PACKAGES = ("torch", "transformers", "ftlib")


@functools.cache
def provenance() -> dict[str, str]:
    """The processor or GPU, its instruction set as PyTorch uses it, versions of Python and
    packages, the commit of the checkout (with + where files differ from it).
    """
    versions = {package: version(package) for package in PACKAGES}
    return {
        "device": _device(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        **versions,
        "commit": _commit(),
    }


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return platform.processor() or platform.machine()


def _commit() -> str:
    """Short hash of the checkout's commit; "unknown" outside of one."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "ftlib", "data")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{head}+" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
