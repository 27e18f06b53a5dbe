"""What this machine has: memory, and whether GPU and CPU share it."""

from __future__ import annotations

from pathlib import Path


def unified_memory() -> bool:
    """Whether GPU and CPU share one memory, as on a DGX Spark: there CUDA's own figures mislead."""
    import torch

    return torch.cuda.is_available() and bool(
        getattr(torch.cuda.get_device_properties(0), "is_integrated", 0)
    )


def available_memory() -> int | None:
    """Bytes that can be taken now: MemAvailable, which is also right for unified memory; None where
    it is unknown.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None
    )


def available_bytes() -> int | None:
    """Memory that a run can take now: of the GPU where it has its own, else MemAvailable; None
    where it is unknown.
    """
    import torch

    if torch.cuda.is_available() and not unified_memory():
        return torch.cuda.mem_get_info()[0]
    return available_memory()
