"""What this machine has: memory, and whether GPU and CPU share it."""

from __future__ import annotations

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
