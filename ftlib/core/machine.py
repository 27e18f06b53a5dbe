"""What this machine has: memory, and whether GPU and CPU share it."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


def unified_memory() -> bool:
    """Whether GPU and CPU share one memory, as on a DGX Spark: there CUDA's own figures mislead."""
    import torch

    if not torch.cuda.is_available():
        return False
    properties = torch.cuda.get_device_properties(0)
    return bool(getattr(properties, "is_integrated", 0))


def available_memory() -> int | None:
    """Bytes of main memory that can be taken now; None where that is unknown.

    Read from MemAvailable, which is also right for unified memory.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable"):
            kilobytes = int(line.split()[1])
            return kilobytes * 1024
    return None


def available_bytes() -> int | None:
    """Bytes that a run can take now, of the GPU if it has its own memory; None where unknown."""
    import torch

    if torch.cuda.is_available() and not unified_memory():
        free, _total = torch.cuda.mem_get_info()
        return free
    return available_memory()


def return_freed_memory() -> None:
    """Give the system what the C library keeps of memory that is free already.

    A cache of keys and values grows step by step, in blocks that glibc takes from its heap; the
    holes stay with the process, gigabytes after answers side by side. Nothing happens where the C
    library is another.
    """
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
