"""The cleaning pipeline's throughput and memory: `python -m benchmarks.data [--rows 1000000]`. Rows
are made as they are read.

Each run is a process of its own, whose peak of resident memory is taken before the rules and at the
end. Rows are questions and answers of 8 to 60 made-up words, one in twenty an exact copy of an
earlier one, one in twenty with a word added, one in fifty with an e-mail address, one in fifty with
HTML.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import provenance, write_section
from ftlib.data.duplicates import ExactDuplicates, NearDuplicates
from ftlib.data.prepare import prepare, standard_rules

RUNS = {
    "row rules": lambda: standard_rules()[:-2],
    "exact duplicates": lambda: [ExactDuplicates()],
    "near duplicates": lambda: [NearDuplicates()],
    "standard rules": standard_rules,
}
ENGLISH = [
    "the",
    "castle",
    "stands",
    "on",
    "a",
    "hill",
    "above",
    "the",
    "old",
    "river",
    "and",
    "its",
    "grey",
    "tower",
    "can",
    "be",
    "seen",
    "from",
    "every",
    "town",
    "in",
    "the",
    "valley",
    "where",
    "people",
    "buy",
    "bread",
    "cheese",
    "wool",
    "or",
    "paper",
    "at",
    "the",
    "market",
    "before",
    "they",
    "walk",
    "home",
    "with",
    "their",
    "dogs",
]


def made_rows(count: int, seed: int = 0) -> Iterator[dict]:
    """`count` rows, always the same for a seed; memory for the last hundred."""
    rng, recent = random.Random(seed), []
    for number in range(count):
        kind = rng.random()
        if kind < 0.1 and recent:
            question, answer = rng.choice(recent)
            question += " again" if kind < 0.05 else ""
        else:
            said = [
                rng.choice(ENGLISH)
                if rng.random() < 0.5
                else f"{rng.choice(ENGLISH)}{rng.randrange(10_000)}"
                for _ in range(rng.randrange(8, 60))
            ]
            cut = len(said) // 2
            question, answer = " ".join(said[:cut]) + "?", " ".join(said[cut:]) + "."
            question += (
                f" Write to n{number}@mail.example.org."
                if kind > 0.98
                else f" <b>{number}</b> &amp; more"
                if kind > 0.96
                else ""
            )
            recent = [*recent[-99:], (question, answer)]
        yield {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }


def peak_rss() -> int:
    """Bytes; ru_maxrss is in KiB on Linux and in bytes on macOS."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def measure(run: str, count: int) -> dict:
    """Rows a second of processor time and of the clock, and how far the resident peak grows."""
    rules = RUNS[run]()
    with tempfile.TemporaryDirectory() as folder:
        prepare(
            made_rows(2000), RUNS[run](), out=Path(folder) / "warm.jsonl"
        )  # models and tables are loaded
        before, clock, start = peak_rss(), time.perf_counter(), time.process_time()
        done = prepare(made_rows(count), rules, out=Path(folder) / "rows.jsonl")
        cpu, wall = time.process_time() - start, time.perf_counter() - clock
    start = time.process_time()
    for _ in made_rows(count):
        pass
    return {
        "run": run,
        "kept": done.kept,
        "cpu": cpu - (time.process_time() - start),
        "wall": wall,
        "before": before,
        "peak": peak_rss(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--run", choices=RUNS, help="one run, its measurements as JSON")
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measure(options.run, options.rows)))
        return
    lines = [
        "| rules | kept | rows / s of processor time | wall clock, s | peak RSS, MB | of it "
        "grown, MB | bytes a kept row |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in RUNS:
        command = [
            sys.executable,
            "-m",
            "benchmarks.data",
            "--run",
            run,
            "--rows",
            str(options.rows),
        ]
        got = json.loads(
            subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True
            ).stdout.splitlines()[-1]
        )
        grown = got["peak"] - got["before"]
        lines.append(
            f"| {run} | {got['kept']:,} | {options.rows / got['cpu']:,.0f} | {got['wall']:.0f} | "
            f"{got['peak'] / 1e6:.0f} | {grown / 1e6:.0f} | {grown / got['kept']:.0f} |"
        )
        print(lines[-1], flush=True)
    write_section(
        "Preparing data",
        f"{options.rows:,} rows streamed to a file, one process and thread each; "
        "the making of the rows is taken off. "
        f"{provenance(('datasketch', 'py3langid', 'numpy'))}\n\n" + "\n".join(lines),
    )


if __name__ == "__main__":
    main()
