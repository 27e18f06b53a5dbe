"""What is asked of the machine."""

import platform
import subprocess
import sys

import pytest

# Blocks small enough for the heap, one in fifty of them kept: the others leave holes between.
HOLES = """
import psutil
from ftlib.core.machine import return_freed_memory

process = psutil.Process()
blocks = [bytearray(100_000) for _ in range(2000)]
kept = blocks[::50]
del blocks
before = process.memory_info().rss
return_freed_memory()
print(before - process.memory_info().rss)
assert all(len(block) == 100_000 for block in kept)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps no holes")
def test_freed_memory_goes_back_to_the_system():
    """200 MB in holes: more than half of them go back, and what is kept is as it was."""
    done = subprocess.run(
        [sys.executable, "-c", HOLES], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(done.stdout) > 100e6


def test_elsewhere_nothing_happens(monkeypatch):
    from ftlib.core import machine

    monkeypatch.setattr(machine.sys, "platform", "win32")
    machine.return_freed_memory()
