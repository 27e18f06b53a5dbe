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
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import provenance, table, table_row, write_section
from benchmarks.processes import result_of
from benchmarks.resident import peak_resident_bytes
from ftlib.data.duplicates import ExactDuplicates, NearDuplicates
from ftlib.data.prepare import prepare, standard_rules


def row_rules() -> list:
    """The standard rules but for the last two, which find duplicates."""
    return standard_rules()[:-2]


def exact_duplicates() -> list:
    return [ExactDuplicates()]


def near_duplicates() -> list:
    return [NearDuplicates()]


RUNS = {
    "row rules": row_rules,
    "exact duplicates": exact_duplicates,
    "near duplicates": near_duplicates,
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


def made_word(rng: random.Random) -> str:
    """An English word, or one of many that are made of it and a number."""
    english = rng.random() < 0.5
    word = rng.choice(ENGLISH)
    return word if english else f"{word}{rng.randrange(10_000)}"


def made_texts(rng: random.Random) -> tuple[str, str]:
    """(question, answer) of made-up words."""
    words = [made_word(rng) for _ in range(rng.randrange(8, 60))]
    cut = len(words) // 2
    question = " ".join(words[:cut]) + "?"
    answer = " ".join(words[cut:]) + "."
    return question, answer


def made_rows(count: int, seed: int = 0) -> Iterator[dict]:
    """`count` rows, always the same for a seed; memory for the last hundred."""
    rng = random.Random(seed)
    recent: list[tuple[str, str]] = []
    for number in range(count):
        kind = rng.random()
        if kind < 0.1 and recent:
            question, answer = rng.choice(recent)
            if kind < 0.05:
                question += " again"
        else:
            question, answer = made_texts(rng)
            if kind > 0.98:
                question += f" Write to n{number}@mail.example.org."
            elif kind > 0.96:
                question += f" <b>{number}</b> &amp; more"
            recent = [*recent[-99:], (question, answer)]
        yield {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }


def measure(run: str, count: int) -> dict:
    """Rows a second of processor time and of the clock, and how far the resident peak grows."""
    rules = RUNS[run]()
    with tempfile.TemporaryDirectory() as folder:
        # A first run, so that models and tables are loaded.
        prepare(made_rows(2000), RUNS[run](), out=Path(folder) / "warm.jsonl")
        before = peak_resident_bytes()
        clock = time.perf_counter()
        start = time.process_time()
        done = prepare(made_rows(count), rules, out=Path(folder) / "rows.jsonl")
        cpu = time.process_time() - start
        wall = time.perf_counter() - clock
    start = time.process_time()
    for _ in made_rows(count):
        pass
    making = time.process_time() - start
    return {
        "run": run,
        "kept": done.kept,
        "cpu": cpu - making,
        "wall": wall,
        "before": before,
        "peak": peak_resident_bytes(),
    }


def measured_apart(run: str, count: int) -> dict:
    """What `measure` gives in a process of its own."""
    return result_of("benchmarks.data", "--run", run, "--rows", str(count))


HEAD = [
    "rules",
    "kept",
    "rows / s of processor time",
    "wall clock, s",
    "peak RSS, MB",
    "of it grown, MB",
    "bytes a kept row",
]


def cells_of(run: str, count: int, got: dict) -> list[str]:
    """A row of the table, from what `measure` found of `count` rows."""
    kept = got["kept"]
    grown = got["peak"] - got["before"]
    return [
        run,
        f"{kept:,}",
        f"{count / got['cpu']:,.0f}",
        f"{got['wall']:.0f}",
        f"{got['peak'] / 1e6:.0f}",
        f"{grown / 1e6:.0f}",
        f"{grown / kept:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--run", choices=RUNS, help="one run, its measurements as JSON")
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measure(options.run, options.rows)))
        return
    rows = []
    for run in RUNS:
        got = measured_apart(run, options.rows)
        rows.append(cells_of(run, options.rows, got))
        print(table_row(rows[-1]), flush=True)
    setting = (
        f"{options.rows:,} rows streamed to a file, one process and thread each; "
        "the making of the rows is taken off."
    )
    where = provenance(("datasketch", "py3langid", "numpy"))
    write_section("Preparing data", f"{setting} {where}\n\n{table(HEAD, rows)}")


if __name__ == "__main__":
    main()
