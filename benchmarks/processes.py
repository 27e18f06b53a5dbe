"""Python in a fresh process: what it prints, how long it takes and the most that it holds. Imports
no torch, neither here nor there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass

# Called first, so that it prints last: what is registered at exit runs in reverse order.
PRINT_PEAK = """
from benchmarks.resident import print_peak_at_exit
print_peak_at_exit()
"""


@dataclass(frozen=True)
class Run:
    """A process that has ended well.

    seconds: by the clock, from before its start to after its end, Python's start and all imports
    included. peak: bytes, the most that was resident at one moment (`peak_resident_bytes`).
    output: what it wrote to stdout.
    """

    seconds: float
    peak: int
    output: str


def run_code(code: str, *arguments: str) -> Run:
    """Run Python code in a fresh process, with `arguments` in its `sys.argv[1:]`.

    Raises RuntimeError with the end of its stderr if it fails.
    """
    start = time.perf_counter()
    written = _stdout("-c", PRINT_PEAK + code, *arguments)
    seconds = time.perf_counter() - start
    output, _, peak = written.rstrip().rpartition("\n")
    return Run(seconds, int(peak), output)


def result_of(module: str, *arguments: str) -> dict:
    """What `python -m module` measures of itself in a fresh process: the last line that it prints,
    as JSON.

    Raises RuntimeError with the end of its stderr if it fails.
    """
    written = _stdout("-m", module, *arguments)
    return json.loads(written.splitlines()[-1])


def _stdout(*arguments: str) -> str:
    """What Python prints, called with these arguments."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the process ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout
