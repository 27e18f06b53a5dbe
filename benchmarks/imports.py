"""What waits for torch and what does not: `python -m benchmarks.imports`.

Seconds of fresh Python processes, one of each in turn, and what they hold, beside `import torch`.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

from benchmarks.harness import in_turn, provenance, ratio, table, write_section
from benchmarks.processes import run_code
from benchmarks.resident import MEBIBYTE

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
import atexit, sys
def say():
    print("\\ntorch" if "torch" in sys.modules else "\\nno torch")
atexit.register(say)
"""


def fresh(code: str) -> dict:
    """Seconds of a process, whether it imported torch, and its peak of resident memory, MiB."""
    run = run_code(SEEN + code)
    said = run.output.splitlines()[-1]
    return {"seconds": run.seconds, "torch": said == "torch", "peak": run.peak / MEBIBYTE}


def measured(rounds: int) -> dict[str, list[dict]]:
    """The runs of every program; one more at first, which fills the cache of files."""
    programs = {name: partial(fresh, code) for name, code in PROGRAMS.items()}
    return in_turn(programs, rounds, warmup=1)


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
    head = ["program", "seconds, median", "of torch's import", "peak, MiB", "imports torch"]
    text = f"A fresh process each, Python's own start included. {provenance(('torch',))}"
    written = table(head, rows)
    print(written)
    write_section("Imports", f"{text}\n\n{written}")


if __name__ == "__main__":
    main()
