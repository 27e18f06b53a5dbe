"""What QUICKSTART's real model learns and forgets, by steps: `python -m benchmarks.quickstart`.

Runs the code of QUICKSTART.md on the pocket model, each time from the start, and writes
`data/english/measured.json`, from which the documents take their numbers. One run a line: a look,
not a comparison. Minutes a run on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

import ftlib as ft
from ftlib.core.atomic import replacing
from ftlib.core.paths import pocket_folder
from ftlib.course.records.provenance import provenance
from ftlib.models.pocket import pocket_file

FILE = Path(__file__).parent.parent / "data" / "english" / "measured.json"
STEPS = (20, 40)
MESSAGES = 16
GENERAL = 24


def run(steps: int) -> dict:
    """One run of QUICKSTART's code: shares and counts before and after, and its seconds."""
    start = time.perf_counter()
    model, tokenizer = ft.load_model(profile="pocket")
    messages = ft.load_rows("golden", profile="pocket")[:MESSAGES]
    general = ft.load_rows("knowledge", profile="pocket")[:GENERAL]
    before = ft.golden_accuracy(model, tokenizer, messages, max_new_tokens=64)
    knew = ft.knowledge_hits(model, tokenizer, general)
    ft.add_lora(model, r=16, lora_alpha=32)
    rows = ft.load_rows("train", profile="pocket")
    ft.finetune(model, tokenizer, rows, steps=steps, batch_size=4, learning_rate=2e-3)
    after = ft.golden_accuracy(model, tokenizer, messages, max_new_tokens=64)
    knows = ft.knowledge_hits(model, tokenizer, general)
    return {
        "steps": steps,
        "right_before": f"{before:.0%}",
        "right_after": f"{after:.0%}",
        "general_before": sum(knew),
        "general_after": sum(knows),
        "seconds": round(time.perf_counter() - start),
    }


def megabytes(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else path.iterdir()
    return round(sum(file.stat().st_size for file in files) / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    asked = parser.parse_args()
    torch.manual_seed(0)
    weights = pocket_file()
    assert weights is not None, "run `make pocket` first"
    # What else is measured of `pocket` stays.
    found = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    found |= {
        "made": provenance(),
        "weights_mb": megabytes(weights),
        "checkpoint_mb": megabytes(pocket_folder()),
        "runs": [run(steps) for steps in asked.steps],
    }
    with replacing(FILE) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
