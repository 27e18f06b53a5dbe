"""What waits for torch and what does not: `python -m benchmarks.imports`.

Seconds of fresh Python processes, one of each in turn, and what they hold, beside `import torch`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from benchmarks.harness import provenance, ratio, table, write_section

TORCH = "import torch"
PROGRAMS = {
    TORCH: "import torch",
    "import ftlib": "import ftlib",
    "import ftlib.serving": "import ftlib.serving",
    "ftlib progress": "from ftlib.cli import main; main(['progress'])",
    "ftlib grade --help": "from ftlib.cli import main; main(['grade', '--help'])",
    "import ftlib, and ftlib.add_lora": "import ftlib; ftlib.add_lora",
}
SEEN = """
import atexit, json, re, sys
def say():
    status = open("/proc/self/status").read()
    peak = int(re.search(r"VmHWM:\\s+([0-9]+)", status)[1]) / 1024
    print("SEEN" + json.dumps({"torch": "torch" in sys.modules, "peak": peak}))
atexit.register(say)
"""


def fresh(code: str) -> dict:
    """Seconds of a process, whether it imported torch, and its peak of resident memory, MB."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", SEEN + code], capture_output=True, text=True)
    took = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return {"seconds": took, **json.loads(done.stdout.rpartition("SEEN")[2])}


def measured(rounds: int) -> dict[str, list[dict]]:
    """The runs of every program; one more at first, which fills the cache of files."""
    runs: dict[str, list[dict]] = {name: [] for name in PROGRAMS}
    for i in range(rounds + 1):
        for name, code in PROGRAMS.items():
            run = fresh(code)
            if i > 0:
                runs[name].append(run)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    runs = measured(parser.parse_args().rounds)
    of_torch = [run["seconds"] for run in runs[TORCH]]
    rows = []
    for name, found in runs.items():
        times = [run["seconds"] for run in found]
        peak = max(run["peak"] for run in found)
        cells = [f"`{name}`", f"{statistics.median(times):.2f}", ratio(times, of_torch)]
        rows.append([*cells, f"{peak:,.0f}", "yes" if found[0]["torch"] else "no"])
    head = ["program", "seconds, median", "of torch's import", "peak, MB", "imports torch"]
    text = f"A fresh process each, Python's own start included. {provenance(('torch',))}"
    written = table(head, rows)
    print(written)
    write_section("Imports", f"{text}\n\n{written}")


if __name__ == "__main__":
    main()
