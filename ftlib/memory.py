"""Peak memory of a stretch of code, on a GPU or a CPU."""
from __future__ import annotations

from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _resident(field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (peak) of this process; 0 where there is no /proc."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":")), 0)


class PeakMemory:
    """`with PeakMemory() as peak: …`, then `peak.bytes`: the most that was held within the block above what was held at its start.

    On a GPU counted by PyTorch's allocator, to the byte. On a CPU the process's resident memory, from Linux's high-water
    mark: it counts pages, and memory that was freed before and is used again does not show. None where neither is to be had.
    """
    bytes: int | None = None

    def __enter__(self) -> "PeakMemory":
        self.cuda = torch.cuda.is_available()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
            return self
        try:
            CLEAR.write_text("5")  # sets the high-water mark back to what is resident now (proc(5))
            self.start = _resident("VmRSS")
        except OSError:
            self.start = 0
        return self

    def __exit__(self, *_) -> None:
        if self.cuda:
            self.bytes = torch.cuda.max_memory_allocated() - self.start
        elif self.start:
            self.bytes = max(0, _resident("VmHWM") - self.start)
